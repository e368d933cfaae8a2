//! A cue: what a subtitle shows from one time to another.

use std::ops::Range;

use super::wrap::Piece;

/// Text on lines, and when it is shown, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cue {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) pieces: Vec<Piece>,
    /// Which pieces stand on each line.
    pub(super) lines: Vec<Range<usize>>,
}

impl Cue {
    /// The lines, each character passed through `escape`, and the pieces of one word underlined.
    pub(super) fn text(&self, escape: fn(&str) -> String, underlined: Option<usize>) -> String {
        let lines = self.lines.iter().map(|line| {
            let mut text = String::new();
            for (index, piece) in self.pieces[line.clone()].iter().enumerate() {
                if index > 0 && piece.spaced {
                    text.push(' ');
                }
                let part = escape(&piece.text);
                if underlined.is_some() && piece.word == underlined {
                    text.push_str(&format!("<u>{part}</u>"));
                } else {
                    text.push_str(&part);
                }
            }
            text
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The cue in steps, one for each word while it is spoken and one for each pause: from when to
    /// when, and the word. All steps show the same text; together they are the cue.
    pub(super) fn steps(&self) -> Vec<(u64, u64, Option<usize>)> {
        let mut steps = Vec::new();
        let mut now = self.start;
        let mut step = |until: u64, word: Option<usize>| {
            let until = until.min(self.end);
            if until > now {
                steps.push((now, until, word));
                now = until;
            }
        };
        let words = self
            .pieces
            .chunk_by(|a, b| a.word.is_some() && a.word == b.word);
        for word in words {
            if let [first, ..] = word
                && first.word.is_some()
            {
                step(first.start, None);
                step(
                    word.iter().map(|piece| piece.end).max().unwrap_or(0),
                    first.word,
                );
            }
        }
        step(self.end, None);
        steps
    }
}
