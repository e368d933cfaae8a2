//! Products of a few rows with a quantized weight, limited by the memory that it comes from.
//!
//! Inputs are rounded to bytes, unit by unit, and multiplied with the codes of the weight as
//! integers; the sum of a unit, of Q4 of a block, is scaled and added in `f32`. For Q4 that is the
//! product `CODES[q] · STEPS[s] / 128` where the format rounds it to an integer: they differ by half
//! a level at most, and it takes half the instructions. A part is a few panels, which are walked
//! side by side so that memory is read in several streams. Every panel is read from memory once for
//! all rows, and its rows of inputs go over it four or eight at a time. A sum is that of the sums of the
//! units, in order; it depends neither on the other rows nor on the threads.

use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::{Buffer, Shared};
use crate::format::widen_f16;
use crate::micro::{BLOCKS, PANEL, ROW, STEP, UNITS, WORDS};
use crate::portable::Portable;
use crate::product::{PART_BYTES, Product};
use crate::quant::{CODES, OFFSET, QUAD, Quant, STEPS};
use crate::simd::{Kernel, Simd};
use crate::source::Panels;
use crate::threads::for_each_part;
use crate::word::{ByteWord, Word};

/// Dot products of quads of bytes, of 16 outputs at a time.
pub(crate) trait Quads: Copy + Send + Sync {
    /// Sums of 16 outputs as integers.
    type Dots: Copy;
    /// Sums, or scales, of 16 outputs.
    type Sums: Copy;
    /// A quad of 16 outputs.
    type Weights: Copy;
    /// What unpacks a unit of [`Quant::Q4`].
    type Unit: Copy;

    /// Panels that are walked side by side, one or two.
    const PANELS: usize;
    /// Rows of inputs that go over them together, four or eight, as many as the registers hold the
    /// sums of.
    const TOGETHER: usize;
    /// Whether weights are [`OFFSET`] too large.
    const OFFSET: bool;

    /// Runs a kernel compiled for these instructions.
    fn vectorize<K: Kernel>(self, kernel: K);

    /// Asks for memory that is read soon. Any address will do.
    fn ask(self, address: *const u8);

    /// # Safety
    ///
    /// `steps` is valid for reads of a unit's.
    unsafe fn unit(self, steps: *const u16) -> Self::Unit;

    /// Two quads of [`Quant::Q8`].
    ///
    /// # Safety
    ///
    /// `codes` is valid for reads of both.
    unsafe fn q8(self, codes: *const u8) -> [Self::Weights; 2];

    /// Two quads of [`Quant::Q4`], not yet times their steps.
    ///
    /// # Safety
    ///
    /// `codes` is valid for reads of both.
    unsafe fn q4(self, codes: *const u8, unit: Self::Unit) -> [Self::Weights; 2];

    /// Scales times the steps of a block of a unit of [`Quant::Q4`].
    fn block(self, unit: Self::Unit, block: u32, scales: Self::Sums) -> Self::Sums;

    fn splat(self, value: i32) -> Self::Dots;

    /// Adds the products with four bytes.
    fn dot(self, dots: Self::Dots, weights: Self::Weights, inputs: u32) -> Self::Dots;

    fn zero(self) -> Self::Sums;

    /// # Safety
    ///
    /// `from` is valid for reads of 16 binary16.
    unsafe fn scales(self, from: *const u8) -> Self::Sums;

    /// Adds a unit's products, times the scales of the weights and of the inputs.
    fn add(self, sums: Self::Sums, dots: Self::Dots, scales: Self::Sums, step: f32) -> Self::Sums;

    fn store(self, sums: Self::Sums) -> [f32; PANEL];
}

/// Units whose scales are asked for ahead: they are a stream of their own.
const SCALES_AHEAD: usize = 4;

thread_local! {
    /// The packed inputs of the thread that calls.
    static INPUTS: RefCell<Buffer> = RefCell::default();
}

/// Computes the whole product, on all threads.
pub(crate) fn few<Q: Quads>(quads: Q, product: Product<'_>, weight: Panels<'_>, out: Shared<'_>) {
    let rows = product.shape.rows;
    let chunks = product.shape.inputs.div_ceil(WORDS * ByteWord::INPUTS);
    let mut buffer = INPUTS.take();
    let inputs = buffer.words(rows * chunks * ROW);
    quads.vectorize(PackRows { product, inputs });
    let inputs = &*inputs;
    let panels = product.shape.outputs.div_ceil(PANEL);
    let together = Q::PANELS * weight.quant.panel_bytes(weight.inputs);
    let part = (PART_BYTES / together.max(1)).max(1) * Q::PANELS;
    for_each_part(panels.div_ceil(part), product.multiplications(), |i| {
        quads.vectorize(FewRows {
            quads,
            product,
            inputs,
            weight,
            panels: i * part..((i + 1) * part).min(panels),
            out,
        });
    });
    INPUTS.set(buffer);
}

/// Packs a few rows, `[rows, chunks, ROW]`.
struct PackRows<'a> {
    product: Product<'a>,
    inputs: &'a mut [u32],
}

impl Kernel for PackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let mut packed = self.inputs.chunks_exact_mut(ROW);
        let rows = self
            .product
            .x
            .chunks_exact(self.product.shape.inputs.max(1));
        for row in rows {
            for (chunk, packed) in row.chunks(WORDS * ByteWord::INPUTS).zip(&mut packed) {
                ByteWord::pack(chunk, packed);
            }
        }
    }
}

/// A few packed rows times some panels.
struct FewRows<'a, Q> {
    quads: Q,
    product: Product<'a>,
    inputs: &'a [u32],
    weight: Panels<'a>,
    panels: Range<usize>,
    out: Shared<'a>,
}

impl<Q: Quads> Kernel for FewRows<'_, Q> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            let left = self.panels.end - panel;
            panel += if left >= 2 && Q::PANELS >= 2 {
                self.all_rows::<2>(panel)
            } else {
                self.all_rows::<1>(panel)
            };
        }
    }
}

impl<Q: Quads> FewRows<'_, Q> {
    /// All rows times `P` panels; gives `P`.
    #[inline(always)]
    fn all_rows<const P: usize>(&self, panel: usize) -> usize {
        let rows = self.product.shape.rows;
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                1 => self.several::<1, P>(panel, row),
                2 => self.several::<2, P>(panel, row),
                3 => self.several::<3, P>(panel, row),
                // Unpacking Q4 takes registers, too: there eight are no faster.
                8.. if Q::TOGETHER >= 8 && self.weight.quant == Quant::Q8 => {
                    self.several::<8, P>(panel, row)
                }
                _ => self.several::<4, P>(panel, row),
            };
        }
        P
    }

    /// `R` rows times `P` panels; gives `R`.
    #[inline(always)]
    fn several<const R: usize, const P: usize>(&self, panel: usize, row: usize) -> usize {
        match self.weight.quant {
            Quant::Q8 => self.sums::<R, P, 8>(panel, row),
            Quant::Q4 => self.sums::<R, P, 4>(panel, row),
        }
        R
    }

    #[inline(always)]
    fn sums<const R: usize, const P: usize, const BITS: u32>(&self, panel: usize, row: usize) {
        let Self { quads, weight, .. } = *self;
        let bytes = weight.quant.panel_bytes(weight.inputs);
        let data = &weight.data[panel * bytes..(panel + P) * bytes];
        let units = weight.units();
        let row_words = self.inputs.len() / self.product.shape.rows;
        let inputs = &self.inputs[row * row_words..][..R * row_words];
        let (codes, scales) = (weight.quant.unit_codes(), weight.quant.unit_scales());
        let mut sums = [[quads.zero(); P]; R];
        // What is summed as integers: a unit, or a block where each has its own step.
        let blocks = if BITS == 4 { BLOCKS } else { 1 };
        let offsets = WORDS + UNITS + if BITS == 4 { UNITS } else { 0 };
        let pairs = STEP / 2 / blocks;
        for unit in 0..units {
            // SAFETY: all offsets are within `P` panels and `R` packed rows.
            unsafe {
                let input = inputs.as_ptr().add(unit / UNITS * ROW);
                let place = unit % UNITS;
                for p in 0..P {
                    let panel = data.as_ptr().add(p * bytes);
                    let at = panel.add(units * codes + unit * scales);
                    let unit_scales = quads.scales(at);
                    // Only where there are any.
                    let unpack = match BITS {
                        4 => Some(quads.unit(at.add(2 * PANEL).cast())),
                        _ => None,
                    };
                    quads.ask(at.wrapping_add(SCALES_AHEAD * scales));
                    for block in 0..blocks {
                        let mut dots = [quads.splat(0); R];
                        if Q::OFFSET {
                            for (r, dots) in dots.iter_mut().enumerate() {
                                let at = offsets + place * blocks + block;
                                *dots = quads.splat(*input.add(r * row_words + at) as i32);
                            }
                        }
                        for pair in block * pairs..(block + 1) * pairs {
                            let at = panel.add(unit * codes + pair * codes * 2 / STEP);
                            let weights = match unpack {
                                Some(unpack) => quads.q4(at, unpack),
                                None => quads.q8(at),
                            };
                            for (i, weights) in weights.into_iter().enumerate() {
                                let word = place * STEP + 2 * pair + i;
                                for (r, dots) in dots.iter_mut().enumerate() {
                                    let inputs = *input.add(r * row_words + word);
                                    *dots = quads.dot(*dots, weights, inputs);
                                }
                            }
                        }
                        let scales = match unpack {
                            Some(unpack) => quads.block(unpack, block as u32, unit_scales),
                            None => unit_scales,
                        };
                        for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                            let step = *input.add(r * row_words + WORDS + place).cast::<f32>();
                            sums[p] = quads.add(sums[p], dots, scales, step);
                        }
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sums) in sums.into_iter().enumerate() {
                self.write(row + r, panel + p, &quads.store(sums));
            }
        }
    }

    /// Writes the sums of a row's outputs in a panel, with the bias.
    #[inline(always)]
    fn write(&self, row: usize, panel: usize, sums: &[f32; PANEL]) {
        let outputs = self.product.shape.outputs;
        let first = panel * PANEL;
        let count = PANEL.min(outputs - first);
        // SAFETY: this part alone has the panel, and what is lent dies at once.
        let out = unsafe { self.out.part(row * outputs + first, count) };
        match self.product.bias {
            Some(bias) => {
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first..]) {
                    *out = sum + bias;
                }
            }
            None => out.copy_from_slice(&sums[..count]),
        }
    }
}

/// Plain loops over 16 outputs, for the compiler to vectorize.
impl Quads for Portable {
    type Dots = [i32; PANEL];
    type Sums = [f32; PANEL];
    type Weights = [i8; PANEL * QUAD];
    type Unit = [u16; PANEL];

    const PANELS: usize = 1;
    const TOGETHER: usize = 4;
    const OFFSET: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) {
        Simd::vectorize(self, kernel);
    }

    #[inline(always)]
    fn ask(self, _address: *const u8) {}

    #[inline(always)]
    unsafe fn unit(self, steps: *const u16) -> Self::Unit {
        // SAFETY: the caller's.
        unsafe { steps.cast::<Self::Unit>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn q8(self, codes: *const u8) -> [Self::Weights; 2] {
        // SAFETY: the caller's.
        let codes = unsafe { codes.cast::<[[u8; PANEL * QUAD]; 2]>().read() };
        codes.map(|quad| quad.map(|code| (code ^ OFFSET) as i8))
    }

    #[inline(always)]
    unsafe fn q4(self, codes: *const u8, _steps: Self::Unit) -> [Self::Weights; 2] {
        // SAFETY: the caller's.
        let codes = unsafe { codes.cast::<[u8; PANEL * QUAD]>().read() };
        let value = |nibble: u8| CODES[usize::from(nibble)];
        [
            codes.map(|code| value(code & 15)),
            codes.map(|code| value(code >> 4)),
        ]
    }

    #[inline(always)]
    fn block(self, steps: Self::Unit, block: u32, scales: Self::Sums) -> Self::Sums {
        let mut scaled = scales;
        for (scale, steps) in scaled.iter_mut().zip(steps) {
            let step = STEPS[usize::from(steps >> (4 * block) & 15)];
            *scale *= f32::from(step) / 128.0;
        }
        scaled
    }

    #[inline(always)]
    fn splat(self, value: i32) -> Self::Dots {
        [value; PANEL]
    }

    #[inline(always)]
    fn dot(self, dots: Self::Dots, weights: Self::Weights, inputs: u32) -> Self::Dots {
        let inputs = inputs.to_le_bytes().map(|byte| i32::from(byte as i8));
        let mut sums = dots;
        for (sum, quad) in sums.iter_mut().zip(weights.as_chunks::<QUAD>().0) {
            for (weight, input) in quad.iter().zip(inputs) {
                *sum += i32::from(*weight) * input;
            }
        }
        sums
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0.0; PANEL]
    }

    #[inline(always)]
    unsafe fn scales(self, from: *const u8) -> Self::Sums {
        // SAFETY: the caller's.
        let halves = unsafe { from.cast::<[[u8; 2]; PANEL]>().read() };
        halves.map(|half| widen_f16(u16::from_le_bytes(half)))
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, dots: Self::Dots, scales: Self::Sums, step: f32) -> Self::Sums {
        let mut sums = sums;
        for (sum, (dot, scale)) in sums.iter_mut().zip(dots.into_iter().zip(scales)) {
            *sum += dot as f32 * (scale * step);
        }
        sums
    }

    #[inline(always)]
    fn store(self, sums: Self::Sums) -> [f32; PANEL] {
        sums
    }
}
