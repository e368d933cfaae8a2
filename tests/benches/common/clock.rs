//! Repeating, timing, and what to say of many times.

use std::time::{Duration, Instant};

/// When a stage was measured often enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    budget: Duration,
}

impl Limits {
    /// Fewer passes than this say little.
    const FEWEST: usize = 3;

    /// Passes that took so many budgets are enough, however few they are.
    const AT_MOST: u32 = 4;

    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget }
    }

    /// Limits of a smaller part.
    pub(crate) fn part(self, of: u32) -> Self {
        Self::new(self.budget / of)
    }

    /// Whether passes that took these times are enough.
    pub(crate) fn reached(self, times: &[Duration]) -> bool {
        let taken = times.iter().sum::<Duration>();
        let enough = times.len() >= Self::FEWEST && taken >= self.budget;
        // Twice may be enough to see; without a budget the fewest are asked for.
        enough || (!self.budget.is_zero() && taken >= self.budget * Self::AT_MOST)
    }
}

/// The time that this work takes, and its result.
pub(crate) fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = work();
    (started.elapsed(), result)
}

/// The value that this share of all is not above; the median at one half.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.max(1) - 1)
        .or(sorted.last())
        .copied()
        .unwrap_or(f64::NAN)
}

/// The median of times, in seconds.
pub(crate) fn median(times: &[Duration]) -> f64 {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    quantile(&seconds, 0.5)
}

/// The shortest of times, in seconds.
pub(crate) fn best(times: &[Duration]) -> f64 {
    times.iter().min().map_or(f64::NAN, Duration::as_secs_f64)
}
