//! Where sounds begin and fade, by their loudness.

use std::collections::VecDeque;
use std::ops::Range;

use voxtral_audio::Audio;

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
    pub(super) fn sound(&self, earliest: u64, end: u64) -> (u64, u64) {
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
pub(super) mod tests {
    use super::*;

    /// Samples of silence on the left.
    pub(in crate::words) const LEFT: usize = 32 * 1280;

    /// No sound was heard: words follow each other.
    pub(in crate::words) fn deaf() -> Onsets {
        Onsets::new(16_000, 160, LEFT as u64, 100_000)
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
}
