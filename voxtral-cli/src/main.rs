//! `voxtral`: speech to text, and answers about sound, with Mistral's Voxtral models.
//!
//! Text and data go to stdout, everything else to stderr. Exit codes: 0 if all went well, 1 if
//! anything failed, 2 for a wrong command line, 130 after Ctrl-C.

mod args;
mod backend;
mod chat;
mod destination;
mod input;
mod inspect;
mod interrupt;
mod journal;
mod listen;
mod load;
mod long;
mod messages;
mod models;
mod output;
mod plot;
mod progress;
mod quantize;
mod serve;
mod sound;
mod state;
mod transcribe;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use args::{Cli, Command};
use messages::{notice, report};

/// The exit code for a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return no_command(&error),
    };
    messages::init_log(cli.quiet, cli.verbose);
    let outcome = match &cli.command {
        Command::Transcribe(args) => transcribe::run(args, cli.quiet),
        Command::Listen(args) => listen::run(args, cli.quiet),
        Command::Chat(args) => chat::run(args, cli.quiet),
        Command::Serve(args) => serve::run(args, cli.quiet),
        Command::Quantize(args) => quantize::run(args, cli.quiet),
        Command::Inspect(args) => inspect::run(args, cli.quiet),
        Command::Models => models::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref() {
            Some(wrong) => no_command(wrong),
            None => {
                report(&error);
                ExitCode::FAILURE
            }
        },
    }
}

/// Help, version or a complaint.
fn no_command(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Whoever does not read the help has no use for an error either.
            let _ = error.print();
        }
        _ => messages::usage(error),
    }
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
