//! `voxtral transcribe`.

use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use voxtral_pipeline::{Audio, Backend, Finish, TranscribeOptions, Transcript, Voxtral};

use crate::{
    args::{DEMO, Format, TranscribeArgs},
    backend::{Task, on_device},
    interrupt, load, notice,
    output::{self, Destination},
    report,
};

pub(crate) fn run(args: &TranscribeArgs, quiet: bool) -> Result<ExitCode> {
    let destination = Destination::of(args)?;
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("cannot start the threads")?;
    }
    if args.model.model == DEMO {
        notice(
            quiet,
            format_args!(
                "using the built-in demo model: it understands spoken digits, one to eight in a \
                 row, in English, French, German and Spanish; `--model mini` fetches the real one"
            ),
        );
    }
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        args,
        quiet,
        destination,
    };
    on_device(args.device, announce, work)
}

/// A run, before its backend is known.
struct Work<'a> {
    args: &'a TranscribeArgs,
    quiet: bool,
    destination: Destination,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let cancel = interrupt::cancel_on_ctrl_c()?;
        let model = load::open::<B>(&args.model.model, device, args.dtype.into(), self.quiet)?;
        let options = TranscribeOptions {
            language: args.language,
            temperature: args.temperature,
            seed: args.seed,
            max_new_tokens: args.max_new_tokens.map(|tokens| tokens as usize),
            cancel: cancel.clone(),
        };
        let mut failed = false;
        for file in &args.files {
            match self.transcribe(&model, file, &options) {
                Ok(()) => {}
                Err(_) if cancel.is_cancelled() => {
                    notice(false, format_args!("interrupted"));
                    return Ok(ExitCode::from(interrupt::EXIT_CODE));
                }
                Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
                Err(error) => {
                    report(&error.context(file.display().to_string()));
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
    fn transcribe<B: Backend>(
        &self,
        model: &Voxtral<B>,
        file: &Path,
        options: &TranscribeOptions,
    ) -> Result<()> {
        let audio = read(model, file)?;
        let format = self.args.format;
        let transcript = match self.destination.path(file, format) {
            Some(path) => {
                let transcript = model.transcribe(&audio, options)?;
                output::write_file(&path, &output::render(format, file, &transcript)?)?;
                transcript
            }
            None if format == Format::Text => stream(model, &audio, options)?,
            None => {
                let transcript = model.transcribe(&audio, options)?;
                output::print(&output::render(format, file, &transcript)?)?;
                transcript
            }
        };
        self.tell(file, &transcript);
        Ok(())
    }

    /// What a person should know of a transcript, on stderr.
    fn tell(&self, file: &Path, transcript: &Transcript) {
        if transcript.finish == Finish::Length {
            notice(
                self.quiet,
                format_args!(
                    "warning: {}: stopped after {} tokens, the text may be cut off \
                     (`--max-new-tokens`)",
                    file.display(),
                    transcript.tokens.len()
                ),
            );
        }
        let timings = transcript.timings;
        tracing::info!(
            "{}: {:.1?} of audio; features {:.2?}, encoder {:.2?}, prefill {:.2?}, decode {:.2?} \
             for {} tokens",
            file.display(),
            transcript.duration,
            timings.features,
            timings.encoder,
            timings.prefill,
            timings.decode,
            transcript.tokens.len(),
        );
    }
}

/// Prints the text as it is decoded, then a line end.
fn stream<B: Backend>(
    model: &Voxtral<B>,
    audio: &Audio,
    options: &TranscribeOptions,
) -> Result<Transcript> {
    let mut run = model.start(audio, options)?;
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

fn read<B: Backend>(model: &Voxtral<B>, file: &Path) -> Result<Audio> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read stdin")?;
        Ok(Audio::from_bytes(bytes, model.sample_rate())?)
    } else {
        Ok(model.read_audio(file)?)
    }
}

/// The reader of stdout went away, as `head` does: no reason to complain.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
