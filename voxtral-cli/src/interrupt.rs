//! Ctrl-C: stops the work between two steps, and a moment later the process.

use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use voxtral_pipeline::Cancel;

use crate::{output, report};

/// The shell's exit code of a program that Ctrl-C stopped: 128 + SIGINT.
const EXIT_CODE: i32 = 130;

/// How long the work may take to stop by itself. Fetching, loading and a large model's encoder
/// do not look at the flag for longer than a person waits.
const GRACE: Duration = Duration::from_millis(300);

/// Watches for Ctrl-C from now on; the flag is set by it.
pub(crate) fn watch() -> Result<Cancel> {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    ctrlc::set_handler(move || {
        flag.cancel();
        thread::sleep(GRACE);
        stop();
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(cancel)
}

/// Says so and ends the process. A file that is being written is completed first, so nothing
/// half-done is left behind.
pub(crate) fn stop() -> ! {
    static STOPPING: Mutex<()> = Mutex::new(());
    // Whoever comes second waits here for the end.
    let _once = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
    let _whole = output::writing();
    report(&anyhow!("interrupted before everything was transcribed"));
    process::exit(EXIT_CODE)
}
