//! What the machine can do.

use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use voxtral_kernels::Isa;

use crate::seconds;

/// Memory that no cache holds, read on all threads, each walking 8 streams.
pub(crate) struct Read {
    memory: Vec<u64>,
}

impl Read {
    const BYTES: usize = 1 << 28;
    const STREAMS: usize = 8;
    /// A part of a thread's work.
    const PART: usize = 1 << 18;

    pub(crate) fn new() -> Self {
        // Not zeros, which the system might not even store.
        let memory = (0..(Self::BYTES / size_of::<u64>()) as u64).collect();
        Self { memory }
    }

    pub(crate) fn bytes_per_second(&mut self) -> f64 {
        let part = Self::PART / size_of::<u64>();
        let time = seconds(|| {
            let parts = self.memory.par_chunks_exact(part);
            let sum = parts.map(Self::sum).reduce(|| 0, |a, b| a ^ b);
            black_box(sum);
        });
        Self::BYTES as f64 / time
    }

    fn sum(part: &[u64]) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if Isa::Avx2.is_available() {
            // SAFETY: the processor has AVX2.
            return unsafe { x86::sum(part) };
        }
        sum(part)
    }
}

/// All words, walking the streams side by side.
#[inline(always)]
fn sum(part: &[u64]) -> u64 {
    const WORDS: usize = 8;
    let (lines, rest) = part.as_chunks::<WORDS>();
    assert!(rest.is_empty() && lines.len() % Read::STREAMS == 0);
    let len = lines.len() / Read::STREAMS;
    let streams: [&[[u64; WORDS]]; Read::STREAMS] =
        std::array::from_fn(|i| &lines[i * len..][..len]);
    let mut sums = [0; WORDS];
    for p in 0..len {
        for stream in streams {
            for (sum, word) in sums.iter_mut().zip(&stream[p]) {
                *sum ^= word;
            }
        }
    }
    sums.into_iter().fold(0, |a, b| a ^ b)
}

/// Fused multiplications and additions of `f32`, of registers only, on all threads.
pub(crate) fn multiplications_per_second(isa: Isa) -> f64 {
    const TIMES: usize = 1 << 21;
    let threads = rayon::current_num_threads();
    let lanes = std::sync::atomic::AtomicUsize::new(0);
    let time = seconds(|| {
        rayon::broadcast(|_| {
            let count = match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: kernels for it could be had.
                Isa::Avx512 => unsafe { x86::avx512(TIMES) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: kernels for it could be had.
                Isa::Avx2 => unsafe { x86::avx2(TIMES) },
                _ => portable(TIMES),
            };
            lanes.store(count, std::sync::atomic::Ordering::Relaxed);
        });
    });
    (threads * TIMES * lanes.into_inner()) as f64 / time
}

/// Gives the multiplications of one time.
fn portable(times: usize) -> usize {
    const CHAINS: usize = 32;
    let (a, b) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = [1.0_f32; CHAINS];
    for _ in 0..times {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    CHAINS
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Enough to fill two units of latency 4 or 5.
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx2")]
    pub(super) fn sum(part: &[u64]) -> u64 {
        super::sum(part)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(times: usize) -> usize {
        let (a, b) = (
            _mm512_set1_ps(black_box(0.999)),
            _mm512_set1_ps(black_box(0.001)),
        );
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..times {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        CHAINS * 16
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(times: usize) -> usize {
        let (a, b) = (
            _mm256_set1_ps(black_box(0.999)),
            _mm256_set1_ps(black_box(0.001)),
        );
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..times {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        CHAINS * 8
    }
}

/// What a parallel region adds to its parts, which take a while so that all threads join in: the
/// median of as many regions as a token has.
pub(crate) fn region() -> f64 {
    const REGIONS: usize = 300;
    const PART: Duration = Duration::from_micros(20);
    let threads = rayon::current_num_threads();
    let mut times: Vec<f64> = (0..REGIONS)
        .map(|_| {
            seconds(|| {
                (0..threads).into_par_iter().for_each(|_| {
                    let start = Instant::now();
                    while start.elapsed() < PART {
                        spin_loop();
                    }
                });
            })
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[REGIONS / 2] - PART.as_secs_f64()
}
