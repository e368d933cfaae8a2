//! `--resume`: where the journal of a file lies, and what it depends on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{Journal, JournalKey, LongOptions};

use crate::{input, state};

/// Opens the journal of a file, beside its output, or below the folder of the program's state if
/// that goes to stdout.
pub(crate) fn open(
    path: &Path,
    input: &Path,
    model: &str,
    options: &LongOptions,
) -> Result<Journal> {
    Ok(Journal::open(path, &key(input, model, options)?)?)
}

/// The path of the journal of a file.
pub(crate) fn path(input: &Path, output: Option<&Path>) -> Result<PathBuf> {
    if input::is_stdin(input) {
        bail!("`--resume` needs a file, stdin cannot be read again: store it in a file first");
    }
    if let Some(output) = output {
        let mut name = output.as_os_str().to_owned();
        name.push(".journal");
        return Ok(name.into());
    }
    let input =
        fs::canonicalize(input).with_context(|| format!("cannot find `{}`", input.display()))?;
    // One name for the whole path.
    let name = input
        .to_string_lossy()
        .replace('%', "%25")
        .replace(['/', '\\', ':'], "%2F");
    let folder =
        state::folder().context("no folder for journals: write to a file with `--output`")?;
    let folder = folder.join("journals");
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make folder `{}`", folder.display()))?;
    Ok(folder.join(name + ".journal"))
}

/// All that the text of a window depends on.
fn key(input: &Path, model: &str, options: &LongOptions) -> Result<JournalKey> {
    let found =
        fs::metadata(input).with_context(|| format!("cannot open `{}`", input.display()))?;
    let modified = found
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let path = fs::canonicalize(input).unwrap_or_else(|_| input.to_owned());
    let transcribe = &options.transcribe;
    let key = [
        ("file", path.display().to_string()),
        ("size", found.len().to_string()),
        (
            "time of change",
            format!("{:?}", modified.unwrap_or_default()),
        ),
        ("model", model.to_owned()),
        ("vad", format!("{:?}", options.vad)),
        ("window", format!("{:?}", options.window)),
        ("language", format!("{:?}", transcribe.language)),
        ("word times", transcribe.word_times.to_string()),
        ("max new tokens", format!("{:?}", transcribe.max_new_tokens)),
        ("sampling", format!("{:?}", transcribe.sampling)),
        ("program", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Ok(key.map(|(name, value)| (name.to_owned(), value)).into())
}
