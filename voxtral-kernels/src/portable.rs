//! The instruction set of any processor: what the compiler makes of plain loops.

use std::array::from_fn;

use crate::format::{widen_bf16, widen_f16};
use crate::micro::{Tile, fma_tile};
use crate::quant::{BLOCK, PANEL, QUAD, UNIT, level};
use crate::simd::{Kernel, Levels, MAX_LANES, Simd};

/// Vectors of 4, which SSE2 and NEON both have.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 4;

/// What every code stands for with every step.
static LEVELS: [[i8; 16]; 16] = {
    let mut levels = [[0; 16]; 16];
    let mut i = 0;
    while i < 256 {
        levels[i / 16][i % 16] = level(i % 16, i / 16);
        i += 1;
    }
    levels
};

impl Simd for Portable {
    type V = [f32; LANES];

    const LANES: usize = LANES;
    const REGISTERS: usize = 16;
    const TILE_ROWS: usize = 2;
    const TILE_PANELS: usize = 1;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) {
        kernel.run(self);
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        // SAFETY: the caller's.
        unsafe { fma_tile::<Self, 2, 4>(self, of) };
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V; MAX_LANES]) {
        let of: [Self::V; LANES] = from_fn(|i| rows[i]);
        for (i, row) in rows.iter_mut().take(LANES).enumerate() {
            *row = from_fn(|j| of[j][i]);
        }
    }

    #[inline(always)]
    unsafe fn levels(self, codes: *const u8, steps: *const u16, out: &mut Levels) {
        for row in 0..PANEL {
            // SAFETY: there are steps of every row.
            let steps = unsafe { steps.add(row).read_unaligned() };
            for quad in 0..UNIT / QUAD {
                let step = steps >> (quad * QUAD / BLOCK * 4) & 15;
                for i in 0..QUAD {
                    // SAFETY: there are codes of every row and two quads.
                    let code = unsafe { *codes.add((quad / 2 * PANEL + row) * QUAD + i) };
                    let code = code >> (quad % 2 * 4) & 15;
                    out.0[(quad * PANEL + row) * QUAD + i] =
                        LEVELS[usize::from(step)][usize::from(code)];
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn widen_quad(self, quad: *const i8, scales: *const f32, to: *mut f32) {
        for row in 0..PANEL {
            for i in 0..QUAD {
                // SAFETY: the caller's.
                unsafe {
                    *to.add(i * PANEL + row) =
                        f32::from(*quad.add(row * QUAD + i)) * *scales.add(row);
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's; an array has the alignment of its elements.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller's; an array has the alignment of its elements.
        unsafe { from.cast::<[u16; LANES]>().read() }.map(widen_bf16)
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller's; an array has the alignment of its elements.
        unsafe { from.cast::<[u16; LANES]>().read() }.map(widen_f16)
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::V) {
        // SAFETY: the caller's; an array has the alignment of its elements.
        unsafe { to.cast::<[f32; LANES]>().write(value) };
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Without the instruction, `f32::mul_add` is a call for every lane.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d]: Self::V) -> f32 {
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, value: Self::V) -> Self::V {
        value.map(f32::abs)
    }

    #[inline(always)]
    fn if_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn power(self, bits: Self::V) -> Self::V {
        bits.map(|bits| f32::from_bits(bits.to_bits() << 23))
    }

    #[inline(always)]
    fn max_lane(self, [a, b, c, d]: Self::V) -> f32 {
        a.max(c).max(b.max(d))
    }

    #[inline(always)]
    fn sum_each(self, values: &[Self::V; MAX_LANES]) -> Self::V {
        from_fn(|i| self.sum(values[i]))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: Self::V) {
        // SAFETY: the caller's; an array has the alignment of its elements.
        unsafe { to.cast::<[u16; LANES]>().write(value.map(narrow_bf16)) };
    }
}

/// The nearest bfloat16, of two the even one. NaN stays NaN: its upper half might be that of an
/// infinity, and adding to it might carry into the sign.
#[inline(always)]
fn narrow_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if value.is_nan() {
        bits >> 16 | 0x40
    } else {
        rounded
    }) as u16
}
