//! Segments: words in groups that a person reads at once.

use std::time::Duration;

use serde::Serialize;

use crate::{Word, words::geometric_mean};

/// A pause between two words that parts segments.
pub(crate) const PAUSE: Duration = Duration::from_millis(1000);

/// The longest segment: two lines of 42 characters for up to 7 s are what subtitlers allow.
pub(crate) const LONGEST: Duration = Duration::from_secs(7);

/// Characters of the longest segment.
pub(crate) const MAX_CHARACTERS: usize = 84;

/// What ends a sentence, in the scripts that the models write.
const SENTENCE_ENDS: [char; 9] = ['.', '?', '!', '…', '。', '？', '！', '।', '؟'];

/// Words that belong together, and when they were spoken.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Segment {
    /// When the first word starts.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub start: Duration,
    /// When the last word ends.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub end: Duration,
    /// The words.
    pub text: String,
    /// How sure the model is of them, from 0 to 1, where it is known; see [`Word::confidence`].
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::transcript::probability"
    )]
    pub confidence: Option<f32>,
    /// The words one by one, where their times are known.
    #[serde(skip)]
    pub words: Vec<Word>,
}

/// Puts words together to segments as they come: a segment ends with a sentence, before a pause of
/// a second, and before it grows longer than 7 s or 84 characters.
#[derive(Debug, Clone, Default)]
pub struct Segmenter {
    open: Option<Segment>,
}

impl Segmenter {
    /// One without words.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next word and gives the segment that it completes.
    pub fn push(&mut self, word: &Word) -> Option<Segment> {
        let complete = match &self.open {
            Some(open) if !open.takes(word) => self.open.take(),
            _ => None,
        };
        match &mut self.open {
            Some(open) => {
                open.text.push_str(word.separator());
                open.text.push_str(&word.word);
                open.end = word.end;
                open.words.push(word.clone());
                open.confidence = confidence(&open.words);
            }
            None => {
                self.open = Some(Segment {
                    start: word.start,
                    end: word.end,
                    text: word.word.clone(),
                    confidence: word.confidence,
                    words: vec![word.clone()],
                });
            }
        }
        complete
    }

    /// Gives the words that are left.
    pub fn finish(&mut self) -> Option<Segment> {
        self.open.take()
    }
}

/// The geometric mean of the words' confidences, where all are known.
fn confidence(words: &[Word]) -> Option<f32> {
    let all: Option<Vec<f32>> = words.iter().map(|word| word.confidence).collect();
    Some(geometric_mean(all?.into_iter().map(f32::ln)))
}

impl Segment {
    fn takes(&self, word: &Word) -> bool {
        let characters = self.text.chars().count() + 1 + word.word.chars().count();
        !self.text.ends_with(SENTENCE_ENDS)
            && word.start.saturating_sub(self.end) < PAUSE
            && word.end.saturating_sub(self.start) <= LONGEST
            && characters <= MAX_CHARACTERS
    }
}

/// All segments of these words.
pub(crate) fn segments(words: &[Word]) -> Vec<Segment> {
    let mut segmenter = Segmenter::new();
    let mut segments: Vec<_> = words
        .iter()
        .filter_map(|word| segmenter.push(word))
        .collect();
    segments.extend(segmenter.finish());
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start: u64, end: u64) -> Word {
        Word {
            word: text.trim().to_owned(),
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
            confidence: None,
            attention: None,
            spaced: text.starts_with(' '),
        }
    }

    fn texts(words: &[Word]) -> Vec<String> {
        segments(words).into_iter().map(|s| s.text).collect()
    }

    #[test]
    fn sentences_pauses_and_lengths_part_segments() {
        let sentence = [
            word(" Yes.", 0, 300),
            word(" No", 400, 700),
            word("!", 700, 720),
            word(" And", 800, 900),
            word(" then", 1900, 2100),
        ];
        assert_eq!(texts(&sentence), ["Yes.", "No!", "And", "then"]);
        let long: Vec<Word> = (0..20)
            .map(|i| word(" word", i * 500, i * 500 + 400))
            .collect();
        assert_eq!(segments(&long)[0].text.split(' ').count(), 14, "7 s");
        let wide: Vec<Word> = (0..20)
            .map(|i| word(" longerword", i * 100, i * 100 + 90))
            .collect();
        assert!(texts(&wide).iter().all(|text| text.chars().count() <= 84));
        assert!(texts(&[]).is_empty());
    }

    #[test]
    fn scripts_without_spaces_are_joined_without_them() {
        assert_eq!(texts(&[word("你", 0, 100), word("好", 100, 200)]), ["你好"]);
    }
}
