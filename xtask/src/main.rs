//! Chores of the workspace, as `cargo xtask COMMAND`.

mod bench;
mod ci;
mod convert;
mod dependencies;
mod goldens;
mod progress;
mod random_checkpoint;
mod tekken;

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
    Bench(bench::Args),
    Ci(ci::Args),
    Convert(convert::Args),
    Goldens(goldens::Args),
    RandomCheckpoint(random_checkpoint::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Goldens(args) => goldens::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::RandomCheckpoint(args) => random_checkpoint::run(&args),
    }
}
