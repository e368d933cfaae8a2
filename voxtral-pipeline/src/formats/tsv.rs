//! Columns `start`, `end` (in milliseconds) and `text`, as Whisper's tools write them.

use super::{clock::millis, wrap::plain};
use crate::Segment;

pub(super) const HEADER: &str = "start\tend\ttext\n";

/// A row.
pub(super) fn entry(segment: &Segment) -> String {
    let (start, end) = (millis(segment.start), millis(segment.end));
    // A line end or a tab would end the column.
    format!("{start}\t{end}\t{}\n", plain(&segment.text))
}
