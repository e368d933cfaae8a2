//! What is likely to be said.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use voxtral_pipeline::{ContextBias, PipelineError};

/// The largest file that is read, in bytes: no list of so few phrases comes near it.
const LARGEST: u64 = 1 << 20;

/// The phrases of every command that writes what it hears.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Context",
    group = ArgGroup::new("context").multiple(true)
)]
pub(crate) struct ContextArgs {
    /// Words and phrases that are likely to be said, with commas between them, as
    /// `Joplin,New Orleans`; up to 100. May be given several times.
    #[arg(long, value_name = "PHRASES", group = "context")]
    context_bias: Vec<String>,
    /// The same from a text file, one in each line; lines that begin with `#` are comments.
    #[arg(long, value_name = "FILE", group = "context")]
    context_bias_file: Option<PathBuf>,
    /// How much is added to the scores of these phrases. More finds more of them, also where they
    /// were not said.
    #[arg(
        long,
        value_name = "X",
        requires = "context",
        value_parser = strength,
        default_value_t = ContextBias::DEFAULT_STRENGTH,
        allow_negative_numbers = true
    )]
    context_bias_strength: f32,
}

impl ContextArgs {
    /// The phrases of both sources, if there is one.
    pub(crate) fn bias(&self) -> Result<Option<ContextBias>> {
        let given = self.context_bias.iter().flat_map(|list| list.split(','));
        let mut phrases: Vec<String> = given.map(str::to_owned).collect();
        if let Some(path) = &self.context_bias_file {
            phrases.extend(read(path)?);
        }
        if phrases.is_empty() {
            return Ok(None);
        }
        Ok(Some(ContextBias::new(phrases, self.context_bias_strength)?))
    }
}

/// The phrases in a file.
fn read(path: &Path) -> Result<Vec<String>> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read `{shown}`"))?;
    if bytes.len() as u64 > LARGEST {
        bail!("`{shown}` is longer than a list of 100 phrases: expected one in each line");
    }
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            bail!("`{shown}` is not UTF-8 in line {line}: save it as UTF-8");
        }
    };
    // Some editors put a mark of the byte order in front.
    let lines = text.trim_start_matches('\u{FEFF}').lines().map(str::trim);
    let phrases: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if phrases.is_empty() {
        bail!("`{shown}` has no phrase in it: expected one in each line");
    }
    Ok(phrases)
}

fn strength(text: &str) -> Result<f32, String> {
    // What is no number is not in the range either.
    let strength = text.parse().unwrap_or(f32::NAN);
    match ContextBias::new(["any"], strength) {
        Ok(_) => Ok(strength),
        Err(PipelineError::InvalidOption { expected, .. }) => Err(format!("expected {expected}")),
        Err(error) => Err(error.to_string()),
    }
}
