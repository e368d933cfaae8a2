//! `cargo xtask random-checkpoint`: genuine names, shapes and files with random values.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use voxtral_checkpoint::{
    DEFAULT_SHARD_BYTES, Dtype, Preset, RandomModel, RandomOptions, random_checkpoint,
};

use crate::{
    progress::{self, FormArg, QuantArg},
    tekken,
};

/// Stands for the embedded tokenizer of the demo models.
const DEMO: &str = "demo";

/// Write a checkpoint with the names, shapes and files of a genuine one and random values
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask random-checkpoint mini --quant q4 --tekken demo --out mini-q4\n  \
                  cargo xtask random-checkpoint voxtral-pipeline/demo/config.json --out tiny"
)]
pub(crate) struct Args {
    /// mini, small, realtime, or the path of a config.json or params.json
    model: String,
    /// Folder to write
    #[arg(long)]
    out: PathBuf,
    /// Form to write
    #[arg(long, value_enum, default_value = "hf")]
    form: FormArg,
    /// Seed of the values
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Storage type of what is not quantized: f32, f16 or bf16
    #[arg(long, default_value_t = Dtype::BF16)]
    dtype: Dtype,
    /// Format to quantize matrices in
    #[arg(long, value_enum)]
    quant: Option<QuantArg>,
    /// Largest size of a shard of the Hugging Face form
    #[arg(long, value_parser = progress::size, default_value_t = DEFAULT_SHARD_BYTES)]
    max_shard_size: u64,
    /// A tekken.json to copy, which transcribing needs; or demo: that of the demo model, with
    /// made-up tokens up to the size of the vocabulary
    #[arg(long, value_name = "FILE|demo")]
    tekken: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let model = match args.model.parse::<Preset>() {
        Ok(preset) => RandomModel::Preset(preset),
        Err(error) => {
            let path = PathBuf::from(&args.model);
            anyhow::ensure!(
                path.is_file(),
                "{error}, or the path of a config.json or params.json"
            );
            RandomModel::File(path)
        }
    };
    let made_up = args.tekken.as_deref() == Some(Path::new(DEMO));
    let options = RandomOptions {
        model,
        form: args.form.into(),
        dtype: args.dtype,
        quant: args.quant.map(Into::into),
        seed: args.seed,
        max_shard_bytes: args.max_shard_size,
        tokenizer: args.tekken.clone().filter(|_| !made_up),
    };
    let tokenizer = args.out.join(tekken::FILE);
    ensure!(
        !made_up || !tokenizer.exists(),
        "`{}` exists: remove it, or choose another folder",
        tokenizer.display()
    );
    write(&options, &args.out)?;
    if made_up {
        tekken::write(&args.out)?;
    }
    if args.tekken.is_none() {
        progress::say(
            "the checkpoint has no tekken.json: give one with --tekken FILE, or --tekken demo for a \
             made-up one, to transcribe with it",
        );
    }
    Ok(())
}

/// Writes a checkpoint, with a progress bar.
pub(crate) fn write(options: &RandomOptions, out: &Path) -> anyhow::Result<()> {
    progress::with_bar(out, |on_progress| {
        random_checkpoint(options, out, on_progress)
    })
    .context("failed to write the checkpoint")?;
    if options.quant.is_some() {
        progress::say(&progress::formats(out).context("failed to read what was written")?);
    }
    Ok(())
}
