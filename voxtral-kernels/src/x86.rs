//! AVX-512 and AVX2.

use std::arch::x86_64::*;

use crate::micro::{Tile, fma_tile};
use crate::quant::{BLOCK, PANEL, QUAD, UNIT};
use crate::shuffle::{Unpack256, Unpack512, transpose8, transpose16};
use crate::simd::{Kernel, Levels, MAX_LANES, Simd};

/// AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// AVX2, FMA and F16C. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx512 {
    /// # Safety
    ///
    /// The processor has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn enter<K: Kernel>(self, kernel: K) {
        kernel.run(self);
    }
}

impl Avx2 {
    /// # Safety
    ///
    /// The processor has AVX2, FMA and F16C.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn enter<K: Kernel>(self, kernel: K) {
        kernel.run(self);
    }
}

impl Simd for Avx512 {
    type V = __m512;

    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const TILE_ROWS: usize = 12;
    const TILE_PANELS: usize = 2;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        // SAFETY: the caller's.
        unsafe { fma_tile::<Self, 12, 2>(self, of) };
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; MAX_LANES]) {
        // SAFETY: `self` exists.
        unsafe { transpose16(rows) };
    }

    #[inline(always)]
    unsafe fn levels(self, codes: *const u8, steps: *const u16, out: &mut Levels) {
        // SAFETY: `self` exists; the pointers are the caller's.
        unsafe {
            let unpack = Unpack512::new();
            let steps = _mm512_cvtepu16_epi32(_mm256_loadu_si256(steps.cast()));
            for block in 0..UNIT / BLOCK {
                let multipliers = unpack.multipliers(steps, block as u32);
                for v in 0..2 {
                    let at = (2 * block + v) * PANEL * QUAD;
                    let codes = _mm512_loadu_si512(codes.add(at).cast());
                    let pair = unpack.levels(codes, multipliers);
                    for (i, levels) in pair.into_iter().enumerate() {
                        let to = out.0.as_mut_ptr().add(2 * at + i * PANEL * QUAD);
                        _mm512_storeu_si512(to.cast(), levels);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn widen_quad(self, quad: *const i8, scales: *const f32, to: *mut f32) {
        // SAFETY: `self` exists; the pointers are the caller's.
        unsafe {
            let quad = _mm512_loadu_si512(quad.cast());
            let scales = _mm512_loadu_ps(scales);
            let bytes = [
                _mm512_slli_epi32::<24>(quad),
                _mm512_slli_epi32::<16>(quad),
                _mm512_slli_epi32::<8>(quad),
                quad,
            ];
            for (i, byte) in bytes.into_iter().enumerate() {
                let value = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(byte));
                _mm512_storeu_ps(to.add(i * PANEL), _mm512_mul_ps(value, scales));
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a hint, which never faults; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm512_storeu_ps(to, value) };
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, value: __m512) -> f32 {
        // SAFETY: `self` exists.
        unsafe {
            let high = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(
                _mm512_castps_pd(value),
            )));
            let half = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_castps512_ps256(high));
            Avx2(()).sum(half)
        }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, value: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_abs_ps(value) }
    }

    #[inline(always)]
    fn if_less(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }

    #[inline(always)]
    fn power(self, bits: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(bits))) }
    }

    #[inline(always)]
    fn max_lane(self, value: __m512) -> f32 {
        // SAFETY: `self` exists.
        unsafe { _mm512_reduce_max_ps(value) }
    }

    #[inline(always)]
    fn sum_each(self, values: &[__m512; MAX_LANES]) -> __m512 {
        // Halves, quarters, pairs and lanes are added up as in `sum`, of as many vectors at once
        // as the parts of one that are left.
        let mut sums = [self.splat(0.0); 4];
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `self` exists.
            *sums = unsafe {
                let low = self.halves(values[i], values[i + 4]);
                let high = self.halves(values[i + 8], values[i + 12]);
                _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x88>(low, high),
                    _mm512_shuffle_f32x4::<0xdd>(low, high),
                )
            };
        }
        // SAFETY: `self` exists.
        unsafe {
            let low = _mm512_add_ps(
                _mm512_shuffle_ps::<0x44>(sums[0], sums[1]),
                _mm512_shuffle_ps::<0xee>(sums[0], sums[1]),
            );
            let high = _mm512_add_ps(
                _mm512_shuffle_ps::<0x44>(sums[2], sums[3]),
                _mm512_shuffle_ps::<0xee>(sums[2], sums[3]),
            );
            _mm512_add_ps(
                _mm512_shuffle_ps::<0x88>(low, high),
                _mm512_shuffle_ps::<0xdd>(low, high),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: __m512) {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let bits = _mm512_castps_si512(value);
            let upper = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
            let quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
            let narrow = _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet));
            _mm256_storeu_si256(to.cast(), narrow);
        }
    }

    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: `self` exists; lanes beyond the count, which is the caller's, are not read.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, value: __m512, count: usize) {
        // SAFETY: `self` exists; lanes beyond the count, which is the caller's, are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) };
    }
}

impl Avx512 {
    /// The quarters of `a`, then those of `b`, of which the upper half is added to the lower.
    #[inline(always)]
    fn halves(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists.
        unsafe {
            _mm512_add_ps(
                _mm512_shuffle_f32x4::<0x44>(a, b),
                _mm512_shuffle_f32x4::<0xee>(a, b),
            )
        }
    }
}

/// The mask of the first `count` of 16 lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1_u32 << count) - 1) as __mmask16
}

impl Simd for Avx2 {
    type V = __m256;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        // SAFETY: the caller's.
        unsafe { fma_tile::<Self, 6, 2>(self, of) };
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [__m256; MAX_LANES]) {
        // SAFETY: `self` exists.
        unsafe { transpose8(rows) };
    }

    #[inline(always)]
    unsafe fn levels(self, codes: *const u8, steps: *const u16, out: &mut Levels) {
        // SAFETY: `self` exists; the pointers are the caller's.
        unsafe {
            let unpack = Unpack256::new();
            for half in 0..2 {
                let steps = steps.add(half * PANEL / 2);
                let steps = _mm256_cvtepu16_epi32(_mm_loadu_si128(steps.cast()));
                for block in 0..UNIT / BLOCK {
                    let multipliers = unpack.multipliers(steps, block as i32);
                    for v in 0..2 {
                        let at = (2 * block + v) * PANEL * QUAD;
                        let codes = codes.add(at + half * 32);
                        let pair = unpack.levels(_mm256_loadu_si256(codes.cast()), multipliers);
                        for (i, levels) in pair.into_iter().enumerate() {
                            let to = out.0.as_mut_ptr();
                            let to = to.add(2 * at + i * PANEL * QUAD + half * 32);
                            _mm256_storeu_si256(to.cast(), levels);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn widen_quad(self, quad: *const i8, scales: *const f32, to: *mut f32) {
        // SAFETY: `self` exists; the pointers are the caller's.
        unsafe {
            for half in 0..2 {
                let quad = _mm256_loadu_si256(quad.add(half * 32).cast());
                let scales = _mm256_loadu_ps(scales.add(half * 8));
                let bytes = [
                    _mm256_slli_epi32::<24>(quad),
                    _mm256_slli_epi32::<16>(quad),
                    _mm256_slli_epi32::<8>(quad),
                    quad,
                ];
                for (i, byte) in bytes.into_iter().enumerate() {
                    let value = _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(byte));
                    let to = to.add(i * PANEL + half * 8);
                    _mm256_storeu_ps(to, _mm256_mul_ps(value, scales));
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m256 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m256 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a hint, which never faults; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm256_storeu_ps(to, value) };
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, value: __m256) -> f32 {
        // SAFETY: `self` exists.
        unsafe {
            let half = _mm_add_ps(
                _mm256_castps256_ps128(value),
                _mm256_extractf128_ps::<1>(value),
            );
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, value: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), value) }
    }

    #[inline(always)]
    fn if_less(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }

    #[inline(always)]
    fn power(self, bits: __m256) -> __m256 {
        // SAFETY: `self` exists.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(bits))) }
    }

    #[inline(always)]
    fn max_lane(self, value: __m256) -> f32 {
        // SAFETY: `self` exists.
        unsafe {
            let half = _mm_max_ps(
                _mm256_castps256_ps128(value),
                _mm256_extractf128_ps::<1>(value),
            );
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    fn sum_each(self, values: &[__m256; MAX_LANES]) -> __m256 {
        // As of AVX-512, from halves on.
        let mut sums = [self.splat(0.0); 4];
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `self` exists.
            *sums = unsafe {
                _mm256_add_ps(
                    _mm256_permute2f128_ps::<0x20>(values[i], values[i + 4]),
                    _mm256_permute2f128_ps::<0x31>(values[i], values[i + 4]),
                )
            };
        }
        // SAFETY: `self` exists.
        unsafe {
            let low = _mm256_add_ps(
                _mm256_shuffle_ps::<0x44>(sums[0], sums[1]),
                _mm256_shuffle_ps::<0xee>(sums[0], sums[1]),
            );
            let high = _mm256_add_ps(
                _mm256_shuffle_ps::<0x44>(sums[2], sums[3]),
                _mm256_shuffle_ps::<0xee>(sums[2], sums[3]),
            );
            _mm256_add_ps(
                _mm256_shuffle_ps::<0x88>(low, high),
                _mm256_shuffle_ps::<0xdd>(low, high),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, value: __m256) {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let bits = _mm256_castps_si256(value);
            let upper = _mm256_srli_epi32::<16>(bits);
            let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
            let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
            let narrow = _mm256_blendv_epi8(rounded, quiet, nan);
            let narrow = _mm_packus_epi32(
                _mm256_castsi256_si128(narrow),
                _mm256_extracti128_si256::<1>(narrow),
            );
            _mm_storeu_si128(to.cast(), narrow);
        }
    }
}
