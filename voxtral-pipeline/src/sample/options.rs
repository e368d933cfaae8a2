//! What may be asked of a sampler.

use std::collections::BTreeMap;

use super::ContextBias;
use crate::PipelineError;

/// How tokens are chosen. The default takes the most probable one.
///
/// What is asked for is applied in this order, which is that of `transformers`: context and logit
/// bias, repetition penalty, frequency and presence penalty, temperature, top-k, top-p, min-p. The
/// probabilities that top-p and min-p speak of are those of the tokens that are left.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// 0 takes the most probable token; above it, one is drawn from `softmax(logits /
    /// temperature)`.
    pub temperature: f32,
    /// Draws from as few of the most probable tokens as have this much probability together,
    /// above 0 and up to 1 (Holtzman et al., 2020, arXiv:1904.09751).
    pub top_p: Option<f32>,
    /// Draws from so many of the most probable tokens; from more, if the last of them is as
    /// probable as others.
    pub top_k: Option<usize>,
    /// Draws from tokens that are at least this many times as probable as the most probable one,
    /// 0 to 1 (Nguyen et al., 2024, arXiv:2407.01082).
    pub min_p: Option<f32>,
    /// Divides positive logits of ids that occurred in the prompt or in the answer, and multiplies
    /// negative ones; above 0, and 1 changes nothing (Keskar et al., 2019, arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// Taken off the logits of ids that occurred in the answer, -2 to 2.
    pub presence_penalty: f32,
    /// Taken off the logit of an id once for each time that it occurred in the answer, -2 to 2.
    pub frequency_penalty: f32,
    /// Seeds the draws: with the same seed they are the same.
    pub seed: u64,
    /// Added to the logits of these ids, -100 to 100.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Phrases that are likely to be said.
    pub context_bias: Option<ContextBias>,
    /// Reports so many of the most probable tokens with each one that is chosen, up to 20.
    pub top_logprobs: usize,
    /// Texts that end the answer, which excludes them. The one that is complete first counts, the
    /// longest where several end in one place. They may reach across tokens. White space that the
    /// answer begins with is no part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer, as the end token does: they are among its tokens, but not in
    /// its text.
    pub stop_ids: Vec<u32>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: None,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            logit_bias: BTreeMap::new(),
            context_bias: None,
            top_logprobs: 0,
            stop: Vec::new(),
            stop_ids: Vec::new(),
        }
    }
}

impl SamplingOptions {
    /// The most alternatives that are reported for a token.
    pub const MAX_TOP_LOGPROBS: usize = 20;

    /// What Mistral recommends for answers: temperature 0.2 and top-p 0.95.
    pub fn chat() -> Self {
        Self {
            temperature: 0.2,
            top_p: Some(0.95),
            ..Self::default()
        }
    }

    /// Refuses impossible and contradictory options, whatever the model.
    ///
    /// # Errors
    /// An option is out of its range or no number, a stop string is empty, or tokens are left out
    /// of a draw although nothing is drawn at temperature 0.
    pub fn check(&self) -> Result<(), PipelineError> {
        self.check_filters()?;
        self.check_penalties()?;
        require(
            "number of alternatives",
            self.top_logprobs,
            self.top_logprobs <= Self::MAX_TOP_LOGPROBS,
            "at most 20",
        )?;
        require(
            "stop string",
            "empty",
            !self.stop.iter().any(String::is_empty),
            "at least one character: it would end every answer before it begins",
        )
    }

    fn check_filters(&self) -> Result<(), PipelineError> {
        let temperature = self.temperature;
        require(
            "temperature",
            temperature,
            temperature.is_finite() && temperature >= 0.0,
            "a finite number of at least 0",
        )?;
        let (top_p, top_k, min_p) = (self.top_p, self.top_k, self.min_p);
        let top_p_is_possible = top_p.is_none_or(|p| p > 0.0 && p <= 1.0);
        let min_p_is_possible = min_p.is_none_or(|p| (0.0..=1.0).contains(&p));
        require(
            "top-p",
            text(top_p),
            top_p_is_possible,
            "a number above 0 and up to 1",
        )?;
        require("top-k", text(top_k), top_k != Some(0), "at least 1")?;
        require(
            "min-p",
            text(min_p),
            min_p_is_possible,
            "a number from 0 to 1",
        )?;
        for (option, value, filters) in [
            ("top-p", text(top_p), top_p.is_some_and(|p| p < 1.0)),
            ("top-k", text(top_k), top_k.is_some()),
            ("min-p", text(min_p), min_p.is_some_and(|p| p > 0.0)),
        ] {
            require(
                option,
                format_args!("{value} at temperature 0, where nothing is drawn"),
                temperature > 0.0 || !filters,
                "a temperature above 0 beside it: raise the one or leave out the other",
            )?;
        }
        Ok(())
    }

    fn check_penalties(&self) -> Result<(), PipelineError> {
        let penalty = self.repetition_penalty;
        require(
            "repetition penalty",
            penalty,
            penalty.is_finite() && penalty > 0.0,
            "a finite number above 0",
        )?;
        for (option, penalty) in [
            ("presence penalty", self.presence_penalty),
            ("frequency penalty", self.frequency_penalty),
        ] {
            let possible = (-2.0..=2.0).contains(&penalty);
            require(option, penalty, possible, "a number from -2 to 2")?;
        }
        for (id, bias) in &self.logit_bias {
            require(
                "logit bias",
                format_args!("{bias} for token {id}"),
                (-100.0..=100.0).contains(bias),
                "a number from -100 to 100",
            )?;
        }
        Ok(())
    }

    /// Refuses ids that no token of the vocabulary has.
    pub(super) fn check_ids(&self, vocab_size: usize) -> Result<(), PipelineError> {
        let biased = self.logit_bias.keys().map(|id| ("logit bias", id));
        let stops = self.stop_ids.iter().map(|id| ("stop id", id));
        for (option, id) in biased.chain(stops) {
            require(
                option,
                format_args!("for token {id}, of a vocabulary of {vocab_size}"),
                (*id as usize) < vocab_size,
                "an id below the size of the vocabulary",
            )?;
        }
        Ok(())
    }

    /// The first option that ends an answer or looks back at it. A stream has no end, and one that
    /// looks back would turn against its pads.
    pub(crate) fn of_answers(&self) -> Option<&'static str> {
        let options = [
            ("a stop string", !self.stop.is_empty()),
            ("a stop id", !self.stop_ids.is_empty()),
            ("a repetition penalty", self.repetition_penalty != 1.0),
            ("a presence penalty", self.presence_penalty != 0.0),
            ("a frequency penalty", self.frequency_penalty != 0.0),
        ];
        let given = options.into_iter().find(|(_, given)| *given);
        given.map(|(option, _)| option)
    }
}

fn require(
    option: &'static str,
    found: impl ToString,
    possible: bool,
    expected: &'static str,
) -> Result<(), PipelineError> {
    if possible {
        return Ok(());
    }
    Err(PipelineError::InvalidOption {
        option,
        found: found.to_string(),
        expected,
    })
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(set: impl FnOnce(&mut SamplingOptions)) -> String {
        let mut options = SamplingOptions::chat();
        set(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn presets_are_possible() {
        for options in [SamplingOptions::default(), SamplingOptions::chat()] {
            options.check().unwrap();
        }
        assert_eq!(SamplingOptions::default().temperature, 0.0);
        let chat = SamplingOptions::chat();
        assert_eq!((chat.temperature, chat.top_p), (0.2, Some(0.95)));
    }

    #[test]
    fn every_limit_holds_for_what_lies_beyond_and_for_nan() {
        type Set = fn(&mut SamplingOptions, f32);
        let options: [(&str, Set, &[f32], &[f32]); 7] = [
            (
                "temperature",
                |o, x| o.temperature = x,
                &[1e-9, 2e9],
                &[-0.1, f32::INFINITY],
            ),
            (
                "top-p",
                |o, x| o.top_p = Some(x),
                &[1e-9, 1.0],
                &[0.0, 1.01, -0.5],
            ),
            (
                "min-p",
                |o, x| o.min_p = Some(x),
                &[0.0, 1.0],
                &[-0.01, 1.01],
            ),
            (
                "repetition penalty",
                |o, x| o.repetition_penalty = x,
                &[0.01, 9.0],
                &[0.0, -1.0, f32::INFINITY],
            ),
            (
                "presence penalty",
                |o, x| o.presence_penalty = x,
                &[-2.0, 2.0],
                &[-2.1, 2.1],
            ),
            (
                "frequency penalty",
                |o, x| o.frequency_penalty = x,
                &[-2.0, 2.0],
                &[-2.1, 2.1],
            ),
            (
                "logit bias",
                |o, x| _ = o.logit_bias.insert(7, x),
                &[-100.0, 100.0],
                &[-101.0, f32::NEG_INFINITY],
            ),
        ];
        for (option, set, possible, impossible) in options {
            for &value in possible {
                let mut options = SamplingOptions::chat();
                set(&mut options, value);
                options.check().unwrap();
            }
            for &value in impossible.iter().chain(&[f32::NAN]) {
                let message = refused(|options| set(options, value));
                let begins = format!("{option} is {value}");
                assert!(message.starts_with(&begins), "{message}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(
            refused(|o| o.top_k = Some(0)),
            "top-k is 0, expected at least 1"
        );
        assert!(refused(|o| o.stop = vec!["a".into(), String::new()]).contains("is empty"));
        assert!(refused(|o| o.top_logprobs = 21).contains("is 21, expected at most 20"));
        let message = refused(|o| o.temperature = 0.0);
        assert!(
            message.starts_with("top-p is 0.95 at temperature 0"),
            "{message}"
        );
    }

    #[test]
    fn ids_are_those_of_the_vocabulary() {
        let bias = SamplingOptions {
            logit_bias: [(9, 1.0), (10, 1.0)].into(),
            ..Default::default()
        };
        let stops = SamplingOptions {
            stop_ids: vec![2, 10],
            ..Default::default()
        };
        for options in [bias, stops] {
            options.check().unwrap();
            options.check_ids(11).unwrap();
            let message = options.check_ids(10).unwrap_err().to_string();
            assert!(
                message.contains("token 10, of a vocabulary of 10"),
                "{message}"
            );
        }
    }
}
