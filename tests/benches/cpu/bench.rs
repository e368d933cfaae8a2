//! Turns of a row, with the ceilings sampled between them.

use std::time::{Duration, Instant};

use crate::{
    common::{
        ceilings::Ceilings,
        clock::{Limits, best, median},
        process, text,
    },
    table::{MemoryRow, Row},
};

/// Time after which the ceilings are sampled again. A sample takes about a fifth of a second.
const SAMPLE_AFTER: Duration = Duration::from_secs(2);

/// What is measured, and how long.
pub(crate) struct Bench {
    pub(crate) limits: Limits,
    pub(crate) ceilings: Ceilings,
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Vec<MemoryRow>,
    sampled: Instant,
}

/// The times of several turns, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) passes: usize,
    pub(crate) best: f64,
    pub(crate) median: f64,
}

impl Bench {
    pub(crate) fn new(limits: Limits) -> anyhow::Result<Self> {
        Ok(Self {
            limits,
            ceilings: Ceilings::new()?,
            rows: Vec::new(),
            memory: Vec::new(),
            sampled: Instant::now(),
        })
    }

    /// Runs `pass`, which tells the time of what counts, until it ran often enough.
    pub(crate) fn turns(
        &mut self,
        name: &str,
        limits: Limits,
        mut pass: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Times> {
        text::progress(name);
        let mut times = Vec::new();
        while times.is_empty() || !limits.reached(&times) {
            times.push(pass()?);
            self.sample_now_and_then();
        }
        Ok(Times::of(&times))
    }

    /// Samples the ceilings if that was not done for some time.
    pub(crate) fn sample_now_and_then(&mut self) {
        if self.sampled.elapsed() > SAMPLE_AFTER {
            self.ceilings.sample();
            self.sampled = Instant::now();
        }
    }

    /// Notes the memory that there is now, and the most that there was so far.
    pub(crate) fn note_memory(&mut self, when: &'static str) {
        let (resident, peak) = (process::resident(), self.ceilings.peak());
        if let (Some(resident), Some(peak)) = (resident, peak) {
            self.memory.push(MemoryRow {
                when,
                resident,
                peak,
            });
        }
    }
}

impl Times {
    pub(crate) fn of(times: &[Duration]) -> Self {
        Self {
            passes: times.len(),
            best: best(times),
            median: median(times),
        }
    }
}
