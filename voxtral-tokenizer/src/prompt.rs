//! Prompts of the models.
//!
//! A layout is a function that puts pieces together: special tokens by name, encoded text,
//! audio clips. N audio tokens take the places `[AUDIO]` after one `[BEGIN_AUDIO]`; nothing
//! ends a clip.
//!
//! ```text
//! conversation    <s> [INST] text and [BEGIN_AUDIO] [AUDIO]×N in any order [/INST] answer </s> …
//! transcription   <s> [INST] [BEGIN_AUDIO] [AUDIO]×N [/INST] lang:xx [TRANSCRIBE]
//! stream          <s> [STREAMING_PAD]×(left pad + delay)
//! ```
//!
//! The prompt of a stream has no places for audio: every position takes audio and a token.

mod chat;

pub use chat::chat;

use crate::audio::{StreamLayout, TranscriptionFormat};
use crate::error::TokenizerError;
use crate::language::Language;
use crate::special;
use crate::tokenizer::Tokenizer;

/// What a language's code follows in a prompt.
pub const LANGUAGE: &str = "lang:";

/// How a prompt names the spoken language: `lang:xx`.
pub fn language(tokenizer: &Tokenizer, language: Language) -> Vec<u32> {
    // Encoded whole: "lang:nl" has a token for ":n".
    tokenizer.encode(&format!("{LANGUAGE}{language}"))
}

/// The prompt that asks for the transcript of one clip.
///
/// `audio_tokens` counts the places for audio embeddings, padding included; see
/// [`AudioSection::windows`](crate::AudioSection::windows). Without a language the model
/// finds it out by itself.
///
/// ```text
/// <s> [INST] [BEGIN_AUDIO] [AUDIO]×audio_tokens [/INST] lang:xx [TRANSCRIBE]
/// ```
pub fn transcription(
    tokenizer: &Tokenizer,
    audio_tokens: usize,
    spoken: Option<Language>,
) -> Result<Vec<u32>, TokenizerError> {
    refuse_streaming(tokenizer)?;
    let mut prompt = Prompt::new(tokenizer)?;
    prompt.special(special::BEGIN_INST)?;
    prompt.audio(audio_tokens)?;
    prompt.special(special::END_INST)?;
    if let Some(spoken) = spoken {
        prompt.ids.extend(language(tokenizer, spoken));
    }
    prompt.special(special::TRANSCRIBE)?;
    Ok(prompt.ids)
}

/// The prompt of a stream, with a token for each position of the silence before the audio and of
/// the delay; see [`AudioSection::stream`](crate::AudioSection::stream).
///
/// ```text
/// <s> [STREAMING_PAD]×(left_pad_tokens + delay_tokens)
/// ```
pub fn stream(tokenizer: &Tokenizer, layout: &StreamLayout) -> Result<Vec<u32>, TokenizerError> {
    let mut prompt = Prompt::new(tokenizer)?;
    for _ in 0..layout.left_pad_tokens + layout.delay_tokens {
        prompt.special(special::STREAMING_PAD)?;
    }
    Ok(prompt.ids)
}

/// A streaming model takes no prompt with places for audio.
fn refuse_streaming(tokenizer: &Tokenizer) -> Result<(), TokenizerError> {
    match tokenizer.audio().map(|audio| audio.transcription_format) {
        Some(TranscriptionFormat::Streaming(_)) => Err(TokenizerError::Streaming),
        Some(TranscriptionFormat::Instruct) | None => Ok(()),
    }
}

/// A prompt that is being put together.
struct Prompt<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
}

impl<'t> Prompt<'t> {
    /// A prompt that holds what every prompt begins with.
    fn new(tokenizer: &'t Tokenizer) -> Result<Self, TokenizerError> {
        let ids = vec![tokenizer.bos()?];
        Ok(Self { tokenizer, ids })
    }

    fn special(&mut self, token: &str) -> Result<(), TokenizerError> {
        self.ids.push(self.tokenizer.special(token)?);
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.ids.extend(self.tokenizer.encode(text));
    }

    fn audio(&mut self, tokens: usize) -> Result<(), TokenizerError> {
        if tokens == 0 {
            return Err(TokenizerError::NoAudio);
        }
        self.special(special::BEGIN_AUDIO)?;
        let place = self.tokenizer.special(special::AUDIO)?;
        self.ids.extend(std::iter::repeat_n(place, tokens));
        Ok(())
    }
}
