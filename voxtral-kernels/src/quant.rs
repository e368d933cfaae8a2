//! Weights in 8 and 4 bits.
//!
//! Weight rows (outputs) stand in panels of [`PANEL`], the last one filled up with rows of zeros;
//! inputs stand in units of [`UNIT`], the last one filled up with zeros. A panel is the codes of all
//! its units, one unit after the other, and then the scales of all its units. Inputs go in *quads*
//! of four neighbours, as the dot products of bytes of every processor take them: a vector of a
//! quad holds 4 inputs of each of the 16 rows, `[row][input]`.
//!
//! * Q8: a unit's codes are 16 quads of bytes `c`, its scales one f16 `d` for each row. A weight is
//!   `d (c − 128)`, with `c` from 1 to 255. 8.25 bits a weight.
//! * Q4: a unit's codes are 8 vectors of 64 bytes; vector `v` holds quad `2v` in its low nibbles and
//!   quad `2v + 1` in its high ones. A unit's scales are one f16 `d` for each row, and then 16 bits
//!   for each row, whose nibble `b` (the lowest is 0) belongs to the inputs `16b..16b + 16`. With
//!   code `q` and nibble `s` a weight is `d ⌊(CODES[q] · STEPS[s] + 64) / 128⌋`. 4.5 bits a weight.
//!
//! `d` is finite and not negative. A weight of zero stays zero in either format.
//!
//! `docs/quantization.md` in the root of the workspace says how far the weights are from what was
//! quantized, compared with the formats of ggml, and why these are so.

mod q4;
mod q8;

use std::fmt;
use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use crate::Kernels;
use crate::simd::{Kernel, Simd};

#[allow(unused_imports, reason = "what the products are written with")]
pub(crate) use q4::{CODES, STEPS, level};

/// Weight rows of a panel.
pub const PANEL: usize = 16;

/// Inputs of a unit.
pub const UNIT: usize = 64;

/// Inputs of a row that stand side by side.
pub(crate) const QUAD: usize = 4;

/// Inputs that share a step of [`Quant::Q4`].
pub(crate) const BLOCK: usize = 16;

/// What is added to the codes of [`Quant::Q8`], which the dot product of bytes takes as unsigned.
pub(crate) const OFFSET: u8 = 128;

/// A format of quantized weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quant {
    /// 8.25 bits a weight.
    Q8,
    /// 4.5 bits a weight.
    Q4,
}

impl Quant {
    /// Every format, the finest first.
    pub const ALL: [Self; 2] = [Self::Q8, Self::Q4];

    /// The name by which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// The largest magnitude of a weight: what is beyond it becomes it.
    #[must_use]
    pub fn largest(self) -> f32 {
        match self {
            Self::Q8 => q8::LARGEST,
            Self::Q4 => q4::LARGEST,
        }
    }

    /// Bytes of a weight `[outputs, inputs]`; `None` if they cannot be counted.
    #[must_use]
    pub fn bytes(self, outputs: usize, inputs: usize) -> Option<usize> {
        let unit = self.unit_codes() + self.unit_scales();
        let units = inputs.div_ceil(UNIT).checked_mul(unit)?;
        outputs.div_ceil(PANEL).checked_mul(units)
    }

    /// Bytes of one panel.
    #[must_use]
    pub fn panel_bytes(self, inputs: usize) -> usize {
        inputs.div_ceil(UNIT) * (self.unit_codes() + self.unit_scales())
    }

    /// Bytes of a unit's codes.
    pub(crate) const fn unit_codes(self) -> usize {
        match self {
            Self::Q8 => PANEL * UNIT,
            Self::Q4 => PANEL * UNIT / 2,
        }
    }

    /// Bytes of a unit's scales.
    pub(crate) const fn unit_scales(self) -> usize {
        match self {
            Self::Q8 => PANEL * size_of::<f16>(),
            Self::Q4 => PANEL * (size_of::<f16>() + size_of::<u16>()),
        }
    }
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Quantizes rows of a weight: `values` is `[rows, inputs]`, a whole number of panels or the last
/// rows of the weight, and `out` gets [`Quant::bytes`] bytes. On all threads; the bytes depend
/// neither on their number nor on the processor.
///
/// A unit of which all magnitudes are below 2⁻²⁴ becomes zeros, as f16 has no scale for it. A value
/// beyond [`Quant::largest`], which infinity is, becomes that with its sign. NaN becomes 0.
///
/// # Panics
///
/// If a length is wrong.
pub fn quantize(quant: Quant, inputs: usize, values: &[f32], out: &mut [u8]) {
    let rows = values.len().checked_div(inputs).unwrap_or(0);
    assert_eq!(values.len(), rows * inputs, "whole rows");
    assert_eq!(Some(out.len()), quant.bytes(rows, inputs), "whole panels");
    let panel = quant.panel_bytes(inputs);
    if panel == 0 {
        return;
    }
    out.par_chunks_exact_mut(panel)
        .zip(values.par_chunks(PANEL * inputs))
        .for_each(|(panel, rows)| {
            let kernel = QuantizePanel {
                quant,
                inputs,
                rows,
                panel,
            };
            Kernels::detect().vectorize(kernel);
        });
}

/// Quantizes up to 16 rows.
struct QuantizePanel<'a> {
    quant: Quant,
    inputs: usize,
    rows: &'a [f32],
    panel: &'a mut [u8],
}

impl Kernel for QuantizePanel<'_> {
    /// Without the vectors of `S`: the loops of `q4` and `q8` are plain ones that the compiler
    /// vectorizes for its instruction set.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        quantize_panel(self.quant, self.inputs, self.rows, self.panel);
    }
}

#[inline(always)]
fn quantize_panel(quant: Quant, inputs: usize, rows: &[f32], panel: &mut [u8]) {
    let units = inputs.div_ceil(UNIT);
    let (codes, scales) = panel.split_at_mut(units * quant.unit_codes());
    // What is zero in every row that is not there.
    codes.fill(match quant {
        Quant::Q8 => OFFSET,
        Quant::Q4 => q4::ZERO << 4 | q4::ZERO,
    });
    scales.fill(0);
    let parts = codes
        .chunks_exact_mut(quant.unit_codes())
        .zip(scales.chunks_exact_mut(quant.unit_scales()));
    for (unit, (codes, scales)) in parts.enumerate() {
        for (r, row) in rows.chunks_exact(inputs).enumerate() {
            let from = &row[unit * UNIT..inputs.min((unit + 1) * UNIT)];
            let mut values = [0.0; UNIT];
            for (value, &x) in values.iter_mut().zip(from) {
                *value = bounded(x, quant.largest());
            }
            match quant {
                Quant::Q8 => quantize_q8(&values, r, codes, scales),
                Quant::Q4 => quantize_q4(&values, r, codes, scales),
            }
        }
    }
}

/// A number from `-largest` to `largest`, of NaN 0.
#[inline(always)]
fn bounded(x: f32, largest: f32) -> f32 {
    match x.abs() <= largest {
        true => x,
        false if x.is_nan() => 0.0,
        false => largest.copysign(x),
    }
}

/// Quantizes a unit of row `r` of a panel.
#[inline(always)]
fn quantize_q8(values: &[f32; UNIT], r: usize, codes: &mut [u8], scales: &mut [u8]) {
    let (scale, unit) = q8::quantize(values);
    put(scales, r, scale.to_bits());
    for (quad, unit) in vectors(codes).zip(unit.chunks_exact(QUAD)) {
        quad[r * QUAD..][..QUAD].copy_from_slice(unit);
    }
}

/// Quantizes a unit of row `r` of a panel.
#[inline(always)]
fn quantize_q4(values: &[f32; UNIT], r: usize, codes: &mut [u8], scales: &mut [u8]) {
    let unit = q4::quantize(values);
    put(scales, r, unit.scale.to_bits());
    put(scales, PANEL + r, unit.steps);
    for (quads, unit) in vectors(codes).zip(unit.codes.chunks_exact(2 * QUAD)) {
        let (low, high) = unit.split_at(QUAD);
        let row = quads[r * QUAD..].iter_mut();
        for (byte, (low, high)) in row.zip(low.iter().zip(high)) {
            *byte = high << 4 | low;
        }
    }
}

/// The vectors of a unit's codes, `[row][input]`.
fn vectors(codes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    codes.chunks_exact_mut(PANEL * QUAD)
}

fn put(scales: &mut [u8], i: usize, value: u16) {
    scales[2 * i..][..2].copy_from_slice(&value.to_le_bytes());
}

fn get(scales: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([scales[2 * i], scales[2 * i + 1]])
}

/// The weights of some rows in `f32`: `out` is `[rows, inputs]`. On all threads.
///
/// # Panics
///
/// If a length is wrong or a row is beyond the weight.
pub fn dequantize(quant: Quant, inputs: usize, data: &[u8], rows: Range<usize>, out: &mut [f32]) {
    assert_eq!(out.len(), rows.len() * inputs, "whole rows");
    let panel = quant.panel_bytes(inputs);
    if out.is_empty() {
        return;
    }
    out.par_chunks_exact_mut(inputs)
        .zip(rows)
        .for_each(|(out, row)| {
            let panel = &data[row / PANEL * panel..][..panel];
            dequantize_row(quant, panel, row % PANEL, out);
        });
}

fn dequantize_row(quant: Quant, panel: &[u8], r: usize, out: &mut [f32]) {
    let units = out.len().div_ceil(UNIT);
    let (codes, scales) = panel.split_at(units * quant.unit_codes());
    let parts = codes
        .chunks_exact(quant.unit_codes())
        .zip(scales.chunks_exact(quant.unit_scales()));
    for (out, (codes, scales)) in out.chunks_mut(UNIT).zip(parts) {
        let mut values = [0.0; UNIT];
        // The bytes of this row.
        let quads = codes
            .chunks_exact(PANEL * QUAD)
            .map(|v| &v[r * QUAD..][..QUAD]);
        match quant {
            Quant::Q8 => {
                for (values, quad) in values.chunks_exact_mut(QUAD).zip(quads) {
                    for (value, &code) in values.iter_mut().zip(quad) {
                        *value = f32::from(code) - f32::from(OFFSET);
                    }
                }
            }
            Quant::Q4 => {
                let steps = get(scales, PANEL + r);
                for (v, (values, quads)) in values.chunks_exact_mut(2 * QUAD).zip(quads).enumerate()
                {
                    let step = steps >> (4 * (v * 2 * QUAD / BLOCK)) & 15;
                    let levels = &q4::LEVELS[usize::from(step)];
                    let (low, high) = values.split_at_mut(QUAD);
                    for ((low, high), &byte) in low.iter_mut().zip(high).zip(quads) {
                        *low = levels[usize::from(byte & 15)];
                        *high = levels[usize::from(byte >> 4)];
                    }
                }
            }
        }
        let scale = f16::from_bits(get(scales, r)).to_f32();
        for (out, value) in out.iter_mut().zip(values) {
            *out = scale * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_instruction_set_finds_the_same() {
        const INPUTS: usize = 3 * UNIT + 5;
        let noise = |i: usize| ((i as f64 * 12.9898).sin() * 43_758.545_3).fract() as f32;
        let rows: Vec<f32> = (0..PANEL * INPUTS).map(|i| noise(i).powi(3)).collect();
        for quant in Quant::ALL {
            let mut panels = Vec::new();
            for isa in Isa::available() {
                let mut panel = vec![0; quant.panel_bytes(INPUTS)];
                let kernel = QuantizePanel {
                    quant,
                    inputs: INPUTS,
                    rows: &rows,
                    panel: &mut panel,
                };
                Kernels::new(isa).unwrap().vectorize(kernel);
                panels.push(panel);
            }
            assert!(panels.windows(2).all(|pair| pair[0] == pair[1]), "{quant}");
        }
    }
}
