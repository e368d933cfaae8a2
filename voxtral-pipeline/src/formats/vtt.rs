//! WebVTT, <https://www.w3.org/TR/webvtt1/>.

use super::{clock::clock, cue::Cue};

pub(super) const HEADER: &str = "WEBVTT\n\n";

/// A cue, of which one word may be underlined.
pub(super) fn entry((start, end): (u64, u64), cue: &Cue, word: Option<usize>) -> String {
    let (start, end) = (clock(start, '.'), clock(end, '.'));
    let text = cue.text(escape, word);
    format!("{start} --> {end}\n{text}\n\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
