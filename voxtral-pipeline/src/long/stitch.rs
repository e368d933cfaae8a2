//! Windows that were heard, put together: text, times, doubts.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{doubts::Found, windows::Window};
use crate::{DetectedLanguage, Finish, Gap, Segment, Timings, Token, Transcript, Warning, Word};

/// A window that is done with, with times from the beginning of the recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settled {
    /// First sample, and one past the last.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) stop: Option<String>,
    pub(super) language_detected: Option<DetectedLanguage>,
    #[serde(with = "super::journal::words")]
    pub(super) words: Option<Vec<Word>>,
    #[serde(with = "super::journal::segments")]
    pub(super) segments: Vec<Segment>,
    pub(super) tokens: Vec<Token>,
    pub(super) gaps: Vec<Gap>,
    pub(super) warnings: Vec<Warning>,
    #[serde(skip)]
    pub(super) timings: Timings,
}

impl Settled {
    /// A window in which nothing is audible.
    pub(super) fn silent(window: &Window) -> Self {
        Self {
            start: window.start,
            end: window.end(),
            text: String::new(),
            finish: Finish::Stop,
            stop: None,
            language_detected: None,
            words: None,
            segments: Vec::new(),
            tokens: Vec::new(),
            gaps: Vec::new(),
            warnings: Vec::new(),
            timings: Timings::default(),
        }
    }

    /// The language that was found out.
    pub(super) fn language(&self) -> Option<String> {
        let detected = self.language_detected.as_ref()?;
        Some(detected.language.clone())
    }
}

/// Puts the parts of a window together.
pub(super) fn settle<'t>(
    window: &Window,
    parts: impl Iterator<Item = (Range<usize>, &'t Transcript)>,
    doubts: &[Found],
    sample_rate: u32,
) -> Settled {
    let mut settled = Settled::silent(window);
    let time = |sample: usize| time(window.start + sample as u64, sample_rate);
    let mut words = Some(Vec::new());
    for (range, part) in parts {
        join(&mut settled.text, part.text.trim());
        if part.finish == Finish::Length {
            settled.finish = Finish::Length;
        }
        settled.stop = settled.stop.or_else(|| part.stop.clone());
        settled.language_detected = settled
            .language_detected
            .or_else(|| part.language_detected.clone());
        settled.tokens.extend_from_slice(&part.tokens);
        add_timings(&mut settled.timings, &part.timings);
        let offset = time(range.start);
        settled.segments.extend(segments(
            part,
            |segment| {
                // Without times, what is known is where there is sound.
                let audible = within(window.activity.sound(), &range);
                let (first, last) = (audible.first(), audible.last());
                segment.start = time(range.start + first.map_or(0, |sound| sound.start));
                segment.end = time(range.start + last.map_or(range.len(), |sound| sound.end));
            },
            offset,
        ));
        match (&mut words, &part.words) {
            (Some(all), Some(part)) => all.extend(part.iter().map(|word| moved(word, offset))),
            // A part without a word has none to tell of.
            (_, None) if part.text.trim().is_empty() => {}
            _ => words = None,
        }
    }
    settled.words = words.filter(|words| !words.is_empty());
    for found in doubts {
        let (start, end) = (time(found.range.start), time(found.range.end));
        let reason = found.reason;
        if found.gap {
            settled.gaps.push(Gap { start, end, reason });
        } else {
            settled.warnings.push(Warning { start, end, reason });
        }
    }
    settled
}

/// The segments of a part: its own, or one whose times are set by `place`.
fn segments(part: &Transcript, place: impl Fn(&mut Segment), offset: Duration) -> Vec<Segment> {
    if let Some(segments) = &part.segments {
        return segments
            .iter()
            .map(|segment| moved_segment(segment, offset))
            .collect();
    }
    if part.text.trim().is_empty() {
        return Vec::new();
    }
    let mut segment = Segment {
        start: Duration::ZERO,
        end: Duration::ZERO,
        text: part.text.trim().to_owned(),
        confidence: part.confidence(),
        words: Vec::new(),
    };
    place(&mut segment);
    vec![segment]
}

fn moved(word: &Word, offset: Duration) -> Word {
    Word {
        start: word.start + offset,
        end: word.end + offset,
        attention: word.attention.as_ref().map(|it| Box::new(it.moved(offset))),
        ..word.clone()
    }
}

fn moved_segment(segment: &Segment, offset: Duration) -> Segment {
    Segment {
        start: segment.start + offset,
        end: segment.end + offset,
        words: segment
            .words
            .iter()
            .map(|word| moved(word, offset))
            .collect(),
        ..segment.clone()
    }
}

pub(super) fn add_timings(sum: &mut Timings, more: &Timings) {
    // A field that is added to the type must be added here.
    let Timings {
        features,
        encoder,
        prefill,
        decode,
        language,
        alignment,
        passes,
        prompt_tokens,
    } = more;
    sum.features += *features;
    sum.encoder += *encoder;
    sum.prefill += *prefill;
    sum.decode += *decode;
    sum.language += *language;
    sum.alignment += *alignment;
    sum.passes += passes;
    sum.prompt_tokens += prompt_tokens;
}

/// The time of a sample.
pub(super) fn time(sample: u64, sample_rate: u32) -> Duration {
    Duration::from_secs_f64(sample as f64 / f64::from(sample_rate))
}

/// What of these ranges lies in this part, from its beginning.
pub(super) fn within(ranges: &[Range<usize>], part: &Range<usize>) -> Vec<Range<usize>> {
    ranges
        .iter()
        .map(|range| range.start.max(part.start)..range.end.min(part.end))
        .filter(|range| !range.is_empty())
        .map(|range| range.start - part.start..range.end - part.start)
        .collect()
}

/// Adds text behind text; gives what was added.
pub(super) fn join(text: &mut String, more: &str) -> String {
    let added = match (text.chars().last(), more.chars().next()) {
        (Some(before), Some(behind)) if !is_unspaced(before) || !is_unspaced(behind) => {
            format!(" {more}")
        }
        _ => more.to_owned(),
    };
    text.push_str(&added);
    added
}

/// Whether a character belongs to a script that is written without spaces between words: Thai, Lao,
/// Myanmar, Khmer, Chinese characters and their punctuation, Japanese.
fn is_unspaced(character: char) -> bool {
    matches!(u32::from(character),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x2E80..=0x312F | 0x31A0..=0x9FFF
        | 0xF900..=0xFAFF | 0xFF00..=0xFFEF | 0x20000..=0x323AF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timing_is_added_once() {
        let second = Duration::from_secs(1);
        let more = Timings {
            features: second,
            encoder: 2 * second,
            prefill: 3 * second,
            decode: 4 * second,
            language: 5 * second,
            alignment: 6 * second,
            passes: 7,
            prompt_tokens: 8,
        };
        let mut sum = Timings::default();
        add_timings(&mut sum, &more);
        assert_eq!(sum, more);
    }

    #[test]
    fn one_space_joins_but_for_scripts_without() {
        for (before, behind, joined) in [
            ("one two", "three", "one two three"),
            ("", "three", "three"),
            ("one", "", "one"),
            ("Ja.", "Nein", "Ja. Nein"),
            ("你好。", "再见", "你好。再见"),
            ("こんにちは", "さようなら", "こんにちはさようなら"),
            ("สวัสดี", "ครับ", "สวัสดีครับ"),
            ("한국", "사람", "한국 사람"),
            ("नमस्ते", "जी", "नमस्ते जी"),
            ("中文", "English", "中文 English"),
        ] {
            let mut text = before.to_owned();
            join(&mut text, behind);
            assert_eq!(text, joined);
        }
    }
}
