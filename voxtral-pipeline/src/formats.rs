//! What is written of a transcript: text, JSON, subtitles, tables, Markdown.
//!
//! ```text
//! Transcript ──┬─ text, json, md: as a whole
//!              └─ segments ──┬─ tsv, csv: a row each          SegmentWriter, also live
//!                            └─ srt, vtt: cues (see `cues`)
//! ```

mod clock;
mod csv;
mod cue;
mod cues;
mod json;
mod md;
mod srt;
mod tsv;
mod vtt;
mod wrap;
mod writer;

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use voxtral_tokenizer::Language;

use crate::{PipelineError, Transcript};

pub use writer::SegmentWriter;

/// A way to write a transcript down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// The words.
    #[default]
    Text,
    /// One object: the shape of Whisper's verbose JSON, and everything else that is known.
    Json,
    /// Subtitles, SubRip.
    Srt,
    /// Subtitles, WebVTT (W3C).
    Vtt,
    /// Columns `start`, `end` (both in milliseconds) and `text`, as Whisper writes them.
    Tsv,
    /// The same with commas, and a column `confidence`.
    Csv,
    /// A document for people: paragraphs with their times, and what is doubtful.
    Md,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Text,
        Self::Json,
        Self::Srt,
        Self::Vtt,
        Self::Tsv,
        Self::Csv,
        Self::Md,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Md => "md",
        }
    }

    /// The extension of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            other => other.name(),
        }
    }

    /// Whether it has room for the times of segments or words.
    pub fn has_times(self) -> bool {
        self != Self::Text
    }

    /// Whether it is made of segments, and cannot be written of a transcript without times.
    pub fn needs_times(self) -> bool {
        matches!(self, Self::Srt | Self::Vtt | Self::Tsv | Self::Csv)
    }

    /// Whether it is shown while the sound plays, so that a [`Layout`]'s lines and highlights
    /// concern it.
    pub fn is_subtitles(self) -> bool {
        matches!(self, Self::Srt | Self::Vtt)
    }

    /// The whole of what is written, with the last line's end.
    ///
    /// # Errors
    /// [`PipelineError::NoTimes`] for a format of segments where the transcript has none.
    pub fn render(self, document: &Document<'_>, layout: &Layout) -> Result<String, PipelineError> {
        let transcript = document.transcript;
        match self {
            Self::Text => return Ok(format!("{}\n", transcript.text)),
            Self::Json => return Ok(json::render(document, layout)),
            Self::Md => return Ok(md::render(document)),
            Self::Srt | Self::Vtt | Self::Tsv | Self::Csv => {}
        }
        let no_times = || PipelineError::NoTimes {
            format: self.name(),
            model: transcript.model.clone(),
        };
        let segments = transcript.segments.as_ref().ok_or_else(no_times)?;
        let mut writer = SegmentWriter::new(self, *layout).ok_or_else(no_times)?;
        let mut text = String::new();
        for segment in segments {
            text.push_str(&writer.push(segment));
        }
        text.push_str(&writer.finish(transcript.duration));
        Ok(text)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = PipelineError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| PipelineError::InvalidOption {
            option: "format",
            found: format!("`{name}`"),
            expected: "text, json, srt, vtt, tsv, csv or md",
        })
    }
}

/// What was done to the speech.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Task {
    /// Written down.
    #[default]
    Transcribe,
    /// Written in this language; see [`Voxtral::translate`](crate::Voxtral::translate).
    Translate(Language),
}

/// A transcript and what it is of.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The words.
    pub transcript: &'a Transcript,
    /// What the sound is called, where it has a name.
    pub name: Option<&'a str>,
    /// What was done.
    pub task: Task,
}

impl<'a> Document<'a> {
    /// A transcription of sound without a name.
    pub fn new(transcript: &'a Transcript) -> Self {
        Self {
            transcript,
            name: None,
            task: Task::Transcribe,
        }
    }
}

/// How words are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the longest line of a subtitle, of which a wide character (CJK) takes two. A word
    /// that is wider stands alone on its line. By default, a subtitle is one line.
    pub max_line_width: Option<NonZeroUsize>,
    /// Lines of a subtitle; a segment with more becomes several subtitles. Without a width it has
    /// no effect.
    pub max_line_count: Option<NonZeroUsize>,
    /// Underlines each word of a subtitle while it is spoken, where words have times.
    pub highlight_words: bool,
    /// Puts words with their times into the segments of JSON, as Whisper does.
    pub word_timestamps: bool,
}

#[cfg(test)]
mod tests;
