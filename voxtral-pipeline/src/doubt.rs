//! What a transcript does not vouch for: gaps, and text that is doubtful.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stretch of sound without text, though it is not silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gap {
    /// Where it starts in the audio.
    #[serde(with = "crate::transcript::in_seconds")]
    pub start: Duration,
    /// Where it ends.
    #[serde(with = "crate::transcript::in_seconds")]
    pub end: Duration,
    /// Why there is no text.
    pub reason: Doubt,
}

impl Gap {
    /// What is lost of a file that ends here, of a length that it states, or that is not known.
    pub(crate) fn truncated(end: Duration, stated: Option<Duration>) -> Self {
        Self {
            start: end,
            end: stated.unwrap_or(end).max(end),
            reason: Doubt::Truncated,
        }
    }
}

/// Text that may not be what was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warning {
    /// Where the sound of it starts in the audio.
    #[serde(with = "crate::transcript::in_seconds")]
    pub start: Duration,
    /// Where the sound ends.
    #[serde(with = "crate::transcript::in_seconds")]
    pub end: Duration,
    /// What is wrong with it.
    pub reason: Doubt,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the model hears nothing in it, though it is not silent",
            Self::EndsEarly => "the text ends before the sound does",
            Self::Repeats => "the text repeats itself",
            Self::Runaway => "the text does not come to an end",
            Self::Dense => "there is more text than anyone speaks in that time",
            Self::Sparse => "there is less text than speech",
            Self::LanguageFlips => "the language is another than before and after",
            Self::Truncated => "the file breaks off",
        })
    }
}

/// What speaks against a text, or against there being none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doubt {
    /// No text, though the sound is loud.
    Empty,
    /// The text ends long before the sound does.
    EndsEarly,
    /// The same words again and again.
    Repeats,
    /// More tokens than anyone speaks in that time: the text was cut off.
    Runaway,
    /// More text than anyone speaks in that time.
    Dense,
    /// Less text than the sound has speech for.
    Sparse,
    /// Another language than before and after.
    LanguageFlips,
    /// The file breaks off: what was behind it is lost.
    Truncated,
}
