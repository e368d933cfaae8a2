//! Log-mel features, for a whole clip or one window of it at a time; [`LogMelStream`] is for a
//! stream.
//!
//! For samples x of a clip (N of them, after padding with zeros at the end), a window of W
//! samples, a hop of H and the filter bank of [`mel_filter_bank`]:
//!
//! ```text
//! w[n]     = 0.5 − 0.5·cos(2πn/W)                       periodic Hann window
//! frame_j  = w · x[jH − W/2 .. jH + W/2)                x[−i] = x[i], x[N−1+i] = x[N−1−i]
//! P_j[k]   = |rfft(frame_j)[k]|²                        k = 0 … W/2
//! S[b,j]   = log10(max(Σ_k filters[b,k]·P_j[k], 1e-10))
//! out[b,j] = (max(S[b,j], M − 8) + 4) / 4               j = 0 … ⌊N/H⌋ − 1
//! ```
//!
//! The centred transform has 1 + ⌊N/H⌋ frames, of which the last is dropped. M is the maximum of S
//! over the whole clip (Whisper, and the 2507 models) or a constant of the model (Realtime); see
//! [`LogMelMax`]. Source: transformers, `feature_extraction_whisper.py` and
//! `feature_extraction_voxtral_realtime.py`; A. Radford et al., "Robust Speech Recognition via
//! Large-Scale Weak Supervision", 2022, §2.2.
//!
//! Up to S everything is computed in f64: the f32 transform of the reference is its main error,
//! and a second one as large would add to it. A frame depends on nothing but its W samples, so it
//! does not matter in which order, on how many threads or how far apart in time they are computed.

use std::f64::consts::TAU;
use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::error::AudioError;
use crate::filter_bank::mel_filter_bank;
use crate::stream::LogMelStream;

/// What counts as silence, as power after the filter bank.
const MIN_POWER: f64 = 1e-10;

/// How far below the maximum features are cut off, in decades of power.
const DYNAMIC_RANGE: f32 = 8.0;

/// Frames that one thread computes at a time.
pub(crate) const FRAMES_PER_TASK: usize = 64;

/// The dimensions of a log-mel front-end, as a checkpoint states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MelConfig {
    /// Samples per second; the filters span from 0 Hz to half of it.
    pub sample_rate: u32,
    /// Samples per frame W, which is also the size of the transform; even.
    pub window_size: usize,
    /// Samples from one frame to the next, H.
    pub hop_length: usize,
    /// Features per frame, B.
    pub num_mel_bins: usize,
}

impl MelConfig {
    fn check(&self) -> Result<(), AudioError> {
        let fail = |field, found, expected| {
            Err(AudioError::MelConfig {
                field,
                found,
                expected,
            })
        };
        if self.sample_rate == 0 {
            return fail("sample_rate", 0, "at least 1");
        }
        if !self.window_size.is_multiple_of(2) || !(2..=1 << 16).contains(&self.window_size) {
            return fail(
                "window_size",
                self.window_size,
                "an even number from 2 to 65536",
            );
        }
        if self.hop_length == 0 {
            return fail("hop_length", 0, "at least 1");
        }
        if !(1..=1 << 12).contains(&self.num_mel_bins) {
            return fail("num_mel_bins", self.num_mel_bins, "1 to 4096");
        }
        Ok(())
    }
}

/// Where the maximum M comes from, 8 decades below which features are cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogMelMax {
    /// The maximum of the clip itself.
    Clip,
    /// A constant, in log10 of power; 1.5 for Realtime.
    Fixed(f32),
}

/// Log-mel features of a stretch of audio.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Features per frame, B.
    pub bins: usize,
    /// Number of frames, T.
    pub frames: usize,
    /// `[bins, frames]`, mel-major: feature b of frame t stands at `b * frames + t`.
    pub data: Vec<f32>,
}

impl Features {
    /// Feature `bin` of frame `frame`; `None` outside.
    pub fn get(&self, bin: usize, frame: usize) -> Option<f32> {
        let inside = bin < self.bins && frame < self.frames;
        inside.then(|| self.data[bin * self.frames + frame])
    }
}

/// The log-mel front-end: window, transform and filters, ready to be shared between threads.
///
/// Samples are expected to be finite, as those of [`Audio`](crate::Audio) are.
pub struct LogMel {
    config: MelConfig,
    window: Vec<f64>,
    fft: Arc<dyn RealToComplex<f64>>,
    filters: Vec<Filter>,
}

/// The non-zero stretch of one row of the filter bank.
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

/// What one frame needs to be computed in.
pub(crate) struct Scratch {
    frame: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    fft: Vec<Complex<f64>>,
    energies: Vec<f64>,
}

impl LogMel {
    /// Prepares the front-end.
    ///
    /// # Errors
    /// [`AudioError::MelConfig`] for a dimension that is zero, odd or absurd.
    pub fn new(config: MelConfig) -> Result<Self, AudioError> {
        config.check()?;
        let size = config.window_size;
        let filters = mel_filter_bank(&config)
            .chunks(size / 2 + 1)
            .map(Filter::new)
            .collect();
        Ok(Self {
            config,
            window: (0..size)
                .map(|n| 0.5 - 0.5 * (TAU * n as f64 / size as f64).cos())
                .collect(),
            fft: RealFftPlanner::new().plan_fft_forward(size),
            filters,
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Features of a whole clip, `[num_mel_bins, samples.len() / hop_length]`.
    ///
    /// # Errors
    /// [`AudioError::TooShort`] for half a window of samples or less: its edges cannot be
    /// reflected.
    pub fn features(&self, samples: &[f32], max: LogMelMax) -> Result<Features, AudioError> {
        self.check_length(samples, samples.len())?;
        let frames = samples.len() / self.config.hop_length;
        let (logs, clip_max) = self.logs(samples, samples.len(), 0, frames);
        let max = match max {
            LogMelMax::Clip => clip_max,
            LogMelMax::Fixed(max) => max,
        };
        Ok(self.normalise(&logs, max))
    }

    /// Begins the features of samples that come in pieces and may never end: those of
    /// [`features`](Self::features) with [`LogMelMax::Fixed`]`(max)`.
    pub fn stream(&self, max: f32) -> LogMelStream<'_> {
        LogMelStream::new(self, max)
    }

    /// The maximum M of log10 power over all features of the clip, padded with zeros at the end to
    /// `padded_len` samples.
    ///
    /// That of silence, −10, if the clip has no frame.
    pub fn clip_maximum(&self, samples: &[f32], padded_len: usize) -> f32 {
        if self.check_length(samples, padded_len).is_err() {
            return log10(0.0);
        }
        let frames = padded_len / self.config.hop_length;
        let power = (0..frames.div_ceil(FRAMES_PER_TASK))
            .into_par_iter()
            .map_init(
                || self.scratch(),
                |scratch, task| {
                    let first = task * FRAMES_PER_TASK;
                    (first..frames.min(first + FRAMES_PER_TASK)).fold(0.0, |max, index| {
                        let centre = index * self.config.hop_length;
                        let energies = self.frame(samples, padded_len, centre, scratch);
                        energies.iter().copied().fold(max, f64::max)
                    })
                },
            )
            .reduce(|| 0.0, f64::max);
        log10(power)
    }

    /// `frames` features from frame `start` on, `[num_mel_bins, frames]`, of the clip padded with
    /// zeros at the end to `padded_len` samples, given its maximum.
    ///
    /// With `max` from [`clip_maximum`](Self::clip_maximum), windows side by side are exactly the
    /// [`features`](Self::features) of the padded clip with [`LogMelMax::Clip`], in memory that
    /// does not grow with the clip.
    ///
    /// # Errors
    /// [`AudioError::TooShort`], [`AudioError::PaddedLength`] if `padded_len` is less than the
    /// clip, [`AudioError::FrameRange`] if the padded clip does not have those frames.
    pub fn window(
        &self,
        samples: &[f32],
        padded_len: usize,
        start: usize,
        frames: usize,
        max: f32,
    ) -> Result<Features, AudioError> {
        self.check_length(samples, padded_len)?;
        let available = padded_len / self.config.hop_length;
        let end = start.saturating_add(frames);
        if end > available {
            return Err(AudioError::FrameRange {
                start,
                end,
                available,
            });
        }
        let (logs, _) = self.logs(samples, padded_len, start, frames);
        Ok(self.normalise(&logs, max))
    }

    /// Buffers for [`spectrum`](Self::spectrum); one for each thread.
    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            frame: vec![0.0; self.config.window_size],
            spectrum: self.fft.make_output_vec(),
            fft: self.fft.make_scratch_vec(),
            energies: vec![0.0; self.config.num_mel_bins],
        }
    }

    /// The power in each mel band, `[num_mel_bins]`, of the samples in `scratch.frame`.
    fn spectrum<'a>(&self, scratch: &'a mut Scratch) -> &'a [f64] {
        for (sample, weight) in scratch.frame.iter_mut().zip(&self.window) {
            *sample *= weight;
        }
        self.fft
            .process_with_scratch(&mut scratch.frame, &mut scratch.spectrum, &mut scratch.fft)
            .expect("the buffers were made for this transform");
        for (energy, filter) in scratch.energies.iter_mut().zip(&self.filters) {
            let bins = scratch.spectrum[filter.first..].iter();
            *energy = bins
                .zip(&filter.weights)
                .map(|(bin, weight)| bin.norm_sqr() * weight)
                .sum();
        }
        &scratch.energies
    }

    /// The power in each mel band, `[num_mel_bins]`, of the frame around sample `centre` of the
    /// padded clip.
    fn frame<'a>(
        &self,
        samples: &[f32],
        padded_len: usize,
        centre: usize,
        scratch: &'a mut Scratch,
    ) -> &'a [f64] {
        let half = self.config.window_size / 2;
        let last = padded_len - 1;
        // The end of the frame that lies beyond the clip is the mirror image of this much of it.
        let mirrored = (centre + half).saturating_sub(padded_len);
        let lowest = centre.saturating_sub(half).min(last - mirrored);
        if lowest >= samples.len() {
            // Padding makes up most of a short clip's window, and its power is known.
            scratch.energies.fill(0.0);
            return &scratch.energies;
        }
        for (offset, value) in scratch.frame.iter_mut().enumerate() {
            let position = (centre + offset).abs_diff(half);
            let position = if position > last {
                2 * last - position
            } else {
                position
            };
            *value = samples.get(position).copied().map_or(0.0, f64::from);
        }
        self.spectrum(scratch)
    }

    /// Log powers S of some frames, `[frames, num_mel_bins]`, and the largest of them.
    fn logs(
        &self,
        samples: &[f32],
        padded_len: usize,
        start: usize,
        frames: usize,
    ) -> (Vec<f32>, f32) {
        let mut logs = vec![0.0; frames * self.config.num_mel_bins];
        let centre = start * self.config.hop_length;
        let power = self.fill(samples, padded_len, centre, &mut logs);
        (logs, log10(power))
    }

    /// Fills `logs`, `[frames, num_mel_bins]`, with the log powers S of the frames from the one
    /// around sample `centre` on; gives the largest power.
    pub(crate) fn fill(
        &self,
        samples: &[f32],
        padded_len: usize,
        centre: usize,
        logs: &mut [f32],
    ) -> f64 {
        logs.par_chunks_mut(self.config.num_mel_bins * FRAMES_PER_TASK)
            .enumerate()
            .map_init(
                || self.scratch(),
                |scratch, (task, rows)| {
                    let centre = centre + task * FRAMES_PER_TASK * self.config.hop_length;
                    self.fill_with_scratch(samples, padded_len, centre, rows, scratch)
                },
            )
            .reduce(|| 0.0, f64::max)
    }

    /// Like [`fill`](Self::fill), on this thread.
    pub(crate) fn fill_with_scratch(
        &self,
        samples: &[f32],
        padded_len: usize,
        centre: usize,
        logs: &mut [f32],
        scratch: &mut Scratch,
    ) -> f64 {
        let mut max: f64 = 0.0;
        for (row, logs) in logs.chunks_mut(self.config.num_mel_bins).enumerate() {
            let centre = centre + row * self.config.hop_length;
            let energies = self.frame(samples, padded_len, centre, scratch);
            for (log, &energy) in logs.iter_mut().zip(energies) {
                *log = log10(energy);
                max = max.max(energy);
            }
        }
        max
    }

    /// From log powers `[frames, num_mel_bins]` to features, mel-major.
    fn normalise(&self, logs: &[f32], max: f32) -> Features {
        let bins = self.config.num_mel_bins;
        let frames = logs.len() / bins;
        let mut data = Vec::with_capacity(logs.len());
        for bin in 0..bins {
            data.extend(
                logs[bin.min(logs.len())..]
                    .iter()
                    .step_by(bins)
                    .map(|&log| normalise(log, max)),
            );
        }
        Features { bins, frames, data }
    }

    fn check_length(&self, samples: &[f32], padded_len: usize) -> Result<(), AudioError> {
        if padded_len < samples.len() {
            return Err(AudioError::PaddedLength {
                found: padded_len,
                expected: samples.len(),
            });
        }
        let expected = self.config.window_size / 2 + 1;
        if padded_len < expected {
            return Err(AudioError::TooShort {
                found: padded_len,
                expected,
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for LogMel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogMel")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Filter {
    fn new(row: &[f32]) -> Self {
        let first = row
            .iter()
            .position(|&weight| weight > 0.0)
            .unwrap_or(row.len());
        let end = row
            .iter()
            .rposition(|&weight| weight > 0.0)
            .map_or(first, |last| last + 1);
        Self {
            first,
            weights: row[first..end].iter().copied().map(f64::from).collect(),
        }
    }
}

/// S of a power.
fn log10(power: f64) -> f32 {
    power.max(MIN_POWER).log10() as f32
}

/// The feature for a log power S, given the maximum M.
pub(crate) fn normalise(log: f32, max: f32) -> f32 {
    (log.max(max - DYNAMIC_RANGE) + 4.0) / 4.0
}
