//! Where transcripts go: stdout as they grow, or files that appear whole.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use voxtral_pipeline::Transcript;

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
        match (&args.output, &args.output_dir) {
            (Some(_), _) if args.files.len() > 1 => bail!(
                "`--output` takes one file but {} were given: use `--output-dir`",
                args.files.len()
            ),
            (Some(path), _) if path.as_os_str() == "-" => Ok(Self::Stdout),
            (Some(path), _) => {
                check_writable(parent(path))?;
                Ok(Self::File(path.clone()))
            }
            (None, Some(folder)) => {
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make folder `{}`", folder.display()))?;
                check_writable(folder)?;
                check_distinct(folder, &args.files, args.format)?;
                Ok(Self::Folder(folder.clone()))
            }
            (None, None) => Ok(Self::Stdout),
        }
    }

    /// The file for this input; none where it goes to stdout.
    pub(crate) fn path(&self, input: &Path, format: Format) -> Option<PathBuf> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path.clone()),
            Self::Folder(folder) => Some(output_path(folder, input, format)),
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
    })
}

/// Writes a file that appears whole or not at all.
pub(crate) fn write_file(path: &Path, content: &str) -> Result<()> {
    let write = || -> io::Result<()> {
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
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn check_writable(folder: &Path) -> Result<()> {
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("cannot write into folder `{}`", folder.display()))
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

/// Two inputs must not overwrite each other's output.
fn check_distinct(folder: &Path, files: &[PathBuf], format: Format) -> Result<()> {
    let mut seen = HashMap::new();
    for file in files {
        let path = output_path(folder, file, format);
        if let Some(other) = seen.insert(path.clone(), file) {
            bail!(
                "`{}` and `{}` would both be written to `{}`: rename one or run them apart",
                other.display(),
                file.display(),
                path.display()
            );
        }
    }
    Ok(())
}
