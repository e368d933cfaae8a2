//! The tables, and the same as JSON.

use std::fmt;

use serde::Serialize;

use crate::{
    bench::Times,
    common::{
        ceilings::Machine,
        process::Resident,
        text::{mebibytes, milliseconds, percent, rounded},
        work::Work,
    },
    kernels::Comparison,
    profile::Profile,
    transformers::SideBySide,
};

/// A row as it was measured.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What others call it.
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) times: Times,
    pub(crate) rate: Option<Rate>,
    /// What a pass must do at least.
    pub(crate) work: Option<Work>,
    pub(crate) note: Option<String>,
}

/// What a pass gets done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rate {
    /// So many tokens.
    Tokens(f64),
    /// So many seconds of sound.
    Sound(f64),
}

/// Memory at some point.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MemoryRow {
    pub(crate) when: &'static str,
    #[serde(flatten)]
    pub(crate) resident: Resident,
    /// The most so far, from before the model was loaded.
    pub(crate) peak: u64,
}

/// All that was measured. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    /// Bytes of the checkpoint's tensors.
    pub(crate) bytes: u64,
    pub(crate) parameters: u64,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Measured>,
    pub(crate) memory: Vec<MemoryRow>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) kernels: Vec<Comparison>,
    pub(crate) transformers: Option<SideBySide>,
}

/// A row beside the ceilings.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) passes: usize,
    pub(crate) best: f64,
    pub(crate) median: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<f64>,
    /// Seconds for a second of sound: below 1 is faster than it is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) real_time_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling: Option<Ceiling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What no pass is faster than.
#[derive(Debug, Serialize)]
struct Ceiling {
    work: Work,
    /// Seconds of the arithmetic at the best peak, and of reading the bytes at the best rate.
    arithmetic: f64,
    reading: f64,
    /// The longer of both over the best time.
    share_of_best: f64,
    /// The same of medians.
    share_of_median: f64,
}

impl Measured {
    pub(crate) fn new(row: Row, machine: &Machine) -> Self {
        let Times {
            passes,
            best,
            median,
        } = row.times;
        let (tokens, sound) = match row.rate {
            Some(Rate::Tokens(tokens)) => (Some(tokens), None),
            Some(Rate::Sound(seconds)) => (None, Some(seconds)),
            None => (None, None),
        };
        Self {
            key: row.key,
            name: row.name,
            passes,
            best,
            median,
            tokens_per_second: tokens.map(|tokens| tokens / best),
            real_time_factor: sound.map(|seconds| best / seconds),
            ceiling: row.work.map(|work| Ceiling {
                work,
                arithmetic: machine.best.arithmetic(work),
                reading: machine.best.reading(work),
                share_of_best: machine.best.bound(work) / best,
                share_of_median: machine.median.bound(work) / median,
            }),
            note: row.note,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} parameters in {}",
            self.model,
            self.parameters,
            mebibytes(self.bytes)
        )?;
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "ceiling: the longer of a row's arithmetic at the best peak and of reading its weights, \
             keys and\n  values once at the best rate of memory; share: ceiling over time, best \
             over best, median over median;\n  above one where caches hold what a row reads; RTF: seconds for a second of sound"
        )?;
        if !self.rows.is_empty() {
            writeln!(
                f,
                "\n{:<46} {:>6} {:>11} {:>11} {:>16} {:>11} {:<10} {:>7} {:>7}",
                "row", "passes", "best", "median", "rate", "ceiling", "", "share", "median"
            )?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        self.write_memory(f)?;
        self.profiles
            .iter()
            .try_for_each(|profile| write!(f, "\n{profile}"))?;
        if !self.kernels.is_empty() {
            writeln!(
                f,
                "\n{:<68} {:>11} {:>11} {:>8}",
                "our operation beside plain Burn's: best times", "ours", "plain", "ratio"
            )?;
        }
        self.kernels
            .iter()
            .try_for_each(|comparison| writeln!(f, "{comparison}"))?;
        match &self.transformers {
            Some(side) => write!(f, "\n{side}"),
            None => Ok(()),
        }
    }
}

impl Report {
    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.memory.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<46} {:>14} {:>14} {:>14} {:>14}",
            "memory", "resident", "anonymous", "file pages", "most so far"
        )?;
        self.memory.iter().try_for_each(|row| {
            writeln!(
                f,
                "{:<46} {:>14} {:>14} {:>14} {:>14}",
                row.when,
                mebibytes(row.resident.all),
                mebibytes(row.resident.anonymous),
                mebibytes(row.resident.file),
                mebibytes(row.peak)
            )
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = match (self.tokens_per_second, self.real_time_factor) {
            (Some(tokens), _) => format!("{} tokens/s", rounded(tokens)),
            (None, Some(factor)) => format!("{factor:.4} RTF"),
            (None, None) => String::new(),
        };
        let (ceiling, by, best, median) = match &self.ceiling {
            Some(ceiling) => {
                let longer = ceiling.arithmetic.max(ceiling.reading);
                let by = if ceiling.reading >= ceiling.arithmetic {
                    "read"
                } else {
                    "arithmetic"
                };
                (
                    milliseconds(longer),
                    by,
                    percent(ceiling.share_of_best),
                    percent(ceiling.share_of_median),
                )
            }
            None => Default::default(),
        };
        let line = format!(
            "{:<46} {:>6} {:>11} {:>11} {rate:>16} {ceiling:>11} {by:<10} {best:>7} {median:>7}",
            self.name,
            self.passes,
            milliseconds(self.best),
            milliseconds(self.median),
        );
        f.write_str(line.trim_end())?;
        match &self.note {
            Some(note) => write!(f, "\n  {note}"),
            None => Ok(()),
        }
    }
}
