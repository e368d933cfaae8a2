//! Chores of the workspace, as `cargo xtask COMMAND`.

mod convert;
mod progress;
mod random_checkpoint;

use clap::{Parser, Subcommand};

/// Chores of the Voxtral workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(convert::Args),
    RandomCheckpoint(random_checkpoint::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Convert(args) => convert::run(&args),
        Command::RandomCheckpoint(args) => random_checkpoint::run(&args),
    }
}
