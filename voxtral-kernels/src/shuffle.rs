//! Rearrangements of vectors on x86: transposition, and the codes of [`Quant::Q4`](crate::Quant).

use std::arch::x86_64::*;

use crate::quant::{CODES, STEPS};
use crate::simd::MAX_LANES;

/// Transposes 16 rows of 16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose16(rows: &mut [__m512; MAX_LANES]) {
    let mut pairs = *rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // Four rows of a quarter of the columns, in every 128 bits.
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        let [a, b, c, d] =
            [pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]].map(|x| _mm512_castps_pd(x));
        fours[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        fours[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        fours[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        fours[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let even = _mm512_shuffle_f32x4::<0x88>(a, b);
        let even_rest = _mm512_shuffle_f32x4::<0x88>(c, d);
        let odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
        let odd_rest = _mm512_shuffle_f32x4::<0xdd>(c, d);
        rows[j] = _mm512_shuffle_f32x4::<0x88>(even, even_rest);
        rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_rest);
        rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_rest);
        rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_rest);
    }
}

/// Transposes 8 rows of 8, the first ones.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn transpose8(rows: &mut [__m256; MAX_LANES]) {
    let mut pairs = *rows;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // Four rows of half of the columns, in every 128 bits.
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        let [a, b, c, d] =
            [pairs[i], pairs[i + 1], pairs[i + 2], pairs[i + 3]].map(|x| _mm256_castps_pd(x));
        fours[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        fours[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        fours[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        fours[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for j in 0..4 {
        rows[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
        rows[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
    }
}

/// The codes of Q4 in every 128 bits, for lookups of bytes.
static CODE_TABLE: [i8; 16] = CODES;

/// The steps of Q4 in both halves of 32 bits: multiplied by a byte in the upper half of 16, rounded
/// and taken from bit 15 on, they give `(code · step + 64) / 128`.
static STEP_TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut s = 0;
    while s < 16 {
        let step = STEPS[s] as u16 as u32;
        table[s] = step << 16 | step;
        s += 1;
    }
    table
};

/// Unpacks the codes of Q4 with AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Unpack512 {
    codes: __m512i,
    steps: __m512i,
    nibble: __m512i,
}

impl Unpack512 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn new() -> Self {
        // SAFETY: the tables are as long as what is read.
        unsafe {
            Self {
                codes: _mm512_broadcast_i32x4(_mm_loadu_si128(CODE_TABLE.as_ptr().cast())),
                steps: _mm512_loadu_si512(STEP_TABLE.as_ptr().cast()),
                nibble: _mm512_set1_epi8(15),
            }
        }
    }

    /// What the values of a block are multiplied by, of 16 rows whose steps these are.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn multipliers(self, steps: __m512i, block: u32) -> __m512i {
        // A permutation takes the low four bits of every index.
        let index = _mm512_srl_epi32(steps, _mm_cvtsi32_si128(4 * block as i32));
        _mm512_permutexvar_epi32(index, self.steps)
    }

    /// The levels of two quads: of the low nibbles, and of the high ones.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(crate) fn levels(self, codes: __m512i, multipliers: __m512i) -> [__m512i; 2] {
        let low = _mm512_and_si512(codes, self.nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), self.nibble);
        [self.quad(low, multipliers), self.quad(high, multipliers)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn quad(self, codes: __m512i, multipliers: __m512i) -> __m512i {
        let values = _mm512_shuffle_epi8(self.codes, codes);
        let even = _mm512_mulhrs_epi16(_mm512_slli_epi16::<8>(values), multipliers);
        let odd = _mm512_and_si512(values, _mm512_set1_epi16(-256));
        let odd = _mm512_slli_epi16::<8>(_mm512_mulhrs_epi16(odd, multipliers));
        _mm512_mask_blend_epi8(0x5555_5555_5555_5555, odd, even)
    }
}

/// Unpacks the codes of Q4 with AVX2, of 8 rows at a time.
#[derive(Clone, Copy)]
pub(crate) struct Unpack256 {
    codes: __m256i,
    nibble: __m256i,
}

impl Unpack256 {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn new() -> Self {
        // SAFETY: the table is as long as what is read.
        unsafe {
            Self {
                codes: _mm256_broadcastsi128_si256(_mm_loadu_si128(CODE_TABLE.as_ptr().cast())),
                nibble: _mm256_set1_epi8(15),
            }
        }
    }

    /// As [`Unpack512::multipliers`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn multipliers(self, steps: __m256i, block: i32) -> __m256i {
        let index = _mm256_srl_epi32(steps, _mm_cvtsi32_si128(4 * block));
        let index = _mm256_and_si256(index, _mm256_set1_epi32(15));
        // SAFETY: the indices are below 16.
        unsafe { _mm256_i32gather_epi32::<4>(STEP_TABLE.as_ptr().cast(), index) }
    }

    /// As [`Unpack512::levels`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn levels(self, codes: __m256i, multipliers: __m256i) -> [__m256i; 2] {
        let low = _mm256_and_si256(codes, self.nibble);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), self.nibble);
        [self.quad(low, multipliers), self.quad(high, multipliers)]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn quad(self, codes: __m256i, multipliers: __m256i) -> __m256i {
        let values = _mm256_shuffle_epi8(self.codes, codes);
        let even = _mm256_mulhrs_epi16(_mm256_slli_epi16::<8>(values), multipliers);
        let odd = _mm256_and_si256(values, _mm256_set1_epi16(-256));
        let odd = _mm256_slli_epi16::<8>(_mm256_mulhrs_epi16(odd, multipliers));
        _mm256_blendv_epi8(odd, even, _mm256_set1_epi16(255))
    }
}
