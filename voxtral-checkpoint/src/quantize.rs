//! From the elements of a matrix to panels of quantized ones, on all threads and in pieces.

use half::f16;
use rayon::prelude::*;
use voxtral_kernels::{PANEL, Quant};

use crate::dtype::{self, Dtype};
use crate::error::CheckpointError;
use crate::names::TensorSpec;
use crate::writer::Sink;

/// Bytes of elements that are quantized at once, at least one panel: enough for every thread of a
/// large machine.
const PIECE: usize = 16 << 20;

/// The largest weight whose scale is a number in both formats: a scale is the 127th part of the
/// largest weight of its unit, in binary16.
const LARGEST: f32 = 127.0 * 65504.0;

/// Quantizes whole rows of a matrix, `data` being their elements stored as `dtype`, into `out`; the
/// number of rows is one of whole panels, or they are the matrix's last.
///
/// Besides `data` and `out` each thread holds one panel, 16 rows, of floats.
///
/// # Errors
/// A weight that cannot be quantized: it is not finite, or too large.
pub(crate) fn quantize_rows(
    quant: Quant,
    inputs: usize,
    dtype: Dtype,
    data: &[u8],
    out: &mut [u8],
) -> Result<(), f32> {
    debug_assert_eq!(f16::MAX.to_f32() * 127.0, LARGEST);
    out.par_chunks_mut(quant.panel_bytes(inputs))
        .zip(data.par_chunks(PANEL * inputs * dtype.size()))
        .try_for_each_init(Vec::new, |values, (panel, rows)| {
            values.clear();
            dtype::each_f32(rows, dtype, |x| values.push(x));
            match values.iter().find(|x| x.is_nan() || x.abs() > LARGEST) {
                Some(&x) => Err(x),
                None => {
                    voxtral_kernels::quantize(quant, inputs, values, panel);
                    Ok(())
                }
            }
        })
}

/// The error for a weight of the tensor `name` that cannot be quantized.
pub(crate) fn unquantizable(name: String, value: f32) -> CheckpointError {
    CheckpointError::Unquantizable {
        tensor: name,
        value,
        largest: LARGEST,
    }
}

/// Takes the elements of a matrix and passes on its panels. Whatever the size of the matrix, it
/// holds one piece of elements and the panels that they make.
pub(crate) struct Quantizer<'a> {
    spec: &'a TensorSpec,
    quant: Quant,
    inputs: usize,
    dtype: Dtype,
    /// Elements that wait until there are `piece` bytes of them.
    pending: Vec<u8>,
    /// Bytes of a number of panels.
    piece: usize,
    panels: Vec<u8>,
    sink: &'a mut dyn Sink,
}

impl<'a> Quantizer<'a> {
    /// For the matrix `spec`, whose elements come as `dtype`.
    pub(crate) fn new(
        spec: &'a TensorSpec,
        quant: Quant,
        dtype: Dtype,
        sink: &'a mut dyn Sink,
    ) -> Self {
        let inputs = spec.shape().last().copied().unwrap_or_default();
        let panel = PANEL * inputs * dtype.size();
        let piece = panel * (PIECE / panel).max(1);
        let pending = Vec::with_capacity(piece.min(spec.num_elements() * dtype.size()));
        Self {
            spec,
            quant,
            inputs,
            dtype,
            pending,
            piece,
            panels: Vec::new(),
            sink,
        }
    }

    /// Passes on the panels of what waits.
    pub(crate) fn flush(&mut self) -> Result<(), CheckpointError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let rows = self.pending.len() / (self.inputs * self.dtype.size());
        let bytes = rows.div_ceil(PANEL) * self.quant.panel_bytes(self.inputs);
        self.panels.resize(bytes, 0);
        let (quant, inputs, dtype) = (self.quant, self.inputs, self.dtype);
        quantize_rows(quant, inputs, dtype, &self.pending, &mut self.panels)
            .map_err(|value| unquantizable(self.spec.name(), value))?;
        self.pending.clear();
        self.sink.put(&self.panels)
    }
}

impl Sink for Quantizer<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), CheckpointError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.piece - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == self.piece {
                self.flush()?;
            }
        }
        Ok(())
    }
}
