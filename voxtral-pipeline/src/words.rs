//! Words with times, from the tokens of a streaming model.
//!
//! A streaming model writes one token for every 80 ms that it hears. `[STREAMING_WORD]` says that
//! it has heard a word to its end; the word's pieces follow, then pads until the next one. The
//! mark is therefore a clock: for the k-th token behind the prompt, with the delay taken off, the
//! model has heard `(k + 1) · 80 ms` of the user's audio (the silence on the left is part of the
//! prompt), and that is when the word ended. Two words that end while the first is still being
//! written share one mark: such a *group* ends where the first piece of its last word was written,
//! and is divided by the number of tokens of each word.
//!
//! Where a word starts is not said. It starts where the word before ended, unless there is a pause
//! in between: then at the sound's onset, found in the loudness of the log-mel frames that the
//! encoder took anyway. Silence between the sound and the mark is taken off likewise.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use voxtral_audio::Audio;

/// A word and when it was spoken, from the beginning of the user's audio.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Word {
    /// The word, with its punctuation and without white space around it.
    pub word: String,
    /// When it starts.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub start: Duration,
    /// When it ends.
    #[serde(serialize_with = "crate::transcript::seconds")]
    pub end: Duration,
    /// How sure the model is of it, from 0 to 1: the geometric mean of the probabilities of its
    /// tokens, where they are known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::transcript::probability"
    )]
    pub confidence: Option<f32>,
    /// Where it was looked for in the audio, if that is asked for, see
    /// [`TranscribeOptions::keeps_attention`](crate::TranscribeOptions::keeps_attention).
    #[serde(skip)]
    pub attention: Option<Box<WordAttention>>,
    /// Whether white space stands before it.
    #[serde(skip)]
    pub(crate) spaced: bool,
}

/// Where the decoder looked for a word in the audio: the mean weights of the heads of attention that
/// go along with the speech, where the word's first token was written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WordAttention {
    /// Beginnings of stretches of audio and the weights on them, from 0 to 1, in order of time. Those
    /// with next to none are left out.
    pub weights: Vec<(Duration, f32)>,
    /// The stretch that the path through all words gives this one: where it begins.
    pub place: Duration,
    /// The length of a stretch.
    pub stretch: Duration,
}

impl WordAttention {
    /// The same of a recording in which the audio begins so late.
    pub(crate) fn moved(&self, offset: Duration) -> Self {
        let weights = self.weights.iter();
        Self {
            weights: weights
                .map(|(time, weight)| (*time + offset, *weight))
                .collect(),
            place: self.place + offset,
            stretch: self.stretch,
        }
    }
}

impl Word {
    /// What stands between the word before and this one: a space, or nothing in scripts that are
    /// written without.
    pub fn separator(&self) -> &'static str {
        if self.spaced { " " } else { "" }
    }
}

/// A word on the clock of the stream, in samples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timed {
    pub(crate) text: String,
    pub(crate) spaced: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) confidence: f32,
}

/// Collects pieces to groups, and groups to words.
///
/// All times are samples of the stream behind the silence on its left.
#[derive(Debug)]
pub(crate) struct WordClock {
    samples_per_token: u64,
    /// Tokens seen behind the prompt.
    tokens: u64,
    /// When the last group ended.
    last_end: u64,
    /// When the open group's mark was written.
    mark: u64,
    group: Vec<Piece>,
}

/// A token of a word.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// When it was written, on the clock of whoever spells.
    pub(crate) at: u64,
    /// `ln p` of it.
    pub(crate) logprob: f32,
}

/// What a token is to the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign<'a> {
    /// A word was heard to its end.
    Mark,
    /// Nothing.
    Pad,
    /// Part of a word, and its log-probability.
    Piece(&'a [u8], f32),
}

impl WordClock {
    pub(crate) fn new(samples_per_token: usize) -> Self {
        Self {
            samples_per_token: samples_per_token as u64,
            tokens: 0,
            last_end: 0,
            mark: 0,
            group: Vec::new(),
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.samples_per_token as usize);
    }

    /// What was heard when the next token is written.
    pub(crate) fn heard(&self) -> u64 {
        (self.tokens + 1) * self.samples_per_token
    }

    /// Takes the next token and gives the words that it completes: a group is complete with the
    /// first token that is not part of it.
    pub(crate) fn token(&mut self, sign: Sign<'_>, onsets: &Onsets) -> Vec<Timed> {
        let at = self.heard();
        self.tokens += 1;
        match sign {
            Sign::Piece(bytes, logprob) => {
                if self.group.is_empty() && self.mark < self.last_end {
                    // Pieces without a mark of their own, behind a pad.
                    self.mark = self.last_end.max(at - self.samples_per_token);
                }
                let bytes = bytes.to_vec();
                self.group.push(Piece { bytes, at, logprob });
                Vec::new()
            }
            Sign::Pad => self.close(onsets),
            Sign::Mark => {
                let words = self.close(onsets);
                self.mark = at;
                words
            }
        }
    }

    /// Ends the group and gives its words.
    pub(crate) fn close(&mut self, onsets: &Onsets) -> Vec<Timed> {
        let pieces = std::mem::take(&mut self.group);
        let words = spell(&pieces, |_, next| is_spaced(next));
        let Some(last) = words.last() else {
            return Vec::new();
        };
        // The piece before the last word's first was still being written when that word ended.
        let end = match words.len() {
            1 => self.mark,
            _ => self.mark.max(last.at - self.samples_per_token),
        };
        let (start, end) = onsets.sound(self.last_end, end.max(self.last_end));
        let tokens: u64 = words.iter().map(|word| word.tokens).sum();
        let mut before = 0;
        let share = |tokens_before| start + (end - start) * tokens_before / tokens;
        let timed = words
            .into_iter()
            .map(|word| {
                let start = share(before);
                before += word.tokens;
                Timed {
                    text: word.text,
                    spaced: word.spaced,
                    start,
                    end: share(before),
                    confidence: word.confidence,
                }
            })
            .collect();
        self.last_end = end;
        // A mark serves one group.
        self.mark = 0;
        timed
    }
}

/// A word as its pieces spell it.
#[derive(Debug)]
pub(crate) struct Spelled {
    pub(crate) text: String,
    pub(crate) spaced: bool,
    tokens: u64,
    /// When its first piece was written.
    pub(crate) at: u64,
    /// The geometric mean of the probabilities of its pieces.
    pub(crate) confidence: f32,
}

/// Whether a piece begins with white space.
fn is_spaced(piece: &Piece) -> bool {
    piece.bytes.first().is_some_and(u8::is_ascii_whitespace)
}

/// Whether a piece begins a word where nothing but the text tells: with white space, or with a
/// character of a script that is written without.
pub(crate) fn begins_word(before: &Piece, piece: &Piece) -> bool {
    // A character may be divided among pieces.
    let complete = std::str::from_utf8(&before.bytes).is_ok();
    let first = piece.bytes.utf8_chunks().next();
    let first = first.and_then(|chunk| chunk.valid().chars().next());
    is_spaced(piece) || (complete && first.is_some_and(is_unspaced))
}

/// Whether the character is of a script that puts no spaces between words: Thai, Lao, Burmese,
/// Khmer, Japanese, Chinese (blocks of Unicode).
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Divides pieces into words: `begins` says which piece, by the one before, begins one.
pub(crate) fn spell(pieces: &[Piece], begins: impl Fn(&Piece, &Piece) -> bool) -> Vec<Spelled> {
    let words = pieces.chunk_by(|before, next| !begins(before, next));
    words
        .map(|word| {
            let bytes: Vec<u8> = word.iter().flat_map(|piece| piece.bytes.clone()).collect();
            let logprobs = word.iter().map(|piece| piece.logprob);
            Spelled {
                text: String::from_utf8_lossy(&bytes).trim().to_owned(),
                spaced: is_spaced(&word[0]),
                tokens: word.len() as u64,
                at: word[0].at,
                confidence: geometric_mean(logprobs),
            }
        })
        .filter(|word| !word.text.is_empty())
        .collect()
}

/// The geometric mean of probabilities, from their logarithms; 1 where there are none.
pub(crate) fn geometric_mean(logprobs: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = logprobs.fold((0.0_f32, 0_u32), |(sum, count), x| (sum + x, count + 1));
    (sum / count.max(1) as f32).exp()
}

/// The loudness of the last mel frames, which tells where a sound began.
#[derive(Debug)]
pub(crate) struct Onsets {
    /// Power of each frame over all mel bands, in decades; nothing for frames of silence that the
    /// user did not send.
    loudness: VecDeque<Option<f32>>,
    /// Frames since the beginning of the stream.
    frames: u64,
    /// Samples from one frame to the next.
    hop: u64,
    /// Samples of silence before the user's audio, which the frames cover too.
    left: u64,
    /// Frames that are kept.
    kept: usize,
    /// In samples.
    longest_word: u64,
    /// In samples.
    longest_closure: u64,
}

/// The longest word, in seconds. What is taken for the word's sound begins no earlier.
const LONGEST_WORD: f64 = 2.0;

/// A silence that may stand within a word, in seconds: the closure of a plosive is shorter.
const LONGEST_CLOSURE: f64 = 0.15;

/// Frames on each side over which loudness is averaged: noise is uneven.
const SMOOTHING: u64 = 3;

/// The share of the frames that counts as background, which a word and a pause leave at least.
const BACKGROUND: f64 = 0.1;

/// Of the range between the background and the loudest frame, what counts as sound.
const SOUND: f32 = 0.3;

/// The least range, in decades of power, in which a sound can be told from what is around it.
const LEAST_RANGE: f32 = 0.4;

/// Frames of a clip's loudness.
const FRAMES_PER_SECOND: usize = 100;

/// Decades below the loudest frame of a clip that count: the range of the model's features.
const CLIP_RANGE: f32 = 8.0;

impl Onsets {
    /// For frames of `hop` samples, the first of which stand for `left` samples of silence. A word
    /// is asked for up to `late` samples after it was heard.
    pub(crate) fn new(sample_rate: u32, hop: usize, left: u64, late: usize) -> Self {
        let samples = |seconds: f64| (seconds * f64::from(sample_rate)) as u64;
        let longest_word = samples(LONGEST_WORD);
        Self {
            loudness: VecDeque::new(),
            frames: 0,
            hop: hop as u64,
            left,
            kept: (longest_word as usize + late) / hop + 1,
            longest_word,
            longest_closure: samples(LONGEST_CLOSURE),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.loudness.clear();
        self.frames = 0;
    }

    /// Takes frames, `[frames, bins]`, of which some stand for the user's sound: those at whose
    /// sample `sent` says so.
    pub(crate) fn push(&mut self, frames: &[f32], bins: usize, sent: impl Fn(u64) -> bool) {
        for frame in frames.chunks_exact(bins) {
            if self.loudness.len() == self.kept {
                self.loudness.pop_front();
            }
            let sample = (self.frames * self.hop).checked_sub(self.left);
            let heard = sample.is_some_and(&sent);
            self.loudness.push_back(heard.then(|| loudness(frame)));
            self.frames += 1;
        }
    }

    /// The stretch of sound that ends at `end` or before, and begins at `earliest` or behind; all
    /// of it where no sound stands out.
    fn sound(&self, earliest: u64, end: u64) -> (u64, u64) {
        let earliest = earliest.max(end.saturating_sub(self.longest_word));
        let frame = |sample: u64| (sample + self.left) / self.hop;
        let first = self.frames - self.loudness.len() as u64;
        let around =
            frame(end.saturating_sub(self.longest_word)).max(first)..frame(end).min(self.frames);
        let Some(threshold) = self.threshold(around.clone()) else {
            return (earliest, end);
        };
        // Backwards over the sound, and over pauses as short as those within a word.
        let mut sound: Option<(u64, u64)> = None;
        for index in (frame(earliest).max(around.start)..around.end).rev() {
            if self.level(index).is_some_and(|level| level >= threshold) {
                let last = sound.map_or(index, |(_, last)| last);
                sound = Some((index, last));
            } else if let Some((first, _)) = sound
                && (first - index) * self.hop > self.longest_closure
            {
                break;
            }
        }
        let sample = |frame: u64| {
            let sample = (frame * self.hop).saturating_sub(self.left);
            sample.clamp(earliest, end)
        };
        sound.map_or((earliest, end), |(first, last)| {
            (sample(first), sample(last + 1))
        })
    }

    /// The loudness of a whole clip, in frames of 10 ms; its samples are those of the clip.
    pub(crate) fn of_clip(audio: &Audio) -> Self {
        let hop = (audio.sample_rate() as usize / FRAMES_PER_SECOND).max(1);
        let power = |frame: &[f32]| frame.iter().map(|x| x * x).sum::<f32>() / frame.len() as f32;
        let levels = audio.samples().chunks(hop).map(power);
        let levels: Vec<f32> = levels
            .map(|power| power.max(f32::MIN_POSITIVE).log10())
            .collect();
        let loudest = levels.iter().copied().fold(f32::MIN, f32::max);
        let levels = levels
            .into_iter()
            .map(|level| level.max(loudest - CLIP_RANGE));
        let mut onsets = Self::new(audio.sample_rate(), hop, 0, audio.samples().len());
        onsets.loudness = levels.map(Some).collect();
        onsets.frames = onsets.loudness.len() as u64;
        onsets
    }

    /// Where the sound at this sample begins behind background; where there is none, the beginning
    /// of sound that is nearest. Nothing where none is within this range.
    pub(crate) fn onset(&self, near: u64, range: Range<u64>) -> Option<u64> {
        let threshold = self.threshold(self.around(near))?;
        let is_sound = |frame| self.level(frame).is_some_and(|level| level >= threshold);
        let begins = |frame: &u64| *frame > 0 && is_sound(*frame) && !is_sound(*frame - 1);
        let end = (range.end / self.hop).min(self.frames);
        let near = (near / self.hop).min(end);
        let (before, behind) = (range.start / self.hop..near, near..end);
        let before = before.rev().find(begins);
        let behind = behind.clone().find(begins);
        let nearest = match (before, behind) {
            // The sound goes on from there.
            (Some(before), _) if is_sound(near) => before,
            (Some(before), Some(behind)) if behind - near < near - before => behind,
            (before, behind) => before.or(behind)?,
        };
        Some((nearest * self.hop).max(range.start))
    }

    /// Where the sound that goes on at `from` fades, for longer than within a word; `until` where
    /// it does not, and `from` where no sound stands out.
    pub(crate) fn fade(&self, from: u64, until: u64) -> u64 {
        let Some(threshold) = self.threshold(self.around(from)) else {
            return from.min(until);
        };
        let mut end = from;
        for frame in from / self.hop..until.div_ceil(self.hop).min(self.frames) {
            let sample = (frame + 1) * self.hop;
            if self.level(frame).is_some_and(|level| level >= threshold) {
                end = sample;
            } else if sample.saturating_sub(end) > self.longest_closure {
                return end.min(until);
            }
        }
        end.min(until)
    }

    /// The frames around a sample of a clip, as far as the longest word reaches.
    fn around(&self, sample: u64) -> Range<u64> {
        let first = sample.saturating_sub(self.longest_word) / self.hop;
        first.min(self.frames)..((sample + self.longest_word) / self.hop).min(self.frames)
    }

    /// What parts sound from background in these frames; nothing where none stands out.
    fn threshold(&self, frames: Range<u64>) -> Option<f32> {
        let mut levels: Vec<f32> = frames.filter_map(|index| self.level(index)).collect();
        let loudest = levels.iter().copied().max_by(f32::total_cmp)?;
        let rank = (levels.len() as f64 * BACKGROUND) as usize;
        let (_, &mut background, _) = levels.select_nth_unstable_by(rank, f32::total_cmp);
        let range = loudest - background;
        (range >= LEAST_RANGE).then_some(background + SOUND * range)
    }

    /// Loudness around a frame of the user's sound.
    fn level(&self, index: u64) -> Option<f32> {
        let first = self.frames - self.loudness.len() as u64;
        let at = |index: u64| self.loudness[(index - first) as usize];
        at(index)?;
        let start = index.saturating_sub(SMOOTHING).max(first);
        let end = (index + SMOOTHING + 1).min(self.frames);
        let (sum, count) = (start..end)
            .filter_map(at)
            .fold((0.0, 0.0), |(sum, count), level| (sum + level, count + 1.0));
        Some(sum / count)
    }
}

/// Power of a frame of log-mel features `(log₁₀ P + 4) / 4` over all bands, in decades.
fn loudness(frame: &[f32]) -> f32 {
    let power: f32 = frame
        .iter()
        .map(|feature| 10_f32.powf(4.0 * feature - 4.0))
        .sum();
    power.max(f32::MIN_POSITIVE).log10()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use voxtral_audio::{Audio, LogMel, MelConfig};
    use voxtral_tokenizer::{SpecialPolicy, Tokenizer};

    use super::*;

    const TOKEN: u64 = 1280;
    const LEFT: usize = 32 * TOKEN as usize;

    /// Signs for tokens written as text: `|` is a mark, `.` a pad.
    fn run(tokens: &[&str], onsets: &Onsets) -> Vec<Timed> {
        let mut clock = WordClock::new(TOKEN as usize);
        let mut words = Vec::new();
        for token in tokens {
            let sign = match *token {
                "|" => Sign::Mark,
                "." => Sign::Pad,
                piece => Sign::Piece(piece.as_bytes(), -0.5),
            };
            words.extend(clock.token(sign, onsets));
        }
        words.extend(clock.close(onsets));
        words
    }

    /// No sound was heard: words follow each other.
    fn deaf() -> Onsets {
        Onsets::new(16_000, 160, LEFT as u64, 100_000)
    }

    fn brief(words: &[Timed]) -> Vec<(&str, u64, u64)> {
        let brief = words
            .iter()
            .map(|word| (word.text.as_str(), word.start, word.end));
        brief
            .map(|(text, start, end)| (text, start / 160, end / 160))
            .collect()
    }

    #[test]
    fn a_mark_ends_a_word_and_comes_before_its_pieces() {
        let tokens = [".", ".", "|", " He", "llo", ".", ".", "|", " you", ".", "."];
        assert_eq!(
            brief(&run(&tokens, &deaf())),
            // In hundredths of a second: the mark is the third token, 240 ms are heard.
            [("Hello", 0, 24), ("you", 24, 64)]
        );
    }

    #[test]
    fn words_that_share_a_mark_are_divided_by_their_tokens() {
        let tokens = [".", ".", ".", "|", " one", " two", "th", ".", "|", " end"];
        let words = run(&tokens, &deaf());
        // The mark says 320 ms; " two" begins with the sixth token, when 400 ms were heard.
        assert_eq!(
            brief(&words),
            [("one", 0, 13), ("twoth", 13, 40), ("end", 40, 72)]
        );
        assert!(words.iter().all(|word| word.spaced));
    }

    #[test]
    fn groups_follow_each_other_without_a_pad() {
        let tokens = ["|", " a", "|", " b", "|", "c"];
        let words = run(&tokens, &deaf());
        assert_eq!(brief(&words), [("a", 0, 8), ("b", 8, 24), ("c", 24, 40)]);
        assert!(!words[2].spaced, "a script without spaces");
    }

    #[test]
    fn marks_without_pieces_and_pieces_without_marks_are_no_reason_to_run_back() {
        let tokens = [
            "|", ".", " a", ".", "!", "|", "|", " ", " b", "|", "|", ".", " c",
        ];
        let words = run(&tokens, &deaf());
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["a", "!", "b", "c"]);
        let times: Vec<u64> = words
            .iter()
            .flat_map(|word| [word.start, word.end])
            .collect();
        assert!(times.is_sorted(), "{times:?}");
    }

    #[test]
    fn bytes_of_a_character_are_put_together() {
        let mut clock = WordClock::new(TOKEN as usize);
        let onsets = deaf();
        clock.token(Sign::Mark, &onsets);
        for byte in "é".bytes() {
            clock.token(Sign::Piece(&[byte], 0.0), &onsets);
        }
        assert_eq!(clock.token(Sign::Pad, &onsets)[0].text, "é");
    }

    /// Frames that are loud (1) or quiet (0), after the silence on the left.
    fn heard(loudness: &[(usize, f32)]) -> Onsets {
        let mut onsets = deaf();
        onsets.push(&vec![0.0; LEFT / 160], 1, |_| true);
        for &(frames, loud) in loudness {
            onsets.push(&vec![loud; frames], 1, |_| true);
        }
        onsets
    }

    #[test]
    fn a_word_is_where_its_sound_is() {
        let frames = 160;
        for (loudness, earliest, end, sound) in [
            // After a pause; with a short closure in it; up to the mark and long before it.
            (&[(50, 0.0), (30, 1.0)][..], 0, 80, (50, 80)),
            (
                &[(50, 0.0), (10, 1.0), (10, 0.0), (10, 1.0)],
                0,
                80,
                (50, 80),
            ),
            (&[(50, 0.0), (20, 1.0), (10, 0.0)], 0, 80, (50, 70)),
            // A pause as long as between words parts it from what was before.
            (&[(10, 1.0), (40, 0.0), (30, 1.0)], 0, 80, (50, 80)),
            // Not before the word before ended.
            (&[(20, 0.0), (60, 1.0)], 40, 80, (40, 80)),
            // Nothing stands out.
            (&[(80, 0.5)], 30, 80, (30, 80)),
            (&[(80, 0.0)], 30, 80, (30, 80)),
            // However long the pause, not the sound of long ago.
            (&[(100, 1.0), (900, 0.0)], 0, 1000, (800, 1000)),
        ] {
            let found = heard(loudness).sound(earliest * frames, end * frames);
            // Loudness is averaged over this many frames on both sides.
            let near = |found: u64, expected: u64| (found / frames).abs_diff(expected) <= SMOOTHING;
            assert!(
                near(found.0, sound.0) && near(found.1, sound.1),
                "{found:?} for {loudness:?}"
            );
        }
    }

    /// What the released model wrote for a clip, as another project published it.
    #[test]
    fn published_tokens_become_words_at_their_times() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let clip = root.join("tests/data/audio/librispeech-8297-275156-0000");
        let json = std::fs::read(clip.with_extension("realtime.json")).unwrap();
        let published: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let ids: Vec<u32> = serde_json::from_value(published["tokens"].clone()).unwrap();
        let tokenizer = released_tokenizer(&root);
        let text = tokenizer.decode(&ids, SpecialPolicy::Ignore).unwrap();
        assert_eq!(text.trim(), published["text"].as_str().unwrap());

        let audio = Audio::from_file(clip.with_extension("wav"), 16_000).unwrap();
        let config = MelConfig {
            sample_rate: 16_000,
            window_size: 400,
            hop_length: 160,
            num_mel_bins: 128,
        };
        let mel = LogMel::new(config).unwrap();
        let mut stream = mel.stream(1.5);
        let mut frames = Vec::new();
        stream.push(&vec![0.0; LEFT], &mut frames);
        stream.push(audio.samples(), &mut frames);
        let mut onsets = deaf();
        onsets.push(&frames, 128, |_| true);

        let mut clock = WordClock::new(TOKEN as usize);
        let signs = ids.iter().map(|&id| match (id, tokenizer.token_bytes(id)) {
            (33, _) => Sign::Mark,
            (_, Some(bytes)) => Sign::Piece(bytes, 0.0),
            _ => Sign::Pad,
        });
        let words: Vec<Timed> = signs.flat_map(|sign| clock.token(sign, &onsets)).collect();
        // Where each word begins and ends in the waveform, read off its envelope.
        let spoken = [
            ("What", 0.52, 0.80),
            ("are", 0.80, 1.02),
            ("you", 1.04, 1.24),
            ("doing", 1.24, 1.64),
            ("here?", 1.66, 1.98),
            ("He", 2.38, 2.58),
            ("asked.", 2.58, 3.02),
        ];
        assert_eq!(words.len(), spoken.len());
        for (word, (text, start, end)) in words.iter().zip(spoken) {
            let seconds = |sample: u64| sample as f64 / 16_000.0;
            let (found_start, found_end) = (seconds(word.start), seconds(word.end));
            println!("{text:7} {start:.2} to {end:.2}: {found_start:.2} to {found_end:.2}");
            assert_eq!(word.text, text);
            for (found, true_time) in [(found_start, start), (found_end, end)] {
                // Two tokens: the model's clock has a step of 80 ms, and so has the model.
                assert!(
                    (found - true_time).abs() <= 0.16,
                    "{text}: {found} for {true_time}"
                );
            }
        }
    }

    /// The genuine vocabulary, as the released model has it, with its streaming tokens.
    fn released_tokenizer(root: &Path) -> Tokenizer {
        let testdata = root.join("voxtral-tokenizer/testdata");
        let packed = std::fs::File::open(testdata.join("tekken_240911.json.gz")).unwrap();
        let mut json = Vec::new();
        let mut unpacked = flate2::read::GzDecoder::new(packed);
        unpacked.read_to_end(&mut json).unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let sections = std::fs::read(testdata.join("realtime.json")).unwrap();
        let sections: serde_json::Value = serde_json::from_slice(&sections).unwrap();
        for (key, section) in sections.as_object().unwrap() {
            file[key] = section.clone();
        }
        Tokenizer::from_bytes(&serde_json::to_vec(&file).unwrap()).unwrap()
    }

    /// A tone from 0.5 s to 0.9 s and from 1.0 s to 1.4 s of two seconds with a little noise.
    fn two_tones() -> Onsets {
        let sample = |i: usize| {
            let noise = ((i * 7_919 % 1_000) as f32 / 1_000.0 - 0.5) * 1e-3;
            let sounds = (8_000..14_400).contains(&i) || (16_000..22_400).contains(&i);
            noise
                + if sounds {
                    (i as f32 * 0.3).sin() * 0.3
                } else {
                    0.0
                }
        };
        let audio = Audio::new((0..32_000).map(sample).collect(), 16_000).unwrap();
        Onsets::of_clip(&audio)
    }

    #[test]
    fn a_clip_has_onsets_and_fades() {
        let onsets = two_tones();
        let near = |found: u64, expected: u64| found.abs_diff(expected) <= 4 * 160;
        let onset = |at, range| onsets.onset(at, range);
        assert!(near(onset(9_000, 5_000..12_000).unwrap(), 8_000));
        assert!(near(onset(9_000, 0..32_000).unwrap(), 8_000), "the nearest");
        assert!(
            near(onset(14_000, 0..32_000).unwrap(), 8_000),
            "that of its sound"
        );
        assert!(near(onset(7_000, 0..32_000).unwrap(), 8_000), "the next");
        assert!(
            near(onset(15_500, 0..32_000).unwrap(), 16_000),
            "the nearest"
        );
        assert_eq!(onset(9_000, 9_000..14_000), None);
        // The pause of 0.1 s is none between words.
        assert!(near(onsets.fade(9_000, 32_000), 22_400));
        assert_eq!(onsets.fade(9_000, 12_000), 12_000);
        assert_eq!(onsets.fade(30_000, 32_000), 30_000);
        let silence = Audio::new(vec![0.0; 32_000], 16_000).unwrap();
        let silence = Onsets::of_clip(&silence);
        assert_eq!(silence.onset(9_000, 0..32_000), None);
        assert_eq!(silence.fade(9_000, 32_000), 9_000);
    }

    #[test]
    fn text_alone_tells_words_by_spaces_and_by_script() {
        let words = |pieces: &[&[u8]]| {
            let piece = |(at, bytes): (u64, &&[u8])| Piece {
                bytes: bytes.to_vec(),
                at,
                logprob: -(at as f32),
            };
            let pieces: Vec<Piece> = (0..).zip(pieces).map(piece).collect();
            let words = spell(&pieces, begins_word).into_iter();
            words.map(|word| (word.text, word.at)).collect::<Vec<_>>()
        };
        let word = |text: &str, at| (text.to_owned(), at);
        let spaced: [&[u8]; 5] = [b"f", b"our", b" n", b"ine", b"."];
        assert_eq!(words(&spaced), [word("four", 0), word("nine.", 2)]);
        let unspaced = ["你", "好", "。"].map(str::as_bytes);
        assert_eq!(words(&unspaced), [word("你", 0), word("好。", 1)]);
        // A character in two pieces.
        let divided: [&[u8]; 3] = [
            "你".as_bytes(),
            &"好".as_bytes()[..1],
            &"好".as_bytes()[1..],
        ];
        assert_eq!(words(&divided).last().unwrap().0, "你好");
    }

    #[test]
    fn confidence_is_the_geometric_mean() {
        let mean = geometric_mean([0.5_f32.ln(), 0.125_f32.ln()].into_iter());
        assert!((mean - 0.25).abs() < 1e-6);
        let words = run(&["|", " a", "b", "."], &deaf());
        assert!((words[0].confidence - (-0.5_f32).exp()).abs() < 1e-6);
    }
}
