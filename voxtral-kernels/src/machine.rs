//! What this machine can do at most, for benchmarks that give shares of it.
//!
//! Every figure is of all threads of the kernels, and of one turn: on a machine that does other
//! things as well, take the best of several.

use std::hint::black_box;
use std::time::Instant;

use crate::Kernels;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd};
use crate::threads::{every_thread, for_each_part};

/// Memory that no cache holds.
#[derive(Debug)]
pub struct Memory(Vec<u64>);

impl Memory {
    const BYTES: usize = 1 << 28;
    /// What a thread reads at a time.
    const PART: usize = 1 << 18;

    /// Takes 256 MiB.
    #[must_use]
    pub fn new() -> Self {
        // Not zeros, which the system might not even store.
        Self((0..(Self::BYTES / size_of::<u64>()) as u64).collect())
    }

    /// Bytes read in a second, each thread walking eight streams.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        let part = Self::PART / size_of::<u64>();
        let kernels = Kernels::detect();
        let start = Instant::now();
        for_each_part(self.0.len() / part, usize::MAX, |i| {
            let part = &self.0[i * part..(i + 1) * part];
            // SAFETY: all bits are values.
            let (_, values, _) = unsafe { part.align_to::<f32>() };
            kernels.vectorize(Read(values));
        });
        Self::BYTES as f64 / start.elapsed().as_secs_f64()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const STREAMS: usize = 8;
        let len = self.0.len() / STREAMS / S::LANES * S::LANES;
        let mut sums = [simd.splat(0.0); STREAMS];
        for p in (0..len).step_by(S::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `LANES` values of stream `i`.
                let values = unsafe { simd.load(self.0.as_ptr().add(i * len + p)) };
                *sum = simd.add(*sum, values);
            }
        }
        for sum in sums {
            black_box(simd.sum(sum));
        }
    }
}

/// A kind of multiplication and addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `f32`, with the vectors of an instruction set.
    F32,
    /// Pairs of bfloat16.
    Pairs,
    /// Quads of bytes.
    Bytes,
    /// Tiles of bfloat16.
    Tiles,
}

impl Arithmetic {
    /// What an instruction set has.
    #[must_use]
    pub fn of(isa: Isa) -> &'static [Self] {
        match isa {
            Isa::Amx => &[Self::Tiles, Self::Bytes, Self::F32],
            Isa::Avx512Bf16 => &[Self::Pairs, Self::Bytes, Self::F32],
            Isa::Avx512Vnni => &[Self::Bytes, Self::F32],
            Isa::Avx512 | Isa::Avx2 | Isa::Portable => &[Self::F32],
        }
    }

    /// What an instruction set multiplies many rows with a bfloat16 weight with.
    #[must_use]
    pub fn of_bf16(isa: Isa) -> Self {
        match isa {
            Isa::Amx => Self::Tiles,
            Isa::Avx512Bf16 => Self::Pairs,
            Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 | Isa::Portable => Self::F32,
        }
    }

    /// What an instruction set multiplies many rows with a quantized weight with.
    #[must_use]
    pub fn of_quantized(isa: Isa) -> Self {
        match isa {
            Isa::Amx => Self::Tiles,
            Isa::Avx512Bf16 | Isa::Avx512Vnni => Self::Bytes,
            Isa::Avx512 | Isa::Avx2 | Isa::Portable => Self::F32,
        }
    }
}

/// Multiplications in a second, each with its addition, of registers only; `None` where the
/// instruction set has no such arithmetic or this processor not the instruction set.
#[must_use]
pub fn multiplications_per_second(isa: Isa, arithmetic: Arithmetic) -> Option<f64> {
    const TIMES: usize = 1 << 20;
    if !isa.is_available() || !Arithmetic::of(isa).contains(&arithmetic) {
        return None;
    }
    let start = Instant::now();
    let per_thread = every_thread(|| match (isa, arithmetic) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` is available and has this arithmetic.
        (_, Arithmetic::Tiles) => unsafe { x86::tiles(TIMES / 16) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` is available and has this arithmetic.
        (_, Arithmetic::Pairs) => unsafe { x86::pairs(TIMES) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` is available and has this arithmetic.
        (_, Arithmetic::Bytes) => unsafe { x86::bytes(TIMES) },
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512, _) => {
            // SAFETY: `isa` is available.
            fma(unsafe { crate::x86::Avx512::new_unchecked() }, TIMES)
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `isa` is available.
        (Isa::Avx2, _) => fma(unsafe { crate::x86::Avx2::new_unchecked() }, TIMES),
        _ => fma(crate::portable::Portable, TIMES),
    });
    Some(per_thread.into_iter().sum::<usize>() as f64 / start.elapsed().as_secs_f64())
}

/// Enough sums to fill two units of latency 4 or 5.
const CHAINS: usize = 12;

fn fma<S: Simd>(simd: S, times: usize) -> usize {
    struct Multiply(usize);

    impl Kernel for Multiply {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let (a, b) = (simd.splat(black_box(0.999)), simd.splat(black_box(0.001)));
            let mut sums = [simd.splat(1.0); CHAINS];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = simd.mul_add(*sum, a, b);
                }
            }
            for sum in sums {
                black_box(simd.sum(sum));
            }
        }
    }

    simd.vectorize(Multiply(times));
    times * CHAINS * S::LANES
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn pairs(times: usize) -> usize {
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        let pair = _mm512_set1_epi32(black_box(0x3f80_3f80));
        // SAFETY: both are 512 bits of any value.
        let pair: __m512bh = unsafe { std::mem::transmute(pair) };
        for _ in 0..times {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pair, pair);
            }
        }
        for sum in sums {
            black_box(_mm512_reduce_add_ps(sum));
        }
        times * CHAINS * 32
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn bytes(times: usize) -> usize {
        let mut sums = [_mm512_set1_epi32(1); CHAINS];
        let quad = _mm512_set1_epi32(black_box(0x0102_0304));
        for _ in 0..times {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, quad, quad);
            }
        }
        for sum in sums {
            black_box(_mm512_reduce_add_epi32(sum));
        }
        times * CHAINS * 64
    }

    /// # Safety
    ///
    /// The processor has AMX with bfloat16, and the system lets this process use it.
    pub(super) unsafe fn tiles(times: usize) -> usize {
        // SAFETY: the caller's.
        unsafe { crate::amx::in_registers(times) };
        times * 4 * 16 * 16 * 32
    }
}
