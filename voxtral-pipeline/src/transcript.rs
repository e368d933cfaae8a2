//! Transcripts, and how they grow token by token.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use voxtral_tokenizer::{TextDecoder, Tokenizer};

use crate::{
    Choice, DetectedLanguage, Gap, SamplingOptions, Segment, Warning, Word, sample::StopStrings,
    words::geometric_mean,
};

/// One generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its own text; of a special token its name, of an incomplete character replacement signs.
    pub text: String,
    /// `ln p` under the model's distribution.
    pub logprob: f32,
    /// The most probable tokens in its place, best first, as many as
    /// [`top_logprobs`](crate::SamplingOptions::top_logprobs) asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Alternative>,
}

/// A token that could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// Its own text, as of a [`Token`].
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
    /// character or what may become a stop string. All steps together give the transcript's text,
    /// but for white space at its end.
    pub text: String,
    /// The words that are now complete, where the model tells times.
    pub words: Vec<Word>,
}

/// Why a transcription ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model said so, a stop string or id was reached, or the audio of a stream was used up.
    Stop,
    /// The permitted number of tokens was reached: the text may be cut off.
    Length,
}

/// Wall-clock time of each stage, and what the last took.
///
/// In a batch, a pass counts for every clip that takes part in it.
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
    /// Finding out the language.
    #[serde(serialize_with = "seconds")]
    pub language: Duration,
    /// Finding out the times of words.
    #[serde(serialize_with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub alignment: Duration,
    /// Runs of the decoder over those tokens: fewer where it was guessed what they are.
    pub passes: usize,
    /// Positions of the prompts, the audio's included.
    pub prompt_tokens: usize,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transcript {
    /// The words.
    pub text: String,
    /// The language that was asked for, or else found out.
    pub language: Option<String>,
    /// How the language was found out, where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_detected: Option<DetectedLanguage>,
    /// Length of the audio in seconds.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// The model that wrote it.
    pub model: String,
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// Whether the audio broke off: the transcript is of what was there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The words with their times, where the model tells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
    /// The words in groups that a person reads at once, where the model tells times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<Segment>>,
    /// Sound that has no text and is not silent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Text that may not be what was said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Every generated token, special ones and the end token included.
    pub tokens: Vec<Token>,
    /// Where the time went.
    pub timings: Timings,
}

impl Transcript {
    /// The geometric mean of the probabilities of its tokens; the end token says nothing of the words.
    pub(crate) fn confidence(&self) -> Option<f32> {
        let mut tokens = &self.tokens[..];
        if self.finish == Finish::Stop
            && self.stop.is_none()
            && let Some((_, text)) = tokens.split_last()
        {
            tokens = text;
        }
        let logprobs = tokens.iter().map(|token| token.logprob);
        (!tokens.is_empty()).then(|| geometric_mean(logprobs))
    }

    /// Warns where times were asked for and the text has none, as segments without words tell.
    pub(crate) fn warn_of_missing_times(&self) {
        if self.words.is_none() && self.segments.is_some() && !self.text.trim().is_empty() {
            tracing::warn!(
                "no head of attention goes along with the speech: words have no times, segments \
                 those of the sound around them"
            );
        }
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

pub(crate) fn measure<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed();
    result
}

pub(crate) fn seconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Microseconds are as fine as these figures mean anything.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

/// A probability, as fine as it means anything.
pub(crate) fn probability<S: serde::Serializer>(
    probability: &Option<f32>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    probability
        .map(|p| (f64::from(p) * 1e4).round() / 1e4)
        .serialize(serializer)
}

/// Times that are written, and read again.
pub(crate) mod in_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(crate) use super::seconds as serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)
    }
}

/// Writes a transcript down, token by token.
pub(crate) struct Scribe<'m> {
    tokenizer: &'m Tokenizer,
    decoder: TextDecoder<'m>,
    /// Whether there was a character that is no white space.
    begun: bool,
    /// Whether text and tokens are kept.
    keeps: bool,
    stop_ids: Vec<u32>,
    stop_strings: StopStrings,
    stopped: bool,
    /// The stop string that was reached.
    pub(crate) stop: Option<String>,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
}

impl<'m> Scribe<'m> {
    pub(crate) fn new(tokenizer: &'m Tokenizer, keeps: bool) -> Self {
        Self {
            tokenizer,
            decoder: TextDecoder::new(tokenizer),
            begun: false,
            keeps,
            stop_ids: Vec::new(),
            stop_strings: StopStrings::default(),
            stopped: false,
            stop: None,
            text: String::new(),
            tokens: Vec::new(),
        }
    }

    /// Ends at this token, and where the options say.
    pub(crate) fn stop_at(mut self, end: u32, options: &SamplingOptions) -> Self {
        self.stop_ids = vec![end];
        self.stop_ids.extend(&options.stop_ids);
        self.stop_strings = StopStrings::new(&options.stop);
        self
    }

    /// Whether the end token, a stop id or a stop string was written: nothing may follow.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Writes the next token; `last` if none follows.
    pub(crate) fn write(&mut self, choice: Choice, last: bool) -> Step {
        let text = self.text_of(choice.id, last);
        let token = self.token(choice);
        if self.keeps {
            self.tokens.push(token.clone());
            self.text.push_str(&text);
        }
        Step {
            token,
            text,
            words: Vec::new(),
        }
    }

    /// The text that this token completes, as far as no stop string is in it or may begin in it.
    fn text_of(&mut self, id: u32, last: bool) -> String {
        let stops = self.stop_ids.contains(&id);
        let last = last || stops;
        let mut text = String::new();
        if !stops {
            text.push_str(&self.decoder.push(id));
        }
        if last {
            text.push_str(&self.decoder.finish());
        }
        if !self.begun {
            // What a transcript begins with is no white space.
            text = text.trim_start().to_owned();
            self.begun = !text.is_empty();
        }
        let (mut text, stop) = self.stop_strings.push(&text);
        if last {
            text.push_str(&self.stop_strings.finish());
        }
        self.stopped = stops || stop.is_some();
        self.stop = stop;
        text
    }

    fn token(&self, choice: Choice) -> Token {
        let text = |id| self.tokenizer.token_text(id);
        let alternative = |(id, logprob)| Alternative {
            id,
            text: text(id),
            logprob,
        };
        Token {
            id: choice.id,
            text: text(choice.id),
            logprob: choice.logprob,
            top: choice.top.into_iter().map(alternative).collect(),
        }
    }
}
