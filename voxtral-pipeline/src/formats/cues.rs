//! Segments to cues that can be read.
//!
//! Whatever the segments say, cues begin in order, never overlap, and last. One that is shown for
//! less time than it takes to read stays longer, into the silence behind it but never over the next;
//! one that would only flash up joins a neighbour. No cue begins before its first word.
//!
//! The figures are those of Netflix's Timed Text Style Guide (general requirements and the
//! English template): a subtitle lasts at least 5/6 s and at most 7 s, and adults read up to 20
//! characters a second. A wide character counts for two, which gives Chinese and Japanese 10.

use super::{
    Layout,
    cue::Cue,
    wrap::{self, Piece},
};
use crate::{
    Segment,
    segments::{LONGEST, MAX_CHARACTERS, PAUSE},
};

/// The shortest time that a person can take a subtitle in, in milliseconds.
pub(super) const SHORTEST: u64 = 834;

/// Columns that a person reads in a second.
pub(super) const COLUMNS_PER_SECOND: u64 = 20;

/// The time that it takes to read so many columns.
pub(super) fn reading_time(columns: usize) -> u64 {
    SHORTEST.max((columns as u64 * 1000).div_ceil(COLUMNS_PER_SECOND))
}

/// Makes cues of segments as they come. A cue is known when the two behind it have begun.
#[derive(Debug, Clone)]
pub(super) struct Cues {
    layout: Layout,
    /// The last cue whose end is known; it may still take in the next.
    settled: Option<Cue>,
    /// The last cue.
    open: Option<Cue>,
}

impl Cues {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            settled: None,
            open: None,
        }
    }

    /// Takes the next segment and gives the cues that are now known.
    pub(super) fn push(&mut self, segment: &Segment) -> Vec<Cue> {
        let mut known = Vec::new();
        for cue in self.parts(segment) {
            known.extend(self.follow(cue));
        }
        known
    }

    /// Gives the cues that are left; the last may stay until the sound ends, in milliseconds.
    pub(super) fn finish(&mut self, end: u64) -> Vec<Cue> {
        let mut known = Vec::new();
        if let Some(mut open) = self.open.take() {
            let until = end.max(open.end);
            stay(&mut open, until);
            known.extend(self.settle(open, until));
        }
        known.extend(self.settled.take());
        known
    }

    /// A segment as cues of as many lines as the layout permits.
    fn parts(&self, segment: &Segment) -> Vec<Cue> {
        let mut pieces = wrap::pieces(segment);
        pieces.retain(|piece| !piece.text.is_empty());
        if pieces.is_empty() {
            return Vec::new();
        }
        let lines = self.lines(&pieces);
        let count = match (self.layout.max_line_width, self.layout.max_line_count) {
            (Some(_), Some(count)) => count.get(),
            _ => lines.len(),
        };
        let part = |lines: &[std::ops::Range<usize>]| {
            let (first, last) = (lines.first()?.start, lines.last()?.end);
            Some(self.cue(pieces[first..last].to_vec()))
        };
        lines.chunks(count).filter_map(part).collect()
    }

    fn lines(&self, pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
        wrap::lines(pieces, self.layout.max_line_width.map(usize::from))
    }

    fn cue(&self, pieces: Vec<Piece>) -> Cue {
        let start = pieces.first().map_or(0, |piece| piece.start);
        let end = pieces.iter().map(|piece| piece.end).max();
        Cue {
            start,
            end: end.unwrap_or(start),
            lines: self.lines(&pieces),
            pieces,
        }
    }

    /// Ends the open cue before this one begins, which is then the open one; gives a cue that is
    /// known.
    fn follow(&mut self, mut next: Cue) -> Option<Cue> {
        let Some(mut open) = self.open.take() else {
            self.open = Some(next);
            return None;
        };
        next.start = next.start.max(open.start);
        next.end = next.end.max(next.start);
        open.end = open.end.min(next.start);
        stay(&mut open, next.start);
        if open.end - open.start < SHORTEST
            && let Some(both) = self.join(&open, &next)
        {
            self.open = Some(both);
            return None;
        }
        let known = self.settle(open, next.start);
        let shown = self.settled.as_ref().map_or(0, |cue| cue.end);
        next.start = next.start.max(shown);
        next.end = next.end.max(next.start);
        self.open = Some(next);
        known
    }

    /// Keeps a cue that may stay until then, or joins it to the one before; gives one that is known.
    fn settle(&mut self, mut cue: Cue, until: u64) -> Option<Cue> {
        // What has no time at all is given the least that can be written.
        cue.end = cue.end.max(cue.start + 1);
        if cue.end - cue.start < SHORTEST
            && let Some(before) = &self.settled
            && let Some(mut both) = self.join(before, &cue)
        {
            stay(&mut both, until);
            self.settled = Some(both);
            return None;
        }
        self.settled.replace(cue)
    }

    /// Two cues as one, where it is not too long and there is no pause between them.
    fn join(&self, one: &Cue, other: &Cue) -> Option<Cue> {
        let pieces = [one.pieces.as_slice(), &renumbered(one, other)].concat();
        let spoken = one.pieces.iter().map(|piece| piece.end).max()?;
        let cue = Cue {
            start: one.start,
            end: other.end,
            lines: self.lines(&pieces),
            pieces,
        };
        let fits = match (self.layout.max_line_width, self.layout.max_line_count) {
            (Some(_), Some(count)) => cue.lines.len() <= count.get(),
            _ => wrap::width(&cue.pieces) <= MAX_CHARACTERS,
        };
        let fits = fits
            && u128::from(cue.end - cue.start) <= LONGEST.as_millis()
            && u128::from(other.start.saturating_sub(spoken)) < PAUSE.as_millis();
        fits.then_some(cue)
    }
}

/// Lets a cue stay as long as it takes to read, if that is possible.
fn stay(cue: &mut Cue, until: u64) {
    let needed = cue.start + reading_time(wrap::width(&cue.pieces));
    cue.end = cue.end.max(needed.min(until));
}

/// The pieces of a cue whose words are counted on behind those of the one before.
fn renumbered(before: &Cue, cue: &Cue) -> Vec<Piece> {
    let first = before.pieces.iter().filter_map(|piece| piece.word).max();
    let shift = first.map_or(0, |last| last + 1);
    let renumber = |piece: &Piece| Piece {
        word: piece.word.map(|word| word + shift),
        ..piece.clone()
    };
    cue.pieces.iter().map(renumber).collect()
}

#[cfg(test)]
mod tests;
