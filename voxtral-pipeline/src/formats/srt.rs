//! SubRip: numbered cues.

use super::{clock::clock, cue::Cue};

/// A cue, the `number`-th counted from 1, of which one word may be underlined.
pub(super) fn entry(
    number: usize,
    (start, end): (u64, u64),
    cue: &Cue,
    word: Option<usize>,
) -> String {
    let (start, end) = (clock(start, ','), clock(end, ','));
    let text = cue.text(escape, word);
    format!("{number}\n{start} --> {end}\n{text}\n\n")
}

/// An arrow would be read as times.
fn escape(text: &str) -> String {
    text.replace("-->", "→")
}
