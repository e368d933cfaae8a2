//! What is read: files and stdin.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use voxtral_pipeline::Decoder;

/// The most that is read from stdin, in bytes; it is kept in memory.
const MAX_STDIN: u64 = 1 << 30;

/// Whether an input is there, as far as can be told without reading.
pub(crate) fn check(file: &Path) -> Result<()> {
    let name = file.display();
    if is_stdin(file) {
        if io::stdin().is_terminal() {
            bail!("stdin is a terminal, expected audio: pipe a file into it");
        }
        return Ok(());
    }
    let found = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`{name}` does not exist: check the name")
        }
        found => found.with_context(|| format!("cannot open `{name}`"))?,
    };
    if found.is_dir() {
        bail!("`{name}` is a directory, expected an audio file: name the files in it");
    }
    // To open a pipe would disturb who writes into it.
    if found.is_file() {
        File::open(file).with_context(|| format!("cannot open `{name}`"))?;
    }
    Ok(())
}

/// Whether this name stands for stdin.
pub(crate) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What messages call an input.
pub(crate) fn name(file: &Path) -> String {
    if is_stdin(file) {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    }
}

/// Opens a file, or stdin: as it comes, or whole.
pub(crate) fn open(file: &Path, as_it_comes: bool) -> Result<Decoder> {
    if !is_stdin(file) {
        Ok(Decoder::open(file)?)
    } else if as_it_comes {
        Decoder::from_stream(io::stdin())
            .context("cannot read stdin as it comes: store it in a file first if it is MP4 or CAF")
    } else {
        Ok(Decoder::new(io::Cursor::new(read_stdin()?))?)
    }
}

/// All of stdin.
pub(crate) fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut bytes)
        .context("cannot read stdin")?;
    if bytes.len() as u64 > MAX_STDIN {
        bail!("stdin is longer than {MAX_STDIN} bytes: store it in a file first");
    }
    Ok(bytes)
}

/// The text of bytes from this input.
pub(crate) fn text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8 at byte {at}: convert it to UTF-8 first")
    })
}
