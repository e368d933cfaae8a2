//! What a parallel region costs.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use voxtral_kernels::{Kernels, Shape, Weight};

use crate::seconds;

/// What a parallel region of rayon adds to its parts, which take a while so that all threads join
/// in: the median of as many regions as a token has.
pub(crate) fn rayon_region() -> f64 {
    const PART: Duration = Duration::from_micros(20);
    let threads = rayon::current_num_threads();
    let regions = median(|| {
        (0..threads).into_par_iter().for_each(|_| {
            let start = Instant::now();
            while start.elapsed() < PART {
                spin_loop();
            }
        });
    });
    regions - PART.as_secs_f64()
}

/// A product that is just worth a region, and the same on one thread: what the region adds to an
/// even share of the work.
pub(crate) fn region(kernels: Kernels, threads: usize) -> f64 {
    let shape = |outputs| Shape {
        rows: 1,
        inputs: 256,
        outputs,
    };
    // Small enough for the cache of each core, and the smaller one for one thread alone.
    let (small, large) = (shape(256), shape(256 * threads));
    let x = vec![1.0; 256];
    let weight = vec![1.0; 256 * 256 * threads];
    let mut out = vec![0.0; 256 * threads];
    let mut time = |shape: Shape| {
        median(|| {
            let weight = Weight::F32(&weight[..256 * shape.outputs]);
            let out = &mut out[..shape.outputs];
            assert!(kernels.project(shape, &x, weight, None, out).is_ok());
        })
    };
    time(large) - time(small)
}

fn median(mut call: impl FnMut()) -> f64 {
    const TIMES: usize = 300;
    let mut times: Vec<f64> = (0..TIMES).map(|_| seconds(&mut call)).collect();
    times.sort_by(f64::total_cmp);
    times[TIMES / 2]
}
