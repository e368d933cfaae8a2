//! A conversation line by line, with commands.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, bail};
use voxtral_pipeline::{Backend, Cancel};

use super::{
    conversation::{Conversation, Ended},
    is_cancelled,
    lines::{Line, Lines},
    tools,
};
use crate::{input, interrupt::Graceful, notice, output, report};

const PROMPT: &str = "> ";

/// The commands, with what they take and what they do.
const COMMANDS: [(&str, &str, &str); 7] = [
    (
        "/audio",
        "FILE",
        "add a clip to the next message; an empty line sends it alone",
    ),
    (
        "/system",
        "[TEXT]",
        "set what the model shall keep to, or take it away",
    ),
    (
        "/tools",
        "[FILE]",
        "let the model call the functions of a JSON list, or none",
    ),
    (
        "/save",
        "FILE",
        "write the conversation, as JSON in OpenAI's shape",
    ),
    ("/reset", "", "begin a new conversation"),
    ("/help", "", "list the commands"),
    ("/quit", "", "end, as Ctrl-D does"),
];

/// Talks until the end of the lines, and tells whether all went well or a person saw what did not.
pub(super) fn run<B: Backend>(
    talk: &mut Conversation<'_, B>,
    ctrl_c: &Graceful,
    quiet: bool,
) -> Result<bool> {
    let lines = Lines::edited()?;
    let typed = lines.are_typed();
    if typed {
        notice(quiet, format_args!("`/help` lists the commands"));
    }
    let mut session = Session {
        talk,
        lines,
        ctrl_c,
        quiet,
        failed: false,
    };
    while session.turn()? {}
    Ok(typed || !session.failed)
}

struct Session<'a, 'm, B: Backend> {
    talk: &'a mut Conversation<'m, B>,
    lines: Lines,
    ctrl_c: &'a Graceful,
    quiet: bool,
    failed: bool,
}

impl<B: Backend> Session<'_, '_, B> {
    /// Reads a line and does what it says; false at the end.
    fn turn(&mut self) -> Result<bool> {
        let line = match self.lines.next(PROMPT)? {
            Line::Text(line) => line,
            Line::Interrupted => return Ok(true),
            Line::End => return Ok(false),
        };
        let text = line.trim();
        if !text.is_empty() {
            self.lines.remember(&line);
        }
        let outcome = match text.starts_with('/') {
            true if text == "/quit" => return Ok(false),
            true => self.command(text),
            false => self.ask(text),
        };
        match outcome {
            Err(error) if output::is_closed(&error) => return Err(error),
            Err(error) if is_cancelled(&error) => self.notice("interrupted"),
            Err(error) => {
                report(&error);
                self.failed = true;
            }
            Ok(()) => {}
        }
        Ok(true)
    }

    fn notice(&self, text: &str) {
        notice(self.quiet, format_args!("{text}"));
    }

    fn command(&mut self, line: &str) -> Result<()> {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        let Some((_, takes, _)) = COMMANDS.iter().find(|(command, ..)| *command == name) else {
            bail!("there is no command `{name}`: `/help` lists them");
        };
        match (*takes, argument) {
            ("", "") => {}
            ("", _) => bail!("`{name}` takes nothing, found `{argument}`"),
            ("FILE", "") => bail!("`{name}` is given no file, expected `{name} {takes}`"),
            _ => {}
        }
        let given = Some(argument).filter(|argument| !argument.is_empty());
        match name {
            "/audio" => self.add(Path::new(argument))?,
            "/system" => self.talk.set_system(given.map(str::to_owned)),
            "/tools" => self.set_tools(given.map(Path::new))?,
            "/save" => self.save(Path::new(argument))?,
            "/reset" => {
                self.talk.reset();
                self.notice("a new conversation begins");
            }
            _ => help(),
        }
        Ok(())
    }

    fn add(&mut self, file: &Path) -> Result<()> {
        if input::is_stdin(file) {
            bail!("stdin is read for lines, expected a file of audio");
        }
        input::check(file)?;
        let duration = self.talk.add(file)?.duration();
        self.notice(&format!("{duration:.1?} of audio go with the next message"));
        Ok(())
    }

    fn set_tools(&mut self, file: Option<&Path>) -> Result<()> {
        let tools = file.map(tools::read).transpose()?.unwrap_or_default();
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        self.notice(&match names.is_empty() {
            true => "the model may call nothing".to_owned(),
            false => format!("the model may call `{}`", names.join("`, `")),
        });
        self.talk.options.tools = tools;
        Ok(())
    }

    fn save(&self, file: &Path) -> Result<()> {
        if self
            .talk
            .files()
            .any(|clip| output::is_same_file(clip, file))
        {
            bail!(
                "`{}` is a clip of the conversation: choose another name",
                file.display()
            );
        }
        let json = serde_json::to_string_pretty(&self.talk.to_json())? + "\n";
        output::write_file(file, json.as_bytes())?;
        self.notice(&format!("wrote `{}`", file.display()));
        Ok(())
    }

    /// Asks a question; nothing where there is neither text nor audio.
    fn ask(&mut self, text: &str) -> Result<()> {
        if text.is_empty() && !self.talk.has_clips() {
            return Ok(());
        }
        let text = Some(text.to_owned()).filter(|text| !text.is_empty());
        let cancel = Cancel::new();
        self.talk.options.cancel = cancel.clone();
        self.ctrl_c.set(move || cancel.cancel());
        let ended = self.talk.ask(text, &mut |calls| {
            if self.lines.are_typed() {
                notice(self.quiet, format_args!("{}", tools::HOW));
            }
            tools::results(calls, &mut self.lines, &mut |error| {
                report(&error);
                self.failed = true;
                Ok(())
            })
        });
        self.ctrl_c.unset();
        match ended? {
            Ended::Answered => {}
            Ended::Empty => self.notice("the model has no answer; the question is forgotten"),
            Ended::Called => self.notice("no results of the calls; the question is forgotten"),
        }
        Ok(())
    }
}

/// Lists the commands on stderr; whoever asks wants to read it, quiet or not.
fn help() {
    for (name, takes, about) in COMMANDS {
        let mut usage = name.to_owned();
        let _ = write!(usage, " {takes}");
        notice(false, format_args!("{usage:16} {about}"));
    }
}
