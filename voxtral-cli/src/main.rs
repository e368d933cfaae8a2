//! `voxtral`: speech to text with Mistral's Voxtral models.
//!
//! Text and data go to stdout, everything else to stderr. Exit codes: 0 if all went well, 1 if
//! anything failed, 2 for a wrong command line, 130 after Ctrl-C.

mod args;
mod backend;
mod inspect;
mod interrupt;
mod load;
mod models;
mod output;
mod transcribe;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log(&cli);
    let outcome = match &cli.command {
        Command::Transcribe(args) => transcribe::run(args, cli.quiet),
        Command::Inspect(args) => inspect::run(args),
        Command::Models => models::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Warnings by default; less with `-q`, more with `-v`. `RUST_LOG` overrides.
fn init_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}

/// One line on stderr with the error and what caused it.
#[allow(
    clippy::print_stderr,
    reason = "errors of a command line program go to stderr"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// One line on stderr that is no error.
#[allow(clippy::print_stderr, reason = "notices go to stderr, text to stdout")]
fn notice(quiet: bool, text: std::fmt::Arguments<'_>) {
    if !quiet {
        eprintln!("{text}");
    }
}
