//! `voxtral chat`.

use std::path::PathBuf;

use clap::{
    Args, ValueEnum,
    builder::{NonEmptyStringValueParser, RangedU64ValueParser},
};
use voxtral_pipeline::Toolbox;

use super::{ComputeArgs, ModelArgs, SamplingArgs};

/// `voxtral chat`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral chat -m mini -a a.mp3 -a b.wav 'What sport and what nursery rhyme are referenced?'
  voxtral chat -m mini -a question.wav                  the question is in the sound
  voxtral chat -m mini -a talk.mp3 - < question.txt
  voxtral chat -m mini                                  a conversation, in a terminal
  voxtral chat -m mini -a order.wav --tools tools.json < results.jsonl

Without text and audio, the question is read from stdin; from a terminal, line by line, as a
conversation in which `/help` lists the commands. Ctrl-C stops an answer, Ctrl-D ends it.

Tools are a JSON list as OpenAI takes it. Each call is printed as a line
  {\"id\": …, \"type\": \"function\", \"function\": {\"name\": …, \"arguments\": \"{…}\"}}
or in `calls` of `--format json`, and its result is read from stdin as a line
  {\"tool_call_id\": …, \"content\": …}
Results may come in any order. If stdin ends before the first, the calls are all there is to print.

Temperature is 0.2 and top-p 0.95 if not given.")]
pub(crate) struct ChatArgs {
    /// The question; `-` reads it from stdin. May be left out beside audio.
    #[arg(value_name = "TEXT", conflicts_with = "interactive")]
    pub(crate) text: Option<String>,
    /// Audio or film file that goes before the text, `-` for stdin; may be given several times.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) audio: Vec<PathBuf>,
    /// What the model shall keep to. Models of 2507 take it without audio only.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) system: Option<String>,
    /// Functions that the model may call.
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// Hold the arguments of calls to their schemas while they are written: no call is malformed.
    #[arg(long)]
    pub(crate) strict_tools: bool,
    /// Answers with calls that are permitted in a row.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Toolbox::default().max_rounds,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_tool_rounds: usize,
    /// Read a conversation from stdin, a message or command in each line.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: AnswerFormat,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// At most this many tokens per answer; by default as many as the context has room for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: Option<u32>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// What is written of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// The words as they come, and a line for each call.
    #[default]
    Text,
    /// One object per line: text, calls, files, model, what it took, tokens, timings.
    Json,
}
