//! Words on stdout, as they become known.

use anyhow::Result;
use voxtral_pipeline::{Segmenter, SubtitleFormat, Word};

use crate::{args::Format, output};

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
    /// An entry for each segment.
    Subtitles {
        format: SubtitleFormat,
        /// Entries printed so far.
        count: usize,
    },
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        let style = match format.subtitles() {
            Some(format) => Style::Subtitles { format, count: 0 },
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
            Style::Subtitles { format, count } => {
                let Some(segment) = complete else {
                    return Ok(());
                };
                *count += 1;
                output::print(&(header(*format, *count) + &format.entry(*count, &segment)))
            }
        }
    }

    /// Prints what is left: the end of the line, the last entry.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let last = self.segmenter.finish();
        match &mut self.style {
            Style::Text { begun: true } => output::print("\n"),
            Style::Text { begun: false } | Style::Json => Ok(()),
            Style::Subtitles { format, count } => {
                let entry = last.map(|segment| {
                    *count += 1;
                    header(*format, *count) + &format.entry(*count, &segment)
                });
                match entry {
                    Some(entry) => output::print(&entry),
                    // A file without words is a file all the same.
                    None if *count == 0 => output::print(format.header()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What stands before the first entry.
fn header(format: SubtitleFormat, entry: usize) -> String {
    match entry {
        1 => format.header().to_owned(),
        _ => String::new(),
    }
}
