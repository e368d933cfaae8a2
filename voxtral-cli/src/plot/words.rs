//! Words on the time axis.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    prelude::{Circle, Color, PathElement, Pixel, RGBColor, Rectangle, Text},
    style::{
        BLACK, WHITE,
        text_anchor::{HPos, VPos},
    },
};
use voxtral_pipeline::{Transcript, Word};

use super::{Area, INK, Picture, Time, panels};
use crate::sound::Sound;

/// Rows of a lane: a box and the word below it.
const LANE: i32 = 44;
const BOX: i32 = 18;

/// The most lanes.
const MAX_LANES: usize = 6;

/// Columns of a character, roughly, and between two words.
const CHARACTER: i32 = 9;
const SPACE: i32 = 8;

/// The colour of a word: from red over yellow to blue, which all eyes can tell apart.
pub(super) fn color(confidence: Option<f32>) -> RGBColor {
    const STOPS: [(u8, u8, u8); 5] = [
        (215, 48, 39),
        (252, 141, 89),
        (254, 224, 144),
        (145, 191, 219),
        (69, 117, 180),
    ];
    match confidence {
        Some(confidence) => panels::blend(&STOPS, confidence),
        None => RGBColor(170, 170, 176),
    }
}

/// Words in lanes, so that their texts do not cover each other.
pub(super) struct Lanes<'a> {
    /// Each word, its lane, and whether its text has room.
    words: Vec<(&'a Word, usize, bool)>,
    lanes: usize,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(transcript: Option<&'a Transcript>, time: &Time) -> Result<Self> {
        let words = transcript.and_then(|it| it.words.as_deref());
        let mut free = [i32::MIN; MAX_LANES];
        let mut lanes = 1;
        let place = |word: &'a Word| {
            let left = time.column(word.start.as_secs_f64());
            let wide = word.word.chars().count() as i32 * CHARACTER;
            let lane = free.iter().position(|&free| free <= left);
            if let Some(lane) = lane {
                let right = time.column(word.end.as_secs_f64());
                free[lane] = right.max(left + wide) + SPACE;
                lanes = lanes.max(lane + 1);
            }
            (word, lane.unwrap_or(0), lane.is_some())
        };
        let words = words.unwrap_or_default().iter().map(place).collect();
        Ok(Self { words, lanes })
    }

    pub(super) fn height(&self) -> i32 {
        self.lanes as i32 * LANE + 16
    }

    pub(super) fn draw(
        &self,
        root: &Area<'_>,
        rows: Range<i32>,
        sound: &Sound,
        time: &Time,
    ) -> Result<()> {
        let rows = rows.start..rows.end - 8;
        panels::silences(root, &rows, sound, time)?;
        for (word, lane, room) in &self.words {
            let top = rows.start + 6 + *lane as i32 * LANE;
            let left = time.column(word.start.as_secs_f64());
            let right = time.column(word.end.as_secs_f64()).max(left + 2);
            let corners = [(left, top), (right, top + BOX)];
            root.draw(&Rectangle::new(corners, color(word.confidence).filled()))?;
            root.draw(&Rectangle::new(corners, INK.stroke_width(1)))?;
            if *room {
                let style = panels::text(15, INK, HPos::Left, VPos::Top);
                let at = (left, top + BOX + 5);
                root.draw(&Text::new(word.word.as_str(), at, style))?;
            }
        }
        panels::label(root, &rows, &["words"])?;
        panels::frame(root, &rows, time)
    }
}

/// Steps over time: the attention of each, if it is known, and the path through them; else words,
/// each in a row of its own.
pub(super) fn alignment(
    root: &Area<'_>,
    rows: Range<i32>,
    picture: &Picture<'_>,
    time: &Time,
) -> Result<()> {
    let rows = rows.start..rows.end - 8;
    let words = picture.transcript.and_then(|it| it.words.as_deref());
    let mut path = Vec::new();
    let label = if let Some(attention) = &picture.attention {
        let frames = attention.frames.max(1);
        let steps = attention.weights.len() / frames;
        let height = rows.end - rows.start;
        for column in time.columns() {
            let share = time.share(column).start;
            let frame = ((share * frames as f64) as usize).min(frames - 1);
            for row in 0..height {
                let step = row as usize * steps / height as usize;
                let weight = attention.weights.get(step * frames + frame);
                let pixel = (column, rows.start + row);
                let color = panels::heat(weight.copied().unwrap_or(0.0));
                root.draw(&Pixel::new(pixel, color))?;
            }
        }
        for (step, &frame) in attention.path.iter().enumerate() {
            let seconds = time.duration * (frame as f64 + 0.5) / frames as f64;
            path.push((time.column(seconds), middle(&rows, step, steps)));
        }
        "tokens"
    } else {
        let words = words.unwrap_or_default();
        for (index, word) in words.iter().enumerate() {
            let row = middle(&rows, index, words.len());
            path.push((time.column(word.start.as_secs_f64()), row));
            path.push((time.column(word.end.as_secs_f64()), row));
        }
        "words"
    };
    let over = if picture.attention.is_some() {
        WHITE
    } else {
        BLACK
    };
    for point in path.iter().filter(|_| path.len() < 400) {
        root.draw(&Circle::new(*point, 3, over.filled()))?;
    }
    root.draw(&PathElement::new(path, over.stroke_width(2)))?;
    panels::label(root, &rows, &["alignment", label, "downwards"])?;
    panels::frame(root, &rows, time)
}

/// The middle of a row among so many.
fn middle(rows: &Range<i32>, row: usize, count: usize) -> i32 {
    let height = f64::from(rows.end - rows.start);
    rows.start + ((row as f64 + 0.5) / count.max(1) as f64 * height) as i32
}
