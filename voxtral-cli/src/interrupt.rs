//! Ctrl-C: the first stops the work between two steps, the second the process.

use std::process;

use anyhow::{Context, Result};
use voxtral_pipeline::Cancel;

/// The shell's exit code of a program that Ctrl-C stopped: 128 + SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

/// Sets the flag on Ctrl-C.
pub(crate) fn cancel_on_ctrl_c() -> Result<Cancel> {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    ctrlc::set_handler(move || {
        if flag.is_cancelled() {
            process::exit(i32::from(EXIT_CODE));
        }
        flag.cancel();
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(cancel)
}
