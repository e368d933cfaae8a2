//! What can go wrong, in one type.

use std::path::PathBuf;

use crate::tekken::Version;

/// Why a tokenizer could not be loaded or used.
///
/// Messages are fragments that read on after "cannot load the model:". A cause is a
/// [`source`](std::error::Error::source) and is not repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file could not be read at all.
    #[error("cannot read the tokenizer file `{path}`")]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// The file was read and is not a usable tokenizer.
    #[error("`{path}` is not a usable tokenizer file")]
    File {
        /// The file read.
        path: PathBuf,
        /// What is wrong with its content.
        source: Box<TokenizerError>,
    },

    /// There is no text at all.
    #[error(
        "the tokenizer is empty, expected the JSON of a tekken.json: copy or download it again"
    )]
    Empty,

    /// The text ends in the middle of the JSON.
    #[error("the tokenizer's JSON breaks off before its end: copy or download it again")]
    Truncated {
        /// Where.
        source: serde_json::Error,
    },

    /// The text is something other than JSON.
    #[error("the tokenizer is not JSON, expected the content of a tekken.json")]
    NotJson {
        /// Where.
        source: serde_json::Error,
    },

    /// The JSON lacks a key, or a value has another type.
    #[error("the tokenizer's JSON is not laid out as a tekken.json")]
    Layout {
        /// Which key, and where.
        source: serde_json::Error,
    },

    /// The version of the tokenizer is not one that this crate knows.
    #[error(
        "`config.version` is \"{found}\", expected one of {}",
        Version::supported()
    )]
    UnsupportedVersion {
        /// What the file says.
        found: String,
    },

    /// A number in `config` contradicts another one or the vocabulary.
    #[error("`config.{key}` is {found}, expected {expected}")]
    Config {
        /// The key below `config`.
        key: &'static str,
        /// What the file says.
        found: usize,
        /// What would be right, and why.
        expected: String,
    },

    /// The pre-tokenization pattern is no regular expression.
    #[error("`config.pattern` is not a usable regular expression")]
    Pattern {
        /// What the regular expression's compiler said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// An entry of the vocabulary is not at the index of its rank.
    #[error("`vocab[{index}]` has rank {found}, expected {index}: entries stand in order of rank")]
    VocabRank {
        /// Position in the array.
        index: usize,
        /// The rank that the entry states.
        found: u64,
    },

    /// The bytes of an entry are not base64.
    #[error("`vocab[{index}].token_bytes` is \"{found}\", expected base64")]
    VocabBase64 {
        /// Position in the array.
        index: usize,
        /// The text in the file.
        found: String,
        /// What the decoder said.
        source: base64::DecodeError,
    },

    /// An entry has no bytes, or one of the first 256 entries is not its byte.
    #[error("`vocab[{index}]` has the bytes {found:02x?}, expected {expected}")]
    VocabBytes {
        /// Position in the array.
        index: usize,
        /// The decoded bytes.
        found: Vec<u8>,
        /// What would be right.
        expected: String,
    },

    /// Two entries of the vocabulary have the same bytes.
    #[error("`vocab[{index}]` has the bytes of `vocab[{first}]`, expected bytes of its own")]
    VocabDuplicate {
        /// The later of the two.
        index: usize,
        /// The earlier of the two.
        first: usize,
    },

    /// The file lists no special tokens, though files of its version must.
    #[error(
        "`special_tokens` is absent, expected a list in a tokenizer of version {version} \
         (only v7 has a built-in one)"
    )]
    SpecialTokensAbsent {
        /// The version of the file.
        version: Version,
    },

    /// A special token is not at the index of its rank.
    #[error(
        "`special_tokens[{index}]`, \"{token}\", has rank {found}, expected {index}: \
         ranks count up from 0 without a gap"
    )]
    SpecialRank {
        /// Position in the array.
        index: usize,
        /// Its name.
        token: String,
        /// The rank that the entry states.
        found: u64,
    },

    /// Two special tokens have the same name.
    #[error(
        "`special_tokens[{index}]` is \"{token}\", which is also the name of special token {first}, \
         expected a name of its own"
    )]
    SpecialDuplicate {
        /// Position in the array.
        index: usize,
        /// The name.
        token: String,
        /// The other token of that name.
        first: u32,
    },

    /// A value in the `audio` section is absent or out of range.
    #[error("`audio.{key}` is {found}, expected {expected}")]
    Audio {
        /// The key below `audio`.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What would be right.
        expected: String,
    },

    /// The tokenizer has no special token of this name.
    #[error(
        "the tokenizer has no special token `{token}`: \
         it belongs to another kind of model than the one asked for"
    )]
    SpecialTokenMissing {
        /// The name looked up.
        token: String,
    },

    /// A special token stands where only text is allowed.
    #[error("token {id} is the special token `{token}`, expected text only")]
    SpecialTokenRejected {
        /// Its id.
        id: u32,
        /// Its name.
        token: String,
    },

    /// No token has this id.
    #[error("token {id} is not in the vocabulary, expected an id below {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The number of ids there are.
        vocab_size: usize,
    },

    /// The language is not a code of ISO 639-1.
    #[error(
        "unknown language `{found}`, expected a lower-case two-letter code of ISO 639-1 \
         such as `en`, `fr`, `de` or `hi`"
    )]
    UnknownLanguage {
        /// What was given.
        found: String,
    },

    /// A prompt about audio was asked for, without any audio.
    #[error("the audio takes no token, expected at least one: is it empty?")]
    NoAudio,

    /// The transcription prompt was asked of a streaming model's tokenizer.
    #[error(
        "`audio.transcription_format` is \"streaming\", expected \"instruct\": \
         a Realtime model takes no transcription prompt"
    )]
    Streaming,
    /// A stream was asked of a model that takes whole clips.
    #[error(
        "`audio.transcription_format` is \"instruct\", expected \"streaming\": \
         only a Realtime model takes a stream"
    )]
    NotStreaming,
    /// A delay that the model does not know.
    #[error("delay is {found} ms, expected {expected}")]
    Delay {
        /// The delay in milliseconds.
        found: f64,
        /// The delays that it knows.
        expected: String,
    },
}
