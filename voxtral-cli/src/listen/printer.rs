//! Words on stdout, as they become known.

use std::time::Duration;

use anyhow::Result;
use voxtral_pipeline::{Format, Layout, SegmentWriter, Segmenter, Word};

use crate::output;

/// Prints words in one of the formats.
pub(crate) struct Printer {
    style: Style,
    segmenter: Segmenter,
}

enum Style {
    /// A line for each segment, that grows word by word.
    Text {
        /// Whether the line has a word.
        begun: bool,
    },
    /// An object for each word.
    Json,
    /// Subtitles or rows.
    Segments(SegmentWriter),
}

impl Printer {
    pub(crate) fn new(format: Format, layout: Layout) -> Self {
        let style = match SegmentWriter::new(format, layout) {
            Some(writer) => Style::Segments(writer),
            None if format == Format::Json => Style::Json,
            None => Style::Text { begun: false },
        };
        Self {
            style,
            segmenter: Segmenter::new(),
        }
    }

    /// Prints the next word, or keeps it until its segment is complete.
    pub(crate) fn word(&mut self, word: &Word) -> Result<()> {
        let complete = self.segmenter.push(word);
        match &mut self.style {
            Style::Text { begun } => {
                let before = match (*begun, complete.is_some()) {
                    (false, _) => "",
                    (true, true) => "\n",
                    (true, false) => word.separator(),
                };
                *begun = true;
                output::print(&format!("{before}{}", word.word))
            }
            Style::Json => output::print(&(serde_json::to_string(word)? + "\n")),
            Style::Segments(writer) => match complete {
                Some(segment) => output::print(&writer.push(&segment)),
                None => Ok(()),
            },
        }
    }

    /// Prints what is left of sound of this length: the end of the line, the last entries.
    pub(crate) fn finish(&mut self, heard: Duration) -> Result<()> {
        let last = self.segmenter.finish();
        match &mut self.style {
            Style::Text { begun: true } => output::print("\n"),
            Style::Text { begun: false } | Style::Json => Ok(()),
            Style::Segments(writer) => {
                let last = last.map(|segment| writer.push(&segment));
                output::print(&(last.unwrap_or_default() + &writer.finish(heard)))
            }
        }
    }
}
