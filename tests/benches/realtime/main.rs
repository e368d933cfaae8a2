//! What a second of sound costs a Realtime model on the CPU, stage by stage.
//!
//! ```sh
//! cargo xtask bench                                   # the built-in demo model
//! cargo xtask bench --model FOLDER --seconds 2        # a checkpoint, without a tokenizer too
//! ```
//!
//! Times of a machine that does other things as well mean little, so each stands beside two bounds
//! measured in the same run (`machine.rs`): the time of its arithmetic at the rate of a large
//! `f32` matrix product, and that of reading its weights and keys once at the rate of memory
//! (`work.rs`). What is far below both is overhead.
//!
//! The layers (`layers.rs`, `encoder.rs`, `decoder.rs`) are timed one by one, which needs no tokenizer; a session
//! (`session.rs`) where there is one.

mod clock;
mod decoder;
mod encoder;
mod layers;
mod machine;
mod model;
mod report;
mod session;
mod sound;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use crate::{clock::Limits, machine::Machine, model::Model, report::Report};

/// The backend that is measured.
type B = burn_flex::Flex;

/// Measure what a second of sound costs a Realtime model, stage by stage.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Args {
    /// demo-realtime, or the folder of a Realtime checkpoint; one without a tekken.json is measured
    /// layer by layer
    #[arg(long, default_value = "demo-realtime")]
    model: PathBuf,
    /// Length of the sound
    #[arg(long, default_value_t = 30, value_name = "N")]
    seconds: usize,
    /// How far the text follows the sound [default: the model's own]
    #[arg(long, value_name = "MS")]
    delay: Option<u64>,
    /// Time for each row of the table, after which it has passes enough
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    budget: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Folder that a relative path of a model starts from: cargo runs benches in their package's
    #[arg(long, hide = true, default_value = ".")]
    from: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[allow(clippy::print_stdout, reason = "the result of the command")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let report = measure(&args)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    ensure!(
        args.seconds >= 2,
        "{} s of sound are too few: expected at least 2",
        args.seconds
    );
    let limits = Limits::new(Duration::from_secs(args.budget));
    let delay = args.delay.map(Duration::from_millis);
    let model = Model::open(&args.model, &args.from, delay)?;
    let sound = sound::sound(args.seconds, model.sample_rate());
    let mut machine = Machine::default();
    machine.sample();

    let mut stages = layers::log_mel(&model, &sound, limits);
    for tokens in [layers::FILE_TOKENS, 1] {
        stages.extend(encoder::stages(&model, &sound, tokens, limits)?);
        machine.sample();
    }
    stages.extend(decoder::stages(&model, args.seconds, limits)?);
    machine.sample();
    let session = session::measure(&model, sound)?;
    machine.sample();
    Ok(Report::new(
        &model,
        args.seconds,
        &machine,
        &stages,
        session,
    ))
}
