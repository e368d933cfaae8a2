//! Weights in 4 bits: what a code stands for, and how the scale, the steps and the codes of 64
//! weights are found.
//!
//! A block sees the scale `d` and its step only as their product. So the error of each block is
//! taken once at each of a few products near its largest weight, on a grid that holds the steps;
//! a scale is then judged by one look-up for each size of step. What is best on the grid is made
//! exact: with levels as they are rounded, the neighbouring steps, and a scale by least squares.
//!
//! Plain loops over the 16 weights of a block, which the compiler vectorizes. Every sum has one
//! order and no product is fused, so every processor finds the same.

use std::ops::Range;

use half::f16;

use super::{BLOCK, UNIT};

/// What the codes of [`Quant::Q4`](super::Quant::Q4) stand for, rising.
pub(crate) const CODES: [i8; 16] = [
    -127, -103, -78, -57, -41, -28, -18, -8, 0, 9, 19, 30, 43, 56, 72, 94,
];

/// The code of zero.
pub(super) const ZERO: u8 = 8;

/// What a block's values are multiplied by, in 128ths: near to 127 · 2^(−k/4), and the same below
/// zero, since the codes reach further below zero than above.
pub(crate) const STEPS: [i16; 16] = [
    38, 45, 53, 64, 76, 90, 107, 127, -38, -45, -53, -64, -76, -90, -107, -127,
];

/// What code `q` of a block with step `s` stands for, without the row's scale.
pub(crate) const fn level(q: usize, s: usize) -> i8 {
    ((CODES[q] as i16 * STEPS[s] + 64) >> 7) as i8
}

/// [`level`] of each step and code.
pub(super) const LEVELS: [[f32; 16]; 16] = {
    let mut levels = [[0.0; 16]; 16];
    let mut i = 0;
    while i < 256 {
        levels[i / 16][i % 16] = level(i % 16, i / 16) as f32;
        i += 1;
    }
    levels
};

/// The levels of each step and what lies between them, with the sign of the step: both rise.
const RISING: [([f32; 16], [f32; 15]); 16] = {
    let mut rising = [([0.0; 16], [0.0; 15]); 16];
    let mut s = 0;
    while s < 16 {
        let (levels, between) = &mut rising[s];
        let mut q = 0;
        while q < 16 {
            levels[q] = LEVELS[s][q] * sign(s);
            if q > 0 {
                between[q - 1] = (levels[q - 1] + levels[q]) / 2.0;
            }
            q += 1;
        }
        s += 1;
    }
    rising
};

/// Of step `s`.
const fn sign(s: usize) -> f32 {
    if STEPS[s] < 0 { -1.0 } else { 1.0 }
}

/// Blocks of a unit.
const BLOCKS: usize = UNIT / BLOCK;

/// Sizes of steps, which rise: the size of step `s` is `s % SIZES`.
const SIZES: usize = 8;

/// Points of the grid from one size to the next.
const POINTS: usize = 4;

/// The factor between points of the grid: that between sizes, 2^¼, to the power of 1 / `POINTS`.
const FACTOR: f64 = 1.044_273_782_427_413_8;

/// Points of the grid at which the error of a block is taken.
const WINDOW: usize = 16;

/// The first of them where the largest weight of the block is 1, in units of 1 / 127. With 1 the
/// largest weight has the largest code; with less it is cut off.
const FIRST: f64 = 1.6;

/// Points of the grid at which the error of any block is taken.
const GRID_LEN: usize = WINDOW + (SIZES - 1) * POINTS;

/// What a code is multiplied by where the largest weight of a unit is 1, falling.
const GRID: [f32; GRID_LEN] = {
    let mut grid = [0.0; GRID_LEN];
    let mut point = FIRST / 127.0;
    let mut i = 0;
    while i < GRID_LEN {
        grid[i] = point as f32;
        point /= FACTOR;
        i += 1;
    }
    grid
};

/// `2c` and `c²` of each code: `(x − c)² = x² − (2c x − c²)`.
const PARABOLAS: [(f32, f32); 16] = {
    let mut parts = [(0.0, 0.0); 16];
    let mut q = 0;
    while q < 16 {
        let code = CODES[q] as f32;
        parts[q] = (2.0 * code, code * code);
        q += 1;
    }
    parts
};

/// The magnitude that the largest scale reaches.
pub(super) const LARGEST: f32 = 126.0 * 65504.0;

/// The smallest scale above zero.
const SMALLEST: f32 = 1.0 / (1 << 24) as f32;

/// 64 quantized weights of a row.
pub(super) struct Unit {
    pub(super) scale: f16,
    /// The steps of the blocks, four bits each, the first the lowest.
    pub(super) steps: u16,
    pub(super) codes: [u8; UNIT],
}

type Block = [f32; BLOCK];

/// Quantizes weights of magnitudes up to [`LARGEST`].
#[inline(always)]
pub(super) fn quantize(values: &[f32; UNIT]) -> Unit {
    let mut unit = Unit {
        scale: f16::ZERO,
        steps: 0,
        codes: [ZERO; UNIT],
    };
    let mut blocks = [[0.0; BLOCK]; BLOCKS];
    let mut sizes = [0.0; BLOCKS];
    let mut largest = 0.0;
    for b in 0..BLOCKS {
        blocks[b].copy_from_slice(&values[b * BLOCK..][..BLOCK]);
        sizes[b] = fold(each(&blocks[b], f32::abs), max);
        largest = max(largest, sizes[b]);
    }
    if largest < SMALLEST {
        return unit;
    }
    let inverse = 1.0 / largest;
    for size in &mut sizes {
        *size *= inverse;
    }
    let (wanted, mut steps) = search(&scaled(&blocks, inverse), sizes);
    let wanted = wanted * largest;
    let scale = fit(&blocks, wanted, steps).to_f32();

    let scaled = scaled(&blocks, 1.0 / scale);
    // An f16 may be far from what was wanted where it is subnormal or the largest.
    let far = (scale - wanted).abs() > wanted / 8.0;
    for (b, (block, s)) in scaled.iter().zip(&mut steps).enumerate() {
        *s = best(block, if far { 0..2 * SIZES } else { neighbours(*s) });
        unit.steps |= (*s as u16) << (4 * b);
        unit.codes[b * BLOCK..][..BLOCK].copy_from_slice(&nearest_codes(block, *s));
    }
    unit.scale = fit(&blocks, scale, steps);
    unit
}

/// Steps of one sign, of sizes next to that of `s`.
#[inline(always)]
fn neighbours(s: usize) -> Range<usize> {
    let (signed, size) = (s / SIZES * SIZES, s % SIZES);
    signed + size.saturating_sub(1)..signed + (size + 2).min(SIZES)
}

/// The scale and the steps that are best on the grid, for blocks whose largest weights are
/// `largest`, of which the largest is 1.
#[inline(always)]
fn search(blocks: &[Block; BLOCKS], largest: [f32; BLOCKS]) -> (f32, [usize; BLOCKS]) {
    // Of each block, with steps above and below zero; infinite outside of the window.
    let mut errors = [[[f32::INFINITY; GRID_LEN]; 2]; BLOCKS];
    for b in 0..BLOCKS {
        // Of a block that is too small for any step, the last points.
        let mut start = 0;
        while start < GRID_LEN - WINDOW && GRID[start] > GRID[0] * 1.001 * largest[b] {
            start += 1;
        }
        let mut points = [0.0; WINDOW];
        points.copy_from_slice(&GRID[start..][..WINDOW]);
        for (errors, found) in errors[b].iter_mut().zip(errors_at(&blocks[b], &points)) {
            errors[start..][..WINDOW].copy_from_slice(&found);
        }
    }
    // Of the unit, where the largest step is at each of the first points.
    let mut sums = [0.0; WINDOW];
    for errors in &errors {
        let mut least = [f32::INFINITY; WINDOW];
        for errors in errors {
            for size in 0..SIZES {
                let errors = &errors[size * POINTS..][..WINDOW];
                for i in 0..WINDOW {
                    least[i] = min(least[i], errors[i]);
                }
            }
        }
        for i in 0..WINDOW {
            sums[i] += least[i];
        }
    }
    let mut first = 0;
    for i in 1..WINDOW {
        if sums[i] < sums[first] {
            first = i;
        }
    }
    let mut steps = [0; BLOCKS];
    for (step, errors) in steps.iter_mut().zip(&errors) {
        let mut least = f32::INFINITY;
        for s in 0..2 * SIZES {
            let error = errors[s / SIZES][first + (SIZES - 1 - s % SIZES) * POINTS];
            if error < least {
                (least, *step) = (error, s);
            }
        }
    }
    (GRID[first] * (128.0 / 127.0), steps)
}

/// The square errors of a block whose codes are multiplied by each of some factors, and by the
/// factors with the other sign.
#[inline(always)]
fn errors_at(block: &Block, factors: &[f32; WINDOW]) -> [[f32; WINDOW]; 2] {
    let mut inverses = [0.0; WINDOW];
    for i in 0..WINDOW {
        inverses[i] = 1.0 / factors[i];
    }
    let mut errors = [[0.0; WINDOW]; 2];
    for &value in block {
        let mut x = [0.0; WINDOW];
        for i in 0..WINDOW {
            x[i] = value * inverses[i];
        }
        let mut above = [f32::MIN; WINDOW];
        let mut below = [f32::MAX; WINDOW];
        for (twice, square) in PARABOLAS {
            for i in 0..WINDOW {
                let product = twice * x[i];
                above[i] = max(above[i], product - square);
                below[i] = min(below[i], product + square);
            }
        }
        for i in 0..WINDOW {
            errors[0][i] += x[i] * x[i] - above[i];
            errors[1][i] += x[i] * x[i] + below[i];
        }
    }
    for errors in &mut errors {
        for i in 0..WINDOW {
            errors[i] *= factors[i] * factors[i];
        }
    }
    errors
}

/// The step of least square error.
#[inline(always)]
fn best(scaled: &Block, steps: Range<usize>) -> usize {
    let mut found = (f32::INFINITY, steps.start);
    for s in steps {
        let mut gains = [f32::MIN; BLOCK];
        for level in LEVELS[s] {
            for i in 0..BLOCK {
                gains[i] = max(gains[i], level * (2.0 * scaled[i] - level));
            }
        }
        let error = -fold(gains, |a, b| a + b);
        if error < found.0 {
            found = (error, s);
        }
    }
    found.1
}

/// The scale of least square error with the levels that are nearest by `scale`.
#[inline(always)]
fn fit(blocks: &[Block; BLOCKS], scale: f32, steps: [usize; BLOCKS]) -> f16 {
    let inverse = 1.0 / scale;
    let (mut products, mut squares) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (block, s) in blocks.iter().zip(steps) {
        let x = each(block, |x| x * sign(s));
        let (levels, between) = &RISING[s];
        let mut nearest = [levels[0]; BLOCK];
        for (&level, &between) in levels[1..].iter().zip(between) {
            for i in 0..BLOCK {
                nearest[i] = if x[i] * inverse > between {
                    level
                } else {
                    nearest[i]
                };
            }
        }
        for i in 0..BLOCK {
            products[i] += nearest[i] * x[i];
            squares[i] += nearest[i] * nearest[i];
        }
    }
    let (products, squares) = (fold(products, |a, b| a + b), fold(squares, |a, b| a + b));
    let scale = if squares > 0.0 {
        products / squares
    } else {
        scale
    };
    f16::from_f32(scale.clamp(SMALLEST, f16::MAX.to_f32()))
}

/// The codes of the nearest levels.
#[inline(always)]
fn nearest_codes(scaled: &Block, s: usize) -> [u8; BLOCK] {
    let x = each(scaled, |x| x * sign(s));
    let mut codes = [0_u32; BLOCK];
    for &between in &RISING[s].1 {
        for i in 0..BLOCK {
            codes[i] += u32::from(x[i] > between);
        }
    }
    let mut bytes = [0; BLOCK];
    for (byte, code) in bytes.iter_mut().zip(codes) {
        *byte = code as u8;
    }
    bytes
}

/// As the instructions of processors do it, which `f32::max` does not of NaN.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// As [`max`].
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn scaled(blocks: &[Block; BLOCKS], factor: f32) -> [Block; BLOCKS] {
    let mut scaled = *blocks;
    for block in &mut scaled {
        *block = each(block, |x| x * factor);
    }
    scaled
}

/// Not `map` of arrays, which is not always inlined.
#[inline(always)]
fn each(block: &Block, f: impl Fn(f32) -> f32) -> Block {
    let mut out = [0.0; BLOCK];
    for i in 0..BLOCK {
        out[i] = f(block[i]);
    }
    out
}

/// All 16 in one, halves first.
#[inline(always)]
fn fold(mut values: Block, combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            values[i] = combine(values[i], values[i + half]);
        }
    }
    values[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_distinct_and_keep_zero() {
        for (s, (levels, _)) in RISING.iter().enumerate() {
            assert!(levels.is_sorted_by(|a, b| a < b), "step {s}: {levels:?}");
            assert_eq!(level(ZERO.into(), s), 0);
        }
        for (s, step) in STEPS.into_iter().enumerate() {
            for (q, code) in CODES.into_iter().enumerate() {
                let product = i32::from(code) * i32::from(step);
                assert_eq!(i32::from(level(q, s)), (product + 64).div_euclid(128));
            }
        }
        let farthest = LEVELS.iter().flatten().fold(0.0, |a, b| max(a, b.abs()));
        assert_eq!(LARGEST, farthest * f16::MAX.to_f32());
    }

    #[test]
    fn steps_are_on_the_grid() {
        for s in 0..16 {
            let point = GRID[(SIZES - 1 - s % SIZES) * POINTS] / GRID[0] * 127.0;
            let step = f32::from(STEPS[s]) * sign(s);
            assert!(
                (step / point - 1.0).abs() < 0.01,
                "step {s}: {step}, {point}"
            );
        }
    }

    /// The square error of a unit, relative to that of the best of many scales with the best of
    /// all steps and codes.
    #[test]
    fn the_search_is_near_the_best() {
        let (mut errors, mut least_errors) = (0.0, 0.0);
        for seed in 1..40_u32 {
            // The product of two numbers is heavy-tailed.
            let noise = |i: u32| (((seed * 97 + i) as f64 * 12.9898).sin() * 43_758.545_3).fract();
            let values: [f32; UNIT] =
                std::array::from_fn(|i| (noise(i as u32) * noise(1000 + i as u32)) as f32);
            let unit = quantize(&values);
            let scale = unit.scale.to_f32();
            errors += values.iter().enumerate().fold(0.0, |sum, (i, x)| {
                let s = unit.steps >> (4 * (i / BLOCK)) & 15;
                let level = level(unit.codes[i].into(), s.into());
                sum + (x - scale * f32::from(level)).powi(2)
            });
            let error_of = |scale: f32| -> f32 {
                let of_block = |block: &[f32]| {
                    let of_step = LEVELS.iter().map(|levels| -> f32 {
                        let nearest = block.iter().map(|x| {
                            let errors = levels.iter().map(|level| (x - scale * level).powi(2));
                            errors.fold(f32::MAX, f32::min)
                        });
                        nearest.sum()
                    });
                    of_step.fold(f32::MAX, f32::min)
                };
                values.chunks_exact(BLOCK).map(of_block).sum()
            };
            let scales = (0..200).map(|i| scale * 1.01_f32.powi(i - 100));
            least_errors += scales.map(error_of).fold(f32::MAX, f32::min);
        }
        let ratio = errors / least_errors;
        assert!((0.99..1.1).contains(&ratio), "{ratio}");
    }
}
