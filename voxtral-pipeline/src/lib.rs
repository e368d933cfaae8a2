//! Speech to text with Mistral's Voxtral models, for programs that embed it.
//!
//! A [`Voxtral`] is opened once on a Burn backend and shared; [`Voxtral::transcribe`] turns a
//! clip into a [`Transcript`], and [`Voxtral::start`] gives the same work as an iterator of
//! [`Step`]s.
//!
//! ```
//! use burn_flex::Flex;
//! use voxtral_pipeline::{TranscribeOptions, Voxtral};
//!
//! # fn main() -> Result<(), voxtral_pipeline::PipelineError> {
//! let model = Voxtral::<Flex>::builder().demo()?; // or .open("mini")?
//! let audio = model.read_audio("../samples/digits-en.wav")?;
//! for step in model.start(&audio, &TranscribeOptions::default())? {
//!     print!("{}", step?.text);
//! }
//! let transcript = model.transcribe(&audio, &TranscribeOptions::default())?;
//! assert_eq!(transcript.text.split(' ').count(), 6);
//! # Ok(())
//! # }
//! ```
//!
//! With a Realtime model, [`Voxtral::session`] takes sound while it is spoken and gives [`Word`]s
//! with their times; see [`Session`].
//!
//! # The life of a sample
//!
//! file → [`Audio`] (decoded, mono, resampled) → log-mel windows → encoder → projector →
//! embeddings in the place of the prompt's audio tokens → decoder → one token per step → text.

mod align;
mod batch;
mod cancel;
mod chat;
#[cfg(feature = "demo")]
mod demo;
mod doubt;
mod draft;
mod error;
mod feed;
mod formats;
mod fusion;
mod generate;
mod language;
mod listening;
mod long;
mod model;
mod sample;
mod segments;
mod session;
mod timeline;
mod transcribe;
mod transcript;
mod translate;
mod words;
mod writing;

pub use batch::{Batch, BatchEvent};
pub use cancel::Cancel;
pub use chat::{
    Answer, AnswerForm, Answering, Chat, ChatOptions, Message, Part, Tool, ToolEvent, Toolbox,
    Usage,
};
#[cfg(feature = "demo")]
pub use demo::Demo;
pub use doubt::{Doubt, Gap, Warning};
pub use error::PipelineError;
pub use feed::{FeedReader, FeedStopper, FeedWriter, feed};
pub use formats::{Document, Format, Layout, SegmentWriter, Task};
pub use language::{DetectedLanguage, LanguageSource};
pub use long::{Journal, JournalKey, LongEvent, LongOptions, LongTranscription, Recording, Vad};
pub use model::{Builder, Progress, PromptSize, Voxtral};
pub use sample::{Choice, Constraint, ContextBias, Sampler, SamplingOptions};
pub use segments::{Segment, Segmenter};
pub use session::{Session, SessionOptions};
pub use transcribe::{OnWindow, TranscribeOptions, Transcription};
pub use transcript::{Alternative, Finish, Step, Timings, Token, Transcript};
pub use words::{Word, WordAttention};

pub use voxtral_audio::{Audio, Decoder};
pub use voxtral_nn::{Backend, Precision};
pub use voxtral_tokenizer::{
    Language,
    chat::{Role, ToolCall, ToolDefinition},
};

/// The example of the README, compiled with the tests.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("../../README.md")]
struct Readme;
