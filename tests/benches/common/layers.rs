//! The stages one by one, without a session: what is measured of each, and the features.

use std::hint::black_box;
use std::time::Duration;

use super::{
    clock::{Limits, median, time},
    model::Model,
    work::Work,
};

/// Tokens at once where a whole file is there, as a session takes them.
pub(crate) const FILE_TOKENS: usize = 16;

/// A stage, measured.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Times that it was run.
    pub(crate) passes: usize,
    /// The median time of a pass.
    pub(crate) seconds: f64,
    /// Tokens of a pass.
    pub(crate) tokens: usize,
    /// What a pass must do on average; none where products are no measure of it.
    pub(crate) work: Option<Work>,
    /// Whether it is part of what a live stream does for each token.
    pub(crate) live: bool,
}

/// The features of sound that comes many tokens at a time, and one by one.
pub(crate) fn log_mel(model: &Model, sound: &[f32], limits: Limits) -> anyhow::Result<Vec<Stage>> {
    let maximum = model.log_mel_max()?;
    Ok([FILE_TOKENS, 1]
        .map(|tokens| {
            let pieces = sound.chunks_exact(tokens * model.token_samples());
            let mut frames = Vec::new();
            let mut stream = model.mel.stream(maximum);
            if let Some(first) = pieces.clone().next() {
                // Threads start.
                stream.push(first, &mut frames);
                stream.reset();
            }
            let mut times = Vec::new();
            for piece in pieces {
                frames.clear();
                times.push(time(|| stream.push(piece, &mut frames)).0);
                black_box(&frames);
                if limits.reached(&times) {
                    break;
                }
            }
            Stage {
                name: format!("log-mel, {}", at_once(tokens)),
                passes: times.len(),
                seconds: median(&times),
                tokens,
                work: None,
                live: tokens == 1,
            }
        })
        .into())
}

/// Passes of one kind.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    pub(crate) times: Vec<Duration>,
    work: Work,
}

impl Passes {
    /// Adds a pass and what it had to do.
    pub(crate) fn add(&mut self, taken: Duration, work: Work) {
        self.times.push(taken);
        self.work = self.work + work;
    }

    /// What came of them, if there were any.
    pub(crate) fn stage(self, name: String, tokens: usize, live: bool) -> Option<Stage> {
        let passes = self.times.len();
        (passes > 0).then(|| Stage {
            name,
            passes,
            seconds: median(&self.times),
            tokens,
            work: Some(self.work.times(1.0 / passes as f64)),
            live,
        })
    }
}

/// How a stage's name says so.
pub(crate) fn at_once(tokens: usize) -> String {
    match tokens {
        1 => "one token at a time".to_owned(),
        _ => format!("{tokens} tokens at a time"),
    }
}
