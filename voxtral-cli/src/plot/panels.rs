//! Everything but the words.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use plotters::{
    prelude::{Color, IntoFont, PathElement, Pixel, RGBColor, Rectangle, Text, TextStyle},
    style::{
        WHITE,
        text_anchor::{HPos, Pos, VPos},
    },
};
use voxtral_pipeline::{Doubt, Transcript};

use super::{Area, DOUBT, FONT, GAP, INK, LEFT, Picture, SILENCE, Time, alignment, clock, words};
use crate::sound::Sound;

const WAVE: RGBColor = RGBColor(44, 82, 130);

/// Distance between two panels.
const MARGIN: i32 = 8;

/// A style of text; `across` and `down` say which point of it is named.
pub(super) fn text(size: i32, color: RGBColor, across: HPos, down: VPos) -> TextStyle<'static> {
    (FONT, size)
        .into_font()
        .color(&color)
        .pos(Pos::new(across, down))
}

/// A text beside a panel.
pub(super) fn label(root: &Area<'_>, rows: &Range<i32>, lines: &[&str]) -> Result<()> {
    let middle = (rows.start + rows.end) / 2 - 9 * (lines.len() as i32 - 1);
    for (line, at) in lines.iter().zip((middle..).step_by(18)) {
        let style = text(15, INK, HPos::Right, VPos::Center);
        root.draw(&Text::new(*line, (LEFT - 10, at), style))?;
    }
    Ok(())
}

pub(super) fn header(root: &Area<'_>, picture: &Picture<'_>) -> Result<()> {
    let sound = picture.sound;
    let title = text(22, INK, HPos::Left, VPos::Top);
    root.draw(&Text::new(picture.name, (LEFT, 14), title))?;
    let outcome = match picture.transcript {
        None => "no transcript".to_owned(),
        Some(transcript) => match &transcript.words {
            None => "the model tells no times".to_owned(),
            Some(words) => format!("{} words", words.len()),
        },
    };
    let about = format!(
        "{}, {} Hz · {} · speech {} · model {}: {outcome}",
        clock(sound.duration),
        sound.sample_rate,
        sound.level(),
        clock(sound.speech_time()),
        picture.model,
    );
    let style = text(16, INK, HPos::Left, VPos::Top);
    root.draw(&Text::new(about, (LEFT, 44), style))?;
    Ok(())
}

/// Grey where nothing is heard.
pub(super) fn silences(
    root: &Area<'_>,
    rows: &Range<i32>,
    sound: &Sound,
    time: &Time,
) -> Result<()> {
    for silence in sound.silences() {
        let corners = [
            (time.column(silence.start), rows.start),
            (time.column(silence.end), rows.end),
        ];
        root.draw(&Rectangle::new(corners, SILENCE.filled()))?;
    }
    Ok(())
}

/// The outline of a panel.
pub(super) fn frame(root: &Area<'_>, rows: &Range<i32>, time: &Time) -> Result<()> {
    let columns = time.columns();
    let corners = [(columns.start, rows.start), (columns.end, rows.end)];
    root.draw(&Rectangle::new(corners, INK.mix(0.5).stroke_width(1)))?;
    Ok(())
}

pub(super) fn waveform(
    root: &Area<'_>,
    rows: Range<i32>,
    sound: &Sound,
    time: &Time,
) -> Result<()> {
    let rows = rows.start..rows.end - MARGIN;
    silences(root, &rows, sound, time)?;
    let peak = sound.waveform.items.iter();
    let peak = peak.fold(0.0_f32, |peak, (low, high)| peak.max(-low).max(*high));
    let scale = if peak > 0.0 { 1.0 / peak } else { 1.0 };
    let (middle, half) = ((rows.start + rows.end) / 2, (rows.end - rows.start) / 2 - 4);
    let row = |sample: f32| middle - (sample * scale * half as f32).round() as i32;
    for column in time.columns() {
        let part = sound.waveform.part(time.share(column));
        let low = part.iter().map(|it| it.0).fold(f32::INFINITY, f32::min);
        let high = part.iter().map(|it| it.1).fold(f32::NEG_INFINITY, f32::max);
        if low <= high {
            let line = vec![(column, row(low)), (column, row(high))];
            root.draw(&PathElement::new(line, WAVE))?;
        }
    }
    label(root, &rows, &["waveform", &format!("±{peak:.3}")])?;
    frame(root, &rows, time)
}

pub(super) fn mel(root: &Area<'_>, rows: Range<i32>, sound: &Sound, time: &Time) -> Result<()> {
    let rows = rows.start..rows.end - MARGIN;
    let values = sound.mel.items.iter().flatten();
    let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| {
        (low.min(value), high.max(value))
    });
    let range = (high - low).max(1e-3);
    let height = rows.end - rows.start;
    for column in time.columns() {
        let part = sound.mel.part(time.share(column));
        let Some(bins) = part.first().map(Vec::len) else {
            continue;
        };
        for row in 0..height {
            // The lowest band is at the bottom.
            let bin = ((height - 1 - row) as usize * bins / height as usize).min(bins - 1);
            let value = part.iter().map(|it| it[bin]).fold(low, f32::max);
            let color = heat((value - low) / range);
            root.draw(&Pixel::new((column, rows.start + row), color))?;
        }
    }
    label(root, &rows, &["log-mel", "(high on top)"])?;
    frame(root, &rows, time)
}

/// From dark to bright, in the order of their lightness: a few colours of matplotlib's `magma`.
pub(super) fn heat(value: f32) -> RGBColor {
    const STOPS: [(u8, u8, u8); 6] = [
        (0, 0, 4),
        (59, 15, 112),
        (140, 41, 129),
        (222, 73, 104),
        (254, 159, 109),
        (252, 253, 191),
    ];
    blend(&STOPS, value)
}

/// A colour between neighbours of these, for 0 the first, for 1 the last.
pub(super) fn blend(stops: &[(u8, u8, u8)], value: f32) -> RGBColor {
    let last = stops.len().saturating_sub(1);
    let at = value.clamp(0.0, 1.0) * last as f32;
    let index = (at as usize).min(last.saturating_sub(1));
    let share = at - index as f32;
    let (a, b) = (stops[index], stops[(index + 1).min(last)]);
    let mix = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * share) as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Marks gaps and doubtful stretches across all panels.
pub(super) fn doubts(
    root: &Area<'_>,
    rows: Range<i32>,
    transcript: Option<&Transcript>,
    time: &Time,
) -> Result<()> {
    let Some(transcript) = transcript else {
        return Ok(());
    };
    let gaps = transcript.gaps.iter();
    let gaps = gaps.map(|it| (it.start, it.end, it.reason, GAP));
    let warnings = transcript.warnings.iter();
    let warnings = warnings.map(|it| (it.start, it.end, it.reason, DOUBT));
    for (start, end, reason, color) in gaps.chain(warnings) {
        mark(root, rows.clone(), (start, end), reason, color, time)?;
    }
    Ok(())
}

fn mark(
    root: &Area<'_>,
    rows: Range<i32>,
    (start, end): (Duration, Duration),
    reason: Doubt,
    color: RGBColor,
    time: &Time,
) -> Result<()> {
    let left = time.column(start.as_secs_f64());
    let right = time.column(end.as_secs_f64()).max(left + 1);
    let corners = [(left, rows.start), (right, rows.end)];
    root.draw(&Rectangle::new(corners, color.mix(0.18).filled()))?;
    root.draw(&Rectangle::new(corners, color.stroke_width(2)))?;
    let style = text(14, WHITE, HPos::Left, VPos::Top);
    let reason = format!("{reason:?}");
    let (width, _) = root.estimate_text_size(&reason, &style)?;
    if width as i32 + 8 < right - left {
        let plate = [
            (left, rows.start),
            (left + width as i32 + 8, rows.start + 18),
        ];
        root.draw(&Rectangle::new(plate, color.filled()))?;
        root.draw(&Text::new(reason, (left + 4, rows.start + 1), style))?;
    }
    Ok(())
}

/// Times below the panels.
pub(super) fn axis(root: &Area<'_>, top: i32, time: &Time) -> Result<()> {
    let step = step(time.duration / (f64::from(time.width) / 110.0));
    let count = (time.duration / step + 1e-9) as usize;
    for tick in 0..=count {
        let seconds = tick as f64 * step;
        let column = time.column(seconds);
        root.draw(&PathElement::new(
            vec![(column, top), (column, top + 6)],
            INK,
        ))?;
        let style = text(14, INK, HPos::Center, VPos::Top);
        root.draw(&Text::new(
            tick_label(seconds, step),
            (column, top + 9),
            style,
        ))?;
    }
    Ok(())
}

/// The least handsome step of at least so many seconds.
fn step(least: f64) -> f64 {
    const STEPS: [f64; 18] = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
        600.0, 1800.0, 3600.0,
    ];
    let found = STEPS.into_iter().find(|&step| step >= least);
    found.unwrap_or_else(|| (least / 3600.0).ceil() * 3600.0)
}

fn tick_label(seconds: f64, step: f64) -> String {
    if seconds >= 60.0 || step >= 60.0 {
        let whole = seconds.round() as u64;
        let (minutes, seconds) = (whole / 60, whole % 60);
        return match minutes / 60 {
            0 => format!("{minutes}:{seconds:02}"),
            hours => format!("{hours}:{:02}:{seconds:02}", minutes % 60),
        };
    }
    match step {
        step if step < 0.1 => format!("{seconds:.2} s"),
        step if step < 1.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// What the colours mean.
pub(super) fn legend(root: &Area<'_>, top: i32, picture: &Picture<'_>) -> Result<()> {
    let style = || text(14, INK, HPos::Left, VPos::Center);
    let middle = top + 18;
    let mut left = LEFT;
    let write = |words: &str, left: &mut i32| -> Result<()> {
        root.draw(&Text::new(words, (*left, middle), style()))?;
        *left += root.estimate_text_size(words, &style())?.0 as i32 + 10;
        Ok(())
    };
    write("confidence of words: 0", &mut left)?;
    for step in 0..100 {
        let line = vec![(left + step, middle - 8), (left + step, middle + 8)];
        root.draw(&PathElement::new(
            line,
            words::color(Some(step as f32 / 99.0)),
        ))?;
    }
    left += 110;
    write("1", &mut left)?;
    let mut patches = vec![
        ("not known", words::color(None)),
        ("silence", SILENCE),
        ("loud, no text", GAP),
        ("doubtful text", DOUBT),
    ];
    if picture.alignment {
        patches.push(("word", alignment::SPAN));
    }
    if picture.alignment && alignment::is_attended(picture.transcript) {
        patches.push(("attention", heat(0.6)));
        patches.push(("path", alignment::PATH));
    }
    for (words, color) in patches {
        left += 14;
        let patch = [(left, middle - 8), (left + 26, middle + 8)];
        root.draw(&Rectangle::new(patch, color.filled()))?;
        root.draw(&Rectangle::new(patch, INK.mix(0.5).stroke_width(1)))?;
        left += 34;
        write(words, &mut left)?;
    }
    Ok(())
}
