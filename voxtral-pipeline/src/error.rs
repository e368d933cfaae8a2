//! What can go wrong between a model's name and its words.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use voxtral_audio::AudioError;
use voxtral_checkpoint::CheckpointError;
use voxtral_nn::NnError;
use voxtral_tokenizer::TokenizerError;

use crate::PromptSize;

/// An error of loading a model or of transcribing with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The audio could not be read.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer could not be read, or does not know a token.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The layers could not be loaded or run.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// A pass of the decoder failed, for every sequence that took part in it.
    #[error(transparent)]
    Pass(Arc<NnError>),
    /// The model could not be found or fetched.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] voxtral_hub::HubError),
    /// A file of the model is missing.
    #[error("`{folder}` has no {file}: a model folder needs its tokenizer beside the weights")]
    MissingFile {
        /// The model's folder.
        folder: String,
        /// The missing file.
        file: &'static str,
    },
    /// Two files of a checkpoint contradict each other.
    #[error("{subject} is {found} in {found_in}, but {expected} in {expected_in}")]
    Contradiction {
        /// What they disagree about.
        subject: &'static str,
        /// One value.
        found: String,
        /// Where it stands.
        found_in: &'static str,
        /// The other value.
        expected: String,
        /// Where that stands.
        expected_in: &'static str,
    },
    /// The model is of a kind that this operation cannot use.
    #[error("{model} cannot be used here: {reason}")]
    Unsupported {
        /// The model.
        model: String,
        /// Why not.
        reason: &'static str,
    },
    /// More audio than fits the model's context.
    #[error(
        "audio is {} long, the model takes at most {}: split the file",
        clock(.found),
        clock(.limit)
    )]
    AudioTooLong {
        /// The audio's length.
        found: Duration,
        /// The longest that is taken.
        limit: Duration,
    },
    /// Prompt and answer are longer than the context.
    #[error(
        "prompt of {} tokens ({} of them audio) and answer of up to {answer} exceed the context \
         of {context} by {}: leave out audio or text, or lower the number of new tokens",
        prompt.tokens, prompt.audio_tokens, prompt.tokens + answer - context
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt: PromptSize,
        /// Tokens that may be generated.
        answer: usize,
        /// Positions that the checkpoint declares.
        context: usize,
    },
    /// An option with an impossible value.
    #[error("{option} is {found}, expected {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// The values that it takes.
        expected: &'static str,
    },
    /// A context phrase with a character that the tokenizer leaves out.
    #[error("context phrase `{phrase}` has no tokens in this model's vocabulary: leave it out")]
    PhraseUnwritable {
        /// The phrase.
        phrase: String,
    },
    /// Audio placeholders and audio embeddings differ in number.
    #[error("prompt has {placeholders} audio placeholders for {embeddings} audio embeddings")]
    AudioCount {
        /// Placeholders in the prompt.
        placeholders: usize,
        /// Embeddings of the audio.
        embeddings: usize,
    },
    /// The scores of the vocabulary are not numbers.
    #[error(
        "model gave scores that are not finite: its weights are damaged, or a narrow precision \
         overflows (try f32)"
    )]
    NotFinite,
    /// A constraint that no token satisfies.
    #[error("constraint allows no token: it contradicts itself, or asks for what has no token")]
    NothingAllowed,
    /// The schema of a tool that is to be strict.
    #[error(
        "parameters of tool `{tool}` cannot be held to: {reason}: change the schema, or do not ask \
         for strict tools"
    )]
    ToolNotStrict {
        /// The tool's name.
        tool: String,
        /// What is wrong.
        reason: String,
    },
    /// The schema of an answer.
    #[error("schema of the answer cannot be held to: {reason}: change the schema, or ask for none")]
    AnswerNotHeld {
        /// What is wrong.
        reason: String,
    },
    /// The grammar of calls, or of an answer, failed.
    #[error(
        "answer cannot be held to its tools or schema: {reason}: ask for fewer or simpler ones, or not \
         for strict tools"
    )]
    StrictTools {
        /// What its library says.
        reason: String,
    },
    /// An option that a model of this kind does not have.
    #[error("{model} does not take {option}: {reason}")]
    OptionUnsupported {
        /// The model.
        model: String,
        /// The option.
        option: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A format of segments for a transcript without times.
    #[error(
        "`{format}` needs times, which {model} did not tell: write `text`, `json` or `md`, or choose \
         a Realtime model"
    )]
    NoTimes {
        /// The format's name.
        format: &'static str,
        /// The model.
        model: String,
    },
    /// A language that the model does not understand.
    #[error(
        "{model} does not understand the language `{found}`, expected one of {known}, or none, to \
         have it found out"
    )]
    LanguageUnsupported {
        /// The model.
        model: String,
        /// The language's code.
        found: String,
        /// The codes of those that it understands.
        known: String,
    },
    /// A stream changed its rate.
    #[error(
        "sample rate changed to {found} Hz within a stream of {expected} Hz: \
         resample it, or begin a new session"
    )]
    SampleRateChanged {
        /// The new rate.
        found: u32,
        /// The session's.
        expected: u32,
    },
    /// Sound for a session that was finished.
    #[error("session has ended: reset it before more sound is pushed")]
    SessionEnded,
    /// A transcription was asked for its result although one of its steps had failed.
    #[error("transcription failed before its end: begin a new one")]
    Unfinished,
    /// The answer reached its limit within a call.
    #[error(
        "answer was cut off after {tokens} tokens, in the middle of a call of a tool: \
         permit more new tokens"
    )]
    CallCutOff {
        /// Tokens that were made.
        tokens: usize,
    },
    /// The model calls tools and calls again.
    #[error(
        "model called tools in more than {limit} answers in a row: permit more rounds, or see what the tools return"
    )]
    ToolRounds {
        /// Rounds that were permitted.
        limit: usize,
    },
    /// A journal of finished windows cannot be read or written.
    #[error("cannot use the journal `{path}`")]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A journal of another run.
    #[error(
        "journal `{path}` is of another run, its {what} is {found}, expected {expected}: run with \
         the same file, model and options, or delete the journal to begin anew"
    )]
    JournalOfOther {
        /// The journal.
        path: PathBuf,
        /// What is different.
        what: String,
        /// As it stands in the journal.
        found: String,
        /// As it is now.
        expected: String,
    },
    /// A member of a batch panicked, alone.
    #[error(
        "computation panicked, which is a fault of this program: the others of its batch go on"
    )]
    Panicked,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// `mm:ss`.
fn clock(duration: &Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
