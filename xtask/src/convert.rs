//! `cargo xtask convert`: from one form of checkpoint to the other, or to another storage type.

use std::path::PathBuf;

use anyhow::Context;
use voxtral_checkpoint::{Checkpoint, ConvertOptions, DEFAULT_SHARD_BYTES, Dtype, Form, convert};

use crate::progress::{self, FormArg};

/// Convert a checkpoint to the other form, or to another storage type
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the checkpoint to read
    source: PathBuf,
    /// Folder to write
    #[arg(long)]
    out: PathBuf,
    /// Form to read, where the folder holds both [default: hf if it is complete]
    #[arg(long, value_enum)]
    from: Option<FormArg>,
    /// Form to write [default: the other one; the same if --dtype is given]
    #[arg(long, value_enum)]
    to: Option<FormArg>,
    /// Storage type to write: f32, f16 or bf16 [default: each tensor's own]
    #[arg(long)]
    dtype: Option<Dtype>,
    /// Largest size of a shard of the Hugging Face form
    #[arg(long, value_parser = progress::size, default_value_t = DEFAULT_SHARD_BYTES)]
    max_shard_size: u64,
    /// Drop a position table that is not the sinusoid, which the native form has no place for
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let opened = match args.from {
        Some(form) => Checkpoint::open_form(&args.source, form.into()),
        None => Checkpoint::open(&args.source),
    };
    let source = opened.context("failed to open the checkpoint")?;
    let form = match (args.to, args.dtype, source.form()) {
        (Some(form), ..) => form.into(),
        (None, Some(_), form) => form,
        (None, None, Form::HuggingFace) => Form::Native,
        (None, None, Form::Native) => Form::HuggingFace,
    };
    let options = ConvertOptions {
        form,
        dtype: args.dtype,
        max_shard_bytes: args.max_shard_size,
        force: args.force,
    };
    progress::say(&format!(
        "converting the {} form to the {form} form",
        source.form()
    ));
    progress::with_bar(&args.out, |on_progress| {
        convert(&source, &args.out, &options, on_progress)
    })
    .context("failed to convert")?;
    Ok(())
}
