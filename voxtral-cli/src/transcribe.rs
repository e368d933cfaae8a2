//! `voxtral transcribe`.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{
    Backend, Cancel, Demo, Document, Format, Layout, LongOptions, OnWindow, Recording,
    SamplingOptions, Task as Done, TranscribeOptions, Transcript, Transcription, Vad, Voxtral,
};

use crate::{
    args::TranscribeArgs,
    backend::{Task, on_device},
    destination::Destination,
    input, interrupt, journal, load,
    long::{self, Show},
    messages, notice, output,
    progress::{self, Stage},
    report,
};

pub(crate) fn run(args: &TranscribeArgs, quiet: bool) -> Result<ExitCode> {
    let cancel = interrupt::watch()?;
    let layout = args.layout.layout(&args.formats)?;
    args.sampling.check(args.formats.contains(&Format::Json))?;
    check_translation(args)?;
    let destination = Destination::of(args)?;
    let sampling = args.sampling.options(SamplingOptions {
        context_bias: args.context.bias()?,
        ..Default::default()
    })?;
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
        layout,
        sampling,
        cancel,
    };
    on_device(args.compute.device, announce, work)
}

/// Refuses formats that a translation cannot have.
fn check_translation(args: &TranscribeArgs) -> Result<()> {
    let timed = args.formats.iter().find(|format| format.needs_times());
    if let (Some(language), Some(format)) = (args.translate, timed) {
        bail!(
            "`--translate {language}` gives no times, which `--format {format}` needs: choose \
             `text`, `json` or `md`"
        );
    }
    Ok(())
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
    layout: Layout,
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
        if model.is_streaming() {
            self.check_streaming()?;
        }
        let options = TranscribeOptions {
            language: args.language,
            skip_language_detection: false,
            sampling: self.sampling.clone(),
            max_new_tokens: args.max_new_tokens.map(|tokens| tokens as usize),
            delay: args.delay,
            one_by_one: false,
            // Times also tell of speech without a word within a text.
            word_times: args.long.strict || args.formats.iter().any(|format| format.has_times()),
            keeps_attention: false,
            cancel: self.cancel.clone(),
            on_window: self.show_progress(model.is_streaming()),
        };
        let size = NonZeroUsize::new(args.batch_size.into());
        let all_well = match size {
            Some(size)
                if size.get() > 1
                    && self.files.len() > 1
                    && !model.is_streaming()
                    && args.translate.is_none() =>
            {
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
    /// Refuses options of models that take clips.
    fn check_streaming(&self) -> Result<()> {
        let long = &self.args.long;
        let given = [
            (long.vad.is_some(), "--vad"),
            (long.window.is_some(), "--window"),
            (long.resume, "--resume"),
            (long.json_progress, "--json-progress"),
        ];
        if let Some((_, option)) = given.iter().find(|(given, _)| *given) {
            bail!(
                "`{option}` is for models that take clips, a Realtime model hears a stream: leave it \
                 out, or choose another model, as `--model mini`"
            );
        }
        Ok(())
    }

    /// Shows how far a model that takes streams is; text on the way to the terminal is progress
    /// enough.
    fn show_progress(&self, streaming: bool) -> OnWindow {
        if !streaming || self.quiet || self.destination.is_live() {
            return OnWindow::default();
        }
        progress::on_window(Stage::Transcribing)
    }

    fn long_options(&self, options: &TranscribeOptions) -> LongOptions {
        let long = &self.args.long;
        LongOptions {
            transcribe: options.clone(),
            vad: long.vad.map_or_else(Vad::default, Vad::from),
            window: long.window,
            batch_size: NonZeroUsize::new(self.args.batch_size.into()).unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// The journal of a file, if one is to be kept.
    fn journal_path(&self, file: &Path) -> Result<Option<PathBuf>> {
        if !self.args.long.resume {
            return Ok(None);
        }
        let mut outputs = self.destination.outputs(file).into_iter();
        let output = outputs.find_map(|(_, path)| path);
        journal::path(file, output.as_deref()).map(Some)
    }

    /// What a file says, before it is heard.
    fn recording<B: Backend>(
        &self,
        model: &Voxtral<B>,
        file: &Path,
        options: &LongOptions,
    ) -> Result<Recording> {
        let decoder = input::open(file, false)?;
        let name = format!("{} {:?}", model.name(), self.args.compute.precision());
        let journal = match self.journal_path(file)? {
            Some(path) => Some(journal::open(&path, file, &name, options)?),
            None => None,
        };
        if let Some(journal) = journal.as_ref().filter(|journal| !journal.is_empty()) {
            let count = journal.len();
            notice(
                self.quiet,
                format_args!("going on behind {count} windows that were finished"),
            );
        }
        Ok(model.recording(decoder, options, journal)?)
    }

    /// Takes the journal of a file away that was finished.
    fn forget_journal(&self, file: &Path) -> Result<()> {
        match self.journal_path(file)? {
            Some(path) => fs::remove_file(&path)
                .with_context(|| format!("cannot delete the journal `{}`", path.display())),
            None => Ok(()),
        }
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
        let options = self.long_options(options);
        let jobs = self.files.iter().map(|file| {
            let _about = messages::about(&input::name(file));
            self.recording(model, file, &options)
        });
        let in_order = self.destination.is_stdout();
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut all_well = true;
        for (index, result) in model.transcribe_long_batch(jobs, size) {
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
                    long::tell_finished(&transcript, file, self.args.long.json_progress)?;
                    self.write(file, &transcript)?;
                    self.forget_journal(file)?;
                    Ok(self.tell(&transcript))
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
        if let Some(language) = self.args.translate {
            let decoder = input::open(file, model.is_streaming())?;
            let audio = Arc::new(model.read_decoder(decoder)?);
            let transcript = model.translate(&audio, language, options)?;
            self.write(file, &transcript)?;
            return Ok(self.tell(&transcript));
        }
        let transcript = if model.is_streaming() {
            let run = model.start_decoder(input::open(file, true)?, options)?;
            if self.destination.is_live() {
                stream(run)?
            } else {
                run.finish()?
            }
        } else {
            let recording = self.recording(model, file, &self.long_options(options))?;
            let show = Show {
                text: self.destination.is_live(),
                bar: !self.quiet,
                json: self.args.long.json_progress,
            };
            long::run(model.start_long(recording), file, show)?
        };
        if !self.destination.is_live() {
            self.write(file, &transcript)?;
        }
        if !model.is_streaming() {
            self.forget_journal(file)?;
        }
        Ok(self.tell(&transcript))
    }

    /// Writes a transcript where it belongs.
    fn write(&self, file: &Path, transcript: &Transcript) -> Result<()> {
        let name = file.display().to_string();
        let document = Document {
            transcript,
            name: Some(&name),
            task: self
                .args
                .translate
                .map_or(Done::Transcribe, Done::Translate),
        };
        for (format, path) in self.destination.outputs(file) {
            let written = format.render(&document, &self.layout)?;
            match path {
                Some(path) => {
                    output::write_file(&path, written.as_bytes())?;
                    notice(self.quiet, format_args!("wrote `{}`", path.display()));
                }
                None => output::print(&written)?,
            }
        }
        Ok(())
    }

    /// Tells on stderr what a person should know of a transcript, and returns whether all is well: of
    /// a file that breaks off, the text of what is there is written, but the run has failed, as it
    /// has under `--strict` where anything is doubtful. Of that, others have warned.
    fn tell(&self, transcript: &Transcript) -> bool {
        messages::tell_language(transcript.language_detected.as_ref());
        messages::tell_work(
            transcript.finish,
            transcript.tokens.len(),
            transcript.duration,
            &transcript.timings,
        );
        let doubtful = !transcript.gaps.is_empty() || !transcript.warnings.is_empty();
        !(transcript.truncated || self.args.long.strict && doubtful)
    }
}

/// Prints the text as it is decoded, then a line end.
fn stream<B: Backend>(mut run: Transcription<'_, B>) -> Result<Transcript> {
    if !output::stream(&mut run)? {
        output::print("\n")?;
    }
    Ok(run.finish()?)
}
