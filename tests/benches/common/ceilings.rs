//! What the machine can do at most, sampled between the stages, so that load from elsewhere weighs
//! on both alike: [`voxtral_kernels::machine`] has the loops.

use std::fmt;

use serde::Serialize;
use voxtral_kernels::{
    Isa, Kernels,
    machine::{Arithmetic, Memory, multiplications_per_second},
};

use super::{clock::quantile, process, text::rounded, work::Work};

/// Long reads at a time.
const READS: usize = 3;

/// Runs of each arithmetic at a time: they take a millisecond or two, in which much can happen.
const RUNS: usize = 8;

/// The rates that were seen.
#[derive(Debug)]
pub(crate) struct Ceilings {
    isa: Isa,
    /// Bytes per second.
    reads: Vec<f64>,
    /// Operations per second of every kind of arithmetic that the kernels use here.
    peaks: Vec<(Arithmetic, Vec<f64>)>,
    /// The most memory that was resident, but for that of the samples.
    peak: Option<u64>,
}

/// Rates at which work is done.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rates {
    /// Bytes per second of a long read.
    pub(crate) read: f64,
    /// Operations per second, a multiplication and its addition being two: in `f32`,
    pub(crate) f32: f64,
    /// with weights in bfloat16,
    pub(crate) bf16: f64,
    /// and with quantized weights.
    pub(crate) int8: f64,
}

/// The machine in the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Threads of the kernels.
    pub(crate) threads: usize,
    /// Instruction set of the kernels.
    pub(crate) isa: &'static str,
    /// The best that was seen.
    pub(crate) best: Rates,
    /// The medians.
    pub(crate) median: Rates,
    /// Every arithmetic of the instruction set.
    pub(crate) peaks: Vec<Peak>,
    /// What multiplies many rows with bfloat16 weights.
    pub(crate) bf16_by: &'static str,
    /// What multiplies many rows with quantized weights.
    pub(crate) int8_by: &'static str,
}

/// Operations per second in registers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Peak {
    pub(crate) name: &'static str,
    pub(crate) best: f64,
    pub(crate) median: f64,
}

impl Ceilings {
    /// Of the instruction set that the kernels use; measures a few times.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let isa = Kernels::from_env()?.isa();
        let kinds = Arithmetic::of(isa).iter();
        let mut ceilings = Self {
            isa,
            reads: Vec::new(),
            peaks: kinds.map(|&kind| (kind, Vec::new())).collect(),
            peak: None,
        };
        ceilings.sample();
        Ok(ceilings)
    }

    /// Measures a few times more.
    pub(crate) fn sample(&mut self) {
        self.note_peak();
        {
            let memory = Memory::new();
            let reads = (0..READS).map(|_| memory.bytes_per_second());
            self.reads.extend(reads);
        }
        for (kind, rates) in &mut self.peaks {
            let runs = (0..RUNS).filter_map(|_| multiplications_per_second(self.isa, *kind));
            rates.extend(runs.map(|multiplications| 2.0 * multiplications));
        }
        process::forget_peak();
    }

    /// The most that was resident so far, but for the samples' own memory.
    pub(crate) fn peak(&mut self) -> Option<u64> {
        self.note_peak();
        self.peak
    }

    /// Forgets it.
    pub(crate) fn forget_peak(&mut self) {
        process::forget_peak();
        self.peak = None;
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(process::peak());
    }

    /// What is known so far.
    pub(crate) fn machine(&self) -> Machine {
        let narrow = Arithmetic::of_bf16(self.isa);
        let coded = Arithmetic::of_quantized(self.isa);
        let rates = |share| Rates {
            read: quantile(&self.reads, share),
            f32: self.rate(Arithmetic::F32, share),
            bf16: self.rate(narrow, share),
            int8: self.rate(coded, share),
        };
        Machine {
            threads: voxtral_kernels::threads(),
            isa: self.isa.name(),
            best: rates(1.0),
            median: rates(0.5),
            peaks: self.each().collect(),
            bf16_by: name(narrow),
            int8_by: name(coded),
        }
    }

    fn each(&self) -> impl Iterator<Item = Peak> {
        self.peaks.iter().map(|(kind, rates)| Peak {
            name: name(*kind),
            best: quantile(rates, 1.0),
            median: quantile(rates, 0.5),
        })
    }

    fn rate(&self, kind: Arithmetic, share: f64) -> f64 {
        let found = self.peaks.iter().find(|(found, _)| *found == kind);
        found.map_or(f64::NAN, |(_, rates)| quantile(rates, share))
    }
}

impl Rates {
    /// Seconds that the arithmetic of this work takes.
    pub(crate) fn arithmetic(&self, work: Work) -> f64 {
        // Every machine has the first.
        let narrow = [(work.narrow, self.bf16), (work.coded, self.int8)];
        let narrow = narrow
            .into_iter()
            .filter(|(operations, _)| *operations > 0.0);
        work.float / self.f32
            + narrow
                .map(|(operations, rate)| operations / rate)
                .sum::<f64>()
    }

    /// Seconds that its bytes take to be read once.
    pub(crate) fn reading(&self, work: Work) -> f64 {
        work.bytes / self.read
    }

    /// The longer of both: no pass is faster.
    pub(crate) fn bound(&self, work: Work) -> f64 {
        self.arithmetic(work).max(self.reading(work))
    }
}

fn name(kind: Arithmetic) -> &'static str {
    match kind {
        Arithmetic::F32 => "f32 FMA",
        Arithmetic::Pairs => "bf16 pairs",
        Arithmetic::Bytes => "int8 dot products",
        Arithmetic::Tiles => "bf16 tiles",
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} threads, kernels of {}; ceilings, best and median of the run:",
            self.threads, self.isa
        )?;
        let mut line = |name: &str, best: f64, median: f64, unit: &str| {
            let (best, median) = (rounded(best / 1e9), rounded(median / 1e9));
            writeln!(f, "  {name:<20} {best:>8} {median:>8} {unit}")
        };
        line("streaming read", self.best.read, self.median.read, "GB/s")?;
        for peak in &self.peaks {
            line(peak.name, peak.best, peak.median, "GOP/s in registers")?;
        }
        write!(
            f,
            "  for products with bfloat16 weights {} count, with quantized weights {}",
            self.bf16_by, self.int8_by
        )
    }
}
