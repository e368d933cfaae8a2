//! Log-mel features of a stream of samples, as they come.
//!
//! The features are those of [`LogMel::features`], to the bit. Frame j lies around sample jH and
//! is known once there are jH + W/2 samples (for j = 0, which is reflected, one more). Where H is
//! more than W/2 that is too early: a clip that ends before sample (j + 1)H does not have the
//! frame. At the end of the stream the last frames are reflected there.
//!
//! The samples from the window of the next frame on are kept, and positions are counted from the
//! first of them: nothing grows with the stream.

use std::mem;

use crate::error::AudioError;
use crate::mel::{FRAMES_PER_TASK, LogMel, Scratch, normalise};

/// The log-mel features of a stream; made by [`LogMel::stream`].
///
/// ```
/// use voxtral_audio::{LogMel, LogMelMax, MelConfig};
///
/// let config = MelConfig { sample_rate: 16_000, window_size: 400, hop_length: 160, num_mel_bins: 128 };
/// let mel = LogMel::new(config)?;
/// let samples: Vec<f32> = (0..4000).map(|n| (n as f32 * 0.1).sin()).collect();
///
/// let (mut stream, mut frames) = (mel.stream(1.5), Vec::new());
/// for piece in samples.chunks(1280) {
///     stream.push(piece, &mut frames);
/// }
/// stream.finish(&mut frames)?;
///
/// let whole = mel.features(&samples, LogMelMax::Fixed(1.5))?;
/// assert_eq!(frames.len(), 25 * 128);
/// assert_eq!(whole.get(127, 3), Some(frames[3 * 128 + 127]));
/// # Ok::<(), voxtral_audio::AudioError>(())
/// ```
pub struct LogMelStream<'a> {
    mel: &'a LogMel,
    max: f32,
    scratch: Scratch,
    /// The samples that the next frame and those after it need.
    kept: Vec<f32>,
    /// Where the next frame lies, counted from the first sample that is kept: W/2, and less as
    /// long as the beginning of the stream is kept.
    centre: usize,
}

impl<'a> LogMelStream<'a> {
    pub(crate) fn new(mel: &'a LogMel, max: f32) -> Self {
        Self {
            mel,
            max,
            scratch: mel.scratch(),
            kept: Vec::new(),
            centre: 0,
        }
    }

    /// Takes samples, any number of them, and appends the frames that are complete to `frames`,
    /// `[new frames, num_mel_bins]`; returns how many.
    ///
    /// Many frames at a time are computed on all threads, a few on this one and without any
    /// allocation but that of `frames`. Between calls fewer than W/2 + max(W/2, H) samples are kept.
    pub fn push(&mut self, samples: &[f32], frames: &mut Vec<f32>) -> usize {
        let config = self.mel.config();
        let before = self.kept.len();
        // So many that all frames that begin among the samples kept from before are complete.
        let bridge = config.window_size.saturating_add(config.hop_length);
        let bridge = bridge.min(samples.len());
        self.kept.extend_from_slice(&samples[..bridge]);
        let mut count = self.compute_kept(Self::complete, frames);
        let used = self.used();
        if bridge < samples.len() && used >= before {
            // The others are computed where they are.
            let rest = &samples[used - before..];
            self.centre -= used;
            count += self.compute(rest, self.complete(rest.len()), frames);
            let used = self.used();
            self.kept.clear();
            self.kept.extend_from_slice(&rest[used..]);
            self.centre -= used;
        } else {
            self.kept.drain(..used);
            self.centre -= used;
        }
        count
    }

    /// Ends the stream: appends the frames whose windows reach beyond its end, where it is
    /// reflected; returns how many. The next [`push`](Self::push) begins a new stream.
    ///
    /// # Errors
    /// [`AudioError::TooShort`] for a stream of half a window of samples or less, which has no
    /// frames.
    pub fn finish(&mut self, frames: &mut Vec<f32>) -> Result<usize, AudioError> {
        let (found, expected) = (self.kept.len(), self.mel.config().window_size / 2 + 1);
        // Without a frame yet, all of the stream is kept.
        if self.centre == 0 && found < expected {
            self.reset();
            return Err(AudioError::TooShort { found, expected });
        }
        let count = self.compute_kept(Self::begun, frames);
        self.reset();
        Ok(count)
    }

    /// Forgets all samples, and begins a new stream; buffers are kept.
    pub fn reset(&mut self) {
        self.kept.clear();
        self.centre = 0;
    }

    /// Frames that need none but the first `len` samples, and that no end can take away.
    fn complete(&self, len: usize) -> usize {
        let config = self.mel.config();
        let half = config.window_size / 2;
        // Sample W/2 is the first one's mirror image.
        if len <= half {
            return 0;
        }
        let reach = self.centre.saturating_add(half.max(config.hop_length));
        len.checked_sub(reach)
            .map_or(0, |spare| spare / config.hop_length + 1)
    }

    /// Frames that a stream ending after `len` samples has.
    fn begun(&self, len: usize) -> usize {
        len.saturating_sub(self.centre) / self.mel.config().hop_length
    }

    /// Samples in front of the next frame's window.
    fn used(&self) -> usize {
        self.centre
            .saturating_sub(self.mel.config().window_size / 2)
    }

    /// Computes as many of the frames among the samples that are kept as `count` says.
    fn compute_kept(
        &mut self,
        count: impl Fn(&Self, usize) -> usize,
        frames: &mut Vec<f32>,
    ) -> usize {
        let kept = mem::take(&mut self.kept);
        let count = self.compute(&kept, count(self, kept.len()), frames);
        self.kept = kept;
        count
    }

    /// Appends the next `count` frames of `samples`, the first of which `centre` is counted from.
    fn compute(&mut self, samples: &[f32], count: usize, frames: &mut Vec<f32>) -> usize {
        let config = self.mel.config();
        let (before, len) = (frames.len(), samples.len());
        frames.resize(before + count * config.num_mel_bins, 0.0);
        let rows = &mut frames[before..];
        if count > FRAMES_PER_TASK {
            self.mel.fill(samples, len, self.centre, rows);
        } else {
            self.mel
                .fill_with_scratch(samples, len, self.centre, rows, &mut self.scratch);
        }
        for value in rows {
            *value = normalise(*value, self.max);
        }
        self.centre += count * config.hop_length;
        count
    }
}

impl std::fmt::Debug for LogMelStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogMelStream")
            .field("mel", self.mel)
            .field("max", &self.max)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::mel::{LogMel, MelConfig};

    /// A million samples in pieces, small ones and large ones: little is kept, and no buffer grows.
    #[test]
    fn memory_does_not_grow_with_the_stream() {
        for (window_size, hop_length) in [(400, 160), (398, 50), (90, 250), (2, 1)] {
            let mel = LogMel::new(MelConfig {
                sample_rate: 16_000,
                window_size,
                hop_length,
                num_mel_bins: 2,
            })
            .unwrap();
            let most = window_size / 2 + hop_length.max(window_size / 2);
            let mut stream = mel.stream(1.5);
            let mut frames = Vec::new();
            let mut capacity = 0;
            for round in 0..1_000_000 / 1_280 {
                let piece = if round % 100 == 99 { 20_000 } else { 1_280 };
                frames.clear();
                stream.push(&vec![0.1; piece], &mut frames);
                assert!(stream.kept.len() < most, "{} samples", stream.kept.len());
                assert!(stream.centre <= window_size / 2);
                if round == 100 {
                    capacity = stream.kept.capacity();
                }
            }
            assert_eq!(stream.kept.capacity(), capacity);
            assert!(
                capacity <= 2 * (most + window_size + hop_length),
                "{capacity}"
            );
            stream.reset();
            assert_eq!((stream.kept.len(), stream.kept.capacity()), (0, capacity));
        }
    }
}
