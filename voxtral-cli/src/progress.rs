//! A bar for what takes long: one at a time, on a terminal only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use voxtral_pipeline::OnWindow;

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Bytes of files that are fetched.
    Fetching,
    /// Bytes of weights that are placed on the device.
    Loading,
    /// Bytes of quantized weights that are written.
    Quantizing,
    /// Windows of audio that are encoded.
    Encoding,
    /// Seconds of audio that are transcribed.
    Transcribing,
}

impl Stage {
    fn bar(self) -> ProgressBar {
        let (name, template) = match self {
            Self::Fetching => (
                "fetching",
                "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            ),
            Self::Loading => ("loading", "{prefix} {wide_bar} {bytes}/{total_bytes} {eta}"),
            Self::Quantizing => (
                "quantizing",
                "{prefix} {wide_bar} {bytes}/{total_bytes} {eta} {msg}",
            ),
            Self::Encoding => ("encoding", "{prefix} {wide_bar} {pos}/{len} windows {eta}"),
            Self::Transcribing => (
                "transcribing",
                "{prefix} {wide_bar} {pos}/{len} s {msg} {eta}",
            ),
        };
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style).with_prefix(name)
    }
}

type Shown = Option<(Stage, ProgressBar)>;

fn shown() -> MutexGuard<'static, Shown> {
    static SHOWN: Mutex<Shown> = Mutex::new(None);
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows how far this stage is, in place of another one's bar.
pub(crate) fn show(stage: Stage, done: u64, total: u64, detail: &str) {
    let mut shown = shown();
    if shown.as_ref().is_none_or(|(current, _)| *current != stage) {
        remove(&mut shown);
        *shown = Some((stage, stage.bar()));
    }
    if let Some((_, bar)) = shown.as_ref() {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(detail.to_owned());
    }
}

/// Shows how far the audio is.
pub(crate) fn on_window(stage: Stage) -> OnWindow {
    OnWindow::new(move |done, all| {
        if done < all {
            show(stage, done as u64, all as u64, "");
        } else {
            clear();
        }
    })
}

/// Takes the bar away.
pub(crate) fn clear() {
    remove(&mut shown());
}

/// Writes to the terminal without mixing it up with the bar.
pub(crate) fn without<T>(write: impl FnOnce() -> T) -> T {
    match shown().as_ref() {
        Some((_, bar)) => bar.suspend(write),
        None => write(),
    }
}

fn remove(shown: &mut Shown) {
    if let Some((_, bar)) = shown.take() {
        bar.finish_and_clear();
    }
}
