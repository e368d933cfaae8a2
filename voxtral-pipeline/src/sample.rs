//! From logits to a token.
//!
//! A [`Constraint`] masks what is not allowed, a chain of processors changes the scores that are
//! left, in the order of [`SamplingOptions`], and then the largest is taken at temperature 0, or
//! one is drawn from their softmax. All of it runs on the host, in `f64` behind the mask, so that a
//! seed gives the same tokens wherever the logits were computed.

mod bias;
mod options;
mod process;
mod stop;

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub use bias::ContextBias;
pub use options::SamplingOptions;
pub(crate) use stop::StopStrings;

use voxtral_tokenizer::Tokenizer;

use crate::PipelineError;
use bias::Context;
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
    context: Option<Context>,
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
    /// outside of the vocabulary. A context bias is given, which needs a
    /// [tokenizer](Self::with_tokenizer).
    pub fn new(options: &SamplingOptions, vocab_size: usize) -> Result<Self, PipelineError> {
        options.check()?;
        options.check_ids(vocab_size)?;
        if options.context_bias.is_some() {
            return Err(PipelineError::InvalidOption {
                option: "context bias",
                found: "given to a sampler without a tokenizer".to_owned(),
                expected: "one that is made by `Sampler::with_tokenizer`",
            });
        }
        Ok(Self::unchecked(options))
    }

    /// A sampler over this tokenizer's vocabulary.
    ///
    /// # Errors
    /// As for [`new`](Self::new), or the tokenizer cannot write a phrase of the context bias.
    pub fn with_tokenizer(
        options: &SamplingOptions,
        tokenizer: &Tokenizer,
    ) -> Result<Self, PipelineError> {
        options.check()?;
        options.check_ids(tokenizer.vocab_size())?;
        let bias = options.context_bias.as_ref();
        Ok(Self {
            context: bias.map(|bias| Context::new(bias, tokenizer)).transpose()?,
            ..Self::unchecked(options)
        })
    }

    /// A sampler that takes the most probable token, whatever the vocabulary.
    pub fn greedy() -> Self {
        Self::unchecked(&SamplingOptions::default())
    }

    fn unchecked(options: &SamplingOptions) -> Self {
        Self {
            constraint: None,
            context: None,
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

    /// Whether a token follows from its logits and the tokens before it: nothing is drawn, and no
    /// penalty counts what was chosen.
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
        let plain = self.constraint.is_none() && self.context.is_none();
        let id = if plain && self.processors.is_empty() {
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
        if let Some(context) = &mut self.context {
            context.accept(id as u32);
        }
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
        if let Some(context) = &self.context {
            context.raise(&mut self.scores);
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
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - max).exp())
        .sum();
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(set: impl FnOnce(&mut SamplingOptions)) -> Sampler {
        let mut options = SamplingOptions::default();
        set(&mut options);
        Sampler::new(&options, 1000).unwrap()
    }

    fn ids(sampler: &mut Sampler, logits: &[f32], count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| sampler.choose(logits).unwrap().id)
            .collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let choice = Sampler::greedy().choose(&[0.0, 2.0, 2.0, -1.0]).unwrap();
        assert_eq!((choice.id, choice.top.len()), (1, 0));
        let total: f64 = [0.0_f64, 2.0, 2.0, -1.0].iter().map(|l| l.exp()).sum();
        assert!((f64::from(choice.logprob) - (2.0 - total.ln())).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let choice = Sampler::greedy().choose(&[1e30, -1e30]).unwrap();
        assert_eq!((choice.id, choice.logprob), (0, 0.0));
        let mut sampler = sampler(|o| {
            o.temperature = 1e-30;
            o.repetition_penalty = 1e-30;
        });
        for _ in 0..3 {
            assert_eq!(sampler.choose(&[3e38, -3e38, 1.0]).unwrap().id, 0);
        }
    }

    #[test]
    fn what_is_not_finite_is_no_choice() {
        for logits in [&[0.0, f32::NAN][..], &[f32::INFINITY, 0.0], &[]] {
            let error = Sampler::greedy().choose(logits).unwrap_err();
            assert!(matches!(error, PipelineError::NotFinite), "{error}");
        }
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        let logits = [1.0_f32, 0.0, -1.0];
        for temperature in [0.5_f32, 1.0, 2.0] {
            let mut sampler = sampler(|o| (o.temperature, o.seed) = (temperature, 7));
            let mut counts = [0_u32; 3];
            for id in ids(&mut sampler, &logits, 20_000) {
                counts[id as usize] += 1;
            }
            let weights = logits.map(|l| f64::from(l / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                // Three standard deviations of 20 000 draws are below 0.011.
                assert!((f64::from(*count) / 20_000.0 - weight / total).abs() < 0.011);
            }
        }
    }

    #[test]
    fn a_seed_repeats_its_choices() {
        let run = |seed| {
            let mut sampler = sampler(|o| (o.temperature, o.seed) = (1.0, seed));
            ids(&mut sampler, &[0.1, 0.2, 0.3, 0.0], 50)
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    /// Logits of another backend differ in their last bits, and near ties change places.
    #[test]
    fn a_draw_survives_noise() {
        let logits: Vec<f32> = (0..500).map(|id| (id * 37 % 11) as f32 * 0.3).collect();
        let noise = |id: usize| 1e-6 * ((id * 7919 % 13) as f32 - 6.0);
        let noisy: Vec<f32> = logits
            .iter()
            .enumerate()
            .map(|(id, l)| l + noise(id))
            .collect();
        let run = |logits: &[f32]| ids(&mut sampler(|o| o.temperature = 1.0), logits, 500);
        assert_eq!(run(&logits), run(&noisy));
    }

    #[test]
    fn what_a_filter_takes_out_is_never_drawn() {
        let mut sampler = sampler(|o| (o.temperature, o.top_k) = (100.0, Some(2)));
        let mut drawn = ids(&mut sampler, &[0.0, 3.0, 1.0, 2.0], 200);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [1, 3]);
        for at in [0.0, 0.5, 1.0 - f64::EPSILON, 1.0] {
            assert_eq!(draw(&[f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY], at), 1);
        }
    }

    #[test]
    fn penalties_count_what_was_written_and_the_prompt() {
        let logits = [1.0, 0.9, 0.8, -5.0];
        let mut frequent = sampler(|o| o.frequency_penalty = 0.15).with_prompt(&[1, 1]);
        assert_eq!(ids(&mut frequent, &logits, 6), [0, 1, 0, 2, 1, 0]);
        let mut repeated = sampler(|o| o.repetition_penalty = 2.0).with_prompt(&[0]);
        assert_eq!(ids(&mut repeated, &logits, 4), [1, 2, 0, 0]);
    }

    #[test]
    fn probabilities_are_the_models_own_with_the_best_beside_them() {
        let logits: Vec<f32> = (0..300)
            .map(|id| (id * 7919 % 301 / 3) as f32 * 0.05)
            .collect();
        let total = logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
        let logprob = |id: u32| (f64::from(logits[id as usize]) - total) as f32;
        // Every value occurs about three times; a stable sort leaves ties in their order.
        let mut order: Vec<u32> = (0..300).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        for count in [0, 1, 2, 5, 20] {
            let mut sampler = sampler(|o| {
                (o.temperature, o.top_k) = (3.0, Some(7));
                o.logit_bias = [(order[299], 20.0)].into();
                o.top_logprobs = count;
            });
            let choice = sampler.choose(&logits).unwrap();
            assert_eq!(choice.id, order[299], "biased");
            assert!((choice.logprob - logprob(choice.id)).abs() < 1e-5);
            let found: Vec<u32> = choice.top.iter().map(|(id, _)| *id).collect();
            assert_eq!(found, order[..count]);
            assert!(
                choice
                    .top
                    .iter()
                    .all(|(id, found)| (found - logprob(*id)).abs() < 1e-5)
            );
        }
    }

    /// Allows what is even and not what was before, up to a number of tokens.
    struct Even {
        last: Option<u32>,
        left: usize,
    }

    impl Constraint for Even {
        fn mask(&mut self, logits: &mut [f32]) -> Result<(), PipelineError> {
            for (id, logit) in logits.iter_mut().enumerate() {
                if id % 2 == 1 || Some(id as u32) == self.last || self.left == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
            Ok(())
        }

        fn accept(&mut self, id: u32) -> Result<(), PipelineError> {
            (self.last, self.left) = (Some(id), self.left - 1);
            Ok(())
        }
    }

    #[test]
    fn a_constraint_goes_before_everything() {
        let logits = [0.5, 9.0, 0.4, 8.0, 0.3, 7.0];
        for temperature in [0.0, 2.0] {
            let constraint = Box::new(Even {
                last: None,
                left: 40,
            });
            let mut sampler = sampler(|o| {
                o.temperature = temperature;
                o.top_k = (temperature > 0.0).then_some(2);
                // Brings nothing back.
                o.logit_bias = [(3, 100.0)].into();
            })
            .with_constraint(constraint);
            let ids = ids(&mut sampler, &logits, 40);
            assert!(ids.iter().all(|id| [0, 2, 4].contains(id)), "{ids:?}");
            assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
            let error = sampler.choose(&logits).unwrap_err();
            assert!(matches!(error, PipelineError::NothingAllowed), "{error}");
        }
    }

    #[test]
    fn only_what_follows_from_its_logits_is_greedy() {
        assert!(Sampler::greedy().is_greedy());
        assert!(sampler(|o| o.logit_bias = [(3, 1.0)].into()).is_greedy());
        assert!(sampler(|o| o.top_logprobs = 3).is_greedy());
        assert!(!sampler(|o| o.temperature = 0.1).is_greedy());
        assert!(!sampler(|o| o.repetition_penalty = 1.1).is_greedy());
        assert!(!sampler(|o| o.presence_penalty = 0.1).is_greedy());
        assert!(!sampler(|o| o.frequency_penalty = -0.1).is_greedy());
        let constraint = Box::new(Even {
            last: None,
            left: 1,
        });
        assert!(!Sampler::greedy().with_constraint(constraint).is_greedy());
    }

    /// Prints what a choice costs over the vocabulary of a released model.
    #[test]
    #[ignore = "measures, to be watched on a quiet machine"]
    fn what_a_choice_costs() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let logits: Vec<f32> = (0..131_072)
            .map(|_| (uniform(&mut random) * 20.0 - 10.0) as f32)
            .collect();
        let hot = SamplingOptions {
            temperature: 1.0,
            ..Default::default()
        };
        let top_p = Some(0.95);
        let top_k = Some(50);
        for (name, options) in [
            ("greedy", SamplingOptions::default()),
            ("temperature 1", hot.clone()),
            ("chat", SamplingOptions::chat()),
            (
                "top-p",
                SamplingOptions {
                    top_p,
                    ..hot.clone()
                },
            ),
            (
                "top-k, top-p",
                SamplingOptions {
                    top_p,
                    top_k,
                    ..hot
                },
            ),
        ] {
            let mut sampler = Sampler::new(&options, logits.len()).unwrap();
            let started = std::time::Instant::now();
            for _ in 0..100 {
                sampler.choose(&logits).unwrap();
            }
            println!("{name}: {:.2?}", started.elapsed() / 100);
        }
    }
}
