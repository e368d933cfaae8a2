//! A picture of what was heard: waveform, log-mel features and words over one time axis.

mod alignment;
mod panels;
mod png;
mod words;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, IntoDrawingArea, RGBColor, WHITE},
    style::{FontStyle, register_font},
};
use voxtral_pipeline::Transcript;

use crate::sound::Sound;

/// Columns for each second, where the picture does not grow too wide.
const PER_SECOND: f64 = 110.0;

/// The least and the greatest width.
const WIDTHS: (f64, f64) = (1200.0, 3600.0);

/// Columns before the time axis, for names and scales, and behind it.
const LEFT: i32 = 110;
const RIGHT: i32 = 30;

/// Rows of each part.
const HEADER: i32 = 74;
const WAVEFORM: i32 = 200;
const MEL: i32 = 260;
const AXIS: i32 = 40;
const LEGEND: i32 = 44;
const ALIGNMENT: i32 = 360;

/// The name under which the font is known.
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(30, 30, 34);
const SILENCE: RGBColor = RGBColor(226, 228, 232);
const GAP: RGBColor = RGBColor(214, 39, 40);
const DOUBT: RGBColor = RGBColor(230, 145, 20);

/// What is drawn.
pub(crate) struct Picture<'a> {
    pub(crate) name: &'a str,
    pub(crate) model: &'a str,
    pub(crate) sound: &'a Sound,
    /// What was heard; none if that failed.
    pub(crate) transcript: Option<&'a Transcript>,
    /// Whether words are drawn over time once more, each in a row of its own, with what it attends
    /// to, where that is kept.
    pub(crate) alignment: bool,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The picture as a PNG file.
pub(crate) fn draw(picture: &Picture<'_>) -> Result<Vec<u8>> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font in this program cannot be read"))?;
    let time = Time::new(picture.sound.duration);
    let words = words::Lanes::new(picture.transcript, &time)?;
    let alignment = if picture.alignment { ALIGNMENT } else { 0 };
    let height = HEADER + WAVEFORM + MEL + words.height() + alignment + AXIS + LEGEND;
    let size = (time.width as u32, height as u32);
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        panels(&root, picture, &time, &words).context("cannot draw the picture")?;
    }
    png::encode(&pixels, size).context("cannot make the picture a PNG")
}

fn panels(
    root: &Area<'_>,
    picture: &Picture<'_>,
    time: &Time,
    words: &words::Lanes<'_>,
) -> Result<()> {
    root.fill(&WHITE)?;
    panels::header(root, picture)?;
    let mut top = HEADER;
    let mut panel = |height: i32| {
        let rows = top..top + height;
        top += height;
        rows
    };
    panels::waveform(root, panel(WAVEFORM), picture.sound, time)?;
    panels::mel(root, panel(MEL), picture.sound, time)?;
    words.draw(root, panel(words.height()), picture.sound, time)?;
    if picture.alignment {
        alignment::draw(root, panel(ALIGNMENT), picture.transcript, time)?;
    }
    let drawn = HEADER..top;
    panels::doubts(root, drawn, picture.transcript, time)?;
    panels::axis(root, top, time)?;
    panels::legend(root, top + AXIS, picture)?;
    root.present()?;
    Ok(())
}

/// The time axis.
struct Time {
    duration: f64,
    /// Columns of the picture.
    width: i32,
}

impl Time {
    fn new(duration: Duration) -> Self {
        let duration = duration.as_secs_f64().max(1e-3);
        let width = (duration * PER_SECOND).clamp(WIDTHS.0, WIDTHS.1);
        Self {
            duration,
            width: width as i32,
        }
    }

    /// Columns that show sound.
    fn columns(&self) -> Range<i32> {
        LEFT..self.width - RIGHT
    }

    /// The column of a time in seconds.
    fn column(&self, seconds: f64) -> i32 {
        let columns = self.columns();
        let share = (seconds / self.duration).clamp(0.0, 1.0);
        columns.start + (share * f64::from(columns.end - columns.start)).round() as i32
    }

    /// What a column shows, as shares of the whole.
    fn share(&self, column: i32) -> Range<f64> {
        let columns = self.columns();
        let width = f64::from(columns.end - columns.start);
        let at = f64::from(column - columns.start) / width;
        at..at + 1.0 / width
    }
}

/// `h:mm:ss` of long times, seconds with fractions of short ones.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, rest) = (seconds / 60, seconds % 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{:.2} s", time.as_secs_f64()),
        (0, minutes) => format!("{minutes}:{rest:02}"),
        (hours, minutes) => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests;
