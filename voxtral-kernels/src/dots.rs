//! Dot products of pairs of bfloat16 and of quads of bytes: AVX512-BF16, AVX512-VNNI, AVX2.

use std::arch::x86_64::*;

use crate::few::Quads;
use crate::micro::{Micro, PANEL, PANEL_WORDS, ROW, STEP, Tile, UNITS, WORDS, put};
use crate::quant::{CODES, OFFSET, QUAD, STEPS};
use crate::simd::{Kernel, Simd};
use crate::word::{Bf16Word, ByteWord};
use crate::x86::{Avx2, Avx512};

/// What [`Avx512`] has, VNNI and BF16. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Pairs(());

/// What [`Avx512`] has, and VNNI. A value exists only where the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Vnni(());

impl Pairs {
    /// # Safety
    ///
    /// The processor has what [`Avx512`] has, VNNI and BF16.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"
    )]
    fn enter<K: Kernel>(self, kernel: K) {
        kernel.run(self.simd());
    }
}

impl Micro for Pairs {
    type Simd = Avx512;
    type Word = Bf16Word;

    const ROWS: usize = 12;
    const PANELS: usize = 2;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        // SAFETY: `self` exists.
        unsafe { Avx512::new_unchecked() }
    }

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        let simd = self.simd();
        // SAFETY: `self` exists, and the pointers are valid for the shapes, by the caller.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); Self::PANELS]; Self::ROWS];
            for word in 0..of.words {
                let at = of.weights.add(word * PANEL);
                let weights = [simd.load(at.cast()), simd.load(at.add(PANEL_WORDS).cast())];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let input = _mm512_set1_epi32(*of.inputs.add(r * ROW + word) as i32);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum =
                            _mm512_dpbf16_ps(*sum, bf16(weight), bf16(_mm512_castsi512_ps(input)));
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    put(simd, of, r, v, sum);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn narrow(self, to: *mut u16, value: __m512) {
        // SAFETY: `self` exists, and the pointer is the caller's.
        unsafe { narrow(to, value) };
    }
}

/// Narrows to bfloat16; what is subnormal becomes 0.
///
/// # Safety
///
/// The processor has BF16, and `to` is valid for writes of 16 values.
#[inline(always)]
pub(crate) unsafe fn narrow(to: *mut u16, value: __m512) {
    // SAFETY: the caller's; both types are 256 bits of any value.
    unsafe {
        let narrow: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(value));
        _mm256_storeu_si256(to.cast(), narrow);
    }
}

/// The same bits as pairs of bfloat16.
#[inline(always)]
fn bf16(bits: __m512) -> __m512bh {
    // SAFETY: both are 512 bits of any value.
    unsafe { std::mem::transmute(bits) }
}

impl Vnni {
    /// # Safety
    ///
    /// The processor has what [`Avx512`] has, and VNNI.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(())
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn enter<K: Kernel>(self, kernel: K) {
        kernel.run(self.simd());
    }
}

impl Micro for Vnni {
    type Simd = Avx512;
    type Word = ByteWord;

    const ROWS: usize = 6;
    const PANELS: usize = 2;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        // SAFETY: `self` exists.
        unsafe { Avx512::new_unchecked() }
    }

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        // SAFETY: `self` exists, and the pointers are valid for the shapes, by the caller.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); <Self as Micro>::PANELS]; Self::ROWS];
            for unit in 0..of.words / STEP {
                let mut dots = [[_mm512_setzero_si512(); <Self as Micro>::PANELS]; Self::ROWS];
                for (r, dots) in dots.iter_mut().enumerate() {
                    let offset = *of.inputs.add(r * ROW + WORDS + UNITS + unit);
                    *dots = [_mm512_set1_epi32(offset as i32); <Self as Micro>::PANELS];
                }
                for word in unit * STEP..(unit + 1) * STEP {
                    let at = of.weights.add(word * PANEL);
                    let weights = [
                        _mm512_loadu_si512(at.cast()),
                        _mm512_loadu_si512(at.add(PANEL_WORDS).cast()),
                    ];
                    for (r, dots) in dots.iter_mut().enumerate() {
                        let input = _mm512_set1_epi32(*of.inputs.add(r * ROW + word) as i32);
                        for (dot, weight) in dots.iter_mut().zip(weights) {
                            *dot = _mm512_dpbusd_epi32(*dot, weight, input);
                        }
                    }
                }
                let at = of.weights.add((WORDS + unit) * PANEL);
                let scales = [
                    _mm512_loadu_ps(at.cast()),
                    _mm512_loadu_ps(at.add(PANEL_WORDS).cast()),
                ];
                for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let step = *of.inputs.add(r * ROW + WORDS + unit).cast::<f32>();
                    let step = _mm512_set1_ps(step);
                    for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
                        let scale = _mm512_mul_ps(scale, step);
                        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    put(self.simd(), of, r, v, sum);
                }
            }
        }
    }
}

/// Bytes of a panel's codes that are asked for ahead.
const AHEAD: usize = 1 << 10;

impl Quads for Vnni {
    type Dots = __m512i;
    type Sums = __m512;
    type Weights = __m512i;
    /// The values of codes, those of steps, and the steps of the rows.
    type Unit = (__m512i, __m512, __m512i);

    const PANELS: usize = 2;
    const TOGETHER: usize = 8;
    // The first operand of the instruction is unsigned.
    const OFFSET: bool = true;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) {
        Micro::vectorize(self, kernel);
    }

    #[inline(always)]
    fn ask(self, address: *const u8) {
        // SAFETY: a hint, which never faults; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[inline(always)]
    unsafe fn unit(self, steps: *const u16) -> Self::Unit {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let codes = _mm_loadu_si128(CODES_ABOVE.as_ptr().cast());
            (
                _mm512_broadcast_i32x4(codes),
                _mm512_loadu_ps(STEP_VALUES.as_ptr()),
                _mm512_cvtepu16_epi32(_mm256_loadu_si256(steps.cast())),
            )
        }
    }

    #[inline(always)]
    unsafe fn q8(self, codes: *const u8) -> [__m512i; 2] {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            self.ask(codes.wrapping_add(AHEAD));
            self.ask(codes.wrapping_add(AHEAD + PANEL * QUAD));
            let next = codes.add(PANEL * QUAD);
            [
                _mm512_loadu_si512(codes.cast()),
                _mm512_loadu_si512(next.cast()),
            ]
        }
    }

    #[inline(always)]
    unsafe fn q4(self, codes: *const u8, (values, _, _): Self::Unit) -> [__m512i; 2] {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            self.ask(codes.wrapping_add(AHEAD));
            let codes = _mm512_loadu_si512(codes.cast());
            let nibble = _mm512_set1_epi8(15);
            let low = _mm512_and_si512(codes, nibble);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
            [
                _mm512_shuffle_epi8(values, low),
                _mm512_shuffle_epi8(values, high),
            ]
        }
    }

    #[inline(always)]
    fn block(self, (_, values, steps): Self::Unit, block: u32, scales: __m512) -> __m512 {
        // SAFETY: `self` exists. A permutation takes the low four bits of every index.
        unsafe {
            let index = _mm512_srl_epi32(steps, _mm_cvtsi32_si128(4 * block as i32));
            _mm512_mul_ps(scales, _mm512_permutexvar_ps(index, values))
        }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m512i {
        // SAFETY: `self` exists.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn dot(self, dots: __m512i, weights: __m512i, inputs: u32) -> __m512i {
        // SAFETY: `self` exists.
        unsafe { _mm512_dpbusd_epi32(dots, weights, _mm512_set1_epi32(inputs as i32)) }
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: `self` exists.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn scales(self, from: *const u8) -> __m512 {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    fn add(self, sums: __m512, dots: __m512i, scales: __m512, step: f32) -> __m512 {
        // SAFETY: `self` exists.
        unsafe {
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(step));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums)
        }
    }

    #[inline(always)]
    fn store(self, sums: __m512) -> [f32; PANEL] {
        let mut lanes = [0.0; PANEL];
        // SAFETY: `self` exists, and there are as many lanes.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sums) };
        lanes
    }
}

/// Dot products of quads of bytes with AVX2 alone: pairs are summed in 16 bits, which
/// `127 · 127 · 2` fits.
impl Quads for Avx2 {
    type Dots = [__m256i; 2];
    type Sums = [__m256; 2];
    /// Absolute values, and the signs that the inputs take.
    type Weights = [[__m256i; 2]; 2];
    /// The values of codes, those of the positive steps, and the steps of the rows.
    type Unit = (__m256i, __m256, [__m256i; 2]);

    const PANELS: usize = 2;
    const TOGETHER: usize = 4;
    const OFFSET: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) {
        Simd::vectorize(self, kernel);
    }

    #[inline(always)]
    fn ask(self, address: *const u8) {
        // SAFETY: a hint, which never faults; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[inline(always)]
    unsafe fn unit(self, steps: *const u16) -> Self::Unit {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            let codes = _mm_loadu_si128(CODES.as_ptr().cast());
            (
                _mm256_broadcastsi128_si256(codes),
                _mm256_loadu_ps(STEP_VALUES.as_ptr()),
                [
                    _mm256_cvtepu16_epi32(_mm_loadu_si128(steps.cast())),
                    _mm256_cvtepu16_epi32(_mm_loadu_si128(steps.add(PANEL / 2).cast())),
                ],
            )
        }
    }

    #[inline(always)]
    unsafe fn q8(self, codes: *const u8) -> [Self::Weights; 2] {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            self.ask(codes.wrapping_add(AHEAD));
            self.ask(codes.wrapping_add(AHEAD + PANEL * QUAD));
            let offset = _mm256_set1_epi8(OFFSET as i8);
            let mut levels = [_mm256_setzero_si256(); 4];
            for (i, levels) in levels.iter_mut().enumerate() {
                let codes = _mm256_loadu_si256(codes.add(i * 32).cast());
                *levels = _mm256_xor_si256(codes, offset);
            }
            let [a, b, c, d] = levels;
            [signed([a, b]), signed([c, d])]
        }
    }

    #[inline(always)]
    unsafe fn q4(self, codes: *const u8, (values, _, _): Self::Unit) -> [Self::Weights; 2] {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            self.ask(codes.wrapping_add(AHEAD));
            let nibble = _mm256_set1_epi8(15);
            let (mut low, mut high) = ([nibble; 2], [nibble; 2]);
            for (half, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
                let codes = _mm256_loadu_si256(codes.add(half * 32).cast());
                *low = _mm256_shuffle_epi8(values, _mm256_and_si256(codes, nibble));
                let codes = _mm256_srli_epi16::<4>(codes);
                *high = _mm256_shuffle_epi8(values, _mm256_and_si256(codes, nibble));
            }
            [signed(low), signed(high)]
        }
    }

    #[inline(always)]
    fn block(self, (_, values, steps): Self::Unit, block: u32, scales: Self::Sums) -> Self::Sums {
        let mut scaled = scales;
        // SAFETY: `self` exists. A permutation takes the low three bits of every index; the fourth
        // is the sign.
        unsafe {
            for half in 0..2 {
                let index = _mm256_srl_epi32(steps[half], _mm_cvtsi32_si128(4 * block as i32));
                let sign =
                    _mm256_and_si256(_mm256_slli_epi32::<28>(index), _mm256_set1_epi32(i32::MIN));
                let step = _mm256_permutevar8x32_ps(values, index);
                let step = _mm256_xor_ps(step, _mm256_castsi256_ps(sign));
                scaled[half] = _mm256_mul_ps(scales[half], step);
            }
        }
        scaled
    }

    #[inline(always)]
    fn splat(self, value: i32) -> Self::Dots {
        // SAFETY: `self` exists.
        unsafe { [_mm256_set1_epi32(value); 2] }
    }

    #[inline(always)]
    fn dot(self, dots: Self::Dots, [sizes, signs]: Self::Weights, inputs: u32) -> Self::Dots {
        // SAFETY: `self` exists.
        unsafe {
            let inputs = _mm256_set1_epi32(inputs as i32);
            let ones = _mm256_set1_epi16(1);
            let mut sums = dots;
            for half in 0..2 {
                let inputs = _mm256_sign_epi8(inputs, signs[half]);
                let pairs = _mm256_maddubs_epi16(sizes[half], inputs);
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
            }
            sums
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        // SAFETY: `self` exists.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn scales(self, from: *const u8) -> Self::Sums {
        // SAFETY: `self` exists; the pointer is the caller's.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(PANEL).cast())),
            ]
        }
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, dots: Self::Dots, scales: Self::Sums, step: f32) -> Self::Sums {
        let mut sums = sums;
        // SAFETY: `self` exists.
        unsafe {
            for half in 0..2 {
                let scales = _mm256_mul_ps(scales[half], _mm256_set1_ps(step));
                sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[half]), scales, sums[half]);
            }
        }
        sums
    }

    #[inline(always)]
    fn store(self, sums: Self::Sums) -> [f32; PANEL] {
        let mut lanes = [0.0; PANEL];
        // SAFETY: `self` exists, and there are as many lanes.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(lanes.as_mut_ptr().add(PANEL / 2), sums[1]);
        }
        lanes
    }
}

/// What the codes of Q4 stand for, made unsigned.
static CODES_ABOVE: [u8; 16] = {
    let mut above = [0; 16];
    let mut i = 0;
    while i < 16 {
        above[i] = (CODES[i] as u8) ^ OFFSET;
        i += 1;
    }
    above
};

/// What the steps of Q4 stand for.
static STEP_VALUES: [f32; 16] = {
    let mut values = [0.0; 16];
    let mut s = 0;
    while s < 16 {
        values[s] = STEPS[s] as f32 / 128.0;
        // The upper half is the lower one with the other sign.
        assert!(STEPS[s] == if s < 8 { -STEPS[s + 8] } else { -STEPS[s - 8] });
        s += 1;
    }
    values
};

/// Weights for [`Quads::dot`] of [`Avx2`].
#[inline(always)]
unsafe fn signed(levels: [__m256i; 2]) -> [[__m256i; 2]; 2] {
    // SAFETY: the caller has AVX2.
    unsafe {
        [
            [_mm256_abs_epi8(levels[0]), _mm256_abs_epi8(levels[1])],
            levels,
        ]
    }
}
