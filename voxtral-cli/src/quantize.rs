//! `voxtral quantize`.

use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::HumanBytes;
use voxtral_checkpoint::{Checkpoint, CheckpointError, ConvertOptions, Form, Quant, convert};
use voxtral_hub::{Hub, ModelSource};
use voxtral_pipeline::Demo;

use crate::{
    args::QuantizeArgs,
    inspect, interrupt, load, output,
    progress::{self, Stage},
    report,
};

/// The tokenizer's file, which a model's folder must have.
const TOKENIZER: &str = "tekken.json";

/// Writes the model anew, quantized, and prints what came of it.
pub(crate) fn run(args: &QuantizeArgs, quiet: bool) -> Result<ExitCode> {
    let QuantizeArgs { model, out, .. } = args;
    check_free(out)?;
    load::set_threads(args.threads)?;
    let failed = || format!("failed to quantize `{model}`");
    let (source, tokenizer) = open(model, quiet).with_context(failed)?;
    let quant = Quant::from(args.quant);
    let options = ConvertOptions {
        quant: Some(quant),
        tokenizer,
        ..ConvertOptions::new(Form::HuggingFace)
    };

    // The first Ctrl-C lets the unfinished files be taken away.
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    interrupt::watch_gracefully()?.set(move || flag.store(true, Ordering::Relaxed));
    let written = convert(&source, out, &options, &mut |progress| {
        if !quiet {
            let (done, total) = (progress.bytes, progress.total);
            progress::show(Stage::Quantizing, done, total, progress.tensor);
        }
        match interrupted.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    progress::clear();
    match written {
        Err(CheckpointError::Cancelled) => {
            report(&anyhow!("interrupted: nothing was written"));
            return Ok(interrupt::exit_code());
        }
        written => written.with_context(failed)?,
    };
    let result = Checkpoint::open(out).context("failed to read what was written")?;
    output::print(&summary(&source, &result, out)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Fails unless the folder can be made or is empty.
fn check_free(out: &Path) -> Result<()> {
    let shown = out.display();
    if !out.exists() {
        return Ok(());
    }
    if !out.is_dir() {
        bail!("`{shown}` is a file, expected a folder to write: choose another `--out`");
    }
    let mut entries = fs::read_dir(out).with_context(|| format!("cannot read `{shown}`"))?;
    if entries.next().is_some() {
        bail!("`{shown}` is not empty, and nothing is overwritten: choose another `--out`");
    }
    Ok(())
}

/// Opens the model, fetching it where it must be, and gives the tokenizer's file of one in memory.
fn open(model: &str, quiet: bool) -> Result<(Checkpoint, Option<Vec<u8>>)> {
    if let Some(demo) = Demo::named(model) {
        let (checkpoint, _) = demo.load()?;
        return Ok((checkpoint, Some(tokenizer(demo).to_vec())));
    }
    let source: ModelSource = model.parse()?;
    let folder = Hub::from_env()?.resolve(&source, &mut |part| {
        if !quiet {
            progress::show(Stage::Fetching, part.done, part.total, part.file);
        }
    });
    progress::clear();
    let folder = folder?;
    let checkpoint = Checkpoint::open(&folder)?;
    if !folder.join(TOKENIZER).is_file() {
        bail!("the folder has no {TOKENIZER}, the tokenizer: put it beside the weights");
    }
    Ok((checkpoint, None))
}

/// The tokenizer's file of a built-in model.
fn tokenizer(demo: Demo) -> &'static [u8] {
    match demo {
        Demo::Clips => include_bytes!("../../voxtral-pipeline/demo/tekken.json"),
        Demo::Realtime => include_bytes!("../../voxtral-pipeline/demo-realtime/tekken.json"),
    }
}

/// What was made of what.
fn summary(source: &Checkpoint, result: &Checkpoint, out: &Path) -> Result<String> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<11} {value}");
    let size = |checkpoint: &Checkpoint| HumanBytes(checkpoint.total_bytes()).to_string();
    line("written", &out.display().to_string())?;
    line(
        "size",
        &format!("{}, before {}", size(result), size(source)),
    )?;
    line("precision", &inspect::precisions(result))?;
    let (now, before) = (inspect::bits(result), source.bits_per_parameter());
    line("bits", &format!("{now}, before {before:.2}"))?;
    Ok(text)
}
