//! Norms over the last dimension.

use super::PART;
use crate::Kernels;
use crate::buffer::Shared;
use crate::dispatch::Job;
use crate::simd::{Kernel, Simd};
use crate::strides::{LayerError, check_len};
use crate::threads::for_each_part;

/// About as many multiplications take as long as one element.
const COST: usize = 8;

/// Sums beside each other, since an addition takes several cycles.
const SUMS: usize = 4;

/// The operands: `x` and `out` are `[rows, width]`.
struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    /// Given where the mean is taken off (layer norm).
    bias: Option<&'a [f32]>,
    eps: f64,
    out: &'a mut [f32],
}

impl Job for Norm<'_> {
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            weight,
            bias,
            eps,
            out,
        } = self;
        let width = weight.len();
        let part = (PART / width).max(1) * width;
        let (len, out) = (x.len(), Shared::new(out));
        for_each_part(len.div_ceil(part), len * COST, |i| {
            let start = i * part;
            let count = part.min(len - start);
            simd.vectorize(Norm {
                x: &x[start..start + count],
                weight,
                bias,
                eps,
                // SAFETY: every part has its own rows.
                out: unsafe { out.part(start, count) },
            });
        });
    }
}

impl Kernel for Norm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact(width);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(width)) {
            match self.bias {
                Some(bias) => layer(simd, x, self.weight, bias, self.eps, out),
                None => rms(simd, x, self.weight, self.eps, out),
            }
        }
    }
}

/// `x / √(mean(x²) + eps) ⊙ weight`.
#[inline(always)]
fn rms<S: Simd>(simd: S, x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    let square = sum::<S, true>(simd, x, 0.0);
    let scale = simd.splat(scale(square, x.len(), eps));
    assert!(weight.len() == x.len() && out.len() == x.len());
    let (len, whole) = (x.len(), x.len() - x.len() % S::LANES);
    let mut i = 0;
    while i < whole {
        // SAFETY: `i + LANES <= len`, the length of all.
        unsafe {
            let weighted = simd.mul(scale, simd.load(weight.as_ptr().add(i)));
            let value = simd.mul(simd.load(x.as_ptr().add(i)), weighted);
            simd.store(out.as_mut_ptr().add(i), value);
        }
        i += S::LANES;
    }
    if whole < len {
        let rest = len - whole;
        // SAFETY: `rest < LANES` values are left of all.
        unsafe {
            let weight = simd.load_first(weight.as_ptr().add(whole), rest);
            let x = simd.load_first(x.as_ptr().add(whole), rest);
            let value = simd.mul(x, simd.mul(scale, weight));
            simd.store_first(out.as_mut_ptr().add(whole), value, rest);
        }
    }
}

/// `(x − mean) / √(var + eps) ⊙ weight + bias`, with the variance from a second pass: that of the
/// squares and the mean cancels where the mean is large.
#[inline(always)]
fn layer<S: Simd>(simd: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f64, out: &mut [f32]) {
    let mean = sum::<S, false>(simd, x, 0.0) / x.len() as f32;
    let square = sum::<S, true>(simd, x, mean);
    let scale = simd.splat(scale(square, x.len(), eps));
    let mean = simd.splat(mean);
    assert!(weight.len() == x.len() && bias.len() == x.len() && out.len() == x.len());
    let (len, whole) = (x.len(), x.len() - x.len() % S::LANES);
    let mut i = 0;
    while i < whole {
        // SAFETY: `i + LANES <= len`, the length of all.
        unsafe {
            let centred = simd.sub(simd.load(x.as_ptr().add(i)), mean);
            let weight = simd.load(weight.as_ptr().add(i));
            let bias = simd.load(bias.as_ptr().add(i));
            let value = simd.mul_add(simd.mul(centred, scale), weight, bias);
            simd.store(out.as_mut_ptr().add(i), value);
        }
        i += S::LANES;
    }
    if whole < len {
        let rest = len - whole;
        // SAFETY: `rest < LANES` values are left of all.
        unsafe {
            let centred = simd.sub(simd.load_first(x.as_ptr().add(whole), rest), mean);
            let weight = simd.load_first(weight.as_ptr().add(whole), rest);
            let bias = simd.load_first(bias.as_ptr().add(whole), rest);
            let value = simd.mul_add(simd.mul(centred, scale), weight, bias);
            simd.store_first(out.as_mut_ptr().add(whole), value, rest);
        }
    }
}

/// `1 / √(sum / len + eps)`.
#[inline(always)]
fn scale(sum: f32, len: usize, eps: f64) -> f32 {
    (1.0 / (f64::from(sum) / len as f64 + eps).sqrt()) as f32
}

/// `Σ x − mean`, or of its squares.
#[inline(always)]
fn sum<S: Simd, const SQUARE: bool>(simd: S, x: &[f32], mean: f32) -> f32 {
    let centre = simd.splat(mean);
    let mut sums = [simd.splat(0.0); SUMS];
    let whole = x.len() - x.len() % S::LANES;
    let block = SUMS * S::LANES;
    let mut i = 0;
    while i + block <= whole {
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: within a block that ends before `whole`.
            let value = simd.sub(
                unsafe { simd.load(x.as_ptr().add(i + j * S::LANES)) },
                centre,
            );
            *sum = term::<S, SQUARE>(simd, value, *sum);
        }
        i += block;
    }
    while i < whole {
        // SAFETY: `i + LANES <= whole`.
        let value = simd.sub(unsafe { simd.load(x.as_ptr().add(i)) }, centre);
        sums[0] = term::<S, SQUARE>(simd, value, sums[0]);
        i += S::LANES;
    }
    let mut rest = 0.0;
    for &value in &x[whole..] {
        let value = value - mean;
        rest += if SQUARE { value * value } else { value };
    }
    let halves = (simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    simd.sum(simd.add(halves.0, halves.1)) + rest
}

#[inline(always)]
fn term<S: Simd, const SQUARE: bool>(simd: S, value: S::V, sum: S::V) -> S::V {
    if SQUARE {
        simd.mul_add(value, value, sum)
    } else {
        simd.add(value, sum)
    }
}

impl Kernels {
    /// `out = x / √(mean(x²) + eps) ⊙ weight` over rows as long as `weight` (Zhang & Sennrich,
    /// 2019, arXiv:1910.07467).
    ///
    /// # Errors
    ///
    /// [`LayerError`] if `x` is not whole rows, or `out` not as long as `x`.
    pub fn rms_norm(
        self,
        x: &[f32],
        weight: &[f32],
        eps: f64,
        out: &mut [f32],
    ) -> Result<(), LayerError> {
        self.norm(x, weight, None, eps, out)
    }

    /// `out = (x − mean) / √(var + eps) ⊙ weight + bias` over rows as long as `weight` (Ba et al.,
    /// 2016, arXiv:1607.06450).
    ///
    /// # Errors
    ///
    /// [`LayerError`] if `x` is not whole rows, `bias` not as long as `weight`, or `out` not as long
    /// as `x`.
    pub fn layer_norm(
        self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        eps: f64,
        out: &mut [f32],
    ) -> Result<(), LayerError> {
        check_len("bias", bias.len(), weight.len())?;
        self.norm(x, weight, Some(bias), eps, out)
    }

    fn norm(
        self,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        eps: f64,
        out: &mut [f32],
    ) -> Result<(), LayerError> {
        let rows = x.len().checked_div(weight.len()).unwrap_or(0);
        check_len("x", x.len(), rows * weight.len())?;
        check_len("out", out.len(), x.len())?;
        if rows > 0 {
            self.run(Norm {
                x,
                weight,
                bias,
                eps,
                out,
            });
        }
        Ok(())
    }
}
