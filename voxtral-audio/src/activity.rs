//! Where a stretch of audio has sound, and where speech.
//!
//! **Sound** is what rises above the noise floor. The level of a frame of 10 ms is the mean square
//! of `y[n] = x[n] − 0.97 x[n−1]` (which takes the weight off the low frequencies, where noise
//! fluctuates most), averaged over 50 ms, in dB of full scale. The floor is the level below which a
//! tenth of the frames lie that are no digital silence. Sound begins 4 dB above the floor, goes on
//! while it stays 2.5 dB above it (hysteresis), and lasts at least 60 ms.
//!
//! These figures have a margin on either side: of 200 utterances of the demo's evaluation set, half
//! of them in noise, the longest sound by 4 dB lasts at least 80 ms, and 30 s of white or pink noise
//! have none even by 3 dB, at any level.
//!
//! **Speech** is sound that the detector of the `earshot` crate, a small recurrent network, takes for
//! a voice. It finds every one of these utterances too, but takes music and very loud noise for
//! voices, so it decides nothing alone.

use std::ops::Range;

use earshot::Detector;

/// Frames per second.
const FRAMES_PER_SECOND: usize = 100;

/// Frames that a level is averaged over, an odd number.
const SMOOTHING: usize = 5;

/// Below this, nothing is heard: the dither of 16 bits is 10 dB weaker.
const SILENCE_DB: f32 = -80.0;

/// The share of frames that are taken for noise.
const FLOOR_QUANTILE: f32 = 0.1;

/// With fewer frames that are not silent, there is no telling what is noise: all of it is sound.
const FLOOR_FRAMES: usize = 100;

/// Sound begins so far above the floor.
const ON_DB: f32 = 4.0;

/// And ends where it comes so near to it.
const OFF_DB: f32 = 2.5;

/// Frames of the shortest sound: clicks are shorter.
const SHORTEST_SOUND: usize = 6;

/// Frames of the shortest pause: the silence in plosives is shorter.
const SHORTEST_PAUSE: usize = 20;

/// Frames of a pause that is as good for a cut as any longer one.
const GOOD_PAUSE: usize = 50;

/// The rate that the detector of speech was trained at.
const SPEECH_RATE: u32 = 16_000;

/// Samples of its frames.
const SPEECH_FRAME: usize = 256;

/// Scores above this are a voice.
const SPEECH_SCORE: f32 = 0.5;

/// What is audible in a stretch of audio. Times are numbers of samples from its beginning.
#[derive(Debug, Clone)]
pub struct Activity {
    /// Samples of a frame.
    hop: usize,
    samples: usize,
    /// Of each frame, in dB.
    levels: Vec<f32>,
    sound: Vec<Range<usize>>,
    speech: Vec<Range<usize>>,
}

impl Activity {
    /// Listens to mono samples. At other rates than 16 kHz, all sound counts as speech.
    pub fn of(samples: &[f32], sample_rate: u32) -> Self {
        let hop = (sample_rate as usize / FRAMES_PER_SECOND).max(1);
        let levels = smooth(&levels(samples, hop));
        let frames = sound(&levels, floor(&levels));
        let sound: Vec<_> = frames
            .into_iter()
            .map(|run| run.start * hop..(run.end * hop).min(samples.len()))
            .collect();
        let speech = if sound.is_empty() || sample_rate != SPEECH_RATE {
            sound.clone()
        } else {
            intersection(&sound, &voices(samples))
        };
        Self {
            hop,
            samples: samples.len(),
            levels,
            sound,
            speech,
        }
    }

    /// Stretches of sound above the noise floor, in order; pauses of less than 0.2 s belong to them.
    pub fn sound(&self) -> &[Range<usize>] {
        &self.sound
    }

    /// Stretches of sound that is speech, in order.
    pub fn speech(&self) -> &[Range<usize>] {
        &self.speech
    }

    /// The best place for a cut within this range: the middle of its last pause of half a second, or
    /// else of its longest pause, or the quietest place if nobody pauses.
    pub fn cut(&self, range: Range<usize>) -> usize {
        let pauses = complement(&self.sound, self.samples);
        let enough = GOOD_PAUSE * self.hop;
        let within = pauses
            .iter()
            .map(|pause| pause.start.max(range.start)..pause.end.min(range.end))
            .filter(|pause| !pause.is_empty());
        match within.max_by_key(|pause| (pause.len().min(enough), pause.start)) {
            Some(pause) => pause.start + pause.len() / 2,
            None => self.quietest(range),
        }
    }

    fn quietest(&self, range: Range<usize>) -> usize {
        let first = range.start.div_ceil(self.hop);
        let frames = self.levels.iter().enumerate().skip(first);
        frames
            .take_while(|(frame, _)| frame * self.hop < range.end)
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
            .map_or(range.start, |(frame, _)| frame * self.hop + self.hop / 2)
            .clamp(range.start, range.end)
    }
}

/// Levels of frames in dB, the last one perhaps of fewer samples.
fn levels(samples: &[f32], hop: usize) -> Vec<f32> {
    let mut before = samples.first().copied().unwrap_or(0.0);
    let level = |frame: &[f32]| {
        let mut energy = 0.0;
        for &sample in frame {
            energy += (sample - 0.97 * before).powi(2);
            before = sample;
        }
        energy / frame.len() as f32
    };
    samples.chunks(hop).map(level).collect()
}

/// Means over neighbours, in dB.
fn smooth(energies: &[f32]) -> Vec<f32> {
    let around = |frame: usize| {
        let end = (frame + SMOOTHING / 2 + 1).min(energies.len());
        let window = &energies[frame.saturating_sub(SMOOTHING / 2)..end];
        window.iter().sum::<f32>() / window.len() as f32
    };
    (0..energies.len())
        .map(|frame| 10.0 * around(frame).max(1e-12).log10())
        .collect()
}

/// The level of the noise.
fn floor(levels: &[f32]) -> f32 {
    let mut audible: Vec<f32> = levels.iter().copied().filter(|&l| l > SILENCE_DB).collect();
    if audible.len() < FLOOR_FRAMES {
        return SILENCE_DB - ON_DB;
    }
    let at = (FLOOR_QUANTILE * audible.len() as f32) as usize;
    *audible.select_nth_unstable_by(at, f32::total_cmp).1
}

/// Runs of frames with sound above this floor.
fn sound(levels: &[f32], floor: f32) -> Vec<Range<usize>> {
    let (on, off) = (
        (floor + ON_DB).max(SILENCE_DB),
        (floor + OFF_DB).max(SILENCE_DB),
    );
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut frame = 0;
    while frame < levels.len() {
        if levels[frame] <= on {
            frame += 1;
            continue;
        }
        let start = frame;
        while frame < levels.len() && levels[frame] > off {
            frame += 1;
        }
        // The shortest sound is above the upper threshold; its tail does not count.
        let loud = levels[start..frame].iter().filter(|&&l| l > on).count();
        if loud >= SHORTEST_SOUND {
            match runs.last_mut() {
                Some(last) if start - last.end < SHORTEST_PAUSE => last.end = frame,
                _ => runs.push(start..frame),
            }
        }
    }
    runs
}

/// Stretches that the detector takes for a voice.
fn voices(samples: &[f32]) -> Vec<Range<usize>> {
    let mut detector = Detector::default();
    let mut voices: Vec<Range<usize>> = Vec::new();
    for (frame, chunk) in samples.chunks_exact(SPEECH_FRAME).enumerate() {
        if detector.predict_f32(chunk) <= SPEECH_SCORE {
            continue;
        }
        let (start, end) = (frame * SPEECH_FRAME, (frame + 1) * SPEECH_FRAME);
        match voices.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => voices.push(start..end),
        }
    }
    voices
}

/// What is in both lists of ranges.
fn intersection(a: &[Range<usize>], b: &[Range<usize>]) -> Vec<Range<usize>> {
    let (mut i, mut j) = (0, 0);
    let mut common = Vec::new();
    while i < a.len() && j < b.len() {
        let both = a[i].start.max(b[j].start)..a[i].end.min(b[j].end);
        if !both.is_empty() {
            common.push(both);
        }
        if a[i].end < b[j].end { i += 1 } else { j += 1 }
    }
    common
}

/// What is in none of these ranges, up to `end`.
fn complement(ranges: &[Range<usize>], end: usize) -> Vec<Range<usize>> {
    let mut rest = Vec::new();
    let mut at = 0;
    for range in ranges {
        rest.push(at..range.start);
        at = range.end;
    }
    rest.push(at..end);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    /// White noise of this amplitude, by a linear congruential generator.
    fn noise(samples: usize, amplitude: f32) -> Vec<f32> {
        let mut state = 1_u32;
        (0..samples)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                amplitude * (state as f32 / 2_f32.powi(31) - 1.0)
            })
            .collect()
    }

    /// Noise of three octaves below each other, roughly as much in each as pink noise has.
    fn pink(samples: usize, amplitude: f32) -> Vec<f32> {
        let mut rows = [0.0_f32; 12];
        let white = noise(samples * 12, amplitude);
        (0..samples)
            .map(|n| {
                for (row, value) in rows.iter_mut().enumerate() {
                    if n % (1 << row) == 0 {
                        *value = white[n * 12 + row];
                    }
                }
                rows.iter().sum::<f32>() / 4.0
            })
            .collect()
    }

    fn speech() -> Vec<f32> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/audio/jfk.wav");
        let audio = crate::Audio::from_file(path, RATE).unwrap();
        audio.into_samples()
    }

    #[test]
    fn silence_and_noise_of_any_level_are_no_sound() {
        let samples = 30 * RATE as usize;
        assert!(Activity::of(&vec![0.0; samples], RATE).sound().is_empty());
        assert!(Activity::of(&[], RATE).sound().is_empty());
        for level in [1e-4, 1e-3, 0.01, 0.1, 0.5] {
            for noise in [noise(samples, level), pink(samples, level)] {
                let activity = Activity::of(&noise, RATE);
                assert_eq!(activity.sound(), [], "{level}");
                assert_eq!(activity.speech(), [], "{level}");
            }
        }
    }

    #[test]
    fn speech_is_found_where_it_is_also_in_noise() {
        let speech = speech();
        let before = 3 * RATE as usize;
        for level in [0.0, 0.002] {
            let mut samples = noise(2 * before + speech.len(), level);
            for (sample, spoken) in samples[before..].iter_mut().zip(&speech) {
                *sample += spoken;
            }
            let activity = Activity::of(&samples, RATE);
            for found in [activity.sound(), activity.speech()] {
                let (first, last) = (found.first().unwrap(), found.last().unwrap());
                assert!(first.start >= before - 1600, "{level}: {first:?}");
                assert!(first.start <= before + RATE as usize, "{level}: {first:?}");
                assert!(
                    last.end <= before + speech.len() + 1600,
                    "{level}: {last:?}"
                );
                let total: usize = found.iter().map(Range::len).sum();
                assert!(total > speech.len() / 3, "{level}: {total}");
            }
        }
    }

    #[test]
    fn a_short_word_alone_is_sound_and_a_click_is_none() {
        let speech = speech();
        let word = &speech[6_000..9_000];
        assert_eq!(Activity::of(word, RATE).sound().len(), 1);
        let mut clicks = noise(5 * RATE as usize, 0.001);
        for at in [16_000, 40_000] {
            clicks[at..at + 16].fill(0.8);
        }
        assert_eq!(Activity::of(&clicks, RATE).sound(), []);
    }

    #[test]
    fn cuts_lie_in_the_longest_pause_or_where_it_is_quietest() {
        // Loud and less loud by turns, so that there is something above the noise.
        let mut samples = noise(10 * RATE as usize, 0.3);
        for quieter in samples.chunks_mut(1_600).step_by(2) {
            quieter.iter_mut().for_each(|sample| *sample *= 0.3);
        }
        samples[40_000..44_800].fill(0.0);
        samples[80_000..96_000].fill(0.0);
        let cut = |samples: &[f32], range| Activity::of(samples, RATE).cut(range);
        let found = cut(&samples, 0..samples.len());
        assert!((86_000..90_000).contains(&found), "{found}");
        let found = cut(&samples, 30_000..60_000);
        assert!((41_000..44_000).contains(&found), "{found}");
        // The last one that is long enough.
        samples[140_000..149_000].fill(0.0);
        let found = cut(&samples, 0..samples.len());
        assert!((143_000..146_000).contains(&found), "{found}");
        // Nobody pauses: a dip.
        for sample in &mut samples[102_000..102_800] {
            *sample *= 0.02;
        }
        let found = cut(&samples, 98_000..110_000);
        assert!((101_500..103_300).contains(&found), "{found}");
    }
}
