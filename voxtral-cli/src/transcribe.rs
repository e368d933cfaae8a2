//! `voxtral transcribe`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
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
        let options = TranscribeOptions {
            language: args.language,
            sampling: self.sampling.clone(),
            max_new_tokens: args.max_new_tokens.map(|tokens| tokens as usize),
            delay: args.delay,
            one_by_one: false,
            word_times: args.format.has_times(),
            cancel: self.cancel.clone(),
            on_window: self.show_progress(model.is_streaming()),
        };
        let size = NonZeroUsize::new(args.batch_size.into());
        let all_well = match size {
            Some(size) if size.get() > 1 && !model.is_streaming() => {
                self.together(&model, &options, size)
            }
            _ => self.one_by_one(&model, &options),
        };
        Ok(if all_well && !self.failed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
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

    /// Transcribes one file behind the other; tells whether all went well.
    fn one_by_one<B: Backend>(&self, model: &Voxtral<B>, options: &TranscribeOptions) -> bool {
        let mut all_well = true;
        for file in &self.files {
            if self.cancel.is_cancelled() {
                interrupt::stop();
            }
            let _about = messages::about(&input::name(file));
            let outcome = self.transcribe(model, file, options);
            match self.settle(file, outcome) {
                ControlFlow::Continue(well) => all_well &= well,
                ControlFlow::Break(()) => break,
            }
        }
        all_well
    }

    /// Transcribes several files at a time; tells whether all went well. What goes to stdout waits
    /// for the files before it.
    fn together<B: Backend>(
        &self,
        model: &Voxtral<B>,
        options: &TranscribeOptions,
        size: NonZeroUsize,
    ) -> bool {
        let jobs = self.files.iter().map(|file| {
            let _about = messages::about(&input::name(file));
            let audio = model.read_decoder(input::open(file, false)?)?;
            Ok((audio, options.clone()))
        });
        let in_order = matches!(self.destination, Destination::Stdout);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut all_well = true;
        for (index, result) in model.transcribe_batch(jobs, size) {
            if self.cancel.is_cancelled() {
                interrupt::stop();
            }
            waiting.insert(index, result);
            while let Some(first) = waiting.first_entry() {
                if in_order && *first.key() > next {
                    break;
                }
                let (index, result) = first.remove_entry();
                next = index + 1;
                let file = self.files[index];
                let _about = messages::about(&input::name(file));
                let outcome = result.and_then(|transcript: Transcript| {
                    self.write(file, &transcript)?;
                    Ok(tell(&transcript))
                });
                match self.settle(file, outcome) {
                    ControlFlow::Continue(well) => all_well &= well,
                    ControlFlow::Break(()) => return all_well,
                }
            }
        }
        all_well
    }

    /// Reports what became of a file, and tells whether all went well; breaks where nobody reads
    /// on.
    fn settle(&self, file: &Path, outcome: Result<bool>) -> ControlFlow<(), bool> {
        // An error leaves the bar where it was.
        progress::clear();
        match outcome {
            Ok(whole) => ControlFlow::Continue(whole),
            Err(_) if self.cancel.is_cancelled() => interrupt::stop(),
            Err(error) if output::is_closed(&error) => ControlFlow::Break(()),
            Err(error) => {
                report(&error.context(format!("cannot transcribe `{}`", input::name(file))));
                ControlFlow::Continue(false)
            }
        }
    }

    /// Transcribes a file and tells whether it was whole.
    fn transcribe<B: Backend>(
        &self,
        model: &Voxtral<B>,
        file: &Path,
        options: &TranscribeOptions,
    ) -> Result<bool> {
        let run = model.start_decoder(input::open(file, model.is_streaming())?, options)?;
        let format = self.args.format;
        let transcript = if format == Format::Text && self.destination.path(file, format).is_none()
        {
            stream(run)?
        } else {
            let transcript = run.finish()?;
            self.write(file, &transcript)?;
            transcript
        };
        Ok(tell(&transcript))
    }

    /// Writes a transcript where it belongs.
    fn write(&self, file: &Path, transcript: &Transcript) -> Result<()> {
        let format = self.args.format;
        let written = output::render(format, file, transcript)?;
        match self.destination.path(file, format) {
            Some(path) => {
                output::write_file(&path, &written)?;
                notice(self.quiet, format_args!("wrote `{}`", path.display()));
            }
            None => output::print(&written)?,
        }
        Ok(())
    }
}

/// Tells on stderr what a person should know of a transcript, and returns whether its file was whole:
/// of one that breaks off, the text of what is there is written, but the run has failed. The decoder
/// has warned of it.
fn tell(transcript: &Transcript) -> bool {
    messages::tell_work(
        transcript.finish,
        transcript.tokens.len(),
        transcript.duration,
        &transcript.timings,
    );
    !transcript.truncated
}

/// Prints the text as it is decoded, then a line end.
fn stream<B: Backend>(mut run: Transcription<'_, B>) -> Result<Transcript> {
    if !output::stream(&mut run)? {
        output::print("\n")?;
    }
    Ok(run.finish()?)
}
