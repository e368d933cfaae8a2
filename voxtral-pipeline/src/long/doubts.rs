//! What speaks against the text of a stretch of audio.
//!
//! The limits are wide: they are to catch a model that fails, never to judge how people speak.

use std::ops::Range;
use std::time::Duration;

use crate::{Doubt, Finish, Transcript};

/// Speech of this many seconds must have text: the shortest words last about so long.
const SPEECH_WITH_TEXT: f64 = 0.3;

/// So must sound that is not taken for speech, once it lasts so many seconds: a cough does not.
const SOUND_WITH_TEXT: f64 = 2.0;

/// Characters of text for each second of sound: more than twice what is spoken fast (an auctioneer's
/// 350 words a minute are some 30 with their spaces).
const MOST_CHARACTERS: f64 = 60.0;

/// And in all, for what is short: one word may be long.
const ANY_CHARACTERS: f64 = 30.0;

/// Characters for each second of speech: a third of slow speech in a script of few characters
/// (Chinese has three or four a second).
pub(super) const LEAST_CHARACTERS: f64 = 1.0;

/// Seconds of speech of which that can be said.
pub(super) const LEAST_SPEECH: f64 = 4.0;

/// The share of the text that the speech before had in the same time: half a sentence is missing
/// where there is less, or somebody speaks slowly, which another way of hearing tells.
const USUAL_SHARE: f64 = 0.5;

/// Seconds of speech without a word, where the times of words are known: what is long in a word, and
/// breath beside it, are shorter.
const HOLE: f64 = 2.0;

/// Characters of text that repeats itself: `no no no no no` is speech.
const REPEATED_CHARACTERS: usize = 32;

/// Times that a phrase stands behind itself, at least.
const REPEATED_TIMES: usize = 3;

/// Characters of the longest phrase that is looked for.
const LONGEST_PHRASE: usize = 120;

/// A stretch of audio and what was heard in it. Ranges are samples from its beginning.
pub(super) struct Heard<'a> {
    pub(super) transcript: &'a Transcript,
    pub(super) samples: usize,
    pub(super) sample_rate: u32,
    pub(super) sound: &'a [Range<usize>],
    pub(super) speech: &'a [Range<usize>],
    /// Characters per second of speech, as they were before.
    pub(super) usual: Option<f64>,
    /// Whether the caller limits the tokens, so that the limit says nothing of the model.
    pub(super) limited: bool,
}

/// Something doubtful.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Where, in samples from the beginning of the stretch.
    pub(super) range: Range<usize>,
    pub(super) reason: Doubt,
    /// Whether there is no text at all.
    pub(super) gap: bool,
    /// Whether it is doubtful only beside what was heard before.
    pub(super) relative: bool,
}

impl Heard<'_> {
    /// All doubts.
    pub(super) fn doubts(&self) -> Vec<Found> {
        // Whoever asks for an end gets it.
        if self.transcript.stop.is_some() {
            return Vec::new();
        }
        let characters = characters(&self.transcript.text);
        if characters == 0 {
            return self.without_text();
        }
        let mut doubts = Vec::new();
        let mut warn = |reason, relative| {
            doubts.push(Found {
                range: 0..self.samples,
                reason,
                gap: false,
                relative,
            });
        };
        if repeats(&self.transcript.text) {
            warn(Doubt::Repeats, false);
        }
        let cut_off = self.transcript.finish == Finish::Length;
        if cut_off && !self.limited {
            warn(Doubt::Runaway, false);
        }
        let characters = characters as f64;
        let (sound, speech) = (self.seconds(self.sound), self.speech_seconds());
        if characters > ANY_CHARACTERS + MOST_CHARACTERS * sound {
            warn(Doubt::Dense, false);
        }
        if !cut_off && speech >= LEAST_SPEECH {
            let rate = characters / speech;
            if rate < LEAST_CHARACTERS {
                warn(Doubt::Sparse, false);
            } else if self.usual.is_some_and(|usual| rate < USUAL_SHARE * usual) {
                warn(Doubt::EndsEarly, true);
            }
        }
        doubts.extend(self.holes());
        doubts
    }

    /// Seconds of speech.
    pub(super) fn speech_seconds(&self) -> f64 {
        self.seconds(self.speech)
    }

    fn seconds(&self, ranges: &[Range<usize>]) -> f64 {
        let samples: usize = ranges.iter().map(Range::len).sum();
        samples as f64 / f64::from(self.sample_rate)
    }

    /// No text is right where nobody speaks.
    fn without_text(&self) -> Vec<Found> {
        let silent =
            self.speech_seconds() < SPEECH_WITH_TEXT && self.seconds(self.sound) < SOUND_WITH_TEXT;
        match (silent, self.sound.first(), self.sound.last()) {
            (false, Some(first), Some(last)) => vec![Found {
                range: first.start..last.end,
                reason: Doubt::Empty,
                gap: true,
                relative: false,
            }],
            _ => Vec::new(),
        }
    }

    /// Speech that no word covers, where words have times.
    fn holes(&self) -> Vec<Found> {
        let Some(words) = &self.transcript.words else {
            return Vec::new();
        };
        let sample = |time: Duration| (time.as_secs_f64() * f64::from(self.sample_rate)) as usize;
        let mut holes = Vec::new();
        let mut from = 0;
        let spans = words
            .iter()
            .map(|word| (sample(word.start), sample(word.end)));
        for (start, end) in spans.chain([(self.samples, self.samples)]) {
            let hole: Vec<Range<usize>> = self
                .speech
                .iter()
                .map(|speech| speech.start.max(from)..speech.end.min(start))
                .filter(|part| !part.is_empty())
                .collect();
            if self.seconds(&hole) >= HOLE
                && let (Some(first), Some(last)) = (hole.first(), hole.last())
            {
                holes.push(Found {
                    range: first.start..last.end,
                    reason: if start == self.samples {
                        Doubt::EndsEarly
                    } else {
                        Doubt::Sparse
                    },
                    gap: true,
                    relative: false,
                });
            }
            from = from.max(end);
        }
        holes
    }
}

/// Characters that are no white space at the ends.
pub(super) fn characters(text: &str) -> usize {
    text.trim().chars().count()
}

/// Whether a phrase of any script stands behind itself again and again: whether there is a period `p`
/// with `text[i] = text[i − p]` over a stretch of at least 32 characters and three periods.
pub(super) fn repeats(text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    (1..=LONGEST_PHRASE.min(text.len() / 2)).any(|period| {
        let enough = REPEATED_CHARACTERS.max(REPEATED_TIMES * period);
        let mut run = 0;
        text[period..].iter().zip(&text).any(|(later, earlier)| {
            run = if later == earlier { run + 1 } else { 0 };
            run >= enough
        })
    })
}
