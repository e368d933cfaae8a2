//! What a model costs on the CPU, each figure beside what the machine can do at most.
//!
//! ```sh
//! cargo xtask bench cpu                               # the built-in demo model
//! cargo xtask bench cpu --model mini --quant q4       # full size, of random values
//! cargo xtask bench cpu --model FOLDER --rows decode,profile
//! ```
//!
//! A row runs several times; the best and the median stand in the table. The ceilings are sampled
//! in between, so that load from elsewhere weighs on both alike. What a row demands is counted in
//! `common/work.rs`, from the checkpoint's own tensors.

mod bench;
#[path = "../common/mod.rs"]
mod common;
mod kernels;
mod layers;
mod profile;
mod table;
mod transformers;
mod weights;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use voxtral_pipeline::Demo;

use crate::{
    bench::Bench,
    common::{
        clock::Limits,
        model::{Facts, Model, Source},
    },
    table::{Measured, Report},
    transformers::SideBySide,
    weights::Weights,
};

/// Measure a model on the CPU: loading, memory, features, encoder, prefill, decode steps and whole
/// clips, each beside the machine's own ceilings.
///
/// Without --model, of demo. Of mini, small and realtime, a checkpoint of random values is made once
/// (8.9 to 48.5 GB, quantized less).
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench cpu",
    bin_name = "cargo xtask bench cpu",
    after_help = "Examples:\n  cargo xtask bench cpu\n  \
                  cargo xtask bench cpu --model mini --quant q4\n  \
                  cargo xtask bench cpu --model realtime --rows encoder,decode,live --budget 5\n  \
                  cargo xtask bench cpu --model mini --transformers venv/bin/python\n  \
                  cargo xtask bench cpu --model FOLDER --json > cpu.json"
)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// Rows to measure, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROWS")]
    rows: Vec<Part>,
    /// Time for each row, after which it has passes enough; a row runs three times at least, unless
    /// it takes more than four times as long
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    budget: f64,
    /// Threads of the kernels [default: the physical cores]
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// A Python with tools/bench/requirements.txt, to measure `transformers` on the same weights in
    /// bfloat16, with as many threads
    #[arg(long, value_name = "PYTHON")]
    transformers: Option<PathBuf>,
    /// The same weights for `transformers`: a folder in the Hugging Face form, not quantized
    /// [default: the model's]
    #[arg(long, value_name = "FOLDER", requires = "transformers")]
    reference: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A group of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Opening and loading, and the memory behind it
    Load,
    /// Whole clips of 11 s and of 60 s
    Clips,
    /// Log-mel of 30 s
    Mel,
    /// Encoder and projector
    Encoder,
    /// Prompts of 400 and of 1500 positions
    Prefill,
    /// A token behind 400 and behind 8000 positions
    Decode,
    /// A token of each of 1, 2, 4, 8 and 16 sequences in one pass
    Batch,
    /// What a live stream does for each token (Realtime models)
    Live,
    /// Where the time of a decode step and of an encoder pass goes
    Profile,
    /// Each of our operations beside the plain one of Burn
    Kernels,
}

#[allow(clippy::print_stdout, reason = "the result of the command")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = measure(&args)?;
    // Ours took long: what fails beside it must not cost it.
    let beside = match &args.transformers {
        Some(python) => beside(&args, python, &report).map(Some),
        None => Ok(None),
    };
    let failed = beside
        .map(|found| report.transformers = found)
        .context("nothing stands beside `transformers`");
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    failed
}

/// The rows that `transformers` has too.
fn beside(args: &Args, python: &Path, report: &Report) -> anyhow::Result<SideBySide> {
    let source = &args.source;
    let folder = match &args.reference {
        Some(folder) => source.from.join(folder),
        None => source.folder()?,
    };
    // A name without a folder is looked up by the system.
    let python = match python.components().count() {
        1 => python.to_owned(),
        _ => source.from.join(python),
    };
    transformers::measure(&python, &folder, args.budget, &report.rows)
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    anyhow::ensure!(
        args.budget >= 0.0 && args.budget <= 3600.0,
        "a budget of {} s is not possible: expected 0 to 3600",
        args.budget
    );
    if let Some(threads) = args.threads {
        voxtral_kernels::set_threads(threads)?;
    }
    let wanted = |part| args.rows.is_empty() || args.rows.contains(&part);
    let source = &args.source;
    let mut bench = Bench::new(Limits::new(Duration::from_secs_f64(args.budget)))?;
    let name = source.name(Demo::Clips);

    bench.ceilings.forget_peak();
    bench.note_memory("before loading");
    let (checkpoint, tokenizer) = source.open(Demo::Clips)?;
    let facts = Facts::new(source, name.clone(), &checkpoint, tokenizer.as_ref(), None)?;
    let loading = match wanted(Part::Load) {
        true => Some(whole::load(&mut bench, source)?),
        false => None,
    };
    if wanted(Part::Load) || wanted(Part::Clips) {
        let tokenizer = tokenizer.context(whole::NO_TOKENIZER)?;
        let whole = source.whole(&name, &checkpoint, tokenizer)?;
        bench.note_memory("loaded, nothing computed");
        if wanted(Part::Clips) {
            whole::clips(&mut bench, &facts, &whole, loading)?;
            bench.note_memory("behind the clips");
        }
    }
    let model = Model::load(source, &checkpoint, facts)?;
    if source.quant.is_none() || checkpoint.quantized().is_some() {
        whole::touch(&checkpoint)?;
    }
    if wanted(Part::Mel) {
        layers::log_mel(&mut bench, &model)?;
    }
    let mut profiles = Vec::new();
    let weights = Weights::new(source, &checkpoint);
    if wanted(Part::Encoder) || wanted(Part::Profile) {
        let times = layers::encoder(&mut bench, &model)?;
        if wanted(Part::Profile) {
            profiles.push(profile::encoder(&mut bench, &model, &weights, times)?);
        }
    }
    for positions in layers::PROMPTS
        .into_iter()
        .filter(|_| wanted(Part::Prefill))
    {
        layers::prefill(&mut bench, &model, positions)?;
    }
    for context in layers::CONTEXTS {
        if wanted(Part::Decode) || wanted(Part::Profile) {
            let times = layers::decode(&mut bench, &model, context)?;
            if wanted(Part::Profile) {
                let profile = profile::decoder(&mut bench, &model, &weights, context, times)?;
                profiles.push(profile);
            }
        }
    }
    if wanted(Part::Batch) {
        layers::batches(&mut bench, &model)?;
    }
    if wanted(Part::Live) && model.streams() {
        layers::live(&mut bench, &model)?;
    }
    let kernels = match wanted(Part::Kernels) {
        true => kernels::compare(&mut bench, &model, &weights)?,
        false => Vec::new(),
    };
    bench.note_memory("at the end");
    bench.ceilings.sample();
    let machine = bench.ceilings.machine();
    let rows = bench.rows.into_iter();
    let rows: Vec<_> = rows.map(|row| Measured::new(row, &machine)).collect();
    let (bytes, parameters) = (checkpoint.total_bytes(), checkpoint.num_parameters());
    Ok(Report {
        model: name,
        bytes,
        parameters,
        machine,
        rows,
        memory: bench.memory,
        profiles,
        kernels,
        transformers: None,
    })
}
