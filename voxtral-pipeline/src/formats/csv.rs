//! Columns `start`, `end` (in milliseconds), `text` and `confidence`, quoted as RFC 4180 says; a
//! row ends with a line feed.

use super::{clock::millis, wrap::plain};
use crate::Segment;

pub(super) const HEADER: &str = "start,end,text,confidence\n";

/// A row.
pub(super) fn entry(segment: &Segment) -> String {
    row(&[
        millis(segment.start).to_string(),
        millis(segment.end).to_string(),
        plain(&segment.text),
        segment
            .confidence
            .map_or_else(String::new, |confidence| format!("{confidence:.4}")),
    ])
}

fn row(fields: &[String]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Memory takes everything, and what goes in as UTF-8 comes out as UTF-8.
    let _ = writer.write_record(fields);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
