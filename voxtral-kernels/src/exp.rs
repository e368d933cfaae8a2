//! Exponential functions of vectors.

use crate::simd::Simd;

/// `2^r = 1 + r p(r)` for `|r| ≤ 1/2`: the polynomial `p` whose largest relative error in `2^r` is
/// least, 3.1e-9 (Remez by weights, Lawson 1961, rounded to `f32` coefficient by coefficient).
const EXP2: [f32; 6] = [
    std::f32::consts::LN_2,
    0.240_226_48,
    0.055_503_592,
    0.009_618_499,
    0.001_339_118_8,
    0.000_153_295_9,
];

/// A number whose spacing is 1, so that adding it rounds to an integer, and whose lowest bits are
/// the exponent of 1, so that they become the exponent of the power.
const ROUND: f32 = 12_582_912.0 + 127.0;

/// Where powers of two become subnormal.
const LEAST: f32 = -126.0;

/// `2^x` for `x ≤ 0`, 0 below 2⁻¹²⁶, exactly 1 at 0, NaN of NaN. The relative error is at most
/// 1.3e-7.
#[inline(always)]
pub(crate) fn exp2_negative<S: Simd>(simd: S, x: S::V) -> S::V {
    // A constant first: NaN stays.
    let bounded = simd.max(simd.splat(LEAST), x);
    let rounded = simd.add(bounded, simd.splat(ROUND));
    let r = simd.sub(bounded, simd.sub(rounded, simd.splat(ROUND)));
    let power = scaled(simd, r, rounded);
    simd.if_less(x, simd.splat(LEAST), simd.splat(0.0), power)
}

/// `2^(a x)` for `a > 0` and `x ≤ 0`, 0 below 2^−126.5, exactly 1 at 0, NaN of NaN.
#[inline(always)]
pub(crate) fn exp2_scaled<S: Simd>(simd: S, x: S::V, a: f32) -> S::V {
    // The exponent of 0 is that of 2⁻¹²⁷. A constant first: NaN stays.
    let x = simd.max(simd.splat(-127.0 / a), x);
    let rounded = simd.mul_add(x, simd.splat(a), simd.splat(ROUND));
    let n = simd.sub(simd.splat(ROUND), rounded);
    let r = simd.mul_add(x, simd.splat(a), n);
    scaled(simd, r, rounded)
}

/// `e^x` for `x ≤ 0`, 0 below e⁻⁸⁷, NaN of NaN. The relative error is at most 2e-7.
#[inline(always)]
pub(crate) fn exp_negative<S: Simd>(simd: S, x: S::V) -> S::V {
    const LEAST: f32 = -87.0;
    // ln 2 in two parts, the first of so few bits that its products with integers are exact, with
    // or without fused multiplication (Cody & Waite 1980).
    const LN2: [f32; 2] = [-355.0 / 512.0, 2.121_944_4e-4];
    let bounded = simd.max(simd.splat(LEAST), x);
    let log2_e = simd.splat(std::f32::consts::LOG2_E);
    let rounded = simd.mul_add(bounded, log2_e, simd.splat(ROUND));
    let n = simd.sub(rounded, simd.splat(ROUND));
    let r = simd.mul_add(n, simd.splat(LN2[0]), bounded);
    let r = simd.mul_add(n, simd.splat(LN2[1]), r);
    let power = scaled(simd, simd.mul(r, log2_e), rounded);
    simd.if_less(x, simd.splat(LEAST), simd.splat(0.0), power)
}

/// `2^(r + n)`, where `rounded` is `n + ROUND`.
#[inline(always)]
fn scaled<S: Simd>(simd: S, r: S::V, rounded: S::V) -> S::V {
    let mut p = simd.splat(EXP2[5]);
    let mut i = 5;
    while i > 0 {
        i -= 1;
        p = simd.mul_add(p, r, simd.splat(EXP2[i]));
    }
    p = simd.mul_add(p, r, simd.splat(1.0));
    simd.mul(p, simd.power(rounded))
}
