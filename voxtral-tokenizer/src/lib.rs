//! Tekken tokenizer and prompt layouts of the Voxtral speech models.
//!
//! Everything comes from the model's own `tekken.json`: vocabulary, special tokens (looked up
//! by name, since their ids differ between models), the pattern that cuts text into pieces,
//! and the figures that say how many tokens a piece of audio takes.
//!
//! ```
//! use voxtral_tokenizer::chat::{self, Message, Part};
//! use voxtral_tokenizer::{SpecialPolicy, TextDecoder, Tokenizer, prompt};
//!
//! # use std::io::Read;
//! # let mut json = Vec::new();
//! # flate2::read::GzDecoder::new(std::fs::File::open("testdata/tekken_240911.json.gz")?)
//! #     .read_to_end(&mut json)?;
//! // `Tokenizer::from_file("tekken.json")` reads a file instead.
//! let tokenizer = Tokenizer::from_bytes(&json)?;
//!
//! let ids = tokenizer.encode("Hello, world!");
//! assert_eq!(ids, [22177, 1044, 4304, 1033]);
//! assert_eq!(tokenizer.decode(&ids, SpecialPolicy::Reject)?, "Hello, world!");
//!
//! // The prompt for one second of French: padded to one window of 30 s, 375 tokens.
//! let audio = tokenizer.audio().expect("a speech model has an audio section");
//! let windows = audio.windows(16_000).expect("a 2507 model has windows");
//! let prompt = prompt::transcription(&tokenizer, windows.tokens, Some("fr".parse()?))?;
//! assert_eq!(prompt.len(), 3 + 375 + 5);
//!
//! // A question about two clips, of 375 and 750 tokens; a clip may be anything that has a length.
//! let question = [Message::User(vec![
//!     Part::Audio(375),
//!     Part::Audio(750),
//!     Part::Text("Compare.".to_owned()),
//! ])];
//! let prompt = prompt::chat(&tokenizer, &question, &[], |&tokens| tokens)?;
//! assert_eq!(prompt.len(), 2 + 1 + 375 + 1 + 750 + 2 + 1);
//! let answer = chat::parse_answer(&tokenizer, &tokenizer.encode("Louder."), || 0)?;
//! assert_eq!((answer.text.as_str(), answer.calls.len()), ("Louder.", 0));
//!
//! // What the model answers is decoded as it comes: one byte each, and then a smile.
//! let mut decoder = TextDecoder::new(&tokenizer);
//! let texts = [1240, 1159, 1152, 1128].map(|id| decoder.push(id));
//! assert_eq!(texts, ["", "", "", "😀"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The reference is Mistral's `mistral-common`; the tests compare ids, prompts and decoded
//! text with it on thousands of strings, and hundreds of conversations.

#![forbid(unsafe_code)]

mod audio;
mod blanks;
pub mod chat;
mod decode;
mod error;
mod language;
pub mod prompt;
pub mod special;
mod tekken;
mod tokenizer;

pub use audio::{
    AudioSection, EncodingConfig, StreamLayout, StreamingSettings, TranscriptionFormat, Windows,
};
pub use decode::{SpecialPolicy, TextDecoder};
pub use error::TokenizerError;
pub use language::Language;
pub use tekken::Version;
pub use tokenizer::Tokenizer;
