//! `voxtral transcribe`.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{
    Backend, Cancel, Decoder, Demo, Finish, OnWindow, SamplingOptions, TranscribeOptions,
    Transcript, Transcription, Voxtral,
};

use crate::{
    args::{Format, TranscribeArgs},
    backend::{Task, on_device},
    interrupt, load, messages, notice,
    output::{self, Destination},
    progress::{self, Stage},
    report,
};

/// The most that is read from stdin, in bytes; it is kept in memory.
const MAX_STDIN: u64 = 1 << 30;

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
        match check(file) {
            Ok(()) => openable.push(file.as_path()),
            Err(error) => report(&error),
        }
    }
    let failed = openable.len() < files.len();
    (openable, failed)
}

/// Whether an input is there, as far as can be told without reading.
fn check(file: &Path) -> Result<()> {
    let name = file.display();
    if is_stdin(file) {
        if io::stdin().is_terminal() {
            bail!("stdin is a terminal, expected audio: pipe a file into it");
        }
        return Ok(());
    }
    let found = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`{name}` does not exist: check the name")
        }
        found => found.with_context(|| format!("cannot open `{name}`"))?,
    };
    if found.is_dir() {
        bail!("`{name}` is a directory, expected an audio file: name the files in it");
    }
    // To open a pipe would disturb who writes into it.
    if found.is_file() {
        File::open(file).with_context(|| format!("cannot open `{name}`"))?;
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What messages call an input.
fn name(file: &Path) -> String {
    if is_stdin(file) {
        "stdin".to_owned()
    } else {
        file.display().to_string()
    }
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
            let _about = messages::about(&name(file));
            let outcome = self.transcribe(&model, file, &options);
            // An error leaves the bar where it was.
            progress::clear();
            match outcome {
                Ok(whole) => failed |= !whole,
                Err(_) if self.cancel.is_cancelled() => interrupt::stop(),
                Err(error) if output::is_closed(&error) => break,
                Err(error) => {
                    report(&error.context(format!("cannot transcribe `{}`", name(file))));
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
        OnWindow::new(move |done, all| {
            if done < all {
                progress::show(stage, done as u64, all as u64, "");
            } else {
                progress::clear();
            }
        })
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
        tell(&transcript);
        Ok(!transcript.truncated)
    }
}

/// What a person should know of a transcript, on stderr.
fn tell(transcript: &Transcript) {
    if transcript.finish == Finish::Length {
        tracing::warn!(
            "stopped after {} tokens, the text may be cut off (`--max-new-tokens`)",
            transcript.tokens.len()
        );
    }
    let timings = transcript.timings;
    tracing::info!(
        "{:.1?} of audio; features {:.2?}, encoder {:.2?}, prefill {:.2?}, decode {:.2?} for {} \
         tokens in {} passes",
        transcript.duration,
        timings.features,
        timings.encoder,
        timings.prefill,
        timings.decode,
        transcript.tokens.len(),
        timings.passes,
    );
}

/// Prints the text as it is decoded, then a line end.
fn stream<B: Backend>(mut run: Transcription<'_, B>) -> Result<Transcript> {
    let mut printed = false;
    let outcome = (|| -> Result<()> {
        for step in &mut run {
            let text = step?.text;
            printed |= !text.is_empty();
            output::print(&text)?;
        }
        Ok(())
    })();
    // A line that was begun is ended, also before an error.
    if outcome.is_ok() || printed {
        output::print("\n")?;
    }
    outcome?;
    Ok(run.finish()?)
}

/// Begins the transcription of a file, or of stdin.
fn start<'m, B: Backend>(
    model: &'m Voxtral<B>,
    file: &Path,
    options: &TranscribeOptions,
) -> Result<Transcription<'m, B>> {
    let decoder = if !is_stdin(file) {
        Decoder::open(file)?
    } else if model.is_streaming() {
        Decoder::from_stream(io::stdin()).context(
            "cannot read stdin as it comes: store it in a file first if it is MP4 or CAF",
        )?
    } else {
        Decoder::new(io::Cursor::new(read_stdin()?))?
    };
    Ok(model.start_decoder(decoder, options)?)
}

/// All of stdin: formats of clips are read by seeking.
fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut bytes)
        .context("cannot read stdin")?;
    if bytes.len() as u64 > MAX_STDIN {
        bail!("stdin is longer than {MAX_STDIN} bytes: store it in a file first");
    }
    Ok(bytes)
}
