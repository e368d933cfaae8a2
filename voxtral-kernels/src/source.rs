//! Weights as they are stored, and how a panel of them becomes words.

use crate::format::{Bf16, Format};
use crate::micro::{PANEL, PANEL_WORDS, STEP, UNITS, WORDS};
use crate::quant::{OFFSET, QUAD, Quant, UNIT};
use crate::simd::{Levels, MAX_LANES, Simd};
use crate::word::{Bf16Word, ByteWord, F32Word, Word, bf16_pair};

/// A stored weight that can become words.
pub(crate) trait Source<W: Word>: Copy + Send + Sync {
    /// Writes words `from..from + words` of a panel's weight rows, `[words, PANEL]`, to the front of
    /// `out`, which has [`PANEL_WORDS`]; zeros where there is no row or no input. `from` and `words`
    /// are multiples of [`STEP`], and `from` one of [`WORDS`]. To be inlined into a kernel.
    fn pack<S: Simd>(self, simd: S, panel: usize, from: usize, words: usize, out: &mut [u32]);
}

/// One element after the other, row by row.
#[derive(Debug)]
pub(crate) struct Rows<'a, F: Format> {
    pub(crate) values: &'a [F::Bits],
    pub(crate) inputs: usize,
}

impl<F: Format> Clone for Rows<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format> Copy for Rows<'_, F> {}

/// A format whose elements stand as some words do, or become them one by one.
pub(crate) trait Words<W: Word>: Format {
    /// # Safety
    ///
    /// `from` is valid for reads of `W::INPUTS · LANES` elements.
    unsafe fn load_words<S: Simd>(simd: S, from: *const Self::Bits) -> S::V;
}

impl<F: Format> Words<F32Word> for F {
    #[inline(always)]
    unsafe fn load_words<S: Simd>(simd: S, from: *const F::Bits) -> S::V {
        // SAFETY: the caller's.
        unsafe { F::load(simd, from) }
    }
}

impl Words<Bf16Word> for Bf16 {
    #[inline(always)]
    unsafe fn load_words<S: Simd>(simd: S, from: *const u16) -> S::V {
        // SAFETY: the caller's; the lanes are only moved.
        unsafe { simd.load(from.cast()) }
    }
}

impl<W: Word, F: Words<W>> Source<W> for Rows<'_, F> {
    #[inline(always)]
    fn pack<S: Simd>(self, simd: S, panel: usize, from: usize, words: usize, out: &mut [u32]) {
        let Self { values, inputs } = self;
        let out = &mut out[..words * PANEL];
        for first in (0..PANEL).step_by(S::LANES) {
            let from_row = (panel * PANEL + first) * inputs;
            let rows = values.get(from_row..).unwrap_or_default();
            let count = rows.len().checked_div(inputs).unwrap_or(0).min(S::LANES);
            for word in (0..words).step_by(S::LANES) {
                let input = ((from + word) * W::INPUTS).min(inputs);
                let len = (S::LANES * W::INPUTS).min(inputs - input);
                let mut lanes = [simd.splat(0.0); MAX_LANES];
                for (r, lanes) in lanes.iter_mut().take(count).enumerate() {
                    let row = &rows[r * inputs + input..][..len];
                    let mut end = [F::ZERO; 2 * MAX_LANES];
                    let whole = if len == S::LANES * W::INPUTS {
                        row.as_ptr()
                    } else {
                        end[..len].copy_from_slice(row);
                        end.as_ptr()
                    };
                    // SAFETY: `whole` has `LANES` words of at most 2 inputs.
                    *lanes = unsafe { F::load_words(simd, whole) };
                }
                simd.transpose(&mut lanes);
                for (i, lanes) in lanes.into_iter().take(S::LANES).enumerate() {
                    let to = &mut out[(word + i) * PANEL + first..][..S::LANES];
                    // SAFETY: the slice has `LANES` words.
                    unsafe { simd.store(to.as_mut_ptr().cast(), lanes) };
                }
            }
        }
    }
}

/// Panels of codes, see [`crate::quant`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    pub(crate) quant: Quant,
    pub(crate) data: &'a [u8],
    pub(crate) inputs: usize,
}

impl<'a> Panels<'a> {
    /// Codes and scales of a panel; none beyond the last one.
    #[inline(always)]
    pub(crate) fn panel(self, panel: usize) -> Option<(&'a [u8], &'a [u8])> {
        let bytes = self.quant.panel_bytes(self.inputs);
        let data = self.data.get(panel * bytes..(panel + 1) * bytes)?;
        Some(data.split_at(self.units() * self.quant.unit_codes()))
    }

    #[inline(always)]
    pub(crate) fn units(self) -> usize {
        self.inputs.div_ceil(UNIT)
    }

    /// The values of a unit of a panel without their scales, and the scales.
    #[inline(always)]
    fn unit<S: Simd>(
        self,
        simd: S,
        (codes, scales): (&[u8], &[u8]),
        unit: usize,
        levels: &mut Levels,
    ) -> [f32; PANEL] {
        let codes = &codes[unit * self.quant.unit_codes()..][..self.quant.unit_codes()];
        let scales = &scales[unit * self.quant.unit_scales()..][..self.quant.unit_scales()];
        let (scales, steps) = scales.split_at(2 * PANEL);
        match self.quant {
            Quant::Q8 => {
                for (level, code) in levels.0.iter_mut().zip(codes) {
                    *level = (code ^ OFFSET) as i8;
                }
            }
            // SAFETY: the slices are a unit's.
            Quant::Q4 => unsafe { simd.levels(codes.as_ptr(), steps.as_ptr().cast(), levels) },
        }
        widen_scales(scales)
    }

    /// A unit's weights in `f32`, `[UNIT, PANEL]`.
    #[inline(always)]
    fn widen<S: Simd>(self, simd: S, panel: (&[u8], &[u8]), unit: usize, out: &mut [f32]) {
        let out = &mut out[..UNIT * PANEL];
        let mut levels = Levels([0; PANEL * UNIT]);
        let scales = self.unit(simd, panel, unit, &mut levels);
        for quad in 0..UNIT / QUAD {
            let from = levels.0[quad * PANEL * QUAD..].as_ptr();
            let to = out[quad * PANEL * QUAD..].as_mut_ptr();
            // SAFETY: a quad of `UNIT / QUAD`, on both sides.
            unsafe { simd.widen_quad(from, scales.as_ptr(), to) };
        }
    }
}

/// The scales of a panel's rows.
#[inline(always)]
pub(crate) fn widen_scales(halves: &[u8]) -> [f32; PANEL] {
    let mut scales = [0.0; PANEL];
    for (scale, half) in scales.iter_mut().zip(halves.as_chunks::<2>().0) {
        *scale = crate::format::widen_f16(u16::from_le_bytes(*half));
    }
    scales
}

impl Source<F32Word> for Panels<'_> {
    #[inline(always)]
    fn pack<S: Simd>(self, simd: S, panel: usize, from: usize, words: usize, out: &mut [u32]) {
        let out = &mut out[..WORDS * PANEL];
        let Some(panel) = self.panel(panel) else {
            return out[..words * PANEL].fill(0);
        };
        // SAFETY: both are 32 bits of any value.
        let out = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) };
        let units = out.chunks_exact_mut(UNIT * PANEL);
        for (unit, out) in units.take(words.div_ceil(UNIT)).enumerate() {
            self.widen(simd, panel, from / UNIT + unit, out);
        }
    }
}

impl Source<Bf16Word> for Panels<'_> {
    #[inline(always)]
    fn pack<S: Simd>(self, simd: S, panel: usize, from: usize, words: usize, out: &mut [u32]) {
        const UNIT_WORDS: usize = UNIT / 2;
        let out = &mut out[..WORDS * PANEL];
        let Some(panel) = self.panel(panel) else {
            return out[..words * PANEL].fill(0);
        };
        let units = out.chunks_exact_mut(UNIT_WORDS * PANEL);
        for (unit, out) in units.take(words.div_ceil(UNIT_WORDS)).enumerate() {
            let mut wide = [0.0; UNIT * PANEL];
            self.widen(simd, panel, from / UNIT_WORDS + unit, &mut wide);
            let pairs = wide.as_chunks::<{ 2 * PANEL }>().0;
            for (out, pair) in out.as_chunks_mut::<PANEL>().0.iter_mut().zip(pairs) {
                for (row, word) in out.iter_mut().enumerate() {
                    *word = bf16_pair(pair[row], pair[PANEL + row]);
                }
            }
        }
    }
}

impl Source<ByteWord> for Panels<'_> {
    #[inline(always)]
    fn pack<S: Simd>(self, simd: S, panel: usize, from: usize, words: usize, out: &mut [u32]) {
        let (out, scales) = out[..PANEL_WORDS].split_at_mut(WORDS * PANEL);
        let Some(panel) = self.panel(panel) else {
            out[..words * PANEL].fill(0);
            return scales.fill(0);
        };
        let parts = out
            .chunks_exact_mut(STEP * PANEL)
            .zip(scales.chunks_exact_mut(PANEL));
        let units = words / STEP;
        const { assert!(STEP * QUAD == UNIT && UNITS * STEP == WORDS) };
        for (unit, (out, scales)) in parts.take(units).enumerate() {
            let mut levels = Levels([0; PANEL * UNIT]);
            let found = self.unit(simd, panel, from / STEP + unit, &mut levels);
            for (word, quad) in out.iter_mut().zip(levels.0.as_chunks::<QUAD>().0) {
                // The arithmetic takes unsigned bytes.
                *word = u32::from_le_bytes(quad.map(|level| level as u8 ^ OFFSET));
            }
            for (scale, found) in scales.iter_mut().zip(found) {
                *scale = found.to_bits();
            }
        }
    }
}
