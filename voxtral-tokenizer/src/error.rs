//! What can go wrong, in one type.

use std::path::PathBuf;

use crate::chat::Role;
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
         a Realtime model takes streams, no transcription prompt and no conversation"
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

    /// There is audio, and the model hears none.
    #[error(
        "the tokenizer has no `audio` section, so its model takes text only: leave the audio out"
    )]
    NoAudioSection,

    /// A conversation without any message.
    #[error("the conversation is empty, expected at least one message")]
    NoMessages,

    /// A conversation that somebody else begins.
    #[error("the first message is of the {found}, expected one of the system or the user")]
    FirstMessage {
        /// Who begins.
        found: Role,
    },

    /// A conversation that needs no answer.
    #[error(
        "the last message is an answer of the assistant, expected one to answer: \
         of the user, of a tool, or the assistant's own with `prefix` to continue it"
    )]
    LastMessage,

    /// Somebody speaks out of turn.
    #[error(
        "`messages[{index}]` is of the {found} right after the {after}: results follow the calls of \
         the assistant, and the system speaks at the beginning or around messages of the user"
    )]
    MessageOrder {
        /// Place of the message, from 0.
        index: usize,
        /// Whose it is.
        found: Role,
        /// Whose the one before is.
        after: Role,
    },

    /// A user's turn without content.
    #[error("`messages[{index}]` of the user has neither text nor audio, expected either")]
    UserEmpty {
        /// Place of the message, from 0; the last one where several make one turn.
        index: usize,
    },

    /// An answer without content.
    #[error("`messages[{index}]` of the assistant has neither text nor calls, expected either")]
    AssistantEmpty {
        /// Place of the message, from 0; the last one where several make one turn.
        index: usize,
    },

    /// A message to continue that others follow.
    #[error("`messages[{index}]` has `prefix`, expected that of the last message only")]
    PrefixNotLast {
        /// Place of the message, from 0.
        index: usize,
    },

    /// A system prompt beside audio, for a model that knows either alone.
    #[error(
        "`messages[{index}]` is of the system and the conversation has audio, which a tokenizer of \
         version {version} cannot have both: write it into a message of the user"
    )]
    SystemWithAudio {
        /// Place of the system's first message, from 0.
        index: usize,
        /// The version of the tokenizer.
        version: Version,
    },

    /// A malformed id of a call.
    #[error("`messages[{index}]` has the call id `{found}`, expected {expected}")]
    CallId {
        /// Place of the message, from 0.
        index: usize,
        /// The id.
        found: String,
        /// What the version of the tokenizer takes.
        expected: &'static str,
    },

    /// Two calls of one message with the same id.
    #[error("`messages[{index}]` has two calls `{id}`, expected an id of its own for each")]
    CallDuplicate {
        /// Place of the message, from 0.
        index: usize,
        /// The id.
        id: String,
    },

    /// A result of something that was not called.
    #[error(
        "`messages[{index}]` is the result of call `{id}`, \
         expected the id of a call in the answer right before the results"
    )]
    ResultUnexpected {
        /// Place of the message, from 0.
        index: usize,
        /// The id.
        id: String,
    },

    /// Two results of one call.
    #[error("`messages[{index}]` is another result of call `{id}`, expected one for each call")]
    ResultDuplicate {
        /// Place of the message, from 0.
        index: usize,
        /// The id.
        id: String,
    },

    /// Calls without results.
    #[error(
        "the calls `{ids}` of `messages[{index}]` have no result, expected one right after them"
    )]
    ResultsMissing {
        /// Place of the calls, from 0.
        index: usize,
        /// Their ids.
        ids: String,
    },

    /// A name that no function may have.
    #[error("the function is named `{found}`, expected 1 to 64 letters, digits, `_` and `-`")]
    FunctionName {
        /// The name.
        found: String,
    },

    /// Two tools of one name.
    #[error("two tools are named `{name}`, expected a name of its own for each")]
    ToolDuplicate {
        /// The name.
        name: String,
    },

    /// The parameters of a tool are no JSON schema.
    #[error("the schema of tool `{tool}` is {found} at `{place}`, expected {expected}")]
    ToolSchema {
        /// Its name.
        tool: String,
        /// JSON pointer into its parameters.
        place: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },

    /// A text is no list of tools.
    #[error(
        "the tools cannot be read, expected a JSON list of \
         {{\"type\": \"function\", \"function\": {{\"name\": …, \"parameters\": {{…}}}}}}"
    )]
    ToolList {
        /// Where, and why.
        source: serde_json::Error,
    },

    /// The arguments of a call are no JSON.
    #[error("the arguments of the call of `{name}` are not JSON, expected an object")]
    ArgumentsNotJson {
        /// The function.
        name: String,
        /// Where.
        source: serde_json::Error,
    },

    /// The arguments of a call have no names.
    #[error("the arguments of the call of `{name}` are {found}, expected a JSON object")]
    ArgumentsNotObject {
        /// The function.
        name: String,
        /// What they are.
        found: &'static str,
    },

    /// The model wrote something else where its calls should be.
    #[error("the answer calls tools with `{found}`, expected a JSON list of names and arguments")]
    AnswerCallList {
        /// What it wrote.
        found: String,
        /// Where.
        source: serde_json::Error,
    },

    /// The model called a tool and broke off.
    #[error("the answer calls a tool with `{found}`, expected a name, `[ARGS]` and arguments")]
    AnswerCallWithoutArguments {
        /// What it wrote.
        found: String,
    },
}
