//! GELU and SwiGLU.

use super::Function;
use crate::exp::{exp_negative, exp2_negative};
use crate::simd::Simd;

/// `½ x (1 + erf(x / √2)) = max(x, 0) − ½ |x| erfc(|x| / √2)`, where nothing cancels.
#[derive(Clone, Copy)]
pub(super) struct Gelu;

/// `erfc(u / √2) = 2^(−u r(u))` for `0 ≤ u ≤ 13.1`: the polynomial `r` whose largest error in
/// GELU, relative to `max(1, u)`, is least: 1.1e-8 (as the coefficients of `2^r` were found). The
/// exponent is below −126 at the end, so that nothing is left.
const ERFC: [f32; 9] = [
    1.151_112_4,
    0.459_150_3,
    0.052_664_18,
    -0.007_299_650_5,
    0.000_313_679_02,
    0.000_115_571_52,
    -2.582_290_3e-5,
    2.100_987_6e-6,
    -6.053_87e-8,
];

/// The end of the interval.
const FAR: f32 = 13.1;

impl Function for Gelu {
    const COST: usize = 32;

    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V, _: S::V) -> S::V {
        // Constants first: NaN stays.
        let u = simd.min(simd.splat(FAR), simd.abs(x));
        let positive = simd.max(simd.splat(0.0), x);
        let mut r = simd.splat(ERFC[8]);
        let mut i = 8;
        while i > 0 {
            i -= 1;
            r = simd.mul_add(r, u, simd.splat(ERFC[i]));
        }
        let negative = simd.mul(u, simd.splat(-1.0));
        let erfc = exp2_negative(simd, simd.mul(negative, r));
        simd.mul_add(simd.mul(negative, simd.splat(0.5)), erfc, positive)
    }
}

/// `x / (1 + e^−x) · y`, of which `e^−|x|` never overflows.
#[derive(Clone, Copy)]
pub(super) struct Swiglu;

impl Function for Swiglu {
    const COST: usize = 32;

    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::V, y: S::V) -> S::V {
        let one = simd.splat(1.0);
        let e = exp_negative(simd, simd.mul(simd.abs(x), simd.splat(-1.0)));
        // Where `e` is 0, and not −∞ · 0.
        let x = simd.max(simd.splat(-200.0), x);
        let numerator = simd.mul(x, simd.if_less(x, simd.splat(0.0), e, one));
        simd.mul(simd.div(numerator, simd.add(one, e)), y)
    }
}
