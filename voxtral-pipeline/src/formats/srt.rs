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
    // An arrow would be read as times.
    let text = cue.text(str::to_owned, word).replace("-->", "→");
    format!("{number}\n{start} --> {end}\n{text}\n\n")
}
