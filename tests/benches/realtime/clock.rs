//! Repeating, timing, and what to say of many times.

use std::time::{Duration, Instant};

/// When a stage was measured often enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    budget: Duration,
}

impl Limits {
    /// Fewer passes than this say nothing, however long they take.
    const FEWEST: usize = 3;

    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget }
    }

    /// Whether passes that took these times are enough.
    pub(crate) fn reached(self, times: &[Duration]) -> bool {
        times.len() >= Self::FEWEST && times.iter().sum::<Duration>() >= self.budget
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
