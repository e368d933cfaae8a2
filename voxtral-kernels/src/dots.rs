//! Dot products of pairs of bfloat16 and of quads of bytes: AVX512-BF16 and AVX512-VNNI.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::{Buffer, Shared};
use crate::few::{Few, panels_per_part, write};
use crate::micro::{Micro, PANEL, PANEL_WORDS, ROW, STEP, Tile, UNITS, WORDS, put};
use crate::product::{FEW_ROWS, Product};
use crate::quant::{OFFSET, Quant};
use crate::shuffle::Unpack512;
use crate::simd::{Kernel, Simd};
use crate::source::Panels;
use crate::threads::for_each_part;
use crate::word::{Bf16Word, ByteWord, Word};
use crate::x86::Avx512;

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
            let mut sums = [[_mm512_setzero_ps(); Self::PANELS]; Self::ROWS];
            for unit in 0..of.words / STEP {
                let mut dots = [[_mm512_setzero_si512(); Self::PANELS]; Self::ROWS];
                for (r, dots) in dots.iter_mut().enumerate() {
                    let offset = *of.inputs.add(r * ROW + WORDS + UNITS + unit);
                    *dots = [_mm512_set1_epi32(offset as i32); Self::PANELS];
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

thread_local! {
    /// The packed inputs of the thread that calls.
    static INPUTS: RefCell<Buffer> = RefCell::default();
}

/// Panels that are walked side by side.
const SIDE_BY_SIDE: usize = 4;

/// Bytes of a panel that are asked for ahead.
const AHEAD: usize = 1 << 11;

impl Few for Vnni {
    fn compute(self, product: Product<'_>, weight: Panels<'_>, out: Shared<'_>) {
        let rows = product.shape.rows;
        let chunks = product.shape.inputs.div_ceil(WORDS * ByteWord::INPUTS);
        let mut buffer = INPUTS.take();
        let inputs = buffer.words(rows * chunks * ROW);
        self.vectorize(PackRows { product, inputs });
        let inputs = &*inputs;
        let panels = product.shape.outputs.div_ceil(PANEL);
        let part = panels_per_part(weight, SIDE_BY_SIDE);
        for_each_part(panels.div_ceil(part), product.multiplications(), |i| {
            self.vectorize(FewRows {
                product,
                inputs,
                weight,
                panels: i * part..((i + 1) * part).min(panels),
                out,
            });
        });
        INPUTS.set(buffer);
    }
}

/// Packs a few rows, `[rows, chunks, ROW]`.
struct PackRows<'a> {
    product: Product<'a>,
    inputs: &'a mut [u32],
}

impl Kernel for PackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let mut packed = self.inputs.chunks_exact_mut(ROW);
        for row in self
            .product
            .x
            .chunks_exact(self.product.shape.inputs.max(1))
        {
            for (chunk, packed) in row.chunks(WORDS * ByteWord::INPUTS).zip(&mut packed) {
                ByteWord::pack(chunk, packed);
            }
        }
    }
}

/// A few packed rows times some panels.
struct FewRows<'a> {
    product: Product<'a>,
    inputs: &'a [u32],
    weight: Panels<'a>,
    panels: Range<usize>,
    out: Shared<'a>,
}

impl Kernel for FewRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        const { assert!(FEW_ROWS == 8) };
        let rows = self.product.shape.rows;
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            let left = self.panels.end - panel;
            panel += match rows {
                1 if left >= SIDE_BY_SIDE => self.several::<1, SIDE_BY_SIDE>(panel, 0),
                2 if left >= SIDE_BY_SIDE => self.several::<2, SIDE_BY_SIDE>(panel, 0),
                3.. if left >= 2 => self.all_rows::<2>(panel),
                _ => self.all_rows::<1>(panel),
            };
        }
    }
}

impl FewRows<'_> {
    /// All rows times `P` panels; gives `P`.
    #[inline(always)]
    fn all_rows<const P: usize>(&self, panel: usize) -> usize {
        let rows = self.product.shape.rows;
        for row in (0..rows).step_by(4) {
            match rows - row {
                1 => self.several::<1, P>(panel, row),
                2 => self.several::<2, P>(panel, row),
                3 => self.several::<3, P>(panel, row),
                _ => self.several::<4, P>(panel, row),
            };
        }
        P
    }

    /// `R` rows times `P` panels; gives `P`.
    #[inline(always)]
    fn several<const R: usize, const P: usize>(&self, panel: usize, row: usize) -> usize {
        match self.weight.quant {
            Quant::Q8 => self.sums::<R, P, 8>(panel, row),
            Quant::Q4 => self.sums::<R, P, 4>(panel, row),
        }
        P
    }

    #[inline(always)]
    fn sums<const R: usize, const P: usize, const BITS: u32>(&self, panel: usize, row: usize) {
        let bytes = self.weight.quant.panel_bytes(self.weight.inputs);
        let data = &self.weight.data[panel * bytes..(panel + P) * bytes];
        let units = self.weight.units();
        let chunks = self.inputs.len() / ROW / self.product.shape.rows;
        let inputs = &self.inputs[row * chunks * ROW..][..R * chunks * ROW];
        let codes = self.weight.quant.unit_codes();
        let scales = self.weight.quant.unit_scales();
        // SAFETY: a kernel of `Vnni` runs where it exists; all offsets are within `P` panels and `R`
        // packed rows.
        unsafe {
            let unpack = Unpack512::new();
            let mut sums = [[_mm512_setzero_ps(); P]; R];
            for unit in 0..units {
                let input = inputs.as_ptr().add(unit / UNITS * ROW);
                let (word, unit_in_row) = (unit % UNITS * STEP, unit % UNITS);
                let mut dots = [[_mm512_setzero_si512(); P]; R];
                for (r, dots) in dots.iter_mut().enumerate() {
                    let offset = *input.add(r * chunks * ROW + WORDS + UNITS + unit_in_row);
                    *dots = [_mm512_set1_epi32(offset as i32); P];
                }
                let mut steps = [_mm512_setzero_si512(); P];
                let mut unit_scales = [_mm512_setzero_ps(); P];
                for p in 0..P {
                    let at = data.as_ptr().add(p * bytes + units * codes + unit * scales);
                    unit_scales[p] = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
                    if BITS == 4 {
                        let at = at.add(2 * PANEL).cast();
                        steps[p] = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at));
                    }
                }
                for quads in 0..STEP / 2 {
                    for p in 0..P {
                        let at = data.as_ptr().add(p * bytes + unit * codes);
                        let pair = if BITS == 4 {
                            let at = at.add(quads * 4 * PANEL);
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                            let multipliers = unpack.multipliers(steps[p], quads as u32 / 2);
                            let codes = _mm512_loadu_si512(at.cast());
                            let offset = _mm512_set1_epi8(OFFSET as i8);
                            unpack
                                .levels(codes, multipliers)
                                .map(|levels| _mm512_xor_si512(levels, offset))
                        } else {
                            let at = at.add(2 * quads * 4 * PANEL);
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 64).cast());
                            let next = at.add(4 * PANEL);
                            [
                                _mm512_loadu_si512(at.cast()),
                                _mm512_loadu_si512(next.cast()),
                            ]
                        };
                        for (i, weight) in pair.into_iter().enumerate() {
                            for (r, dots) in dots.iter_mut().enumerate() {
                                let at = r * chunks * ROW + word + 2 * quads + i;
                                let x = _mm512_set1_epi32(*input.add(at) as i32);
                                dots[p] = _mm512_dpbusd_epi32(dots[p], weight, x);
                            }
                        }
                    }
                }
                for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let step = *input
                        .add(r * chunks * ROW + WORDS + unit_in_row)
                        .cast::<f32>();
                    let step = _mm512_set1_ps(step);
                    for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(unit_scales) {
                        let scale = _mm512_mul_ps(scale, step);
                        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (p, sum) in sums.into_iter().enumerate() {
                    let mut lanes = [0.0; PANEL];
                    _mm512_storeu_ps(lanes.as_mut_ptr(), sum);
                    write(self.product, self.out, row + r, panel + p, &lanes);
                }
            }
        }
    }
}
