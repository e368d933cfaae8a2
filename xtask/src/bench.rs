//! `cargo xtask bench`: what a model costs on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use clap::ValueEnum;
use voxtral_checkpoint::{Checkpoint, ConvertOptions, Form, Preset, RandomModel, RandomOptions};

use crate::{
    ci::run_command,
    progress::{QuantArg, say, with_bar},
    random_checkpoint, tekken,
};

/// Measure a model on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// Every stage beside the ceilings of the processor: --help tells more
    #[command(disable_help_flag = true)]
    Cpu(Passed),
    /// What a second of sound costs a Realtime model, and its latencies: --help tells more
    #[command(disable_help_flag = true)]
    Realtime(Passed),
    /// What a server gets done for many clients at once: --help tells more
    #[command(disable_help_flag = true)]
    Server(Passed),
}

#[derive(Debug, clap::Args)]
struct Passed {
    /// What the benchmark takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (bench, Passed { arguments }) = match &args.bench {
        Bench::Cpu(passed) => ("cpu", passed),
        Bench::Realtime(passed) => ("realtime", passed),
        Bench::Server(passed) => ("server", passed),
    };
    let folder = std::env::current_dir().context("cannot tell the current folder")?;
    let mut command = Command::new("cargo");
    command
        .args(["bench", "--quiet", "--package", "voxtral-tests"])
        // Cargo runs it in the package's folder; relative paths are meant from here.
        .args(["--bench", bench, "--", "--from"])
        .arg(folder)
        .args(arguments);
    if !arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        command.args(prepared(arguments)?);
    }
    run_command(&mut command)
}

/// What the benchmark is told besides: where the checkpoints are that were made for it.
fn prepared(arguments: &[String]) -> Result<Vec<OsString>> {
    let model = value(arguments, "--model");
    let quant = value(arguments, "--quant");
    let mut told = Vec::new();
    let preset = model.and_then(|model| model.parse::<Preset>().ok());
    // A folder of the same name is meant where there is one.
    let preset = preset.filter(|preset| !Path::new(preset.name()).is_dir());
    if let Some(preset) = preset {
        // Another word is for the benchmark to refuse.
        let quant = quant.and_then(|quant| QuantArg::from_str(quant, false).ok());
        told.extend(["--prepared".into(), random(preset, quant)?.into()]);
    }
    if value(arguments, "--transformers").is_some() && value(arguments, "--reference").is_none() {
        let reference = match (preset, model.unwrap_or("demo")) {
            (Some(preset), _) => Some(random(preset, None)?),
            (None, "demo") => Some(tekken::DEMO.folder()),
            (None, "demo-realtime") => Some(hugging_face(&tekken::DEMO_REALTIME.folder())?),
            // The model's own folder.
            (None, _) => None,
        };
        told.extend(
            reference
                .into_iter()
                .flat_map(|folder| ["--reference".into(), folder.into()]),
        );
    }
    Ok(told)
}

/// The value of an option, as `--name value` or `--name=value`.
fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments
        .iter()
        .position(|argument| argument.split('=').next() == Some(name))?;
    match arguments[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => arguments.get(at + 1).map(String::as_str),
    }
}

/// A checkpoint of random values with a tokenizer, made once.
fn random(preset: Preset, quant: Option<QuantArg>) -> Result<PathBuf> {
    let options = RandomOptions {
        quant: quant.map(Into::into),
        ..RandomOptions::new(RandomModel::Preset(preset))
    };
    let name = match options.quant {
        Some(quant) => format!("{}-{}", preset.name(), quant.name()),
        None => preset.name().to_owned(),
    };
    made_once(&name, |folder| {
        random_checkpoint::write(&options, folder)?;
        // The last file: where it is, the checkpoint is whole.
        tekken::write(folder)
    })
}

/// A checkpoint in the Hugging Face form, made once of one in the native form.
fn hugging_face(native: &Path) -> Result<PathBuf> {
    made_once("demo-realtime", |folder| {
        let options = ConvertOptions::new(Form::HuggingFace);
        let checkpoint = Checkpoint::open(native)?;
        with_bar(folder, |on_progress| {
            voxtral_checkpoint::convert(&checkpoint, folder, &options, on_progress)
        })
        .context("failed to convert the demo model")?;
        // Its tokenizer went along.
        Ok(())
    })
}

/// A folder below `target/bench`, made by `make` unless it is there with its tokenizer.
fn made_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cannot read cargo metadata")?;
    let folder = metadata.target_directory.join("bench").join(name);
    let folder = folder.into_std_path_buf();
    if folder.join(tekken::FILE).is_file() {
        say(&format!("taking the checkpoint in `{}`", folder.display()));
        return Ok(folder);
    }
    say(&format!("making a checkpoint in `{}`", folder.display()));
    make(&folder).with_context(|| {
        format!(
            "failed to make a checkpoint in `{}`: if something of an earlier run is there, remove \
             the folder",
            folder.display()
        )
    })?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn options_have_values_in_both_forms() {
        let arguments = ["--rows", "decode", "--model=mini", "--quant", "q4"].map(str::to_owned);
        assert_eq!(value(&arguments, "--model"), Some("mini"));
        assert_eq!(value(&arguments, "--quant"), Some("q4"));
        assert_eq!(value(&arguments, "--json"), None);
        assert_eq!(value(&arguments[..4], "--quant"), None);
    }
}
