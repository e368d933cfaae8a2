//! Attention and what is not a matrix product, as shares of what this machine can do.
//!
//! ```sh
//! cargo bench -p voxtral-kernels --bench layers
//! VOXTRAL_ISA=avx2 cargo bench -p voxtral-kernels --bench layers -- attention
//! ```
//!
//! As of the products, ceilings and kernels are measured in turns, and each is the best of its
//! turns. An argument is a part of the names to measure. What is read and written are the operands
//! once, and of attention only what the queries see; the ceiling is that of reading. Attention of
//! many queries to keys and values in bfloat16 is a share of the products of bfloat16, where the
//! instruction set has them.

#![allow(clippy::print_stdout, reason = "it prints its results")]

mod entries;

use std::time::Instant;

use entries::Entry;
use voxtral_kernels::machine::{Arithmetic, Memory, multiplications_per_second};
use voxtral_kernels::{IsaError, Kernels};

/// Turns of everything.
const TURNS: usize = 12;

fn main() -> Result<(), IsaError> {
    let kernels = Kernels::from_env()?;
    let threads = voxtral_kernels::threads();
    println!(
        "{} on {threads} threads, the best of {TURNS} turns\n",
        kernels.isa()
    );
    // Cargo adds an option of its own.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = wanted.unwrap_or_default();
    let mut entries = entries::all(&wanted);
    let memory = Memory::new();
    let narrow = [Arithmetic::Tiles, Arithmetic::Pairs]
        .into_iter()
        .find(|arithmetic| Arithmetic::of(kernels.isa()).contains(arithmetic));
    let arithmetics = [Arithmetic::F32, narrow.unwrap_or(Arithmetic::F32)];
    let (mut bandwidth, mut peaks): (f64, [f64; 2]) = (0.0, [0.0; 2]);
    for _ in 0..TURNS {
        bandwidth = bandwidth.max(memory.bytes_per_second());
        for (peak, arithmetic) in peaks.iter_mut().zip(arithmetics) {
            let found = multiplications_per_second(kernels.isa(), arithmetic);
            *peak = peak.max(found.unwrap_or_default());
        }
        for entry in &mut entries {
            entry.turn(kernels);
        }
    }
    println!("reading memory     {:8.1} GB/s", bandwidth / 1e9);
    println!("f32 multiply-adds  {:8.1} GFLOP/s", 2.0 * peaks[0] / 1e9);
    println!("bf16 multiply-adds {:8.1} GFLOP/s\n", 2.0 * peaks[1] / 1e9);
    println!("{:<52}{:>10}{:>18}{:>9}", "kernel", "ms", "rate", "ceiling");
    for entry in &entries {
        print_row(entry, bandwidth, peaks[usize::from(entry.narrow)]);
    }
    Ok(())
}

/// The rate of what takes longer at least: to read and write, or to multiply.
fn print_row(entry: &Entry, bandwidth: f64, peak: f64) {
    let (by_memory, by_arithmetic) = (entry.bytes / bandwidth, entry.multiplications / peak);
    let rate = match by_memory > by_arithmetic {
        true => format!("{:.1} GB/s", entry.bytes / entry.seconds / 1e9),
        false => format!(
            "{:.1} GFLOP/s",
            2.0 * entry.multiplications / entry.seconds / 1e9
        ),
    };
    println!(
        "{:<52}{:>10.3}{rate:>18}{:>7.0} %",
        entry.name,
        1e3 * entry.seconds,
        100.0 * by_memory.max(by_arithmetic) / entry.seconds
    );
}

/// The time of a call, in seconds.
fn seconds(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}
