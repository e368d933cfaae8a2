//! `voxtral transcribe` with a model that takes clips: recordings of any length, window by window.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use voxtral_pipeline::{Backend, Gap, LongEvent, LongTranscription, Transcript, Warning};

use crate::{
    input, messages, output,
    progress::{self, Stage},
};

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    /// The text goes to stdout as it grows.
    pub(crate) text: bool,
    /// A bar on the terminal.
    pub(crate) bar: bool,
    /// JSON lines on stderr.
    pub(crate) json: bool,
}

/// Runs a transcription to its end.
pub(crate) fn run<B: Backend>(
    mut run: LongTranscription<'_, B>,
    file: &Path,
    show: Show,
) -> Result<Transcript> {
    let mut shown = Shown {
        file: input::name(file),
        show,
        begun: Instant::now(),
        from_journal: Duration::ZERO,
        printed: false,
    };
    let outcome = run.by_ref().try_for_each(|event| shown.tell(&event?));
    if show.text && (shown.printed || outcome.is_ok()) {
        progress::without(|| output::print("\n"))?;
    }
    outcome?;
    Ok(run.finish()?)
}

/// Tells of the doubts of a transcript, as [`run`] does while it goes on, and with `json` that it is
/// finished.
pub(crate) fn tell_finished(transcript: &Transcript, file: &Path, json: bool) -> Result<()> {
    if !json {
        transcript.warnings.iter().for_each(messages::tell_warning);
        transcript.gaps.iter().for_each(messages::tell_gap);
        return Ok(());
    }
    let file = &*input::name(file);
    for warning in &transcript.warnings {
        messages::json(&Line::Warning { file, warning })?;
    }
    for gap in &transcript.gaps {
        messages::json(&Line::Gap { file, gap })?;
    }
    let seconds = transcript.duration.as_secs_f64();
    messages::json(&Line::Progress {
        file,
        done: seconds,
        total: Some(seconds),
        speed: None,
        left: Some(0.0),
    })
}

struct Shown {
    file: String,
    show: Show,
    begun: Instant,
    /// Audio that was done before this run.
    from_journal: Duration,
    printed: bool,
}

/// A line of `--json-progress`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    /// Seconds of audio, and seconds of it per second of work.
    Progress {
        file: &'a str,
        done: f64,
        total: Option<f64>,
        speed: Option<f64>,
        left: Option<f64>,
    },
    Gap {
        file: &'a str,
        #[serde(flatten)]
        gap: &'a Gap,
    },
    Warning {
        file: &'a str,
        #[serde(flatten)]
        warning: &'a Warning,
    },
}

impl Shown {
    fn tell(&mut self, event: &LongEvent) -> Result<()> {
        let file = &*self.file;
        match event {
            LongEvent::Text(text) if self.show.text => {
                self.printed = true;
                progress::without(|| output::print(text))?;
            }
            LongEvent::Gap(gap) if self.show.json => messages::json(&Line::Gap { file, gap })?,
            LongEvent::Gap(gap) => messages::tell_gap(gap),
            LongEvent::Warning(warning) if self.show.json => {
                messages::json(&Line::Warning { file, warning })?;
            }
            LongEvent::Warning(warning) => messages::tell_warning(warning),
            LongEvent::Progress {
                done,
                total,
                from_journal,
            } => self.progress(*done, *total, *from_journal)?,
            _ => {}
        }
        Ok(())
    }

    fn progress(
        &mut self,
        done: Duration,
        total: Option<Duration>,
        from_journal: bool,
    ) -> Result<()> {
        if from_journal {
            self.from_journal = done;
        }
        let took = self.begun.elapsed().as_secs_f64();
        let heard = done.saturating_sub(self.from_journal).as_secs_f64();
        let speed = (heard > 0.0 && took > 0.0).then(|| heard / took);
        if self.show.json {
            let behind = total.map(|total| total.saturating_sub(done).as_secs_f64());
            return messages::json(&Line::Progress {
                file: &self.file,
                done: done.as_secs_f64(),
                total: total.map(|total| total.as_secs_f64()),
                speed,
                left: behind.zip(speed).map(|(behind, speed)| behind / speed),
            });
        }
        if let (true, Some(total)) = (self.show.bar, total)
            && done < total
        {
            let speed = speed
                .map(|speed| format!("{speed:.1}x"))
                .unwrap_or_default();
            progress::show(Stage::Transcribing, done.as_secs(), total.as_secs(), &speed);
        } else {
            progress::clear();
        }
        Ok(())
    }
}
