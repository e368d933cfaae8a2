//! Pieces of text that no line break parts, and lines of them.
//!
//! Where a line may break says Unicode (UAX #14), how wide a character is too (UAX #11): a line of
//! 42 columns holds 21 Chinese characters.

use std::ops::Range;

use unicode_linebreak::linebreaks;
use unicode_width::UnicodeWidthStr;

use super::clock::millis;
use crate::{Segment, Word};

/// Text that stays together: a word, or a part of one that is written without spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Whether a space stands before it.
    pub(super) spaced: bool,
    /// In milliseconds.
    pub(super) start: u64,
    pub(super) end: u64,
    /// The word that it belongs to, counted within the segment; none where words have no times.
    pub(super) word: Option<usize>,
}

impl Piece {
    pub(super) fn width(&self) -> usize {
        self.text.width()
    }

    fn space(&self) -> usize {
        usize::from(self.spaced)
    }
}

/// The pieces of a segment, in time. A segment whose words have no times shares its own among them
/// by their width.
pub(super) fn pieces(segment: &Segment) -> Vec<Piece> {
    if segment.words.is_empty() {
        let times = (millis(segment.start), millis(segment.end));
        return split(&segment.text, true, times, None);
    }
    let word = |(index, word): (usize, &Word)| {
        let times = (millis(word.start), millis(word.end));
        split(&word.word, word.spaced, times, Some(index))
    };
    let mut pieces: Vec<Piece> = segment.words.iter().enumerate().flat_map(word).collect();
    // Whatever the words say, time goes on.
    let mut now = 0;
    for piece in &mut pieces {
        piece.start = piece.start.max(now);
        piece.end = piece.end.max(piece.start);
        now = piece.start;
    }
    pieces
}

fn split(text: &str, spaced: bool, times: (u64, u64), word: Option<usize>) -> Vec<Piece> {
    let text = plain(text);
    let total = text.width().max(1) as u64;
    let (start, end) = (times.0, times.1.max(times.0));
    let at = |columns: usize| start + (end - start) * (columns as u64).min(total) / total;
    let (mut from, mut column, mut spaced) = (0, 0, spaced);
    let mut pieces = Vec::new();
    for (to, _) in linebreaks(&text) {
        let part = &text[from..to];
        let bare = part.trim_end();
        pieces.push(Piece {
            text: bare.to_owned(),
            spaced: std::mem::replace(&mut spaced, bare.len() < part.len()),
            start: at(column),
            end: at(column + bare.width()),
            word,
        });
        column += part.width();
        from = to;
    }
    pieces
}

/// Text on one line, of characters that can be seen.
pub(super) fn plain(text: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<_> = text.split(blank).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Columns of these pieces side by side.
pub(super) fn width(pieces: &[Piece]) -> usize {
    let widths = pieces.iter().map(|piece| piece.space() + piece.width());
    let first = pieces.first().map_or(0, Piece::space);
    widths.sum::<usize>() - first
}

/// Lines of at most `width` columns, as few as there can be and about equally long; of any width,
/// one line. A piece that is wider stands alone.
pub(super) fn lines(pieces: &[Piece], width: Option<usize>) -> Vec<Range<usize>> {
    let Some(width) = width else {
        return std::iter::once(0..pieces.len()).collect();
    };
    let fewest = fill(pieces, width).len();
    // The narrowest lines that are no more.
    let (mut narrow, mut wide) = (1, width);
    while narrow < wide {
        let middle = usize::midpoint(narrow, wide);
        if fill(pieces, middle).len() <= fewest {
            wide = middle;
        } else {
            narrow = middle + 1;
        }
    }
    fill(pieces, wide)
}

/// Fills line after line.
fn fill(pieces: &[Piece], width: usize) -> Vec<Range<usize>> {
    let mut lines: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let more = piece.space() + piece.width();
        match lines.last_mut() {
            Some(line) if used + more <= width => {
                line.end = index + 1;
                used += more;
            }
            _ => {
                lines.push(index..index + 1);
                used = piece.width();
            }
        }
    }
    lines
}
