//! What the machine can do, measured between the stages, so that load from elsewhere weighs on
//! both alike.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;

use burn_tensor::{DType, Tensor, TensorData};
use serde::Serialize;

use crate::{B, clock::quantile, clock::time, sound::noise, work::Work};

/// Rows, columns and depth of the product.
pub(crate) const SIDE: usize = 1024;

/// Bytes that are read: more than any cache holds.
pub(crate) const READ_BYTES: usize = 256 << 20;

/// Runs of each at a time.
const RUNS: usize = 3;

/// The rates at which the machine multiplies and reads.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// Of a product `[1024, 1024]` × `[1024, 1024]` in `f32`, in operations per second.
    products: Vec<f64>,
    /// Of a sum over a long array on all threads, in bytes per second.
    reads: Vec<f64>,
}

/// The medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rates {
    /// Threads.
    pub(crate) threads: usize,
    /// Operations per second of a large product.
    pub(crate) flops: f64,
    /// Bytes per second of a long read.
    pub(crate) bytes: f64,
}

impl Machine {
    /// Measures both a few times more.
    pub(crate) fn sample(&mut self) {
        let matrix = |seed| {
            let data = TensorData::new(noise(SIDE * SIDE, seed), [SIDE, SIDE]);
            Tensor::<B, 2>::from_data(data, (&Default::default(), DType::F32))
        };
        let (a, b) = (matrix(1), matrix(2));
        let flops = 2.0 * (SIDE as f64).powi(3);
        let words = vec![1_u64; READ_BYTES / size_of::<u64>()];
        let product = || black_box(a.clone().matmul(b.clone()).into_data());
        // The first of each is slow: threads start, and memory is given.
        product();
        read(&words);
        for _ in 0..RUNS {
            self.products.push(flops / time(product).0.as_secs_f64());
            let taken = time(|| read(&words)).0;
            self.reads.push(READ_BYTES as f64 / taken.as_secs_f64());
        }
    }

    /// What is known so far.
    pub(crate) fn rates(&self) -> Rates {
        Rates {
            threads: threads(),
            flops: quantile(&self.products, 0.5),
            bytes: quantile(&self.reads, 0.5),
        }
    }
}

impl Rates {
    /// The share of a time that the arithmetic of this work takes at this machine's rate.
    pub(crate) fn product_share(&self, work: Work, seconds: f64) -> f64 {
        work.flops / self.flops / seconds
    }

    /// The same for the bytes that it reads.
    pub(crate) fn read_share(&self, work: Work, seconds: f64) -> f64 {
        work.bytes / self.bytes / seconds
    }
}

/// Sums an array on all threads.
fn read(words: &[u64]) {
    thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads())) {
            scope.spawn(|| {
                black_box(
                    part.iter()
                        .fold(0, |sum: u64, word| sum.wrapping_add(*word)),
                )
            });
        }
    });
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
