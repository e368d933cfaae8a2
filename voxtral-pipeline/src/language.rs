//! Which language is spoken, and how that is known.

use serde::{Deserialize, Serialize};

/// A language that was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetectedLanguage {
    /// Its ISO 639-1 code.
    pub language: String,
    /// How probable it is among those that could be, from 0 to 1.
    pub probability: f32,
    /// What tells it.
    pub source: LanguageSource,
}

/// What tells a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LanguageSource {
    /// The model's scores of the languages' names after the audio.
    Model,
    /// The words of the transcript.
    Text,
}
