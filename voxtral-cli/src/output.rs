//! How transcripts are written: to stdout as they grow, or to files that appear whole.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{PipelineError, Step};

/// Held while a file is written; whoever ends the process waits for it.
pub(crate) fn writing() -> MutexGuard<'static, ()> {
    static WRITING: Mutex<()> = Mutex::new(());
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file that appears whole or not at all. Devices and pipes are written to as they are.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let special = is_special(path);
    let write = || -> io::Result<()> {
        if special {
            let mut device = fs::OpenOptions::new().write(true).open(path)?;
            return device.write_all(content);
        }
        // A link stays one.
        let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let _whole = writing();
        let mut file = tempfile::Builder::new()
            .permissions_as_any_file()
            .tempfile_in(parent(path))?;
        file.write_all(content)?;
        // Some file systems find out late that they are full.
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| {
        let advice = match (is_full(&error), special) {
            (false, _) => "",
            (true, true) => " (free some space, or write elsewhere)",
            (true, false) => " (nothing is left of it: free some space, or write elsewhere)",
        };
        anyhow::Error::new(error).context(format!("cannot write `{}`{advice}", path.display()))
    })
}

/// Whether there is no room for more.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
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

/// The folder of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether something other than a file or folder is there: a device, a pipe.
pub(crate) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Whether both are there and one, but no device.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other && !is_special(&one),
        _ => false,
    }
}

/// Fails if no file can be made in this folder.
pub(crate) fn check_writable(folder: &Path) -> Result<()> {
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
