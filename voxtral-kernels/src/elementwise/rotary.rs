//! Rotary position embedding.

use super::PART;
use crate::Kernels;
use crate::buffer::Shared;
use crate::dispatch::Job;
use crate::simd::{Kernel, Simd};
use crate::strides::{LayerError, Strided, Strides, check_input, check_len, check_output};
use crate::threads::for_each_part;

/// About as many multiplications take as long as one element.
const COST: usize = 8;

/// The operands, whose rows are there.
#[derive(Clone, Copy)]
struct Rotate<'a> {
    /// `[batch, heads, time, d]`.
    shape: [usize; 4],
    x: Strided<&'a [f32]>,
    cos: &'a [f32],
    sin: &'a [f32],
    out: Shared<'a>,
    to: Strides,
}

impl Job for Rotate<'_> {
    fn run<S: Simd>(self, simd: S) {
        let [batch, heads, time, d] = self.shape;
        let rows = batch * heads * time;
        let part = (PART / d).max(1);
        for_each_part(rows.div_ceil(part), rows * d * COST, |i| {
            let first = i * part;
            simd.vectorize(Rows(self, first, rows.min(first + part)));
        });
    }
}

/// Some rows of `[batch, heads, time]`.
struct Rows<'a>(Rotate<'a>, usize, usize);

impl Kernel for Rows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(of, first, last) = self;
        let [_, heads, time, d] = of.shape;
        let half = d / 2;
        for row in first..last {
            let (t, head) = (row % time, row / time);
            let (batch, head) = (head / heads, head % heads);
            let x = &of.x.elements[of.x.strides.offset(batch, head, t)..][..d];
            // One row of angles may be that of all positions.
            let angle = if of.cos.len() == half { 0 } else { t * half };
            let (cos, sin) = (&of.cos[angle..][..half], &of.sin[angle..][..half]);
            // SAFETY: rows of the result are apart, and this row is this part's.
            let out = unsafe { of.out.part(of.to.offset(batch, head, t), d) };
            rotate(simd, x, cos, sin, out);
        }
    }
}

/// One head: `a' = a cos − b sin`, `b' = b cos + a sin`, of the halves `a, b`.
#[inline(always)]
fn rotate<S: Simd>(simd: S, x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    let half = cos.len();
    assert!(sin.len() == half && x.len() == 2 * half && out.len() == 2 * half);
    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
    let (cos, sin) = (cos.as_ptr(), sin.as_ptr());
    let whole = half - half % S::LANES;
    let mut i = 0;
    while i < whole {
        // SAFETY: `i + LANES <= half`.
        unsafe {
            let (a, b) = (simd.load(x.add(i)), simd.load(x.add(half + i)));
            let (cos, sin) = (simd.load(cos.add(i)), simd.load(sin.add(i)));
            simd.store(out.add(i), simd.sub(simd.mul(a, cos), simd.mul(b, sin)));
            simd.store(out.add(half + i), simd.mul_add(b, cos, simd.mul(a, sin)));
        }
        i += S::LANES;
    }
    if whole < half {
        let rest = half - whole;
        // SAFETY: `rest < LANES` elements are left of either half.
        unsafe {
            let (x, out) = (x.add(whole), out.add(whole));
            let (a, b) = (simd.load_first(x, rest), simd.load_first(x.add(half), rest));
            let (cos, sin) = (
                simd.load_first(cos.add(whole), rest),
                simd.load_first(sin.add(whole), rest),
            );
            let first = simd.sub(simd.mul(a, cos), simd.mul(b, sin));
            simd.store_first(out, first, rest);
            let second = simd.mul_add(b, cos, simd.mul(a, sin));
            simd.store_first(out.add(half), second, rest);
        }
    }
}

impl Kernels {
    /// Rotary position embedding in the split-half layout: with `a, b` the halves of a head,
    /// `a' = a cos − b sin`, `b' = b cos + a sin` (Su et al., 2021, arXiv:2104.09864).
    ///
    /// `shape` is `[batch, heads, time, d]`; `cos` and `sin` are `[time, d / 2]` or `[1, d / 2]`.
    ///
    /// # Errors
    ///
    /// [`LayerError`] if `d` is odd, an operand ends too early, `cos` and `sin` are not of `time`
    /// positions or of one, or rows of `out` overlap.
    pub fn rotate(
        self,
        shape: [usize; 4],
        x: Strided<&[f32]>,
        cos: &[f32],
        sin: &[f32],
        out: Strided<&mut [f32]>,
    ) -> Result<(), LayerError> {
        let [_, _, time, d] = shape;
        if !d.is_multiple_of(2) {
            return Err(LayerError::Dimension {
                operand: "d",
                found: d,
                expected: "an even number",
            });
        }
        check_input("x", x.elements.len(), x.strides, shape)?;
        if cos.len() != d / 2 {
            check_len("cos", cos.len(), time.saturating_mul(d / 2))?;
        }
        check_len("sin", sin.len(), cos.len())?;
        check_output("out", out.elements.len(), out.strides, shape)?;
        if !shape.contains(&0) {
            self.run(Rotate {
                shape,
                x,
                cos,
                sin,
                out: Shared::new(out.elements),
                to: out.strides,
            });
        }
        Ok(())
    }
}
