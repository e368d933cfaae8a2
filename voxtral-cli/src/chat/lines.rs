//! Lines of stdin: as they come, or edited in a terminal.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustyline::{Behavior, Config, DefaultEditor, error::ReadlineError};

use crate::{input, state};

/// The most bytes of a line of a pipe.
const LONGEST: u64 = 1 << 20;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of a pipe.
    End,
}

/// Lines of stdin.
pub(super) enum Lines {
    /// As they come.
    Plain {
        reader: Box<dyn BufRead>,
        /// How many there were.
        count: usize,
    },
    /// Of a terminal, that can be edited and called back.
    Edited {
        editor: Box<DefaultEditor>,
        history: Option<PathBuf>,
    },
}

impl Lines {
    /// Lines as they come.
    pub(super) fn plain() -> Self {
        Self::of(BufReader::new(io::stdin()))
    }

    /// Lines of a pipe.
    pub(super) fn of(reader: impl BufRead + 'static) -> Self {
        let reader = Box::new(reader);
        Self::Plain { reader, count: 0 }
    }

    /// Edited lines, if stdin is a terminal.
    pub(super) fn edited() -> Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::plain());
        }
        // Stdout is for answers, wherever it goes.
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let mut editor = DefaultEditor::with_config(config).context("cannot edit lines")?;
        let history = history();
        if let Some(file) = &history {
            // Most often there is none yet.
            let _ = editor.load_history(file);
        }
        let editor = Box::new(editor);
        Ok(Self::Edited { editor, history })
    }

    /// Whether a person types them.
    pub(super) fn are_typed(&self) -> bool {
        matches!(self, Self::Edited { .. })
    }

    /// The next line; in a terminal, behind a prompt.
    pub(super) fn next(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Plain { reader, count } => {
                *count += 1;
                plain(reader, &format!("line {count} of stdin"))
            }
            Self::Edited { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error).context("cannot read from the terminal"),
            },
        }
    }

    /// What messages call the last line.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Plain { count, .. } => format!("line {count} of stdin"),
            Self::Edited { .. } => "the last line".to_owned(),
        }
    }

    /// Keeps a line, to be called back in this run and others.
    pub(super) fn remember(&mut self, line: &str) {
        if let Self::Edited { editor, history } = self {
            let kept = editor.add_history_entry(line).and_then(|_| {
                let file = history.as_ref();
                file.map_or(Ok(()), |file| editor.append_history(file))
            });
            if let Err(error) = kept {
                tracing::debug!("the history is not kept: {error}");
            }
        }
    }
}

/// The next line of a pipe.
fn plain(stdin: &mut impl BufRead, name: &str) -> Result<Line> {
    let mut bytes = Vec::new();
    stdin
        .take(LONGEST + 1)
        .read_until(b'\n', &mut bytes)
        .context("cannot read stdin")?;
    if bytes.is_empty() {
        return Ok(Line::End);
    }
    if bytes.len() as u64 > LONGEST {
        bail!("{name} has more than {LONGEST} bytes: shorten it");
    }
    let text = input::text(bytes, name)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Line::Text(text.to_owned()))
}

/// The file of earlier lines.
fn history() -> Option<PathBuf> {
    Some(state::folder()?.join("history"))
}
