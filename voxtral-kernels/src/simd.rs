//! Vectors of `f32`: what the kernels need of an instruction set.

use crate::micro::Tile;
use crate::quant::{PANEL, UNIT};

/// The values of a unit, quad by quad.
#[repr(align(64))]
pub(crate) struct Levels(pub(crate) [i8; PANEL * UNIT]);

/// The most lanes of any vector here.
pub(crate) const MAX_LANES: usize = 16;

/// Vector instructions; a value of an implementing type proves that the processor has them.
///
/// Methods and kernels are `inline(always)`, so that all of a kernel ends up in the one function
/// of [`Simd::vectorize`], which is compiled for the instruction set.
pub(crate) trait Simd: Copy + Send + Sync {
    /// `LANES` values.
    type V: Copy;

    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// Input rows of a tile of a product of many rows.
    const TILE_ROWS: usize;
    /// Panels of such a tile.
    const TILE_PANELS: usize;

    /// Runs a kernel compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K);

    /// Computes a tile of [`Simd::TILE_ROWS`] rows and [`Simd::TILE_PANELS`] panels.
    ///
    /// # Safety
    ///
    /// As of [`fma_tile`](crate::micro::fma_tile).
    unsafe fn tile(self, tile: Tile);

    /// Transposes the first `LANES` of these rows.
    fn transpose(self, rows: &mut [Self::V; MAX_LANES]);

    /// The values of a unit of [`Quant::Q4`](crate::Quant::Q4) without the rows' scales.
    ///
    /// # Safety
    ///
    /// `codes` and `steps` are valid for reads of a unit's codes and of its steps.
    unsafe fn levels(self, codes: *const u8, steps: *const u16, out: &mut Levels);

    /// The values of a quad times their rows' scales, `[QUAD, PANEL]`.
    ///
    /// # Safety
    ///
    /// `quad` and `scales` are valid for reads of a quad's values and of a panel's scales, and
    /// `to` for writes of `QUAD · PANEL` values.
    unsafe fn widen_quad(self, quad: *const i8, scales: *const f32, to: *mut f32);

    fn splat(self, value: f32) -> Self::V;

    /// # Safety
    ///
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load(self, from: *const f32) -> Self::V;

    /// Widens bfloat16.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load_bf16(self, from: *const u16) -> Self::V;

    /// Widens IEEE binary16.
    ///
    /// # Safety
    ///
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load_f16(self, from: *const u16) -> Self::V;

    /// Asks for memory that may be read soon. Any address will do.
    fn prefetch(self, address: *const u8);

    /// # Safety
    ///
    /// `to` is valid for writes of `LANES` values.
    unsafe fn store(self, to: *mut f32, value: Self::V);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// The sum of the lanes, in an order that does not change.
    fn sum(self, value: Self::V) -> f32;

    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;

    fn abs(self, value: Self::V) -> Self::V;

    /// `x` where `a < b`, else `y`.
    fn if_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;

    /// The lowest 9 bits of each lane as the sign and the exponent of a number whose mantissa is 0.
    fn power(self, bits: Self::V) -> Self::V;

    /// The largest lane, if none is NaN.
    fn max_lane(self, value: Self::V) -> f32;

    /// The sums of the first `LANES` vectors, lane by lane: each is what [`sum`](Self::sum) gives.
    fn sum_each(self, values: &[Self::V; MAX_LANES]) -> Self::V;

    /// Narrows to bfloat16: to the nearest, of two the even one; NaN stays NaN.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `LANES` values.
    unsafe fn store_bf16(self, to: *mut u16, value: Self::V);

    /// The first `count` lanes, and zeros.
    ///
    /// # Safety
    ///
    /// `count <= LANES`, and `from` is valid for reads of `count` values.
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::V {
        let mut all = [0.0; MAX_LANES];
        // SAFETY: the caller's; an array holds `MAX_LANES >= LANES` values.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), count);
            self.load(all.as_ptr())
        }
    }

    /// As [`load_first`](Self::load_first), of bfloat16.
    ///
    /// # Safety
    ///
    /// As of [`load_first`](Self::load_first).
    #[inline(always)]
    unsafe fn load_first_bf16(self, from: *const u16, count: usize) -> Self::V {
        let mut all = [0; MAX_LANES];
        // SAFETY: the caller's; an array holds `MAX_LANES >= LANES` values.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), count);
            self.load_bf16(all.as_ptr())
        }
    }

    /// Stores the first `count` lanes.
    ///
    /// # Safety
    ///
    /// `count <= LANES`, and `to` is valid for writes of `count` values.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: Self::V, count: usize) {
        let mut all = [0.0; MAX_LANES];
        // SAFETY: the caller's; an array holds `MAX_LANES >= LANES` values.
        unsafe {
            self.store(all.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, count);
        }
    }
}

/// Work that is compiled once for every instruction set.
pub(crate) trait Kernel {
    /// Must be `inline(always)`.
    fn run<S: Simd>(self, simd: S);
}
