//! Products as shares of what this machine can do.
//!
//! ```sh
//! cargo bench -p voxtral-kernels
//! VOXTRAL_ISA=avx2 cargo bench -p voxtral-kernels -- q4
//! ```
//!
//! A word after `--` chooses the products whose names have it.
//!
//! Times of a machine that does other things as well mean little, so ceilings and
//! products are measured in turns, and each is the best of its turns. A product of few rows is
//! bound by the reading of its weights, and a product of many by multiplication; `gemm` is the
//! crate of that name, in `f32`, with the features that Burn's Flex backend gives it.

#![allow(clippy::print_stdout, reason = "it prints its results")]

mod ceilings;
mod entries;

use std::time::Instant;

use entries::{Entry, Kind};
use voxtral_kernels::machine::{Arithmetic, Memory, multiplications_per_second};
use voxtral_kernels::{Isa, IsaError, Kernels};

/// Turns of everything.
const TURNS: usize = 8;

fn main() -> Result<(), IsaError> {
    let kernels = Kernels::from_env()?;
    let threads = voxtral_kernels::threads();
    println!(
        "{} on {threads} threads, the best of {TURNS} turns\n",
        kernels.isa()
    );

    let memory = Memory::new();
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut entries = entries::all(&filter.unwrap_or_default());
    let mut ceilings = Ceilings {
        isa: kernels.isa(),
        bandwidth: 0.0,
        peaks: Arithmetic::of(kernels.isa())
            .iter()
            .map(|&a| (a, 0.0))
            .collect(),
    };
    for _ in 0..TURNS {
        ceilings.bandwidth = ceilings.bandwidth.max(memory.bytes_per_second());
        for (arithmetic, peak) in &mut ceilings.peaks {
            let found = multiplications_per_second(kernels.isa(), *arithmetic);
            *peak = peak.max(found.unwrap_or_default());
        }
        for entry in &mut entries {
            entry.turn(kernels);
        }
    }
    println!("reading memory     {:8.1} GB/s", ceilings.bandwidth / 1e9);
    for (arithmetic, peak) in &ceilings.peaks {
        let name = format!("{arithmetic:?}").to_lowercase();
        println!("{name:<18} {:8.1} GFLOP/s", 2.0 * peak / 1e9);
    }
    println!(
        "parallel region    {:8.1} µs; rayon's {:.1} µs called from its pool, {:.1} µs from without\n",
        1e6 * ceilings::region(kernels, threads),
        1e6 * rayon::join(ceilings::rayon_region, || ()).0,
        1e6 * ceilings::rayon_region()
    );
    println!(
        "{:<34}{:>10}{:>20}{:>9}{:>9}",
        "product", "ms", "rate", "ceiling", "gemm"
    );
    for entry in &entries {
        print_row(entry, &ceilings);
    }
    Ok(())
}

/// The most that the machine does in a second.
struct Ceilings {
    isa: Isa,
    /// Bytes read.
    bandwidth: f64,
    /// Multiplications of each arithmetic, the fastest first.
    peaks: Vec<(Arithmetic, f64)>,
}

fn print_row(entry: &Entry, ceilings: &Ceilings) {
    let seconds = entry.seconds;
    let (rate, share) = match entry.kind {
        Kind::Memory => {
            let rate = entry.bytes() / seconds;
            (format!("{:.1} GB/s", rate / 1e9), rate / ceilings.bandwidth)
        }
        Kind::Arithmetic => {
            let rate = entry.multiplications() / seconds;
            (
                format!("{:.1} GFLOP/s", 2.0 * rate / 1e9),
                rate / ceilings.peak(entry),
            )
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

impl Ceilings {
    /// Of the arithmetic that the product is computed with.
    fn peak(&self, entry: &Entry) -> f64 {
        let arithmetic = match entry {
            _ if entry.is_quantized() => Arithmetic::of_quantized(self.isa),
            _ if entry.is_narrow() => Arithmetic::of_bf16(self.isa),
            _ => Arithmetic::F32,
        };
        let mut peaks = self.peaks.iter();
        let of = peaks.find(|(other, _)| *other == arithmetic);
        of.map_or(f64::NAN, |(_, peak)| *peak)
    }
}

/// The time of a call, in seconds.
fn seconds(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}
