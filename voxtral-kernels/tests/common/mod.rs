//! What tests of several kernels share.

use voxtral_kernels::{Isa, Kernels};

/// Those of every instruction set that this machine has.
pub(crate) fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().map(|isa| Kernels::new(isa).unwrap())
}

/// Numbers without a pattern, in [-1, 1) (xorshift64*, Vigna 2016).
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What a call gives on pools of 1, 2, 3 and 7 threads.
pub(crate) fn on_threads<T: Send>(call: impl Fn() -> T + Sync) -> Vec<T> {
    [1, 2, 3, 7]
        .into_iter()
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(&call)
        })
        .collect()
}
