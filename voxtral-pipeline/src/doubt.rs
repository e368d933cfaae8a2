//! What a transcript does not vouch for: gaps, and text that is doubtful.

use std::time::Duration;

use serde::Serialize;

/// A stretch of sound without text, though it is not silent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Gap {
    /// Where it starts in the audio.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub start: Duration,
    /// Where it ends.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub end: Duration,
    /// Why there is no text.
    pub reason: Doubt,
}

/// Text that may not be what was said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Warning {
    /// Where the sound of it starts in the audio.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub start: Duration,
    /// Where the sound ends.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub end: Duration,
    /// What is wrong with it.
    pub reason: Doubt,
}

/// What speaks against a text, or against there being none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
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
