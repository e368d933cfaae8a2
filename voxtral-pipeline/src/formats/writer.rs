//! Formats that are made of segments, written as the segments come.

use std::time::Duration;

use super::{Format, Layout, clock::millis, csv, cue::Cue, cues::Cues, srt, tsv, vtt};
use crate::Segment;

/// Writes segments in one of the formats that are made of them; live, or of a whole transcript.
///
/// All that [`push`](Self::push) and [`finish`](Self::finish) give, one behind the other, is the
/// file. Of subtitles, the last two cues are kept back, since how long one stays depends on what
/// follows.
#[derive(Debug, Clone)]
pub struct SegmentWriter {
    kind: Kind,
    begun: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Rows {
        header: &'static str,
        entry: fn(&Segment) -> String,
    },
    Cues {
        format: Format,
        cues: Cues,
        highlight: bool,
        /// Entries written so far.
        count: usize,
    },
}

impl SegmentWriter {
    /// Begins a file; `None` for a format that is not made of segments alone.
    pub fn new(format: Format, layout: Layout) -> Option<Self> {
        let kind = match format {
            Format::Tsv => Kind::Rows {
                header: tsv::HEADER,
                entry: tsv::entry,
            },
            Format::Csv => Kind::Rows {
                header: csv::HEADER,
                entry: csv::entry,
            },
            Format::Srt | Format::Vtt => Kind::Cues {
                format,
                cues: Cues::new(layout),
                highlight: layout.highlight_words,
                count: 0,
            },
            Format::Text | Format::Json | Format::Md => return None,
        };
        Some(Self { kind, begun: false })
    }

    /// Takes the next segment and gives what can be written now.
    pub fn push(&mut self, segment: &Segment) -> String {
        let mut text = self.begin();
        match &mut self.kind {
            Kind::Rows { entry, .. } => text.push_str(&entry(segment)),
            Kind::Cues { cues, .. } => {
                let known = cues.push(segment);
                text.push_str(&self.entries(&known));
            }
        }
        text
    }

    /// Gives what is left; the last subtitle may stay until the sound ends.
    pub fn finish(&mut self, end: Duration) -> String {
        // A file without words is a file all the same.
        let mut text = self.begin();
        if let Kind::Cues { cues, .. } = &mut self.kind {
            let known = cues.finish(millis(end));
            text.push_str(&self.entries(&known));
        }
        text
    }

    /// The header, once.
    fn begin(&mut self) -> String {
        let header = match &self.kind {
            Kind::Rows { header, .. } => header,
            Kind::Cues { format, .. } if *format == Format::Vtt => vtt::HEADER,
            Kind::Cues { .. } => "",
        };
        let header = if self.begun { "" } else { header };
        self.begun = true;
        header.to_owned()
    }

    fn entries(&mut self, known: &[Cue]) -> String {
        let Kind::Cues {
            format,
            highlight,
            count,
            ..
        } = &mut self.kind
        else {
            return String::new();
        };
        let mut text = String::new();
        for cue in known {
            let steps = match highlight {
                true => cue.steps(),
                false => vec![(cue.start, cue.end, None)],
            };
            for (start, end, word) in steps {
                *count += 1;
                text.push_str(&match format {
                    Format::Vtt => vtt::entry((start, end), cue, word),
                    _ => srt::entry(*count, (start, end), cue, word),
                });
            }
        }
        text
    }
}
