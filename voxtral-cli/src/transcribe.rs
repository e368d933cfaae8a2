//! `voxtral transcribe`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use voxtral_pipeline::{
    Backend, Cancel, Demo, OnWindow, SamplingOptions, TranscribeOptions, Transcript, Transcription,
    Voxtral,
};

use crate::{
    args::{Format, TranscribeArgs},
    backend::{Task, on_device},
    input, interrupt, load, messages, notice,
    output::{self, Destination},
    progress::{self, Stage},
    report,
};

pub(crate) fn run(args: &TranscribeArgs, quiet: bool) -> Result<ExitCode> {
    let cancel = interrupt::watch()?;
    let destination = Destination::of(args)?;
    let sampling = args.sampling.options(SamplingOptions::default())?;
    // A large model takes minutes to load: what fails anyway fails before.
    let (files, failed) = openable(&args.files);
    if files.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    load::set_threads(args.compute.threads)?;
    load::tell_demo(args.model.name_or(Demo::Clips), quiet);
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        args,
        files,
        failed,
        quiet,
        destination,
        sampling,
        cancel,
    };
    on_device(args.compute.device, announce, work)
}

/// The inputs that can be opened, and whether there are others, which are reported.
fn openable(files: &[PathBuf]) -> (Vec<&Path>, bool) {
    let mut openable = Vec::new();
    for file in files {
        match input::check(file) {
            Ok(()) => openable.push(file.as_path()),
            Err(error) => report(&error),
        }
    }
    let failed = openable.len() < files.len();
    (openable, failed)
}

/// A run, before its backend is known.
struct Work<'a> {
    args: &'a TranscribeArgs,
    files: Vec<&'a Path>,
    failed: bool,
    quiet: bool,
    destination: Destination,
    sampling: SamplingOptions,
    cancel: Cancel,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let precision = args.compute.precision();
        let model_name = args.model.name_or(Demo::Clips);
        let model = load::open::<B>(model_name, device, precision, self.quiet)?;
        if args.format.subtitles().is_some() && !model.is_streaming() {
            bail!(output::no_times(args.format));
        }
        let options = TranscribeOptions {
            language: args.language,
            sampling: self.sampling.clone(),
            max_new_tokens: args.max_new_tokens.map(|tokens| tokens as usize),
            delay: args.delay,
            one_by_one: false,
            cancel: self.cancel.clone(),
            on_window: self.show_progress(model.is_streaming()),
        };
        let mut failed = self.failed;
        for file in &self.files {
            if self.cancel.is_cancelled() {
                interrupt::stop();
            }
            let _about = messages::about(&input::name(file));
            let outcome = self.transcribe(&model, file, &options);
            // An error leaves the bar where it was.
            progress::clear();
            match outcome {
                Ok(whole) => failed |= !whole,
                Err(_) if self.cancel.is_cancelled() => interrupt::stop(),
                Err(error) if output::is_closed(&error) => break,
                Err(error) => {
                    report(&error.context(format!("cannot transcribe `{}`", input::name(file))));
                    failed = true;
                }
            }
        }
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl Work<'_> {
    /// Shows how far the encoder is with a file; a model that takes streams writes as it encodes,
    /// and text on the way to the terminal is progress enough.
    fn show_progress(&self, streaming: bool) -> OnWindow {
        let printing =
            self.args.format == Format::Text && matches!(self.destination, Destination::Stdout);
        if self.quiet || (streaming && printing) {
            return OnWindow::default();
        }
        let stage = if streaming {
            Stage::Transcribing
        } else {
            Stage::Encoding
        };
        progress::on_window(stage)
    }

    /// Transcribes a file and tells whether it was whole: of one that breaks off, the text of what
    /// is there is written, but the run has failed. The decoder has warned of it.
    fn transcribe<B: Backend>(
        &self,
        model: &Voxtral<B>,
        file: &Path,
        options: &TranscribeOptions,
    ) -> Result<bool> {
        let run = start(model, file, options)?;
        let format = self.args.format;
        let transcript = match self.destination.path(file, format) {
            Some(path) => {
                let transcript = run.finish()?;
                output::write_file(&path, &output::render(format, file, &transcript)?)?;
                notice(self.quiet, format_args!("wrote `{}`", path.display()));
                transcript
            }
            None if format == Format::Text => stream(run)?,
            None => {
                let transcript = run.finish()?;
                output::print(&output::render(format, file, &transcript)?)?;
                transcript
            }
        };
        messages::tell_work(
            transcript.finish,
            transcript.tokens.len(),
            transcript.duration,
            &transcript.timings,
        );
        Ok(!transcript.truncated)
    }
}

/// Prints the text as it is decoded, then a line end.
fn stream<B: Backend>(mut run: Transcription<'_, B>) -> Result<Transcript> {
    if !output::stream(&mut run)? {
        output::print("\n")?;
    }
    Ok(run.finish()?)
}

/// Begins the transcription of a file, or of stdin.
fn start<'m, B: Backend>(
    model: &'m Voxtral<B>,
    file: &Path,
    options: &TranscribeOptions,
) -> Result<Transcription<'m, B>> {
    let decoder = input::decoder(file, model.is_streaming())?;
    Ok(model.start_decoder(decoder, options)?)
}
