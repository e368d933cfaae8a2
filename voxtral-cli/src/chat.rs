//! `voxtral chat`: questions about sound, one or a conversation.

mod conversation;
mod interactive;
mod lines;
mod record;
mod tools;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Result, bail};
use voxtral_pipeline::{
    Backend, Cancel, ChatOptions, Demo, OnWindow, PipelineError, SamplingOptions,
};

use crate::{
    args::{AnswerFormat, ChatArgs},
    backend::{Task, on_device},
    input,
    interrupt::{self, Graceful},
    load, notice,
    progress::{self, Stage},
};
use conversation::{Conversation, Ended};
use lines::Lines;

pub(crate) fn run(args: &ChatArgs, quiet: bool) -> Result<ExitCode> {
    // A large model takes minutes to load: what fails anyway fails before.
    check_stdin(args)?;
    let options = options(args, quiet)?;
    args.audio.iter().try_for_each(|file| input::check(file))?;
    let mode = if is_interactive(args) {
        Mode::Interactive(interrupt::watch_gracefully()?)
    } else {
        let cancel = interrupt::watch()?;
        let text = question(args)?;
        Mode::Once { text, cancel }
    };
    load::set_threads(args.compute.threads)?;
    load::tell_demo(args.model.name_or(Demo::Clips), quiet);
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        args,
        options,
        mode,
        quiet,
    };
    on_device(args.compute.device, announce, work)
}

/// How long the talk is.
enum Mode {
    /// One question, of this text.
    Once {
        text: Option<String>,
        cancel: Cancel,
    },
    /// A conversation.
    Interactive(Graceful),
}

fn is_interactive(args: &ChatArgs) -> bool {
    let asked = args.text.is_some() || !args.audio.is_empty();
    args.interactive || (!asked && io::stdin().is_terminal())
}

/// Fails if stdin is asked for twice.
fn check_stdin(args: &ChatArgs) -> Result<()> {
    let clips = args.audio.iter().filter(|file| input::is_stdin(file));
    let text = args.text.as_deref() == Some("-");
    if clips.count() + usize::from(text) + usize::from(args.interactive) > 1 {
        bail!("stdin is asked for twice, expected once: store one of its contents in a file");
    }
    Ok(())
}

fn options(args: &ChatArgs, quiet: bool) -> Result<ChatOptions> {
    args.sampling.check(args.format == AnswerFormat::Json)?;
    Ok(ChatOptions {
        tools: args
            .tools
            .as_deref()
            .map(tools::read)
            .transpose()?
            .unwrap_or_default(),
        strict_tools: args.strict_tools,
        sampling: args.sampling.options(SamplingOptions::chat())?,
        max_new_tokens: args.max_new_tokens.map(|tokens| tokens as usize),
        cancel: Cancel::new(),
        on_window: match quiet {
            true => OnWindow::default(),
            false => progress::on_window(Stage::Encoding),
        },
        ..ChatOptions::default()
    })
}

/// The text of the question: as given, or from stdin where there is no other question.
fn question(args: &ChatArgs) -> Result<Option<String>> {
    let (text, name) = match args.text.as_deref() {
        Some(text) if text != "-" => (text.to_owned(), "the text"),
        None if !args.audio.is_empty() => return Ok(None),
        _ => (input::text(input::read_stdin()?, "stdin")?, "stdin"),
    };
    if text.trim().is_empty() {
        bail!("{name} is empty, expected a question (or leave it out beside `--audio`)");
    }
    let text = text.trim_end_matches(['\n', '\r']);
    Ok(Some(text.to_owned()))
}

/// A run, before its backend is known.
struct Work<'a> {
    args: &'a ChatArgs,
    options: ChatOptions,
    mode: Mode,
    quiet: bool,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let name = args.model.name_or(Demo::Clips);
        let model = load::open::<B>(name, device, args.compute.precision(), self.quiet)?;
        if model.is_streaming() {
            bail!(
                "`{name}` writes down live sound and answers no questions: choose a model of 2507, \
                 as `--model mini`, or use `voxtral transcribe`"
            );
        }
        let mut talk = Conversation::new(&model, self.options, args);
        let mut whole = true;
        for file in &args.audio {
            whole &= !talk.add(file)?.is_truncated();
        }
        let done = match self.mode {
            Mode::Once { text, cancel } => once(&mut talk, text, &cancel, self.quiet)?,
            Mode::Interactive(ctrl_c) => interactive::run(&mut talk, &ctrl_c, self.quiet)?,
        };
        Ok(if whole && done {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Asks one question.
fn once<B: Backend>(
    talk: &mut Conversation<'_, B>,
    text: Option<String>,
    cancel: &Cancel,
    quiet: bool,
) -> Result<bool> {
    talk.options.cancel = cancel.clone();
    let mut lines = Lines::plain();
    let mut results = |calls: &[_]| {
        if io::stdin().is_terminal() {
            notice(quiet, format_args!("{}", tools::HOW));
        }
        tools::results(calls, &mut lines, &mut Err)
    };
    match talk.ask(text, &mut results) {
        Err(_) if cancel.is_cancelled() => interrupt::stop(),
        Ok(Ended::Called) => notice(
            quiet,
            format_args!("stdin has no results of the calls: nothing more is asked"),
        ),
        ended => drop(ended?),
    }
    Ok(true)
}

/// Whether somebody stopped it.
fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PipelineError::Cancelled))
}
