//! When a product is divided among threads.
//!
//! Measured on two cores by `cargo bench -p voxtral-kernels`, a parallel region costs about 2 µs
//! where the calling thread is one of rayon's pool, and 12 to 27 µs where it is not, since the work
//! goes to the pool and the caller sleeps and is woken. 300 regions, as a token of a large decoder
//! has, are then 4 to 8 ms instead of 0.6: whoever calls in a loop does it inside of
//! `rayon::ThreadPool::install` or `rayon::scope`.

use rayon::prelude::*;

/// Multiplications that take as long as a parallel region saves (about 3 µs on one core).
const FROM_POOL: usize = 1 << 17;

/// As [`FROM_POOL`], called by a thread that is not in the pool.
const FROM_OUTSIDE: usize = 1 << 19;

/// Calls `part` for `0..parts`, on the threads of rayon's current pool if that many
/// multiplications are worth it, else here.
pub(crate) fn for_each_part(
    parts: usize,
    multiplications: usize,
    part: impl Fn(usize) + Send + Sync,
) {
    let few = match rayon::current_thread_index() {
        Some(_) => FROM_POOL,
        None => FROM_OUTSIDE,
    };
    if parts <= 1 || multiplications <= few {
        (0..parts).for_each(part);
    } else {
        (0..parts).into_par_iter().for_each(part);
    }
}
