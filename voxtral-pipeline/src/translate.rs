//! Translations: a question to a model that takes clips.

use std::sync::Arc;

use voxtral_audio::Audio;
use voxtral_nn::Backend;
use voxtral_tokenizer::Language;

use crate::{ChatOptions, Message, Part, PipelineError, TranscribeOptions, Transcript, Voxtral};

impl<B: Backend> Voxtral<B> {
    /// Writes down in another language what is said in a clip. No times belong to it.
    ///
    /// The model is asked, as in a [`Chat`](crate::Chat), to "Translate this to French.".
    ///
    /// # Errors
    /// As for [`transcribe`](Self::transcribe); the model takes streams, which it cannot be asked
    /// about, or [`TranscribeOptions::language`] is set, which has no place in a question.
    pub fn translate(
        &self,
        audio: &Arc<Audio>,
        to: Language,
        options: &TranscribeOptions,
    ) -> Result<Transcript, PipelineError> {
        if self.is_streaming() {
            return Err(self.refuse_translation(
                "a translation",
                "a Realtime model writes down what it hears: choose a model of 2507, as `mini`",
            ));
        }
        if options.language.is_some() {
            return Err(self.refuse_translation(
                "the spoken language of a translation",
                "it finds it out by itself: leave it out",
            ));
        }
        self.check_options(options)?;
        let question = vec![
            Part::Audio(Arc::clone(audio)),
            Part::Text(format!("Translate this to {}.", name(to))),
        ];
        let asked = ChatOptions {
            sampling: options.sampling.clone(),
            max_new_tokens: options.max_new_tokens,
            cancel: options.cancel.clone(),
            on_window: options.on_window.clone(),
            ..ChatOptions::default()
        };
        let answer = self.chat().answer(&[Message::User(question)], &asked)?;
        Ok(Transcript {
            text: answer.text.trim().to_owned(),
            language: None,
            language_detected: None,
            duration: audio.duration(),
            model: answer.model,
            finish: answer.finish,
            stop: answer.stop,
            truncated: audio.is_truncated(),
            words: None,
            segments: None,
            gaps: Vec::new(),
            warnings: Vec::new(),
            tokens: answer.tokens,
            timings: answer.timings,
        })
    }

    fn refuse_translation(&self, option: &'static str, reason: &'static str) -> PipelineError {
        PipelineError::OptionUnsupported {
            model: self.name.clone(),
            option,
            reason,
        }
    }
}

/// What English calls a language; its code, should that be unknown.
fn name(language: Language) -> &'static str {
    let name = isolang::Language::from_639_1(language.code()).map(|found| found.to_name());
    // The standard adds what it means: "Modern Greek (1453-)".
    let plain = name.and_then(|name| name.split(" (").next());
    plain.unwrap_or(language.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_called_by_their_english_names() {
        let named = |code: &str| name(code.parse().unwrap());
        assert_eq!(
            ["fr", "de", "hi", "nl"].map(named),
            ["French", "German", "Hindi", "Dutch"]
        );
        assert_eq!(["el", "sw"].map(named), ["Modern Greek", "Swahili"]);
        for language in Language::all() {
            let name = name(language);
            assert!(
                name.len() > 1 && !name.contains(['(', ')']),
                "{language}: {name}"
            );
        }
        let unnamed = Language::all().filter(|&it| name(it) == it.code()).count();
        assert_eq!(unnamed, 0);
    }
}
