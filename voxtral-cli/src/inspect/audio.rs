//! What is in an audio file: its form, its level, how much of it is speech, and a picture.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use voxtral_audio::MelConfig;
use voxtral_pipeline::{
    Backend, Cancel, Demo, LongOptions, TranscribeOptions, Transcript, Voxtral,
};

use crate::{
    args::InspectArgs,
    backend::{Task, on_device},
    input, interrupt, load, notice,
    output::{self, check_writable, is_same_file, is_special, parent},
    plot::{self, Picture},
    report,
    sound::Sound,
};

/// Prints what is in a file; draws it where asked.
pub(super) fn run(file: &Path, args: &InspectArgs, quiet: bool) -> Result<ExitCode> {
    let Some(picture) = &args.plot else {
        let sound = read(file, None)?;
        output::print(&describe(file, &sound)?)?;
        return Ok(code(!sound.truncated));
    };
    check_picture(picture, file)?;
    input::check(file)?;
    let cancel = interrupt::watch()?;
    load::set_threads(args.compute.threads)?;
    load::tell_demo(args.model.name_or(Demo::Clips), quiet);
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        file,
        picture,
        args,
        quiet,
        cancel,
    };
    on_device(args.compute.device, announce, work)
}

fn code(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Fails if no picture can be written there; finds it out before any work.
fn check_picture(picture: &Path, file: &Path) -> Result<()> {
    let shown = picture.display();
    if picture.is_dir() {
        bail!("`{shown}` is a folder, expected a file to write: choose another name");
    }
    if is_special(picture) {
        return Ok(());
    }
    if !picture
        .extension()
        .is_some_and(|it| it.eq_ignore_ascii_case("png"))
    {
        bail!("`{shown}` does not end in `.png`, the only kind of picture that is drawn");
    }
    if is_same_file(picture, file) {
        bail!("the picture would overwrite the input `{shown}`: choose another name");
    }
    check_writable(parent(picture))
}

fn read(file: &Path, mel: Option<MelConfig>) -> Result<Sound> {
    let read = || Sound::read(input::open(file, false)?, mel);
    read().with_context(|| format!("cannot read `{}`", file.display()))
}

/// A picture to be drawn, before its backend is known.
struct Work<'a> {
    file: &'a Path,
    picture: &'a Path,
    args: &'a InspectArgs,
    quiet: bool,
    cancel: Cancel,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let name = args.model.name_or(Demo::Clips);
        let model = load::open::<B>(name, device, args.compute.precision(), self.quiet)?;
        let features = &model.config().features;
        let sound = read(
            self.file,
            Some(MelConfig {
                sample_rate: features.sample_rate,
                window_size: features.window_size,
                hop_length: features.hop_length,
                num_mel_bins: features.num_mel_bins,
            }),
        )?;
        output::print(&describe(self.file, &sound)?)?;
        // What cannot be transcribed is worth a picture all the more.
        let transcript = match self.transcribe(&model) {
            Err(_) if self.cancel.is_cancelled() => interrupt::stop(),
            Ok(transcript) => Some(transcript),
            Err(error) => {
                report(&error.context(format!("cannot transcribe `{}`", self.file.display())));
                None
            }
        };
        if transcript.as_ref().is_some_and(|it| it.words.is_none()) {
            notice(
                self.quiet,
                format_args!("`{name}` tells no times: the picture has no words"),
            );
        }
        let picture = Picture {
            name: &input::name(self.file),
            model: name,
            sound: &sound,
            transcript: transcript.as_ref(),
            alignment: args.alignment,
        };
        output::write_file(self.picture, &plot::draw(&picture)?)?;
        notice(
            self.quiet,
            format_args!("wrote `{}`", self.picture.display()),
        );
        Ok(code(transcript.is_some() && !sound.truncated))
    }
}

impl Work<'_> {
    fn transcribe<B: Backend>(&self, model: &Voxtral<B>) -> Result<Transcript> {
        let options = TranscribeOptions {
            word_times: true,
            keeps_attention: self.args.alignment,
            cancel: self.cancel.clone(),
            ..TranscribeOptions::default()
        };
        let decoder = input::open(self.file, false)?;
        if model.is_streaming() {
            return Ok(model.start_decoder(decoder, &options)?.finish()?);
        }
        let options = LongOptions {
            transcribe: options,
            ..LongOptions::default()
        };
        let recording = model.recording(decoder, &options, None)?;
        Ok(model.start_long(recording).finish()?)
    }
}

/// A line for each figure.
fn describe(file: &Path, sound: &Sound) -> Result<String> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<11} {value}");
    line("file", &file.display().to_string())?;
    let channels = match sound.channels {
        1 => "1 channel".to_owned(),
        count => format!("{count} channels, averaged"),
    };
    line("format", &format!("{} Hz, {channels}", sound.sample_rate))?;
    let whole = if sound.truncated {
        ", then it breaks off"
    } else {
        ""
    };
    line(
        "duration",
        &format!("{}{whole}", plot::clock(sound.duration)),
    )?;
    line("level", &sound.level())?;
    line("sound", &share(sound.sound_time(), sound.duration))?;
    line("speech", &share(sound.speech_time(), sound.duration))?;
    Ok(text)
}

/// `12.3 s, 45 % of it`
fn share(part: Duration, whole: Duration) -> String {
    let percent = 100.0 * part.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
    format!("{}, {percent:.0} %", plot::clock(part))
}
