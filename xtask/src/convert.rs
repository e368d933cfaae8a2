//! `cargo xtask convert`: from one form of checkpoint to the other, to another storage type, or to
//! quantized weights.

use std::path::PathBuf;

use anyhow::Context;
use voxtral_checkpoint::{Checkpoint, ConvertOptions, DEFAULT_SHARD_BYTES, Dtype, Form, convert};

use crate::progress::{self, FormArg, QuantArg};

/// Convert a checkpoint to the other form, to another storage type, or to quantized weights
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
    /// Form to write [default: the other one; the same if --dtype is given; hf if --quant is]
    #[arg(long, value_enum)]
    to: Option<FormArg>,
    /// Storage type to write what is not quantized in: f32, f16 or bf16 [default: each tensor's
    /// own; needed if the checkpoint to read is quantized]
    #[arg(long)]
    dtype: Option<Dtype>,
    /// Format to quantize matrices in
    #[arg(long, value_enum)]
    quant: Option<QuantArg>,
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
    let form = match (args.to, args.quant, args.dtype, source.form()) {
        (Some(form), ..) => form.into(),
        (None, Some(_), ..) => Form::HuggingFace,
        (None, None, Some(_), form) => form,
        (None, None, None, Form::HuggingFace) => Form::Native,
        (None, None, None, Form::Native) => Form::HuggingFace,
    };
    let options = ConvertOptions {
        form,
        dtype: args.dtype,
        quant: args.quant.map(Into::into),
        max_shard_bytes: args.max_shard_size,
        force: args.force,
        tokenizer: None,
    };
    progress::say(&format!(
        "converting the {} form to the {form} form",
        source.form()
    ));
    progress::with_bar(&args.out, |on_progress| {
        convert(&source, &args.out, &options, on_progress)
    })
    .context("failed to convert")?;
    if args.quant.is_some() {
        progress::say(&progress::formats(&args.out).context("failed to read what was written")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn convert(source: &Path, out: &Path, more: &[&str]) -> anyhow::Result<()> {
        let fixed = [
            "convert",
            source.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        run(&Line::parse_from(fixed.iter().chain(more)).args)
    }

    #[test]
    fn there_and_back_by_way_of_quantized_weights() {
        let root = tempfile::tempdir().unwrap();
        let native = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../voxtral-checkpoint/testdata/realtime/native");
        let (small, wide) = (root.path().join("small"), root.path().join("wide"));
        convert(&native, &small, &["--quant", "q4"]).unwrap();
        let said = progress::formats(&small).unwrap();
        assert!(
            said.contains("bits a weight: ") && said.contains("q4 ("),
            "{said}"
        );

        let error = convert(&small, &wide, &[]).unwrap_err();
        assert!(
            format!("{error:#}").contains("choose the storage type"),
            "{error:#}"
        );
        let error = convert(&small, &wide, &["--quant", "q8"]).unwrap_err();
        assert!(
            format!("{error:#}").contains("quantized already, as q4"),
            "{error:#}"
        );
        convert(&small, &wide, &["--dtype", "bf16"]).unwrap();
        let said = progress::formats(&wide).unwrap();
        assert!(said.starts_with("16.00 bits a weight: BF16 ("), "{said}");
    }
}
