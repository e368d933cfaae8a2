//! An audio file seen from afar: waveform, features, level and activity, in memory that does not
//! grow with the file.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use voxtral_audio::{Activity, LogMel, MelConfig, Resampler};
use voxtral_pipeline::Decoder;

/// The most columns that are kept: more than a picture has.
const COLUMNS: usize = 8192;

/// Samples per second for which activity is found out where no features are asked for.
const RATE: u32 = 16_000;

/// Sound whose activity is found out at a time.
const WINDOW: Duration = Duration::from_secs(60);

/// The maximum that features are relative to, in log10 of power; see [`voxtral_audio::LogMelMax`].
const MEL_MAXIMUM: f32 = 1.5;

/// What is seen of a file.
pub(crate) struct Sound {
    pub(crate) sample_rate: u32,
    pub(crate) channels: usize,
    pub(crate) duration: Duration,
    /// Whether the file breaks off.
    pub(crate) truncated: bool,
    /// Least and greatest sample of each column.
    pub(crate) waveform: Columns<(f32, f32)>,
    /// The greatest features of each column, the lowest band first; none if not asked for.
    pub(crate) mel: Columns<Vec<f32>>,
    /// Stretches above the noise floor, in seconds.
    pub(crate) sound: Vec<Range<f64>>,
    /// Stretches of speech, in seconds.
    pub(crate) speech: Vec<Range<f64>>,
    energy: f64,
}

impl Sound {
    /// Reads a file to its end.
    pub(crate) fn read(mut decoder: Decoder, mel: Option<MelConfig>) -> Result<Self> {
        let rate = decoder.sample_rate();
        let heard_at = mel.map_or(RATE, |mel| mel.sample_rate);
        let mut ear = Ear::new(heard_at);
        let front_end = mel.map(LogMel::new).transpose()?;
        let mut features = front_end.as_ref().map(|mel| mel.stream(MEL_MAXIMUM));
        let bins = mel.map_or(1, |mel| mel.num_mel_bins);
        let mut resampler = Resampler::new(rate, heard_at)?;
        let mut waveform = Columns::new(|a: &mut (f32, f32), b| *a = (a.0.min(b.0), a.1.max(b.1)));
        let mut columns = Columns::new(|a: &mut Vec<f32>, b: &Vec<f32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = a.max(*b));
        });
        let (mut samples, mut energy) = (0_u64, 0.0);
        let mut heard = Vec::new();
        let mut frames = Vec::new();
        let mut hear = |heard: &mut Vec<f32>, last: bool| -> Result<()> {
            ear.hear(heard, last);
            if let Some(features) = &mut features {
                features.push(heard, &mut frames);
                if last {
                    // Too short a sound has no features.
                    let _ = features.finish(&mut frames);
                }
                frames
                    .chunks(bins)
                    .for_each(|frame| columns.push(frame.to_vec()));
                frames.clear();
            }
            heard.clear();
            Ok(())
        };
        for chunk in decoder.by_ref() {
            let chunk = chunk?;
            for &sample in &chunk {
                waveform.push((sample, sample));
                energy += f64::from(sample).powi(2);
            }
            samples += chunk.len() as u64;
            resampler.push(&chunk, &mut heard)?;
            hear(&mut heard, false)?;
        }
        resampler.finish(&mut heard)?;
        hear(&mut heard, true)?;
        Ok(Self {
            sample_rate: rate,
            channels: decoder.channels(),
            duration: Duration::from_secs_f64(samples as f64 / f64::from(rate)),
            truncated: decoder.truncated(),
            waveform,
            mel: columns,
            sound: ear.sound,
            speech: ear.speech,
            energy: energy / samples.max(1) as f64,
        })
    }

    /// Peak and mean level in dB of full scale.
    pub(crate) fn level(&self) -> String {
        let peak = self.waveform.items.iter();
        let peak = peak.fold(0.0_f32, |peak, (low, high)| peak.max(-low).max(*high));
        if peak == 0.0 {
            return "digital silence".to_owned();
        }
        let peak = 20.0 * peak.log10();
        let mean = 10.0 * self.energy.log10();
        format!("peak {peak:.1} dB, mean {mean:.1} dB of full scale")
    }

    pub(crate) fn sound_time(&self) -> Duration {
        total(&self.sound)
    }

    pub(crate) fn speech_time(&self) -> Duration {
        total(&self.speech)
    }

    /// Stretches without sound, in seconds.
    pub(crate) fn silences(&self) -> Vec<Range<f64>> {
        let ends = self.sound.iter().map(|sound| sound.end);
        let starts = self.sound.iter().map(|sound| sound.start);
        let silences = std::iter::once(0.0)
            .chain(ends)
            .zip(starts.chain(std::iter::once(self.duration.as_secs_f64())));
        silences
            .map(|(start, end)| start..end)
            .filter(|it| it.start < it.end)
            .collect()
    }
}

fn total(stretches: &[Range<f64>]) -> Duration {
    Duration::from_secs_f64(stretches.iter().map(|it| it.end - it.start).sum())
}

/// Finds sound and speech, a window at a time.
struct Ear {
    rate: u32,
    waiting: Vec<f32>,
    done: u64,
    sound: Vec<Range<f64>>,
    speech: Vec<Range<f64>>,
}

impl Ear {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            waiting: Vec::new(),
            done: 0,
            sound: Vec::new(),
            speech: Vec::new(),
        }
    }

    fn hear(&mut self, samples: &[f32], last: bool) {
        self.waiting.extend_from_slice(samples);
        let window = WINDOW.as_secs() as usize * self.rate as usize;
        while self.waiting.len() >= window || (last && !self.waiting.is_empty()) {
            let size = window.min(self.waiting.len());
            let activity = Activity::of(&self.waiting[..size], self.rate);
            let seconds = |sample: usize| (self.done + sample as u64) as f64 / f64::from(self.rate);
            for (found, all) in [
                (activity.sound(), &mut self.sound),
                (activity.speech(), &mut self.speech),
            ] {
                for stretch in found {
                    let stretch = seconds(stretch.start)..seconds(stretch.end);
                    match all.last_mut() {
                        // Across the windows' border.
                        Some(before) if before.end >= stretch.start => before.end = stretch.end,
                        _ => all.push(stretch),
                    }
                }
            }
            self.done += size as u64;
            self.waiting.drain(..size);
        }
    }
}

/// A row of things, of which neighbours are merged as it grows, so that it never has more than a
/// fixed number.
pub(crate) struct Columns<T> {
    pub(crate) items: Vec<T>,
    /// Things in each column but the last, which may have fewer.
    size: u64,
    /// Things in the last column.
    filled: u64,
    merge: fn(&mut T, &T),
}

impl<T> Columns<T> {
    fn new(merge: fn(&mut T, &T)) -> Self {
        Self {
            items: Vec::new(),
            size: 1,
            filled: 1,
            merge,
        }
    }

    fn push(&mut self, item: T) {
        if self.filled < self.size
            && let Some(last) = self.items.last_mut()
        {
            (self.merge)(last, &item);
            self.filled += 1;
            return;
        }
        if self.items.len() == COLUMNS {
            self.halve();
        }
        self.items.push(item);
        self.filled = 1;
    }

    fn halve(&mut self) {
        let mut items = std::mem::take(&mut self.items).into_iter();
        while let Some(mut one) = items.next() {
            if let Some(other) = items.next() {
                (self.merge)(&mut one, &other);
            }
            self.items.push(one);
        }
        self.size *= 2;
    }

    /// Things that were pushed.
    fn len(&self) -> u64 {
        match self.items.len() as u64 {
            0 => 0,
            columns => (columns - 1) * self.size + self.filled,
        }
    }

    /// The columns of a part, given as shares of the whole; at least one, if there is any.
    pub(crate) fn part(&self, part: Range<f64>) -> &[T] {
        let columns = self.len() as f64 / self.size as f64;
        let all = self.items.len();
        let start = ((part.start * columns) as usize).min(all.saturating_sub(1));
        let end = ((part.end * columns).ceil() as usize).clamp(start, all);
        &self.items[start..end.max(start + 1).min(all)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_the_extremes_of_ten_hours_in_little_memory() {
        let mut columns = Columns::new(|a: &mut (f32, f32), b| *a = (a.0.min(b.0), a.1.max(b.1)));
        let samples = 10 * 3600 * 16_000_u64;
        let peak = samples / 3;
        for sample in 0..samples {
            let value = if sample == peak { 1.0 } else { 0.0 };
            columns.push((value, value));
        }
        assert_eq!(columns.len(), samples);
        assert!(columns.items.len() <= COLUMNS && columns.items.len() >= COLUMNS / 2);
        let third = 1.0 / 3.0;
        assert!(
            columns
                .part(third - 1e-4..third + 1e-4)
                .iter()
                .any(|it| it.1 == 1.0)
        );
        assert!(columns.part(0.0..0.3).iter().all(|it| it.1 == 0.0));
        assert_eq!(columns.part(0.0..1.0).len(), columns.items.len());
        assert_eq!(columns.part(0.5..0.5).len(), 1);
        assert_eq!(columns.part(1.0..1.0).len(), 1);
    }

    #[test]
    fn few_things_are_kept_one_by_one() {
        let mut columns = Columns::new(|a: &mut u32, b| *a = (*a).max(*b));
        assert!(columns.part(0.0..1.0).is_empty());
        for value in [3, 1, 2] {
            columns.push(value);
        }
        assert_eq!(columns.part(0.0..1.0), [3, 1, 2]);
        assert_eq!(columns.part(0.4..0.6), [1]);
    }
}
