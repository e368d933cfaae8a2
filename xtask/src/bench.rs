//! `cargo xtask bench`: what a second of sound costs, stage by stage.

use std::process::Command;

use anyhow::{Context, Result};

use crate::ci::run_command;

/// Measure what a second of sound costs a Realtime model, stage by stage: --help tells more
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What the benchmark takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = std::env::current_dir().context("cannot tell the current folder")?;
    run_command(
        Command::new("cargo")
            .args(["bench", "--quiet", "--package", "voxtral-tests"])
            // Cargo runs it in the package's folder; relative paths are meant from here.
            .args(["--bench", "realtime", "--", "--from"])
            .arg(folder)
            .args(&args.arguments),
    )
}
