//! From logits to a token.
//!
//! A [`Constraint`] masks what is not allowed, a chain of processors changes the scores that are
//! left, in the order of [`SamplingOptions`], and then the largest is taken at temperature 0, or
//! one is drawn from their softmax. All of it runs on the host, in `f64` behind the mask, so that a
//! seed gives the same tokens wherever the logits were computed.

mod options;
mod process;
mod stop;

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub use options::SamplingOptions;
pub(crate) use stop::StopStrings;

use crate::PipelineError;
use process::{History, Processor, chain};

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// `ln p(id)` under the model's own distribution, whatever the options.
    pub logprob: f32,
    /// As many of the most probable ids as [`SamplingOptions::top_logprobs`] asks for, with their
    /// log-probabilities under that distribution, best first.
    pub top: Vec<(u32, f32)>,
}

/// Says which tokens may come next.
pub trait Constraint: Send {
    /// Sets the logits of ids that are not allowed to `-inf`.
    ///
    /// # Errors
    /// The constraint cannot go on.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), PipelineError>;

    /// Takes notice of the token that was chosen.
    ///
    /// # Errors
    /// The token was not allowed, or the constraint cannot go on.
    fn accept(&mut self, id: u32) -> Result<(), PipelineError>;
}

/// Chooses one token after the other.
pub struct Sampler {
    constraint: Option<Box<dyn Constraint>>,
    processors: Vec<Processor>,
    history: History,
    draws: bool,
    rng: ChaCha8Rng,
    top_logprobs: usize,
    /// The scores of the token at hand.
    scores: Vec<f64>,
}

impl Sampler {
    /// A sampler over a vocabulary of this size.
    ///
    /// # Errors
    /// An option is impossible; see [`SamplingOptions::check`]. A bias or a stop id is of a token
    /// outside of the vocabulary.
    pub fn new(options: &SamplingOptions, vocab_size: usize) -> Result<Self, PipelineError> {
        options.check()?;
        options.check_ids(vocab_size)?;
        Ok(Self::unchecked(options))
    }

    /// A sampler that takes the most probable token, whatever the vocabulary.
    pub fn greedy() -> Self {
        Self::unchecked(&SamplingOptions::default())
    }

    fn unchecked(options: &SamplingOptions) -> Self {
        Self {
            constraint: None,
            processors: chain(options),
            history: History::default(),
            draws: options.temperature > 0.0,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            top_logprobs: options.top_logprobs,
            scores: Vec::new(),
        }
    }

    /// Tells the prompt, whose ids count for the repetition penalty.
    pub fn with_prompt(mut self, ids: &[u32]) -> Self {
        self.history.prompt(ids);
        self
    }

    /// Lets only those tokens be chosen that `constraint` allows.
    pub fn with_constraint(mut self, constraint: Box<dyn Constraint>) -> Self {
        self.constraint = Some(constraint);
        self
    }

    /// Whether a token follows from its logits alone: nothing is drawn, and what was chosen before
    /// plays no part.
    pub(crate) fn is_greedy(&self) -> bool {
        let remembers = self.processors.iter().any(Processor::uses_history);
        !self.draws && !remembers && self.constraint.is_none()
    }

    /// Chooses from logits, one per vocabulary entry.
    ///
    /// # Errors
    /// The logits are not finite, as those of damaged weights are not; the constraint fails or
    /// allows nothing.
    pub fn choose(&mut self, logits: &[f32]) -> Result<Choice, PipelineError> {
        if logits.is_empty() || !logits.iter().all(|logit| logit.is_finite()) {
            return Err(PipelineError::NotFinite);
        }
        let id = if self.constraint.is_none() && self.processors.is_empty() {
            argmax(logits)
        } else {
            self.score(logits)?;
            if self.draws {
                draw(&self.scores, uniform(&mut self.rng))
            } else {
                argmax(&self.scores)
            }
        };
        self.history.push(id as u32);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id as u32)?;
        }
        let total = log_sum_exp(logits);
        let logprob = |id: usize| (f64::from(logits[id]) - total) as f32;
        let top = largest(logits, self.top_logprobs);
        Ok(Choice {
            id: id as u32,
            logprob: logprob(id),
            top: top.map(|id| (id as u32, logprob(id))).collect(),
        })
    }

    /// Masks and processes: `scores` are `-inf` for what is not to be chosen.
    fn score(&mut self, logits: &[f32]) -> Result<(), PipelineError> {
        self.scores.clear();
        if let Some(constraint) = &mut self.constraint {
            let mut masked = logits.to_vec();
            constraint.mask(&mut masked)?;
            if masked.iter().all(|&logit| logit == f32::NEG_INFINITY) {
                return Err(PipelineError::NothingAllowed);
            }
            self.scores.extend(masked.into_iter().map(f64::from));
        } else {
            self.scores.extend(logits.iter().copied().map(f64::from));
        }
        for processor in &self.processors {
            processor.apply(&mut self.scores, &self.history);
        }
        Ok(())
    }
}

/// A number in [0, 1) of 53 random bits, the precision of `f64`.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Inverts the cumulative distribution of `softmax(scores)` at a number in [0, 1).
///
/// The ids are in their own order, not in that of their scores: two that are nearly equal would
/// change places, and the token with them, from one backend to another.
fn draw(scores: &[f64], at: f64) -> usize {
    let kept = || (0..scores.len()).filter(|&id| scores[id] > f64::NEG_INFINITY);
    let best = argmax(scores);
    let weights: Vec<f64> = kept().map(|id| (scores[id] - scores[best]).exp()).collect();
    let mut left = at * weights.iter().sum::<f64>();
    for (id, weight) in kept().zip(weights) {
        left -= weight;
        if left < 0.0 {
            return id;
        }
    }
    // Rounding left a sliver at the end.
    best
}

/// The first of the largest.
fn argmax<T: PartialOrd>(values: &[T]) -> usize {
    let mut best = 0;
    for (id, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = id;
        }
    }
    best
}

/// The `count` largest, best first; of equal ones, those that come first.
fn largest(logits: &[f32], count: usize) -> impl Iterator<Item = usize> {
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    for (id, logit) in logits.iter().enumerate().take_while(|_| count > 0) {
        if best.len() < count || *logit > logits[best[count - 1]] {
            let place = best.partition_point(|&better| logits[better] >= *logit);
            best.insert(place, id);
            best.truncate(count);
        }
    }
    best.into_iter()
}

/// `ln Σ exp(l)`, in `f64` and free of overflow.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - max).exp())
        .sum();
    max + sum.ln()
}
