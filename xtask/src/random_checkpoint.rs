//! `cargo xtask random-checkpoint`: genuine names, shapes and files with random values.

use std::path::PathBuf;

use anyhow::Context;
use voxtral_checkpoint::{
    DEFAULT_SHARD_BYTES, Dtype, Preset, RandomModel, RandomOptions, random_checkpoint,
};

use crate::progress::{self, FormArg, QuantArg};

/// Write a checkpoint with the names, shapes and files of a genuine one and random values
#[derive(Debug, clap::Args)]
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
    /// A tekken.json to copy, which transcribing needs
    #[arg(long)]
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
    let options = RandomOptions {
        model,
        form: args.form.into(),
        dtype: args.dtype,
        quant: args.quant.map(Into::into),
        seed: args.seed,
        max_shard_bytes: args.max_shard_size,
        tokenizer: args.tekken.clone(),
    };
    progress::with_bar(&args.out, |on_progress| {
        random_checkpoint(&options, &args.out, on_progress)
    })
    .context("failed to write the checkpoint")?;
    if args.quant.is_some() {
        progress::say(&progress::formats(&args.out).context("failed to read what was written")?);
    }
    if args.tekken.is_none() {
        progress::say(
            "the checkpoint has no tekken.json: give one with --tekken FILE to transcribe with it",
        );
    }
    Ok(())
}
