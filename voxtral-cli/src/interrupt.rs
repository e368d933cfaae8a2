//! Ctrl-C: stops the work between two steps, and a moment later the process.

use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
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

/// Watches for Ctrl-C from now on. The first one calls what [`Graceful::set`] was given, if
/// anything, and leaves the rest to it; otherwise, and the second time, the process ends.
pub(crate) fn watch_gracefully() -> Result<Graceful> {
    let graceful = Graceful::default();
    let own = graceful.clone();
    ctrlc::set_handler(move || {
        let call = own.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match call {
            Some(call) => call(),
            None => stop(),
        }
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(graceful)
}

/// What the first Ctrl-C does.
#[derive(Clone, Default)]
pub(crate) struct Graceful(Arc<Mutex<Option<Call>>>);

type Call = Box<dyn FnOnce() + Send>;

impl Graceful {
    /// Sets it.
    pub(crate) fn set(&self, call: impl FnOnce() + Send + 'static) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Box::new(call));
    }

    /// Takes it back: Ctrl-C ends the process again.
    pub(crate) fn unset(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The exit code of a program that Ctrl-C stopped.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(EXIT_CODE as u8)
}

/// Says so and ends the process. A file that is being written is completed first, so nothing
/// half-done is left behind.
pub(crate) fn stop() -> ! {
    static STOPPING: Mutex<()> = Mutex::new(());
    // Whoever comes second waits here for the end.
    let _once = STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
    let _whole = output::writing();
    report(&anyhow!("interrupted before everything was done"));
    process::exit(EXIT_CODE)
}
