//! The innermost loop of a product of many rows.

use crate::simd::Simd;

/// Inputs that are multiplied before their sum goes back to memory. A tile reads `DEPTH` values
/// of each of its rows, so a panel of inputs and a few weight rows fit the first-level cache.
pub(crate) const DEPTH: usize = 256;

/// Distance of widened weight rows: a power of two would put them all into one set of the cache.
pub(crate) const STRIDE: usize = DEPTH + 16;

/// The operands of [`tile`].
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Inputs to multiply, at most [`DEPTH`].
    pub(crate) depth: usize,
    /// `[depth, R]`: the inputs of `R` rows.
    pub(crate) x: *const f32,
    /// `[W, STRIDE]`: the weight rows, of which `depth` values are read.
    pub(crate) weight: *const f32,
    /// `[W, R]`: the sums.
    pub(crate) sums: *mut f32,
    /// Whether the products are added to what `sums` holds, or replace it.
    pub(crate) add: bool,
}

/// `sums[j, r] (+)= Σ_p weight[j, p] x[p, r]` for `W` weight rows and `R = V · LANES` input rows:
/// `W · V` sums stay in registers. Every sum runs over `p` in order.
///
/// # Safety
///
/// The pointers are valid for the shapes that [`Tile`] states.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const W: usize, const V: usize>(simd: S, of: Tile) {
    let mut sums = [[simd.splat(0.0); V]; W];
    let mut x = of.x;
    for p in 0..of.depth {
        let mut inputs = [simd.splat(0.0); V];
        for (v, input) in inputs.iter_mut().enumerate() {
            // SAFETY: `x` is at row `p` of `[depth, V · LANES]`.
            *input = unsafe { simd.load(x.add(v * S::LANES)) };
        }
        for (j, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `j < W` and `p < depth <= STRIDE`.
            let weight = simd.splat(unsafe { *of.weight.add(j * STRIDE + p) });
            for (sum, input) in sums.iter_mut().zip(inputs) {
                *sum = simd.mul_add(weight, input, *sum);
            }
        }
        x = x.wrapping_add(V * S::LANES);
    }
    for (j, sums) in sums.into_iter().enumerate() {
        for (v, mut sum) in sums.into_iter().enumerate() {
            // SAFETY: within `[W, V · LANES]`.
            unsafe {
                let to = of.sums.add((j * V + v) * S::LANES);
                if of.add {
                    sum = simd.add(sum, simd.load(to));
                }
                simd.store(to, sum);
            }
        }
    }
}
