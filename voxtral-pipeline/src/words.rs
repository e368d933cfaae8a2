//! Words with times.
//!
//! A model that takes clips has words by its text alone ([`spelling`]), and their times by what it
//! attended to. A streaming model tells when it has heard a word ([`clock`]); in both, the loudness of
//! the sound tells where a word begins and fades ([`onsets`]).

mod clock;
mod onsets;
mod spelling;

use std::time::Duration;

use serde::Serialize;

pub(crate) use clock::{Sign, Timed, WordClock};
pub(crate) use onsets::Onsets;
pub(crate) use spelling::{Piece, Spelled, begins_word, geometric_mean, spell};

/// A word and when it was spoken, from the beginning of the user's audio.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Word {
    /// The word, with its punctuation and without white space around it.
    pub word: String,
    /// When it starts.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub start: Duration,
    /// When it ends.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub end: Duration,
    /// How sure the model is of it, from 0 to 1: the geometric mean of the probabilities of its
    /// tokens, where they are known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::transcript::probability"
    )]
    pub confidence: Option<f32>,
    /// Where it was looked for in the audio, if that is asked for, see
    /// [`TranscribeOptions::keeps_attention`](crate::TranscribeOptions::keeps_attention).
    #[serde(skip)]
    pub attention: Option<Box<WordAttention>>,
    /// Whether white space stands before it.
    #[serde(skip)]
    pub(crate) spaced: bool,
}

/// Where the decoder looked for a word in the audio: the mean weights of the heads of attention that
/// go along with the speech, where the word's first token was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WordAttention {
    /// Beginnings of stretches of audio and the weights on them, from 0 to 1, in order of time. Those
    /// with next to none are left out.
    pub weights: Vec<(Duration, f32)>,
    /// The stretch that the path through all words gives this one: where it begins.
    pub place: Duration,
    /// The length of a stretch.
    pub stretch: Duration,
}

impl WordAttention {
    /// The same of a recording in which the audio begins so late.
    pub(crate) fn moved(&self, offset: Duration) -> Self {
        let weights = self.weights.iter();
        Self {
            weights: weights
                .map(|(time, weight)| (*time + offset, *weight))
                .collect(),
            place: self.place + offset,
            stretch: self.stretch,
        }
    }
}

impl Word {
    /// What stands between the word before and this one: a space, or nothing in scripts that are
    /// written without.
    pub fn separator(&self) -> &'static str {
        if self.spaced { " " } else { "" }
    }
}
