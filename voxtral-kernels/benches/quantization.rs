//! Weights quantized and dequantized in a second, on one thread. The best of many short runs, which
//! a busy machine disturbs least.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints and may fail"
)]

use std::hint::black_box;
use std::time::Instant;

use voxtral_kernels::{Quant, dequantize, quantize};

const ROWS: usize = 32;
const INPUTS: usize = 3072;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.unwrap().install(|| {
        println!("million weights in a second on one thread, the best of 99");
        for quant in Quant::ALL {
            let values = noise(ROWS * INPUTS);
            let mut data = vec![0; quant.bytes(ROWS, INPUTS).unwrap()];
            let mut back = vec![0.0; values.len()];
            let to = speed(|| quantize(quant, INPUTS, black_box(&values), &mut data));
            let from = speed(|| dequantize(quant, INPUTS, black_box(&data), 0..ROWS, &mut back));
            println!("{quant}: quantized {to:.1}, dequantized {from:.1}");
        }
    });
}

fn speed(mut run: impl FnMut()) -> f64 {
    run();
    let mut seconds = [0.0; 99].map(|_: f64| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    seconds.sort_by(f64::total_cmp);
    (ROWS * INPUTS) as f64 / seconds[0] / 1e6
}

/// Near to normal: the sum of four uniform numbers (xorshift64*, Vigna 2016).
fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| (0..4).map(|_| next()).sum()).collect()
}
