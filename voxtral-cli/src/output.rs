//! Where transcripts go: stdout as they grow, or files that appear whole.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use voxtral_pipeline::{PipelineError, Step, Transcript};

use crate::args::{Format, TranscribeArgs};

/// Where the transcripts of a run go.
pub(crate) enum Destination {
    /// To stdout, the text piece by piece.
    Stdout,
    /// To one file.
    File(PathBuf),
    /// To a file per input in this folder.
    Folder(PathBuf),
}

impl Destination {
    /// The destination of a run; finds out before any work whether it can be written.
    pub(crate) fn of(args: &TranscribeArgs) -> Result<Self> {
        let destination = match (&args.output, &args.output_dir) {
            (Some(path), _) if path.as_os_str() == "-" => Self::Stdout,
            (Some(_), _) if args.files.len() > 1 => bail!(
                "`--output` takes one input but {} were given: use `--output-dir`",
                args.files.len()
            ),
            (Some(path), _) => Self::File(path.clone()),
            (None, Some(folder)) => Self::Folder(folder.clone()),
            (None, None) => Self::Stdout,
        };
        destination.check(&args.files, args.format)?;
        Ok(destination)
    }

    /// The file for this input; none where it goes to stdout.
    pub(crate) fn path(&self, input: &Path, format: Format) -> Option<PathBuf> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path.clone()),
            Self::Folder(folder) => Some(output_path(folder, input, format)),
        }
    }

    fn check(&self, inputs: &[PathBuf], format: Format) -> Result<()> {
        let mut seen = HashMap::new();
        for input in inputs {
            let Some(path) = self.path(input, format) else {
                continue;
            };
            if path.is_dir() {
                bail!(
                    "`{}` is a folder, expected a file to write: choose another name, or write \
                     into it with `--output-dir`",
                    path.display()
                );
            }
            if let Some(same) = inputs.iter().find(|input| is_same_file(input, &path)) {
                bail!(
                    "the transcript would overwrite the input `{}`: choose another output",
                    same.display()
                );
            }
            if let Some(other) = seen.insert(path.clone(), input) {
                bail!(
                    "`{}` and `{}` would both be written to `{}`: rename one or run them apart",
                    other.display(),
                    input.display(),
                    path.display()
                );
            }
        }
        match self {
            Self::Stdout => Ok(()),
            Self::File(path) if is_special(path) => Ok(()),
            Self::File(path) => check_writable(parent(path)),
            Self::Folder(folder) => {
                fs::create_dir_all(folder).with_context(|| {
                    format!(
                        "cannot make folder `{}`, choose another `--output-dir`",
                        folder.display()
                    )
                })?;
                check_writable(folder)
            }
        }
    }
}

/// What `--format json` writes.
#[derive(Serialize)]
struct Record<'a> {
    file: String,
    #[serde(flatten)]
    transcript: &'a Transcript,
}

/// The whole of what is written of a transcript, newline included.
pub(crate) fn render(format: Format, input: &Path, transcript: &Transcript) -> Result<String> {
    Ok(match format {
        Format::Text => format!("{}\n", transcript.text),
        Format::Json => {
            let record = Record {
                file: input.display().to_string(),
                transcript,
            };
            serde_json::to_string(&record)? + "\n"
        }
        Format::Srt | Format::Vtt | Format::Tsv => format
            .subtitles()
            .and_then(|subtitles| transcript.subtitles(subtitles))
            .with_context(|| {
                format!(
                    "transcript has no times for `--format {}`",
                    format.extension()
                )
            })?,
    })
}

/// Held while a file is written; whoever ends the process waits for it.
pub(crate) fn writing() -> MutexGuard<'static, ()> {
    static WRITING: Mutex<()> = Mutex::new(());
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file that appears whole or not at all. Devices and pipes are written to as they are.
pub(crate) fn write_file(path: &Path, content: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        if is_special(path) {
            let mut device = fs::OpenOptions::new().write(true).open(path)?;
            return device.write_all(content.as_bytes());
        }
        // A link stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let _whole = writing();
        let mut file = tempfile::Builder::new()
            .permissions_as_any_file()
            .tempfile_in(parent(path))?;
        file.write_all(content.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Temporary files are private by default; these become ordinary ones.
trait AnyFile {
    fn permissions_as_any_file(&mut self) -> &mut Self;
}

impl AnyFile for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_as_any_file(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        // The umask takes away what the user does not want.
        self.permissions(fs::Permissions::from_mode(0o666))
    }

    #[cfg(not(unix))]
    fn permissions_as_any_file(&mut self) -> &mut Self {
        self
    }
}

/// Writes to stdout at once.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => anyhow::Error::new(StdoutClosed),
            _ => anyhow::Error::new(error).context("cannot write to stdout"),
        })
}

/// Prints the text of steps as they are made, and ends the line if there was any, also before an
/// error; tells whether there was.
pub(crate) fn stream(steps: impl IntoIterator<Item = Result<Step, PipelineError>>) -> Result<bool> {
    let mut printed = false;
    let outcome = steps.into_iter().try_for_each(|step| {
        let text = step?.text;
        printed |= !text.is_empty();
        print(&text)
    });
    if printed {
        print("\n")?;
    }
    outcome.map(|()| printed)
}

/// The reader of stdout went away.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
struct StdoutClosed;

/// Whether the reader of stdout went away, as `head` does: no reason to complain.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    error.is::<StdoutClosed>()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether something other than a file or folder is there: a device, a pipe.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Whether both are there and one, but no device.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other && !is_special(&one),
        _ => false,
    }
}

fn check_writable(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        bail!(
            "cannot write into `{}`, which is not a folder: make it or choose another",
            folder.display()
        );
    }
    tempfile::tempfile_in(folder).map(drop).with_context(|| {
        format!(
            "cannot write into folder `{}`, choose another",
            folder.display()
        )
    })
}

fn output_path(folder: &Path, input: &Path, format: Format) -> PathBuf {
    let stem = match input.file_stem() {
        Some(stem) if stem != "-" => stem.to_owned(),
        _ => "stdin".into(),
    };
    let mut name = stem;
    name.push(".");
    name.push(format.extension());
    folder.join(name)
}
