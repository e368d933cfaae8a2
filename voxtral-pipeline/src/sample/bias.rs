//! Context bias: words and phrases that are likely to be said, which helps with names that a model
//! would spell in another way.
//!
//! The tokens of all phrases form a trie, and the scores of those that go on in it are raised
//! (shallow fusion: Zhao et al., Interspeech 2019, "Shallow-Fusion End-to-End Contextual Biasing").
//! What was chosen is not taken back, so a phrase must not be begun lightly: its first token is
//! raised by a [quarter](FIRST) of what those behind it are, and nothing is raised where the model would
//! rather write no text at all.

mod trie;

use std::collections::BTreeSet;

pub(super) use trie::Context;

use crate::PipelineError;

/// The part of the strength by which the first token of a phrase is raised.
const FIRST: f64 = 0.25;

/// Words and phrases that are likely to be said, and by how much their tokens are raised.
///
/// They are found however they are written: as given, in lower or upper case, with a capital in
/// front or in front of each word, at the beginning of a text and behind a space.
///
/// ```
/// use voxtral_pipeline::{ContextBias, SamplingOptions};
///
/// # fn main() -> Result<(), voxtral_pipeline::PipelineError> {
/// let names = ContextBias::new(["Joplin", "New Orleans"], ContextBias::DEFAULT_STRENGTH)?;
/// let options = SamplingOptions {
///     context_bias: Some(names),
///     ..Default::default()
/// };
/// assert!(ContextBias::new([""], 1.0).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ContextBias {
    phrases: Vec<String>,
    strength: f32,
}

impl ContextBias {
    /// The most phrases that there may be.
    pub const MAX_PHRASES: usize = 100;

    /// A phrase that was begun goes on where it is at least a seventh as probable as what is most
    /// probable, and begins where it is three fifths as probable. Over the demo's evaluation set,
    /// names that nobody says change nothing at this strength, while noisy words are mended.
    pub const DEFAULT_STRENGTH: f32 = 2.0;

    /// Phrases of one or more words, and what is added to the logits of their tokens. White space
    /// in front, behind and between words makes no difference.
    ///
    /// # Errors
    /// There is no phrase, or more than [`MAX_PHRASES`](Self::MAX_PHRASES); one is empty; the
    /// strength is no finite number above 0.
    pub fn new<S: AsRef<str>>(
        phrases: impl IntoIterator<Item = S>,
        strength: f32,
    ) -> Result<Self, PipelineError> {
        let words = |phrase: S| {
            phrase
                .as_ref()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let phrases: Vec<String> = phrases.into_iter().map(words).collect();
        let invalid = |option, found, expected| PipelineError::InvalidOption {
            option,
            found,
            expected,
        };
        if phrases.is_empty() || phrases.len() > Self::MAX_PHRASES {
            let count = phrases.len().to_string();
            return Err(invalid("number of context phrases", count, "1 to 100"));
        }
        if let Some(at) = phrases.iter().position(String::is_empty) {
            let found = format!("empty (number {} of {})", at + 1, phrases.len());
            return Err(invalid("context phrase", found, "at least one character"));
        }
        if !(strength.is_finite() && strength > 0.0) {
            let found = strength.to_string();
            return Err(invalid(
                "context strength",
                found,
                "a finite number above 0",
            ));
        }
        Ok(Self { phrases, strength })
    }

    /// The phrases, with single spaces between their words.
    pub fn phrases(&self) -> &[String] {
        &self.phrases
    }

    /// What is added to the logits of tokens within a phrase.
    pub fn strength(&self) -> f32 {
        self.strength
    }
}

/// The ways in which a phrase is written.
fn variants(phrase: &str) -> BTreeSet<String> {
    let each_word: Vec<String> = phrase.split(' ').map(capitalized).collect();
    let cases = [
        phrase.to_owned(),
        phrase.to_lowercase(),
        phrase.to_uppercase(),
        capitalized(phrase),
        each_word.join(" "),
    ];
    let spaced = cases.iter().map(|written| format!(" {written}"));
    spaced.chain(cases.iter().cloned()).collect()
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(phrases: &[&str], strength: f32) -> String {
        ContextBias::new(phrases, strength).unwrap_err().to_string()
    }

    #[test]
    fn as_many_phrases_as_are_taken_and_no_more() {
        let names: Vec<String> = (0..101).map(|i| format!("name {i}")).collect();
        assert_eq!(
            ContextBias::new(&names[..100], 1.0)
                .unwrap()
                .phrases()
                .len(),
            100
        );
        let message = ContextBias::new(&names, 1.0).unwrap_err().to_string();
        assert_eq!(
            message,
            "number of context phrases is 101, expected 1 to 100"
        );
        assert!(refused(&[], 1.0).contains("is 0, expected 1"));
    }

    #[test]
    fn what_is_impossible_is_refused() {
        for empty in ["", "  ", "\t\n"] {
            let message = refused(&["one", empty], 1.0);
            assert!(
                message.starts_with("context phrase is empty (number 2 of 2)"),
                "{message}"
            );
        }
        for strength in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let message = refused(&["one"], strength);
            assert!(
                message.starts_with(&format!("context strength is {strength}")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_phrase_is_written_in_every_usual_way() {
        let bias = ContextBias::new(["  new\t orleans "], 1.0).unwrap();
        assert_eq!(bias.phrases(), ["new orleans"]);
        let found = variants("new orleans");
        let cases = ["new orleans", "NEW ORLEANS", "New orleans", "New Orleans"];
        assert_eq!(found.len(), 2 * cases.len());
        for written in cases {
            assert!(found.contains(written) && found.contains(&format!(" {written}")));
        }
        assert!(variants("iPhone").contains(" iPhone"));
        assert!(variants("élan").contains("Élan"));
    }
}
