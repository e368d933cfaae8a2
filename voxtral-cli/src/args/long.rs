//! Long files, and what to make of doubtful text.

use std::time::Duration;

use clap::{Args, ValueEnum};
use voxtral_pipeline::Vad;

/// The options of `transcribe` for files of any length.
#[derive(Debug, Args)]
#[command(next_help_heading = "Long files")]
pub(crate) struct LongArgs {
    /// Which sound is heard: `auto` leaves out windows in which nothing rises above the noise, `on`
    /// all that is not speech, `off` nothing. A Realtime model hears everything.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) vad: Option<VadArg>,
    /// Cut the audio into windows of at most so many seconds, 1 to 1800; by default as much as the
    /// model hears at once, 30.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) window: Option<Duration>,
    /// Exit with 1 if any sound has no text or any text is doubtful. Words are timed in every format,
    /// so that speech without a word is found within a text too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Keep a journal of finished windows beside the output, and go on where an earlier run with this
    /// option was stopped. It is deleted at the end.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Tell how far the work is in JSON lines on stderr, for programs; of files that are transcribed
    /// together, when each is finished.
    #[arg(long)]
    pub(crate) json_progress: bool,
}

/// A number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (1.0..=1800.0).contains(s));
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "expected seconds, 1 to 1800".to_owned())
}

/// When sound is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VadArg {
    /// Where it rises above the noise.
    Auto,
    /// Where it is speech.
    On,
    /// Always.
    Off,
}

impl From<VadArg> for Vad {
    fn from(vad: VadArg) -> Self {
        match vad {
            VadArg::Auto => Self::Auto,
            VadArg::On => Self::On,
            VadArg::Off => Self::Off,
        }
    }
}
