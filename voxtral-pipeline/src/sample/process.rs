//! Pieces that change the scores of a vocabulary before a token is chosen.
//!
//! Scores are in the order of ids; one that was taken out is `-inf`. Each piece is defined as in
//! `transformers` (`generation/logits_process.py`), and the two penalties that it lacks as in
//! OpenAI's documentation.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::SamplingOptions;

/// The ids that occurred in prompt and answer, with the number of times in the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct History(HashMap<u32, u32>);

impl History {
    pub(super) fn prompt(&mut self, ids: &[u32]) {
        for id in ids {
            self.0.entry(*id).or_default();
        }
    }

    pub(super) fn push(&mut self, id: u32) {
        *self.0.entry(id).or_default() += 1;
    }
}

/// One piece.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Processor {
    Bias(Vec<(u32, f64)>),
    Repetition(f64),
    Occurrence { presence: f64, frequency: f64 },
    Temperature(f64),
    TopK(usize),
    TopP(f64),
    MinP(f64),
}

/// The pieces that are asked for, in their order; those that change nothing are left out.
pub(super) fn chain(options: &SamplingOptions) -> Vec<Processor> {
    let bias = options.logit_bias.iter();
    let bias: Vec<_> = bias.map(|(id, bias)| (*id, f64::from(*bias))).collect();
    let repetition = f64::from(options.repetition_penalty);
    let presence = f64::from(options.presence_penalty);
    let frequency = f64::from(options.frequency_penalty);
    let temperature = f64::from(options.temperature);
    let draws = |piece: Processor| (temperature > 0.0).then_some(piece);
    [
        (!bias.is_empty()).then_some(Processor::Bias(bias)),
        (repetition != 1.0).then_some(Processor::Repetition(repetition)),
        (presence != 0.0 || frequency != 0.0).then_some(Processor::Occurrence {
            presence,
            frequency,
        }),
        draws(Processor::Temperature(temperature)),
        options.top_k.map(Processor::TopK).and_then(draws),
        options
            .top_p
            .map(|p| Processor::TopP(p.into()))
            .and_then(draws),
        options
            .min_p
            .map(|p| Processor::MinP(p.into()))
            .and_then(draws),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Processor {
    /// Whether it depends on what was chosen before.
    pub(super) fn uses_history(&self) -> bool {
        matches!(self, Self::Repetition(_) | Self::Occurrence { .. })
    }

    pub(super) fn apply(&self, scores: &mut [f64], history: &History) {
        match self {
            Self::Bias(bias) => add(scores, bias),
            Self::Repetition(penalty) => penalize_repetition(scores, history, *penalty),
            Self::Occurrence {
                presence,
                frequency,
            } => penalize_occurrence(scores, history, *presence, *frequency),
            Self::Temperature(temperature) => scores.iter_mut().for_each(|s| *s /= temperature),
            Self::TopK(count) => keep_most_probable(scores, *count),
            Self::TopP(share) => keep_share(scores, *share),
            Self::MinP(ratio) => keep_probable(scores, *ratio),
        }
    }
}

fn add(scores: &mut [f64], bias: &[(u32, f64)]) {
    for (id, bias) in bias {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score += bias;
        }
    }
}

/// Positive scores of ids that occurred are divided, negative ones multiplied.
fn penalize_repetition(scores: &mut [f64], history: &History, penalty: f64) {
    for id in history.0.keys() {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score = match *score {
                score if score < 0.0 => score * penalty,
                score => score / penalty,
            };
        }
    }
}

/// `score - frequency · n - presence` for an id that occurred n > 0 times in the answer.
fn penalize_occurrence(scores: &mut [f64], history: &History, presence: f64, frequency: f64) {
    for (id, count) in history.0.iter().filter(|(_, count)| **count > 0) {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score -= frequency * f64::from(*count) + presence;
        }
    }
}

/// Keeps the `count` largest, and those that equal the last of them.
fn keep_most_probable(scores: &mut [f64], count: usize) {
    if count >= scores.len() {
        return;
    }
    let mut copy = scores.to_vec();
    let (_, least, _) = copy.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    remove_if(scores, |score| score < least);
}

/// Keeps those that are at least `ratio` times as probable as the most probable one.
fn keep_probable(scores: &mut [f64], ratio: f64) {
    let least = max(scores) + ratio.ln();
    remove_if(scores, |score| score < least);
}

/// Keeps the fewest of the most probable that have `share` of the probability together; of equal
/// ones, those that come first.
fn keep_share(scores: &mut [f64], share: f64) {
    /// Selected and sorted at first; usually enough, and eight times as many whenever not.
    const FEW: usize = 64;

    let max = max(scores);
    let kept = (0..scores.len()).filter(|&id| scores[id] > f64::NEG_INFINITY);
    let mut entries: Vec<Entry> = kept
        .map(|id| Entry {
            id,
            weight: (scores[id] - max).exp(),
        })
        .collect();
    let mut left = share * entries.iter().map(|entry| entry.weight).sum::<f64>();
    let (mut rest, mut count) = (&mut entries[..], FEW);
    while left > 0.0 && !rest.is_empty() {
        count = count.min(rest.len());
        rest.select_nth_unstable_by(count - 1, Entry::order);
        let (best, others) = rest.split_at_mut(count);
        best.sort_unstable_by(Entry::order);
        let needed = best.iter().position(|entry| {
            let enough = left <= 0.0;
            left -= entry.weight;
            enough
        });
        best[needed.unwrap_or(count)..].iter().for_each(|entry| {
            scores[entry.id] = f64::NEG_INFINITY;
        });
        (rest, count) = (others, 8 * count);
    }
    for entry in rest {
        scores[entry.id] = f64::NEG_INFINITY;
    }
}

/// A token that may be chosen.
#[derive(Debug)]
struct Entry {
    id: usize,
    /// Its probability, as a multiple of that of the most probable one.
    weight: f64,
}

impl Entry {
    /// The most probable first.
    fn order(&self, other: &Self) -> Ordering {
        let by_weight = other.weight.total_cmp(&self.weight);
        by_weight.then(self.id.cmp(&other.id))
    }
}

fn max(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn remove_if(scores: &mut [f64], removed: impl Fn(f64) -> bool) {
    for score in scores.iter_mut().filter(|score| removed(**score)) {
        *score = f64::NEG_INFINITY;
    }
}
