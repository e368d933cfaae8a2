//! AVX-512 and AVX2.

use std::arch::x86_64::*;

use crate::simd::{Kernel, Simd};
use crate::tile::{Tile, tile};

/// AVX-512F, AVX2, FMA and F16C. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// AVX2, FMA and F16C. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx512 {
    /// # Safety
    ///
    /// The processor has AVX-512F, AVX2, FMA and F16C.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
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
    const TILE_SUMS: usize = 24;
    const TILE_VECTORS: usize = 3;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, vectors: usize, of: Tile) {
        // SAFETY: the caller's.
        unsafe {
            match vectors {
                1 => tile::<Self, 24, 1>(self, of),
                2 => tile::<Self, 12, 2>(self, of),
                _ => tile::<Self, 8, 3>(self, of),
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
}

impl Simd for Avx2 {
    type V = __m256;

    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const TILE_SUMS: usize = 12;
    const TILE_VECTORS: usize = 2;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, vectors: usize, of: Tile) {
        // SAFETY: the caller's.
        unsafe {
            match vectors {
                1 => tile::<Self, 12, 1>(self, of),
                _ => tile::<Self, 6, 2>(self, of),
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
}
