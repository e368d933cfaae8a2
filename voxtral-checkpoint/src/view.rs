//! What a checkpoint gives of a tensor.

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use voxtral_kernels::Quant;

use crate::dtype::{self, Dtype};
use crate::quantize::quantize_rows;
use crate::quantized::ALIGNMENT;

/// What is converted at once, in bytes of either type, at least a row of a quantized matrix.
const PIECE: usize = 4 << 20;

/// Type, shape and size of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its elements are stored, or what they are if they are quantized: [`Dtype::F32`].
    pub dtype: Dtype,
    /// The format of a matrix that is quantized.
    pub quant: Option<Quant>,
    /// Its dimensions, the slowest first, whether it is quantized or not.
    pub shape: Vec<usize>,
    /// The size of what is stored.
    pub bytes: usize,
}

impl TensorInfo {
    /// The name of the way in which it is stored: `BF16`, `q4`, …
    pub fn format_name(&self) -> &'static str {
        format_name(self.dtype, self.quant)
    }
}

pub(crate) fn format_name(dtype: Dtype, quant: Option<Quant>) -> &'static str {
    quant.map_or(dtype.name(), Quant::name)
}

/// What part of a checkpoint is stored in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatShare {
    /// The way's name: `BF16`, `q4`, …
    pub name: &'static str,
    /// The number of tensors.
    pub num_tensors: usize,
    /// Their size.
    pub bytes: u64,
}

/// A tensor's data as it is stored.
#[derive(Clone)]
pub struct TensorView {
    /// How the elements are stored, or what they are if they are quantized: [`Dtype::F32`].
    pub dtype: Dtype,
    /// The format of a matrix that is quantized. Its data is then panels, as
    /// [`voxtral_kernels`] reads them, and not elements.
    pub quant: Option<Quant>,
    /// The dimensions, the slowest first, whether it is quantized or not.
    pub shape: Vec<usize>,
    /// The elements, row by row, little-endian, at an address that suits their type; or panels, at
    /// an even address, and at a multiple of 64 in files that this crate wrote. Where it is a slice
    /// of a mapped file, holding it keeps the mapping alive.
    pub data: Bytes,
}

impl TensorView {
    /// A view of `data`, moved if it does not lie aligned.
    pub(crate) fn new(dtype: Dtype, shape: Vec<usize>, data: Bytes) -> Self {
        Self {
            dtype,
            quant: None,
            shape,
            data: aligned(data, dtype.size()),
        }
    }

    /// A view of `data`, panels of a matrix of this shape, moved if their scales do not lie
    /// aligned.
    pub(crate) fn new_quantized(quant: Quant, shape: Vec<usize>, data: Bytes) -> Self {
        Self {
            dtype: Dtype::F32,
            quant: Some(quant),
            shape,
            data: aligned(data, align_of::<u16>()),
        }
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The name of the way in which it is stored: `BF16`, `q4`, …
    pub fn format_name(&self) -> &'static str {
        format_name(self.dtype, self.quant)
    }

    /// The same tensor stored as `dtype`, and not quantized: itself, or a copy that rounds to
    /// nearest even.
    #[must_use]
    pub fn into_dtype(self, dtype: Dtype) -> Self {
        if dtype == self.dtype && self.quant.is_none() {
            return self;
        }
        let mut data = Vec::with_capacity(self.num_elements() * dtype.size());
        let Ok(()) = self.each_piece(dtype, &mut |piece| {
            data.extend_from_slice(piece);
            Ok::<_, Infallible>(())
        });
        Self::new(dtype, self.shape, data.into())
    }

    /// The elements, widened.
    pub fn to_f32(&self) -> Vec<f32> {
        if let (Some(quant), &[rows, inputs]) = (self.quant, &*self.shape) {
            let mut values = vec![0.0; rows * inputs];
            voxtral_kernels::dequantize(quant, inputs, &self.data, 0..rows, &mut values);
            return values;
        }
        let mut wide = Vec::with_capacity(self.num_elements());
        dtype::each_f32(&self.data, self.dtype, |x| wide.push(x));
        wide
    }

    /// Calls `take` with the elements stored as `dtype`, piece by piece, holding one piece.
    pub(crate) fn each_piece<E>(
        &self,
        dtype: Dtype,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = Vec::new();
        if let (Some(quant), &[rows, inputs]) = (self.quant, &*self.shape) {
            let at_once = (PIECE / (inputs * size_of::<f32>())).max(1);
            let mut values = Vec::new();
            for start in (0..rows).step_by(at_once) {
                let some = start..rows.min(start + at_once);
                values.resize(some.len() * inputs, 0.0);
                voxtral_kernels::dequantize(quant, inputs, &self.data, some, &mut values);
                piece.clear();
                dtype::append(&values, dtype, &mut piece);
                take(&piece)?;
            }
            return Ok(());
        }
        if self.dtype == dtype {
            return self.data.chunks(PIECE).try_for_each(take);
        }
        for stored in self.data.chunks(PIECE / 2) {
            piece.clear();
            dtype::convert(stored, self.dtype, dtype, &mut piece);
            take(&piece)?;
        }
        Ok(())
    }

    /// The same matrix, quantized, at a multiple of 64 bytes; itself if it is quantized or no
    /// matrix. On all threads; beside the result each holds 16 rows.
    ///
    /// # Errors
    /// A weight that cannot be quantized.
    pub(crate) fn into_quantized(self, quant: Quant) -> Result<Self, f32> {
        let (None, &[rows, inputs]) = (self.quant, &*self.shape) else {
            return Ok(self);
        };
        let Some(bytes) = quant.bytes(rows, inputs).filter(|&bytes| bytes > 0) else {
            return Ok(self);
        };
        let mut room = vec![0; bytes + ALIGNMENT];
        let start = room.as_ptr().align_offset(ALIGNMENT);
        let panels = &mut room[start..start + bytes];
        quantize_rows(quant, inputs, self.dtype, &self.data, panels)?;
        let panels = Bytes::from(room).slice(start..start + bytes);
        Ok(Self::new_quantized(quant, self.shape, panels))
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TensorView({} {:?}, {} bytes)",
            self.format_name(),
            self.shape,
            self.data.len()
        )
    }
}

/// `data` itself, or a copy of it at a multiple of `alignment`: writers need not pad their headers,
/// and bytes embedded in a program may lie anywhere.
fn aligned(data: Bytes, alignment: usize) -> Bytes {
    if data.as_ptr().align_offset(alignment) == 0 {
        return data;
    }
    let mut room: Vec<u8> = Vec::with_capacity(data.len() + alignment);
    let start = room.as_ptr().align_offset(alignment);
    room.resize(start, 0);
    room.extend_from_slice(&data);
    Bytes::from(room).slice(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misaligned_data_is_moved_and_aligned_data_is_not() {
        let whole = Bytes::from((0u8..64).collect::<Vec<_>>());
        for offset in 0..4 {
            let slice = whole.slice(offset..offset + 16);
            let view = TensorView::new(Dtype::F32, vec![4], slice.clone());
            assert_eq!(view.data, slice);
            assert_eq!(view.data.as_ptr().align_offset(4), 0);
            let was_aligned = slice.as_ptr().align_offset(4) == 0;
            assert_eq!(view.data.as_ptr() == slice.as_ptr(), was_aligned);
        }
    }
}
