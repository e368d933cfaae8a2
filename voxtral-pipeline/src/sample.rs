//! From logits to a token.

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::PipelineError;

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// `ln p(id)` under the model's own distribution, whatever the temperature.
    pub logprob: f32,
}

/// Chooses tokens: the most probable one at temperature 0, otherwise at random from
/// `softmax(logits / temperature)`. The same seed gives the same choices.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler; `temperature` must be finite and not negative.
    pub fn new(temperature: f32, seed: u64) -> Self {
        Self {
            temperature: f64::from(temperature),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// A sampler for a temperature that a user gave.
    pub(crate) fn checked(temperature: f32, seed: u64) -> Result<Self, PipelineError> {
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(PipelineError::InvalidOption {
                option: "temperature",
                found: temperature.to_string(),
                expected: "a finite number of at least 0",
            });
        }
        Ok(Self::new(temperature, seed))
    }

    /// Whether it draws nothing, so that a token follows from its logits alone.
    pub(crate) fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Chooses from logits, one per vocabulary entry; nothing if they are not finite, as those of
    /// damaged weights are not.
    pub fn choose(&mut self, logits: &[f32]) -> Option<Choice> {
        let finite = !logits.is_empty() && logits.iter().all(|logit| logit.is_finite());
        finite.then(|| self.choose_finite(logits))
    }

    fn choose_finite(&mut self, logits: &[f32]) -> Choice {
        let id = if self.is_greedy() {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        Choice {
            id: id as u32,
            logprob: (f64::from(logits[id]) - log_sum_exp(logits, 1.0)) as f32,
        }
    }

    /// Inverts the cumulative distribution at a uniform number.
    fn draw(&mut self, logits: &[f32]) -> usize {
        let total = log_sum_exp(logits, self.temperature);
        // 53 random bits, the precision of f64, in [0, 1).
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        for (id, &logit) in logits.iter().enumerate() {
            left -= (f64::from(logit) / self.temperature - total).exp();
            if left < 0.0 {
                return id;
            }
        }
        // Rounding left a sliver at the end.
        argmax(logits)
    }
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// `ln Σ exp(l / temperature)`, in `f64` and free of overflow.
fn log_sum_exp(logits: &[f32], temperature: f64) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = f64::from(max) / temperature;
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) / temperature - max).exp())
        .sum();
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let choice = Sampler::new(0.0, 0).choose(&[0.0, 2.0, 2.0, -1.0]).unwrap();
        assert_eq!(choice.id, 1);
        let total: f64 = [0.0_f64, 2.0, 2.0, -1.0].iter().map(|l| l.exp()).sum();
        assert!((f64::from(choice.logprob) - (2.0 - total.ln())).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let choice = Sampler::new(0.0, 0).choose(&[1e30, -1e30]).unwrap();
        assert_eq!((choice.id, choice.logprob), (0, 0.0));
    }

    #[test]
    fn what_is_not_finite_is_no_choice() {
        let mut sampler = Sampler::new(0.0, 0);
        assert_eq!(sampler.choose(&[0.0, f32::NAN]), None);
        assert_eq!(sampler.choose(&[f32::INFINITY, 0.0]), None);
        assert_eq!(sampler.choose(&[]), None);
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        let logits = [1.0_f32, 0.0, -1.0];
        for temperature in [0.5_f32, 1.0, 2.0] {
            let mut sampler = Sampler::new(temperature, 7);
            let mut counts = [0_u32; 3];
            for _ in 0..20_000 {
                counts[sampler.choose(&logits).unwrap().id as usize] += 1;
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
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, seed);
            (0..50)
                .map(|_| sampler.choose(&[0.1, 0.2, 0.3, 0.0]).unwrap().id)
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
