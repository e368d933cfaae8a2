//! One object: the shape of Whisper's verbose JSON as far as its figures are known, and the rest of
//! the transcript beside it.
//!
//! Of Whisper's segments, `seek`, `tokens`, `temperature` and `no_speech_prob` are left out: they
//! belong to Whisper's own windows.

use std::io::Write;
use std::time::Duration;

use flate2::{Compression, write::ZlibEncoder};
use serde::Serialize;
use voxtral_tokenizer::Language;

use super::{Document, Layout, Task};
use crate::{Segment, Transcript, Word, transcript::seconds};

#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    task: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_language: Option<&'static str>,
    #[serde(flatten)]
    transcript: &'a Transcript,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<SegmentRecord<'a>>>,
}

#[derive(Serialize)]
struct SegmentRecord<'a> {
    id: usize,
    #[serde(serialize_with = "seconds")]
    start: Duration,
    #[serde(serialize_with = "seconds")]
    end: Duration,
    text: &'a str,
    /// The mean log-probability of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_logprob: Option<f32>,
    compression_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<WordRecord>>,
}

#[derive(Serialize)]
struct WordRecord {
    /// With the space before it, as in Whisper's files.
    word: String,
    #[serde(serialize_with = "seconds")]
    start: Duration,
    #[serde(serialize_with = "seconds")]
    end: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
}

/// The object on a line of its own.
pub(super) fn render(document: &Document<'_>, layout: &Layout) -> String {
    let transcript = document.transcript;
    let segments = transcript.segments.as_ref().map(|segments| {
        let record = |(id, segment)| SegmentRecord::new(id, segment, layout.word_timestamps);
        segments.iter().enumerate().map(record).collect()
    });
    // Segments are written in their own shape.
    let rest = Transcript {
        segments: None,
        ..transcript.clone()
    };
    let (task, target) = match document.task {
        Task::Transcribe => ("transcribe", None),
        Task::Translate(language) => ("translate", Some(language)),
    };
    let record = Record {
        file: document.name,
        task,
        target_language: target.map(Language::code),
        transcript: &rest,
        segments,
    };
    // Neither a map with other keys than strings nor a writer that fails is in it.
    serde_json::to_string(&record).unwrap_or_default() + "\n"
}

impl<'a> SegmentRecord<'a> {
    fn new(id: usize, segment: &'a Segment, with_words: bool) -> Self {
        let words = with_words && !segment.words.is_empty();
        Self {
            id,
            start: segment.start,
            end: segment.end,
            text: &segment.text,
            // The confidence is the geometric mean of the tokens' probabilities.
            avg_logprob: segment.confidence.map(f32::ln).filter(|p| p.is_finite()),
            compression_ratio: compression_ratio(&segment.text),
            confidence: segment.confidence,
            words: words.then(|| segment.words.iter().map(WordRecord::new).collect()),
        }
    }
}

impl WordRecord {
    fn new(word: &Word) -> Self {
        Self {
            word: format!("{}{}", word.separator(), word.word),
            start: word.start,
            end: word.end,
            probability: word.confidence,
        }
    }
}

/// Bytes of a text by those of it compressed by zlib: above 2.4, Whisper takes it for a loop.
fn compression_ratio(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Memory takes everything.
    let _ = encoder.write_all(text.as_bytes());
    let compressed = encoder.finish().unwrap_or_default();
    (text.len() as f64 / compressed.len().max(1) as f64 * 1e4).round() / 1e4
}
