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

use super::{Onsets, Piece, spell, spelling::is_spaced};

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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use voxtral_audio::{Audio, LogMel, MelConfig};
    use voxtral_tokenizer::{SpecialPolicy, Tokenizer};

    use super::*;
    use crate::words::{
        geometric_mean,
        onsets::tests::{LEFT, deaf},
    };

    const TOKEN: u64 = 1280;

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

    #[test]
    fn confidence_is_the_geometric_mean() {
        let mean = geometric_mean([0.5_f32.ln(), 0.125_f32.ln()].into_iter());
        assert!((mean - 0.25).abs() < 1e-6);
        let words = run(&["|", " a", "b", "."], &deaf());
        assert!((words[0].confidence - (-0.5_f32).exp()).abs() < 1e-6);
    }
}
