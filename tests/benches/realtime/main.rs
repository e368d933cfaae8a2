//! What a second of sound costs a Realtime model on the CPU, stage by stage.
//!
//! ```sh
//! cargo xtask bench realtime                              # the built-in demo model
//! cargo xtask bench realtime --model FOLDER --seconds 2   # a checkpoint, without a tokenizer too
//! ```
//!
//! Times of a machine that does other things as well mean little, so each stands beside two bounds
//! measured in the same run (`common/ceilings.rs`): the time of its arithmetic at the peak of the
//! machine, and that of reading its weights and keys once at the rate of memory (`common/work.rs`).
//! What is far below both is overhead.
//!
//! The layers (`common/{layers,encoder,decoder}.rs`) are timed one by one, which needs no tokenizer;
//! a session (`common/session.rs`) where there is one.

#[path = "../common/mod.rs"]
mod common;
mod report;

use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use voxtral_pipeline::Demo;

use crate::{
    common::{
        ceilings::Ceilings,
        clock::Limits,
        decoder, encoder, layers,
        model::{Facts, Model, Source},
        session, sound,
    },
    report::Report,
};

/// Measure what a second of sound costs a Realtime model, stage by stage.
///
/// Without --model, of demo-realtime. A checkpoint without a tekken.json is measured layer by layer.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench realtime",
    bin_name = "cargo xtask bench realtime",
    after_help = "Examples:\n  cargo xtask bench realtime\n  \
                  cargo xtask bench realtime --model realtime --quant q4 --seconds 2\n  \
                  cargo xtask bench realtime --model FOLDER --json > realtime.json"
)]
struct Args {
    #[command(flatten)]
    source: Source,
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
    let name = args.source.name(Demo::Realtime);
    let (checkpoint, tokenizer) = args.source.open(Demo::Realtime)?;
    let facts = Facts::new(
        &args.source,
        name.clone(),
        &checkpoint,
        tokenizer.as_ref(),
        delay,
    )?;
    let model = Model::load(&args.source, &checkpoint, facts)?;
    let sound = sound::sound(args.seconds, model.sample_rate());
    let mut ceilings = Ceilings::new()?;

    let mut stages = layers::log_mel(&model, &sound, limits)?;
    for tokens in [layers::FILE_TOKENS, 1] {
        stages.extend(encoder::stages(&model, &sound, tokens, limits)?);
        ceilings.sample();
    }
    stages.extend(decoder::stages(&model, args.seconds, limits)?);
    ceilings.sample();
    let session = match tokenizer {
        Some(tokenizer) => {
            let whole = args.source.whole(&name, &checkpoint, tokenizer)?;
            Some(session::measure(&model, &whole, sound)?)
        }
        None => None,
    };
    ceilings.sample();
    Ok(Report::new(
        &model,
        args.seconds,
        ceilings.machine(),
        &stages,
        session,
    ))
}
