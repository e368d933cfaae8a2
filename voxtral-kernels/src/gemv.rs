//! Products of a few rows, which are limited by the memory that the weights come from.
//!
//! Every weight is read from memory once, whatever the number of rows. A group of [`GROUP`] weight
//! rows is walked at once, so that an input is loaded once for all of them. What is read soon, at the
//! end of the rows that of the next group, is asked for ahead, since the arithmetic of several rows
//! would otherwise wait for it. Where the rows of the input do not fit the registers together, the
//! group is walked again while it is in cache.
//!
//! Each sum is that of one vector whose lane `l` adds up the inputs `l`, `l + LANES`, … in order,
//! and of its lanes. It depends neither on the other rows nor on the threads.

use std::ops::Range;

use crate::buffer::Shared;
use crate::format::Format;
use crate::product::Product;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// Weight rows that are walked at once.
pub(crate) const GROUP: usize = 8;

/// Bytes of a weight row that are asked for ahead. With a whole group ahead, a decode step in bf16 took
/// a third longer on a core of Intel.
const AHEAD: usize = 1024;

/// Input rows whose sums stay in registers.
const ROWS: usize = 4;

/// Every input row times some weight rows.
pub(crate) struct Gemv<'a, F: Format> {
    pub(crate) product: Product<'a>,
    pub(crate) weight: &'a [F::Bits],
    /// The weight rows. No other thread has any of them.
    pub(crate) outputs: Range<usize>,
    pub(crate) out: Shared<'a>,
}

impl<F: Format> Kernel for Gemv<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let rows = self.product.shape.rows;
        let mut first = self.outputs.start;
        while first < self.outputs.end {
            let count = GROUP.min(self.outputs.end - first);
            for row in (0..rows).step_by(ROWS) {
                match rows - row {
                    1 => self.rows::<S, 1>(simd, row, first, count),
                    2 => self.rows::<S, 2>(simd, row, first, count),
                    3 => self.rows::<S, 3>(simd, row, first, count),
                    _ => self.rows::<S, ROWS>(simd, row, first, count),
                }
            }
            first += count;
        }
    }
}

impl<F: Format> Gemv<'_, F> {
    /// `R` input rows from `row` on, times `count` weight rows from `first` on, as many at once as
    /// the registers hold.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&self, simd: S, row: usize, first: usize, count: usize) {
        let fits = |weights: usize| R * weights + R < S::REGISTERS;
        let end = first + count;
        let mut first = first;
        while first < end {
            first += match end - first {
                GROUP if fits(GROUP) => self.dots::<S, R, GROUP>(simd, row, first),
                4.. if fits(4) => self.dots::<S, R, 4>(simd, row, first),
                2.. => self.dots::<S, R, 2>(simd, row, first),
                _ => self.dots::<S, R, 1>(simd, row, first),
            };
        }
    }

    /// `R` input rows times `W` weight rows; gives `W`.
    #[inline(always)]
    fn dots<S: Simd, const R: usize, const W: usize>(
        &self,
        simd: S,
        row: usize,
        first: usize,
    ) -> usize {
        let Product { shape, x, bias } = self.product;
        let (inputs, outputs) = (shape.inputs, shape.outputs);
        let x = &x[row * inputs..(row + R) * inputs];
        let weight = &self.weight[first * inputs..(first + W) * inputs];
        let sums = dots::<S, F, R, W>(simd, inputs, x, weight);
        for r in 0..R {
            // SAFETY: this thread alone has these outputs, and the part dies at once.
            let out = unsafe { self.out.part((row + r) * outputs + first, W) };
            for (j, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
                *out = simd.sum(sums[r]) + bias.map_or(0.0, |bias| bias[first + j]);
            }
        }
        W
    }
}

/// `Σ_p x[r, p] weight[j, p]`, the lanes not yet added up.
#[inline(always)]
fn dots<S: Simd, F: Format, const R: usize, const W: usize>(
    simd: S,
    inputs: usize,
    x: &[f32],
    weight: &[F::Bits],
) -> [[S::V; R]; W] {
    assert!(x.len() == R * inputs && weight.len() == W * inputs);
    let mut sums = [[simd.splat(0.0); R]; W];
    let whole = inputs - inputs % S::LANES;
    let by = AHEAD / size_of::<F::Bits>();
    let mut p = 0;
    while p < whole {
        // SAFETY: `p + LANES <= inputs`, and there are `R` and `W` rows of `inputs`.
        unsafe {
            let x = x.as_ptr().add(p);
            let weight = weight.as_ptr().add(p);
            // Behind the end of a row lies the next, which is walked beside it.
            let behind = if p + by < inputs {
                0
            } else {
                (GROUP - 1) * inputs
            };
            step::<S, F, R, W>(simd, x, weight, inputs, by + behind, &mut sums);
        }
        p += S::LANES;
    }
    if whole < inputs {
        let tail = inputs - whole;
        let mut ends = [[0.0; MAX_LANES]; R];
        for (end, row) in ends.iter_mut().zip(x.chunks_exact(inputs)) {
            end[..tail].copy_from_slice(&row[whole..]);
        }
        let mut weight_ends = [[F::ZERO; MAX_LANES]; W];
        for (end, row) in weight_ends.iter_mut().zip(weight.chunks_exact(inputs)) {
            end[..tail].copy_from_slice(&row[whole..]);
        }
        // SAFETY: the rows are `MAX_LANES >= LANES` long.
        unsafe {
            let (x, weight) = (ends.as_ptr().cast(), weight_ends.as_ptr().cast());
            step::<S, F, R, W>(simd, x, weight, MAX_LANES, 0, &mut sums);
        }
    }
    sums
}

/// Adds the products of one vector of inputs, and asks for the weights that lie so far `ahead`.
///
/// # Safety
///
/// `x` and `weight` point to `LANES` values in each of `R` and `W` rows that are `stride` apart.
#[inline(always)]
unsafe fn step<S: Simd, F: Format, const R: usize, const W: usize>(
    simd: S,
    x: *const f32,
    weight: *const F::Bits,
    stride: usize,
    ahead: usize,
    sums: &mut [[S::V; R]; W],
) {
    let mut inputs = [simd.splat(0.0); R];
    for (r, input) in inputs.iter_mut().enumerate() {
        // SAFETY: the caller's.
        *input = unsafe { simd.load(x.add(r * stride)) };
    }
    for (j, sums) in sums.iter_mut().enumerate() {
        let weight = weight.wrapping_add(j * stride);
        simd.prefetch(weight.wrapping_add(ahead).cast());
        // SAFETY: the caller's.
        let weight = unsafe { F::load(simd, weight) };
        for (sum, input) in sums.iter_mut().zip(inputs) {
            *sum = simd.mul_add(input, weight, *sum);
        }
    }
}
