//! `voxtral listen`.

#[cfg(feature = "mic")]
mod mic;
mod printer;
mod source;

use std::process::ExitCode;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use voxtral_pipeline::{
    Backend, ContextBias, Demo, FeedReader, Layout, SamplingOptions, Session, SessionOptions, Step,
    feed,
};

use crate::{
    args::ListenArgs,
    backend::{Task, on_device},
    interrupt::{self, Graceful},
    load, notice, output, report,
};
use printer::Printer;
use source::{Found, Source, Whole};

/// Sound that may wait for the model. What cannot wait longer is lost, with a warning.
const WAITING: Duration = Duration::from_secs(30);

/// A live session that is behind by this much says so; again when it is twice as much.
const BEHIND: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &ListenArgs, quiet: bool) -> Result<ExitCode> {
    let graceful = interrupt::watch_gracefully()?;
    let layout = args.layout.layout(&[args.format])?;
    let found = source::find(args)?;
    let bias = args.context.bias()?;
    load::set_threads(args.compute.threads)?;
    load::tell_demo(args.model.name_or(Demo::Realtime), quiet);
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        args,
        layout,
        found,
        bias,
        quiet,
        graceful,
    };
    on_device(args.compute.device, announce, work)
}

/// A run, before its backend is known.
struct Work<'a> {
    args: &'a ListenArgs,
    layout: Layout,
    found: Found<'a>,
    bias: Option<ContextBias>,
    quiet: bool,
    graceful: Graceful,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let name = args.model.name_or(Demo::Realtime);
        let model = load::open::<B>(name, device, args.compute.precision(), self.quiet)?;
        if !model.is_streaming() {
            bail!(
                "`{name}` takes whole clips, not live sound: choose a Realtime model, as `--model \
                 realtime`, or use `voxtral transcribe`"
            );
        }
        if let Some(language) = args.language {
            tracing::warn!(
                "the language `{language}` is ignored: a Realtime model finds it out by itself"
            );
        }
        let source = Source::open(self.found)?;
        let rate = source.sample_rate();
        let mut session = model.session(&SessionOptions {
            delay: args.delay,
            sample_rate: Some(rate),
            sampling: SamplingOptions {
                context_bias: self.bias,
                ..Default::default()
            },
            discard: true,
            ..Default::default()
        })?;
        let live = source.is_live();
        let (writer, reader) = feed(rate, if live { WAITING } else { WAITING / 10 });
        let interrupted = Arc::new(AtomicBool::new(false));
        let (stopper, flag) = (reader.stopper(), Arc::clone(&interrupted));
        self.graceful.set(move || {
            flag.store(true, Ordering::Relaxed);
            stopper.stop();
        });
        notice(self.quiet, format_args!("listening to {}", source.name()));
        let recorder = thread::spawn(move || source.record(&writer));
        let mut printer = Printer::new(args.format, self.layout);
        let heard = listen(&mut session, reader, &mut printer, live, &interrupted);
        let interrupted = interrupted.load(Ordering::Relaxed);
        let lost = match heard {
            Err(error) if output::is_closed(&error) => return Ok(ExitCode::SUCCESS),
            heard => heard?,
        };
        if interrupted {
            report(&anyhow!("interrupted; all that was heard is printed"));
            return Ok(interrupt::exit_code());
        }
        let recorded = recorder
            .join()
            .map_err(|_| anyhow!("recording ended in a panic"))?;
        let whole = recorded.context("listening ended early; all that was heard is printed")?;
        Ok(if whole == Whole::Yes && !lost {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Prints what is heard until the source ends or the user has enough, then what is behind the
/// delay; tells whether sound was lost. Whatever goes wrong, what is known is printed first.
fn listen<B: Backend>(
    session: &mut Session<'_, B>,
    mut reader: FeedReader,
    printer: &mut Printer,
    live: bool,
    interrupted: &AtomicBool,
) -> Result<bool> {
    let mut samples = Vec::new();
    let mut warned = Duration::ZERO;
    let mut lost = Duration::ZERO;
    let mut failure = None;
    while !interrupted.load(Ordering::Relaxed) && reader.read(&mut samples) {
        if let Err(error) = push(session, &samples, printer, interrupted) {
            failure = Some(error);
            break;
        }
        let behind = reader.behind();
        if live && behind >= BEHIND.max(2 * warned) {
            warned = behind;
            tracing::warn!(
                "{behind:.1?} behind: the machine cannot follow (a smaller model, a GPU or \
                 `--threads` may help)"
            );
        }
        if reader.lost() > lost {
            lost = reader.lost();
            tracing::warn!("{lost:.1?} of sound lost so far: the machine cannot follow");
        }
    }
    // Whoever still records may stop.
    drop(reader);
    match session.flush() {
        Ok(steps) => print(printer, &steps)?,
        Err(error) => failure = failure.or(Some(error.into())),
    }
    printer.finish(session.received())?;
    match failure {
        Some(error) => Err(error),
        None => Ok(!lost.is_zero()),
    }
}

/// Pushes in pieces that are computed at once, so that words are printed as soon as they are known.
fn push<B: Backend>(
    session: &mut Session<'_, B>,
    samples: &[f32],
    printer: &mut Printer,
    interrupted: &AtomicBool,
) -> Result<()> {
    let piece = session.samples_per_pass();
    for samples in samples.chunks(piece) {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let steps = session.push(samples);
        print(printer, &session.take_steps())?;
        print(printer, &steps?)?;
    }
    Ok(())
}

fn print(printer: &mut Printer, steps: &[Step]) -> Result<()> {
    for word in steps.iter().flat_map(|step| &step.words) {
        printer.word(word)?;
    }
    Ok(())
}
