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

use std::fmt;
use std::ops::Range;

use half::f16;
use rayon::prelude::*;

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

/// What the codes of [`Quant::Q4`] stand for.
pub(crate) const CODES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// What a block's values are multiplied by, in 128ths.
pub(crate) const STEPS: [i16; 16] = [
    8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128,
];

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
/// rows of the weight, and `out` gets [`Quant::bytes`] bytes. On all threads.
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
        .for_each(|(panel, rows)| quantize_panel(quant, inputs, rows, panel));
}

fn quantize_panel(quant: Quant, inputs: usize, rows: &[f32], panel: &mut [u8]) {
    let units = inputs.div_ceil(UNIT);
    let (codes, scales) = panel.split_at_mut(units * quant.unit_codes());
    codes.fill(match quant {
        Quant::Q8 => OFFSET,
        Quant::Q4 => 0,
    });
    scales.fill(0);
    let parts = codes
        .chunks_exact_mut(quant.unit_codes())
        .zip(scales.chunks_exact_mut(quant.unit_scales()));
    for (unit, (codes, scales)) in parts.enumerate() {
        for (r, row) in rows.chunks_exact(inputs).enumerate() {
            let from = &row[unit * UNIT..inputs.min((unit + 1) * UNIT)];
            let mut values = [0.0; UNIT];
            values[..from.len()].copy_from_slice(from);
            match quant {
                Quant::Q8 => q8(&values, r, codes, scales),
                Quant::Q4 => q4(&values, r, codes, scales),
            }
        }
    }
}

/// Quantizes a unit of row `r` of a panel.
fn q8(values: &[f32; UNIT], r: usize, codes: &mut [u8], scales: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    scales[2 * r..][..2].copy_from_slice(&scale.to_le_bytes());
    let inverse = inverse(scale.to_f32());
    for (p, x) in values.iter().enumerate() {
        let code = (x * inverse).round().clamp(-127.0, 127.0) as i16 + i16::from(OFFSET);
        codes[p / QUAD * PANEL * QUAD + r * QUAD + p % QUAD] = code as u8;
    }
}

/// Quantizes a unit of row `r` of a panel.
fn q4(values: &[f32; UNIT], r: usize, codes: &mut [u8], scales: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    scales[2 * r..][..2].copy_from_slice(&scale.to_le_bytes());
    let inverse = inverse(scale.to_f32());
    let mut steps = 0;
    for (b, block) in values.chunks_exact(BLOCK).enumerate() {
        let error = |s: usize| -> f32 {
            let nearest = block.iter().map(|x| nearest(x * inverse, s).1);
            nearest.sum()
        };
        let best = (0..16).min_by(|&s, &t| error(s).total_cmp(&error(t)));
        let s = best.unwrap_or(0);
        steps |= (s as u16) << (4 * b);
        for (i, x) in block.iter().enumerate() {
            let p = b * BLOCK + i;
            let (quad, shift) = (p / QUAD, 4 * (p / QUAD % 2));
            let code = nearest(x * inverse, s).0 as u8;
            codes[quad / 2 * PANEL * QUAD + r * QUAD + p % QUAD] |= code << shift;
        }
    }
    scales[2 * (PANEL + r)..][..2].copy_from_slice(&steps.to_le_bytes());
}

/// The code whose value is nearest, and the square of the distance.
fn nearest(x: f32, s: usize) -> (usize, f32) {
    let error = |q: usize| (f32::from(level(q, s)) - x).powi(2);
    let best = (0..16).min_by(|&a, &b| error(a).total_cmp(&error(b)));
    let best = best.unwrap_or(0);
    (best, error(best))
}

/// What code `q` of a block with step `s` stands for, without the row's scale.
pub(crate) const fn level(q: usize, s: usize) -> i8 {
    ((CODES[q] as i16 * STEPS[s] + 64) >> 7) as i8
}

fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
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
    for (p, out) in out.iter_mut().enumerate() {
        let codes = &codes[p / UNIT * quant.unit_codes()..];
        let scales = &scales[p / UNIT * quant.unit_scales()..];
        let half = |i: usize| [scales[2 * i], scales[2 * i + 1]];
        let scale = f16::from_le_bytes(half(r)).to_f32();
        let p = p % UNIT;
        let (quad, byte) = (p / QUAD, r * QUAD + p % QUAD);
        let value = match quant {
            Quant::Q8 => i16::from(codes[quad * PANEL * QUAD + byte]) - i16::from(OFFSET),
            Quant::Q4 => {
                let code = codes[quad / 2 * PANEL * QUAD + byte] >> (4 * (quad % 2)) & 15;
                let steps = u16::from_le_bytes(half(PANEL + r));
                let step = steps >> (4 * (p / BLOCK)) & 15;
                i16::from(level(code.into(), step.into()))
            }
        };
        *out = scale * f32::from(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quantized_is_near() {
        for quant in Quant::ALL {
            for (rows, inputs) in [(1, 1), (16, 64), (17, 130), (40, 63)] {
                let values: Vec<f32> = (0..rows * inputs)
                    .map(|i| ((i as f64 * 12.9898).sin() * 43_758.545_3).fract() as f32)
                    .collect();
                let mut data = vec![0; quant.bytes(rows, inputs).unwrap()];
                quantize(quant, inputs, &values, &mut data);
                let mut back = vec![0.0; values.len()];
                dequantize(quant, inputs, &data, 0..rows, &mut back);
                let tolerance = match quant {
                    Quant::Q8 => 0.006,
                    Quant::Q4 => 0.2,
                };
                for (x, y) in values.iter().zip(&back) {
                    assert!((x - y).abs() < tolerance, "{quant}: {x} became {y}");
                }
            }
        }
    }
}
