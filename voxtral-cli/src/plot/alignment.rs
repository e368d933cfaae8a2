//! Which word is heard when: a row for each word, downwards, over the time axis.
//!
//! Where the transcript keeps what the decoder attended to, it lies behind as a heat map, with the
//! path that the words take through it; in any case each word has a bar from its start to its end.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    prelude::{Circle, Color, PathElement, Pixel, RGBColor, Rectangle, Text},
    style::{
        WHITE,
        text_anchor::{HPos, VPos},
    },
};
use voxtral_pipeline::{Transcript, Word};

use super::{Area, INK, Time, panels};

/// The bar of a word, and the path through the attention: green beside the purple of the heat map.
pub(super) const SPAN: RGBColor = RGBColor(60, 200, 130);
pub(super) const PATH: RGBColor = WHITE;

/// The height of a row in which the word itself is written.
const WRITTEN: i32 = 15;

/// The height of a row in which a point of the path leaves room for what is behind it.
const POINTED: i32 = 9;

/// Columns between a bar and its word.
const SPACE: i32 = 6;

pub(super) fn draw(
    root: &Area<'_>,
    rows: Range<i32>,
    transcript: Option<&Transcript>,
    time: &Time,
) -> Result<()> {
    let rows = rows.start..rows.end - 8;
    let words = transcript.and_then(|it| it.words.as_deref());
    let lanes = Lanes {
        rows: rows.clone(),
        count: words.map_or(0, <[Word]>::len),
    };
    let words = words.unwrap_or_default();
    let attended = is_attended(transcript);
    if attended {
        heat(root, &lanes, words, time)?;
    }
    for (index, word) in words.iter().enumerate() {
        bar(root, &lanes.row(index), word, attended, time)?;
    }
    path(root, &lanes, words, time)?;
    panels::label(root, &rows, &["alignment", "words", "downwards"])?;
    panels::frame(root, &rows, time)
}

/// Whether words have kept what the decoder attended to.
pub(super) fn is_attended(transcript: Option<&Transcript>) -> bool {
    let words = transcript.and_then(|it| it.words.as_deref());
    let mut words = words.unwrap_or_default().iter();
    words.any(|word| word.attention.is_some())
}

/// The rows of words in a panel.
struct Lanes {
    rows: Range<i32>,
    count: usize,
}

impl Lanes {
    /// The rows of a word, at least one: words share them where there are many.
    fn row(&self, word: usize) -> Range<i32> {
        let height = f64::from(self.rows.end - self.rows.start);
        let top = |word: usize| (word as f64 / self.count.max(1) as f64 * height) as i32;
        let (start, end) = (top(word), top(word + 1));
        self.rows.start + start..self.rows.start + end.max(start + 1)
    }
}

/// The weights of all words, the greatest where they meet.
fn heat(root: &Area<'_>, lanes: &Lanes, words: &[Word], time: &Time) -> Result<()> {
    let (columns, rows) = (time.columns(), &lanes.rows);
    let width = (columns.end - columns.start) as usize;
    let mut weights = vec![0.0_f32; width * (rows.end - rows.start) as usize];
    for (index, word) in words.iter().enumerate() {
        let Some(attention) = &word.attention else {
            continue;
        };
        for (start, weight) in &attention.weights {
            let left = time.column(start.as_secs_f64());
            let right = time.column((*start + attention.stretch).as_secs_f64());
            for row in lanes.row(index) {
                let first = (row - rows.start) as usize * width;
                for column in left..right.max(left + 1).min(columns.end) {
                    let cell = &mut weights[first + (column - columns.start) as usize];
                    *cell = cell.max(*weight);
                }
            }
        }
    }
    for (row, weights) in rows.clone().zip(weights.chunks_exact(width)) {
        for (column, weight) in columns.clone().zip(weights) {
            root.draw(&Pixel::new((column, row), panels::heat(*weight)))?;
        }
    }
    Ok(())
}

/// A word's bar, and the word where there is room.
fn bar(root: &Area<'_>, row: &Range<i32>, word: &Word, on_heat: bool, time: &Time) -> Result<()> {
    let left = time.column(word.start.as_secs_f64());
    let right = time.column(word.end.as_secs_f64()).max(left + 1);
    let height = row.end - row.start;
    // What the attention is stays in sight.
    let top = row.end - (height / 4).max(1);
    let corners = [(left, top), (right, row.end)];
    root.draw(&Rectangle::new(corners, SPAN.filled()))?;
    if height < WRITTEN {
        return Ok(());
    }
    let color = if on_heat { WHITE } else { INK };
    let middle = (row.start + row.end) / 2;
    let probe = panels::text(14, color, HPos::Left, VPos::Center);
    let (wide, _) = root.estimate_text_size(&word.word, &probe)?;
    let behind = right + SPACE + (wide as i32) < time.columns().end;
    let (at, across) = match behind {
        true => (right + SPACE, HPos::Left),
        false => (left - SPACE, HPos::Right),
    };
    let style = panels::text(14, color, across, VPos::Center);
    root.draw(&Text::new(word.word.as_str(), (at, middle), style))?;
    Ok(())
}

/// The path through the words' places.
fn path(root: &Area<'_>, lanes: &Lanes, words: &[Word], time: &Time) -> Result<()> {
    let places = words.iter().enumerate().filter_map(|(index, word)| {
        let attention = word.attention.as_ref()?;
        let row = lanes.row(index);
        let place = attention.place + attention.stretch / 2;
        Some((time.column(place.as_secs_f64()), (row.start + row.end) / 2))
    });
    let places: Vec<_> = places.collect();
    let row = lanes.row(0);
    if row.end - row.start >= POINTED {
        for place in &places {
            root.draw(&Circle::new(*place, 3, PATH.filled()))?;
        }
    }
    root.draw(&PathElement::new(places, PATH.stroke_width(1)))?;
    Ok(())
}
