//! Functions of single elements, norms of rows, and rotations.
//!
//! Each vector is loaded once and stored once (norms read their row again while it is in cache), so
//! that beyond what the caches hold the memory bounds them all. A row, or an element, gives the
//! same on any number of threads.

mod activation;
mod norm;
mod rotary;

use crate::Kernels;
use crate::buffer::Shared;
use crate::dispatch::Job;
use crate::simd::{Kernel, Simd};
use crate::strides::{LayerError, check_len};
use crate::threads::for_each_part;

/// Elements that a thread takes at a time.
pub(crate) const PART: usize = 1 << 13;

/// A function of single elements, in place.
pub(crate) trait Function: Copy + Send + Sync {
    /// About as many multiplications take as long as one element.
    const COST: usize;

    /// Must be `inline(always)`.
    fn apply<S: Simd>(self, simd: S, x: S::V, y: S::V) -> S::V;
}

/// `x = f(x, y)`; `y` is as long as `x`, or empty and not used.
struct InPlace<'a, F> {
    function: F,
    x: &'a mut [f32],
    y: &'a [f32],
}

impl<F: Function> Job for InPlace<'_, F> {
    fn run<S: Simd>(self, simd: S) {
        let Self { function, x, y } = self;
        let len = x.len();
        let out = Shared::new(x);
        for_each_part(len.div_ceil(PART), len * F::COST, |i| {
            let start = i * PART;
            let count = PART.min(len - start);
            simd.vectorize(Part {
                function,
                // SAFETY: every part has its own elements.
                x: unsafe { out.part(start, count) },
                y: y.get(start..start + count).unwrap_or(&[]),
            });
        });
    }
}

struct Part<'a, F> {
    function: F,
    x: &'a mut [f32],
    y: &'a [f32],
}

impl<F: Function> Kernel for Part<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { function, x, y } = self;
        let binary = !y.is_empty();
        assert!(!binary || y.len() == x.len());
        let (x, len) = (x.as_mut_ptr(), x.len());
        let y = if binary { y.as_ptr() } else { x.cast_const() };
        let whole = len - len % S::LANES;
        let mut i = 0;
        while i < whole {
            // SAFETY: `i + LANES <= len`, the length of both.
            unsafe {
                let value = function.apply(simd, simd.load(x.add(i)), simd.load(y.add(i)));
                simd.store(x.add(i), value);
            }
            i += S::LANES;
        }
        if whole < len {
            let rest = len - whole;
            // SAFETY: `rest < LANES` elements are left of both.
            unsafe {
                let (x, y) = (x.add(whole), y.add(whole));
                let (a, b) = (simd.load_first(x, rest), simd.load_first(y, rest));
                simd.store_first(x, function.apply(simd, a, b), rest);
            }
        }
    }
}

/// Narrows to bfloat16.
struct Narrow<'a> {
    x: &'a [f32],
    out: &'a mut [u16],
}

impl Narrow<'_> {
    /// About as many multiplications take as long as one element.
    const COST: usize = 8;
}

impl Job for Narrow<'_> {
    fn run<S: Simd>(self, simd: S) {
        let Self { x, out } = self;
        assert_eq!(x.len(), out.len());
        let out = Shared::new(out);
        for_each_part(x.len().div_ceil(PART), x.len() * Self::COST, |i| {
            let x = &x[i * PART..x.len().min((i + 1) * PART)];
            // SAFETY: every part has its own elements.
            let out = unsafe { out.part(i * PART, x.len()) };
            simd.vectorize(Narrow { x, out });
        });
    }
}

impl Kernel for Narrow<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, out } = self;
        assert_eq!(x.len(), out.len());
        let whole = x.len() - x.len() % S::LANES;
        let mut i = 0;
        while i < whole {
            // SAFETY: `i + LANES` is at most the length of both.
            unsafe { simd.store_bf16(out.as_mut_ptr().add(i), simd.load(x.as_ptr().add(i))) };
            i += S::LANES;
        }
        let mut last = [0; crate::simd::MAX_LANES];
        // SAFETY: fewer than `LANES` values are left, and `last` holds `LANES`.
        unsafe {
            let value = simd.load_first(x.as_ptr().add(whole), x.len() - whole);
            simd.store_bf16(last.as_mut_ptr(), value);
        }
        let rest = x.len() - whole;
        out[whole..].copy_from_slice(&last[..rest]);
    }
}

impl Kernels {
    /// `x = ½ x (1 + erf(x / √2))`, the exact form, in place. The error is at most
    /// 2e-7 · max(1, |x|); infinities give their limits, NaN gives NaN.
    pub fn gelu(self, x: &mut [f32]) {
        self.run(InPlace {
            function: activation::Gelu,
            x,
            y: &[],
        });
    }

    /// `gate = gate / (1 + e^−gate) ⊙ up`, in place. The relative error is at most 6e-7, and below
    /// a gate of −87, where the result is less than 2e-36 |up|, it may be 0.
    ///
    /// # Errors
    ///
    /// [`LayerError`] if `up` is not as long as `gate`.
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) -> Result<(), LayerError> {
        check_len("up", up.len(), gate.len())?;
        self.run(InPlace {
            function: activation::Swiglu,
            x: gate,
            y: up,
        });
        Ok(())
    }

    /// Narrows to bfloat16, to the nearest, of two the even one: how a cache is written. NaN stays
    /// NaN.
    ///
    /// # Errors
    ///
    /// [`LayerError`] if `out` is not as long as `x`.
    pub fn narrow(self, x: &[f32], out: &mut [u16]) -> Result<(), LayerError> {
        check_len("out", out.len(), x.len())?;
        self.run(Narrow { x, out });
        Ok(())
    }
}
