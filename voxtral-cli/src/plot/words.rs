//! Words on the time axis.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    prelude::{Color, RGBColor, Rectangle, Text},
    style::text_anchor::{HPos, VPos},
};
use voxtral_pipeline::{Transcript, Word};

use super::{Area, INK, Time, panels};
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
