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
    let draws = temperature > 0.0;
    let top_k = options.top_k.filter(|_| draws);
    let top_p = options.top_p.filter(|p| draws && *p < 1.0);
    let min_p = options.min_p.filter(|p| draws && *p > 0.0);
    [
        (!bias.is_empty()).then_some(Processor::Bias(bias)),
        (repetition != 1.0).then_some(Processor::Repetition(repetition)),
        (presence != 0.0 || frequency != 0.0).then_some(Processor::Occurrence {
            presence,
            frequency,
        }),
        draws.then_some(Processor::Temperature(temperature)),
        top_k.map(Processor::TopK),
        top_p.map(|p| Processor::TopP(p.into())),
        min_p.map(|p| Processor::MinP(p.into())),
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
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let mut left = share * weights.iter().sum::<f64>();
    // All that are less probable than this have less together than what may be left out.
    let negligible = (1.0 - share) / scores.len() as f64;
    let mut entries = Vec::new();
    for (id, &weight) in weights.iter().enumerate() {
        if weight < negligible {
            scores[id] = f64::NEG_INFINITY;
        } else {
            entries.push(Entry { id, weight });
        }
    }
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What `tools/goldens/sampling.py` wrote: logits, what was written before, and what
    /// `transformers` makes of them with some options.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        prompt: Vec<u32>,
        answer: Vec<u32>,
        logits: Vec<f64>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        options: Asked,
        /// Nothing for a token that was taken out.
        scores: Vec<Option<f64>>,
    }

    #[derive(Debug, Deserialize)]
    struct Asked {
        #[serde(default)]
        temperature: f32,
        top_p: Option<f32>,
        top_k: Option<usize>,
        min_p: Option<f32>,
        repetition_penalty: Option<f32>,
        #[serde(default)]
        logit_bias: std::collections::BTreeMap<u32, f32>,
    }

    fn goldens() -> Vec<Golden> {
        serde_json::from_str(include_str!("../../testdata/sampling.json")).unwrap()
    }

    fn history(prompt: &[u32], answer: &[u32]) -> History {
        let mut history = History::default();
        history.prompt(prompt);
        answer.iter().for_each(|id| history.push(*id));
        history
    }

    fn processed(options: &SamplingOptions, logits: &[f64], history: &History) -> Vec<f64> {
        let mut scores = logits.to_vec();
        for processor in chain(options) {
            processor.apply(&mut scores, history);
        }
        scores
    }

    /// Options are `f32`, and the oracle's are `f64`.
    fn assert_near(found: &[f64], expected: &[f64], about: &str) {
        for (id, (x, y)) in found.iter().zip(expected).enumerate() {
            let near = x == y || (x - y).abs() <= 1e-6 * y.abs().max(1.0);
            assert!(near, "{about}: {x} instead of {y} at {id}");
        }
    }

    #[test]
    fn scores_are_those_of_transformers() {
        let mut cases = 0;
        for golden in goldens() {
            let history = history(&golden.prompt, &golden.answer);
            for Case { options, scores } in golden.cases {
                let about = format!("{} {options:?}", golden.name);
                let options = SamplingOptions {
                    temperature: options.temperature,
                    top_p: options.top_p,
                    top_k: options.top_k,
                    min_p: options.min_p,
                    repetition_penalty: options.repetition_penalty.unwrap_or(1.0),
                    logit_bias: options.logit_bias,
                    ..Default::default()
                };
                options.check().unwrap();
                let mut found = processed(&options, &golden.logits, &history);
                let mut expected: Vec<f64> = scores
                    .into_iter()
                    .map(|score| score.unwrap_or(f64::NEG_INFINITY))
                    .collect();
                if options.top_p.is_some() && ["ties", "equal", "extreme"].contains(&&*golden.name)
                {
                    // Which of those with the same score are left is as its sort happens to go.
                    found.sort_by(f64::total_cmp);
                    expected.sort_by(f64::total_cmp);
                }
                assert_near(&found, &expected, &about);
                cases += 1;
            }
        }
        assert_eq!(cases, 100);
    }

    #[test]
    fn occurrences_are_taken_off_as_openai_defines() {
        let answer = [2, 5, 2, 2, 70, 6];
        for (presence, frequency) in [(0.5, 0.0), (0.0, 0.25), (1.5, -2.0), (-1.0, 0.75)] {
            let options = SamplingOptions {
                presence_penalty: presence,
                frequency_penalty: frequency,
                ..Default::default()
            };
            for golden in goldens() {
                let mut expected = golden.logits.clone();
                for (id, score) in expected.iter_mut().enumerate() {
                    let count = answer.iter().filter(|other| **other == id as u32).count() as f64;
                    *score -= count * f64::from(frequency);
                    *score -= if count > 0.0 { presence.into() } else { 0.0 };
                }
                // The prompt counts for nothing.
                let history = history(&[1, 2, 3], &answer);
                let found = processed(&options, &golden.logits, &history);
                assert_near(&found, &expected, &golden.name);
            }
        }
    }

    /// The definition, by a sort of everything.
    fn share_by_sorting(scores: &[f64], share: f64) -> Vec<usize> {
        let max = max(scores);
        let mut ids: Vec<usize> = (0..scores.len()).collect();
        ids.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let weight = |id: &usize| (scores[*id] - max).exp();
        let total: f64 = ids.iter().map(weight).sum();
        let mut before = 0.0;
        ids.retain(|id| {
            let kept = before < share * total;
            before += weight(id);
            kept
        });
        ids.sort_unstable();
        ids
    }

    /// Shares that need few, hundreds and nearly all of many tokens.
    #[test]
    fn a_share_of_many_is_that_of_a_whole_sort() {
        let scores: Vec<f64> = (0..5_000_u64)
            .map(|id| ((id * 7919 % 5003) as f64 / 300.0).sin() * 4.0)
            .collect();
        let mut sizes = Vec::new();
        for share in [1e-4, 0.02, 0.1, 0.3, 0.5, 0.8, 0.99, 0.99999] {
            let mut found = scores.clone();
            keep_share(&mut found, share);
            let kept: Vec<usize> = (0..found.len())
                .filter(|&id| found[id] > f64::NEG_INFINITY)
                .collect();
            assert_eq!(kept, share_by_sorting(&scores, share), "{share}");
            assert!(kept.iter().all(|&id| found[id] == scores[id]));
            sizes.push(kept.len());
        }
        assert!(
            sizes[0] < 64 && sizes[4] > 64 + 8 * 64 && sizes[7] > 4_000,
            "{sizes:?}"
        );
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        let neutral = SamplingOptions {
            top_p: Some(1.0),
            min_p: Some(0.0),
            ..Default::default()
        };
        assert_eq!(chain(&neutral), []);
        let drawn = SamplingOptions {
            temperature: 1.0,
            ..neutral
        };
        assert_eq!(chain(&drawn), [Processor::Temperature(1.0)]);
    }
}
