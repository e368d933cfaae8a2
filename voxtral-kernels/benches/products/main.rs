//! Products as shares of what this machine can do.
//!
//! ```sh
//! cargo bench -p voxtral-kernels
//! VOXTRAL_ISA=avx2 RAYON_NUM_THREADS=1 cargo bench -p voxtral-kernels
//! ```
//!
//! Times of a machine that does other things as well mean little, so ceilings (`ceilings.rs`) and
//! products are measured in turns, and each is the best of its turns. A product of few rows is
//! bound by the reading of its weights, and a product of many by multiplication; `gemm` is the
//! crate of that name, in `f32`, with the features that Burn's Flex backend gives it.

#![allow(clippy::print_stdout, reason = "it prints its results")]

mod ceilings;
mod entries;

use std::time::Instant;

use entries::{Entry, Kind};
use voxtral_kernels::{IsaError, Kernels};

/// Turns of everything.
const TURNS: usize = 12;

fn main() -> Result<(), IsaError> {
    let kernels = Kernels::from_env()?;
    let threads = rayon::current_num_threads();
    println!(
        "{} on {threads} threads, the best of {TURNS} turns\n",
        kernels.isa()
    );

    let mut read = ceilings::Read::new();
    let mut entries = entries::all();
    let (mut bandwidth, mut peak): (f64, f64) = (0.0, 0.0);
    for _ in 0..TURNS {
        bandwidth = bandwidth.max(read.bytes_per_second());
        peak = peak.max(ceilings::multiplications_per_second(kernels.isa()));
        for entry in &mut entries {
            entry.turn(kernels);
        }
    }
    println!("reading memory     {:8.1} GB/s", bandwidth / 1e9);
    println!("f32 multiply-adds  {:8.1} GFLOP/s", 2.0 * peak / 1e9);
    println!(
        "parallel region    {:8.1} µs called from the pool, {:.1} µs from without\n",
        1e6 * rayon::join(ceilings::region, || ()).0,
        1e6 * ceilings::region()
    );
    println!(
        "{:<34}{:>10}{:>20}{:>9}{:>9}",
        "product", "ms", "rate", "ceiling", "gemm"
    );
    for entry in &entries {
        print_row(entry, bandwidth, peak);
    }
    Ok(())
}

fn print_row(entry: &Entry, bandwidth: f64, peak: f64) {
    let seconds = entry.seconds;
    let (rate, share) = match entry.kind {
        Kind::Memory => {
            let rate = entry.bytes() / seconds;
            (format!("{:.1} GB/s", rate / 1e9), rate / bandwidth)
        }
        Kind::Arithmetic => {
            let rate = entry.multiplications() / seconds;
            (format!("{:.1} GFLOP/s", 2.0 * rate / 1e9), rate / peak)
        }
    };
    println!(
        "{:<34}{:>10.3}{rate:>20}{:>7.0} %{:>7.2} ×",
        entry.name(),
        1e3 * seconds,
        100.0 * share,
        entry.gemm_seconds / seconds,
    );
}

/// The time of a call, in seconds.
fn seconds(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}
