//! Which language is spoken, and how that is known.
//!
//! A model whose prompts name the language may have learned which name follows the audio: then its
//! scores of the names tell. Otherwise the words of the transcript do, where they are enough.

mod scores;
mod text;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use voxtral_nn::{Backend, KvCache};
use voxtral_tokenizer::Language;

use crate::{PipelineError, Timings, Voxtral};

pub(crate) use text::of_text;

/// A language that was found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetectedLanguage {
    /// Its ISO 639-1 code.
    pub language: String,
    /// How probable it is among those that could be, from 0 to 1. That of a text is careful: it is
    /// right more often.
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

/// Languages of the released models, whose files do not state them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Released {
    /// The 2507 models: their cards, and Arabic by the table of vLLM (`models/voxtral.py`).
    Clips,
    /// Realtime, by its card.
    Streams,
}

impl Released {
    pub(crate) fn languages(self) -> Vec<Language> {
        let codes: &[&str] = match self {
            Self::Clips => &["ar", "de", "en", "es", "fr", "hi", "it", "nl", "pt"],
            Self::Streams => &[
                "ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh",
            ],
        };
        codes.iter().filter_map(|code| code.parse().ok()).collect()
    }
}

impl<B: Backend> Voxtral<B> {
    /// The languages that the model understands: those of the released models of its kind, where
    /// its [`Builder`](crate::Builder::languages) was not told others.
    pub fn languages(&self) -> &[Language] {
        &self.languages
    }

    /// Refuses a language that the model does not understand.
    pub(crate) fn check_language(&self, language: Language) -> Result<(), PipelineError> {
        if self.languages.contains(&language) {
            return Ok(());
        }
        let codes = self.languages.iter().map(|language| language.code());
        Err(PipelineError::LanguageUnsupported {
            model: self.name.clone(),
            found: language.to_string(),
            known: codes.collect::<Vec<_>>().join(", "),
        })
    }

    /// The language of a clip, of which the cache holds the first `heard` positions of a prompt
    /// that names none: up to the end of the instruction, `[/INST]`. What follows them in the cache
    /// is lost. Nothing is spoken where there is no text.
    pub(crate) fn detect_language(
        &self,
        text: &str,
        (cache, heard): (&mut KvCache<B>, usize),
        timings: &mut Timings,
    ) -> Result<Option<DetectedLanguage>, PipelineError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let told = scores::of_scores(self, cache, heard)?;
        timings.language = started.elapsed();
        Ok(told.or_else(|| of_text(text, &self.languages)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_of_the_released_models_is_known() {
        let counts = [Released::Clips, Released::Streams].map(|kind| kind.languages().len());
        assert_eq!(counts, [9, 13]);
    }
}
