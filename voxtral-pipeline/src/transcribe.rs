//! Transcription: the request, its steps and its result.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use voxtral_audio::Audio;
use voxtral_nn::Backend;
use voxtral_tokenizer::{Language, TextDecoder, prompt};

use crate::{
    Cancel, PipelineError, Voxtral,
    fusion::Splice,
    generate::{Generator, Request},
    sample::Sampler,
};

/// What a transcription is asked for.
#[derive(Debug, Clone, Default)]
pub struct TranscribeOptions {
    /// The spoken language; the model detects it where none is given.
    pub language: Option<Language>,
    /// 0 takes the most probable token; above it, tokens are drawn.
    pub temperature: f32,
    /// Seeds the draws.
    pub seed: u64,
    /// At most this many tokens; by default as many as the audio has embeddings (12.5 a second,
    /// more than anyone speaks), or as the context has room for.
    pub max_new_tokens: Option<usize>,
    /// Stops the work from another thread.
    pub cancel: Cancel,
    /// Told how far encoding is, which comes before the first step.
    pub on_window: OnWindow,
}

/// A function of the number of audio windows that are encoded and of all there are.
#[derive(Clone, Default)]
pub struct OnWindow(Option<Arc<dyn Fn(usize, usize) + Send + Sync>>);

impl OnWindow {
    /// Calls this function.
    pub fn new(call: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(crate) fn call(&self, done: usize, all: usize) {
        if let Some(call) = &self.0 {
            call(done, all);
        }
    }
}

impl fmt::Debug for OnWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.0.is_some() { "set" } else { "none" };
        f.write_str(state)
    }
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its own text; of a special token its name, of an incomplete character replacement signs.
    pub text: String,
    /// `ln p` under the model's distribution.
    pub logprob: f32,
}

/// One step of a transcription.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The token that was generated.
    pub token: Token,
    /// What the transcript grew by: often a word piece, nothing for a special token or within a
    /// character. All steps together give the transcript's text, but for white space at its end.
    pub text: String,
}

/// Why a transcription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said so.
    Stop,
    /// The permitted number of tokens was reached: the text may be cut off.
    Length,
}

/// Wall-clock time of each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Log-mel features.
    #[serde(serialize_with = "seconds")]
    pub features: Duration,
    /// Encoder and projector.
    #[serde(serialize_with = "seconds")]
    pub encoder: Duration,
    /// The decoder over the prompt, up to the first token.
    #[serde(serialize_with = "seconds")]
    pub prefill: Duration,
    /// The decoder over the tokens that followed.
    #[serde(serialize_with = "seconds")]
    pub decode: Duration,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transcript {
    /// The words.
    pub text: String,
    /// The language that was asked for.
    pub language: Option<String>,
    /// Length of the audio in seconds.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// The model that wrote it.
    pub model: String,
    /// Why it ended.
    pub finish: Finish,
    /// Every generated token, special ones and the end token included.
    pub tokens: Vec<Token>,
    /// Where the time went.
    pub timings: Timings,
}

/// A running transcription: an iterator of [`Step`]s, then [`finish`](Self::finish).
pub struct Transcription<'m, B: Backend> {
    model: &'m Voxtral<B>,
    generator: Generator<'m, B, Splice<B>>,
    decoder: TextDecoder<'m>,
    language: Option<Language>,
    duration: Duration,
    timings: Timings,
    text: String,
    tokens: Vec<Token>,
    ended: bool,
    failed: bool,
}

impl<B: Backend> Voxtral<B> {
    /// Transcribes a file.
    ///
    /// # Errors
    /// The file cannot be read, is longer than the model takes, or the work was cancelled.
    pub fn transcribe_file(
        &self,
        path: impl AsRef<Path>,
        options: &TranscribeOptions,
    ) -> Result<Transcript, PipelineError> {
        self.transcribe(&self.read_audio(path)?, options)
    }

    /// Transcribes a clip.
    ///
    /// # Errors
    /// It is longer than the model takes, an option is impossible, or the work was cancelled.
    pub fn transcribe(
        &self,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<Transcript, PipelineError> {
        self.start(audio, options)?.finish()
    }

    /// Encodes a clip and gives the transcription's steps, for callers that print as it goes.
    ///
    /// # Errors
    /// As for [`transcribe`](Self::transcribe).
    pub fn start(
        &self,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<Transcription<'_, B>, PipelineError> {
        if !options.temperature.is_finite() || options.temperature < 0.0 {
            return Err(PipelineError::InvalidOption {
                option: "temperature",
                found: options.temperature.to_string(),
                expected: "a finite number of at least 0",
            });
        }
        let audio_tokens = self.audio_tokens(audio)?;
        let prompt = prompt::transcription(&self.tokenizer, audio_tokens, options.language)?;
        let limit = self.answer_limit(prompt.len(), audio_tokens, options.max_new_tokens)?;
        let mut timings = Timings::default();
        let splice = Splice {
            audio: self.embed(audio, options, &mut timings)?,
            placeholder: self.ids.audio,
        };
        let request = Request {
            prompt,
            end: self.ids.end,
            limit,
            sampler: Sampler::new(options.temperature, options.seed),
            cancel: options.cancel.clone(),
        };
        Ok(Transcription {
            model: self,
            generator: Generator::new(&self.decoder, splice, request),
            decoder: TextDecoder::new(&self.tokenizer),
            language: options.language,
            duration: audio.duration(),
            timings,
            text: String::new(),
            tokens: Vec::new(),
            ended: false,
            failed: false,
        })
    }

    /// Tokens that may be generated: those asked for, if they fit, or else a token for every audio
    /// embedding, as far as the context goes.
    fn answer_limit(
        &self,
        prompt: usize,
        audio_tokens: usize,
        asked: Option<usize>,
    ) -> Result<usize, PipelineError> {
        /// Where the checkpoint states no context, an answer is bounded all the same: the cache's
        /// memory is reserved for it.
        const LONGEST_ANSWER: usize = 1 << 16;

        let room = match self.config.decoder.max_positions {
            Some(context) => context.saturating_sub(prompt),
            None => LONGEST_ANSWER,
        };
        let limit = asked.unwrap_or(audio_tokens.min(room));
        if limit == 0 || limit > room {
            return Err(PipelineError::ContextOverflow {
                prompt,
                answer: limit.max(1),
                context: room.saturating_add(prompt),
            });
        }
        Ok(limit)
    }
}

impl<B: Backend> Transcription<'_, B> {
    /// Runs the remaining steps and gives the result.
    ///
    /// # Errors
    /// A step fails, failed before or is cancelled.
    pub fn finish(mut self) -> Result<Transcript, PipelineError> {
        for step in self.by_ref() {
            step?;
        }
        if self.failed {
            return Err(PipelineError::Unfinished);
        }
        let finish = match self.tokens.last() {
            Some(token) if token.id == self.model.ids.end => Finish::Stop,
            _ => Finish::Length,
        };
        self.timings.prefill = self.generator.prefill_time;
        self.timings.decode = self.generator.decode_time;
        Ok(Transcript {
            text: self.text.trim_end().to_owned(),
            language: self.language.map(|language| language.to_string()),
            duration: self.duration,
            model: self.model.name.clone(),
            finish,
            tokens: self.tokens,
            timings: self.timings,
        })
    }

    /// Adds to the transcript; what it begins with is no white space.
    fn grow(&mut self, text: String) -> String {
        let text = if self.text.is_empty() {
            text.trim_start().to_owned()
        } else {
            text
        };
        self.text.push_str(&text);
        text
    }
}

impl<B: Backend> Iterator for Transcription<'_, B> {
    type Item = Result<Step, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let choice = match self.generator.next() {
            Some(Ok(choice)) => choice,
            Some(Err(error)) => {
                self.ended = true;
                self.failed = true;
                return Some(Err(error));
            }
            None => {
                self.ended = true;
                return None;
            }
        };
        let token = Token {
            id: choice.id,
            text: self.model.tokenizer.token_text(choice.id),
            logprob: choice.logprob,
        };
        self.tokens.push(token.clone());
        let last = choice.id == self.model.ids.end || self.generator.limit_reached();
        let mut text = self.decoder.push(choice.id);
        if last {
            text.push_str(&self.decoder.finish());
        }
        let text = self.grow(text);
        Some(Ok(Step { token, text }))
    }
}

impl Timings {
    pub(crate) fn features<T>(&mut self, work: impl FnOnce() -> T) -> T {
        measure(&mut self.features, work)
    }

    pub(crate) fn encoder<T>(&mut self, work: impl FnOnce() -> T) -> T {
        measure(&mut self.encoder, work)
    }
}

fn measure<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed();
    result
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are as fine as these figures mean anything.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}
