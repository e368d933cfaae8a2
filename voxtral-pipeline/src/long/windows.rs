//! Windows of audio, cut at quiet places, from a source of any length in the memory of one window.

use std::time::Duration;

use voxtral_audio::{Activity, Audio, AudioError, Decoder, Resampler};

/// A stretch of the audio that is heard at once.
pub(super) struct Window {
    /// Its first sample in the audio.
    pub(super) start: u64,
    pub(super) samples: Vec<f32>,
    pub(super) sample_rate: u32,
    pub(super) activity: Activity,
}

impl Window {
    /// One past its last sample in the audio.
    pub(super) fn end(&self) -> u64 {
        self.start + self.samples.len() as u64
    }

    /// Samples of so much time.
    pub(super) fn samples_of(&self, time: Duration) -> usize {
        (time.as_secs_f64() * f64::from(self.sample_rate)) as usize
    }
}

/// Samples of a clip that are read at a time.
const CHUNK: usize = 1 << 15;

/// Where samples come from.
enum Source {
    Clip {
        audio: Audio,
        /// Samples of it that were read.
        read: usize,
    },
    Decoder(Box<Decoder>),
}

/// An iterator of windows of at most a given length. Audio that fits into one is not cut. Longer
/// audio is cut in the later half of each, in its last pause of half a second, else in its longest
/// pause, or at its quietest place; see [`Activity::cut`].
pub(super) struct Windows {
    source: Source,
    /// None behind the end of the source.
    resampler: Option<Resampler>,
    sample_rate: u32,
    longest: usize,
    /// Samples that were read and are in no window yet.
    buffer: Vec<f32>,
    start: u64,
}

impl Windows {
    /// Windows of a clip, `longest` samples at most.
    pub(super) fn of_clip(
        audio: Audio,
        sample_rate: u32,
        longest: usize,
    ) -> Result<Self, AudioError> {
        let from = audio.sample_rate();
        Self::new(Source::Clip { audio, read: 0 }, from, sample_rate, longest)
    }

    /// Windows of what a decoder reads, `longest` samples at most.
    pub(super) fn of_decoder(
        decoder: Decoder,
        sample_rate: u32,
        longest: usize,
    ) -> Result<Self, AudioError> {
        let from = decoder.sample_rate();
        Self::new(
            Source::Decoder(Box::new(decoder)),
            from,
            sample_rate,
            longest,
        )
    }

    fn new(
        source: Source,
        from: u32,
        sample_rate: u32,
        longest: usize,
    ) -> Result<Self, AudioError> {
        Ok(Self {
            source,
            resampler: Some(Resampler::new(from, sample_rate)?),
            sample_rate,
            longest,
            buffer: Vec::new(),
            start: 0,
        })
    }

    /// Samples per second of the windows.
    pub(super) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Length of the audio that its file states, or has.
    pub(super) fn stated(&self) -> Option<Duration> {
        match &self.source {
            Source::Clip { audio, .. } => Some(audio.duration()),
            Source::Decoder(decoder) => decoder.duration(),
        }
    }

    /// Whether the file broke off, as far as is known yet.
    pub(super) fn truncated(&self) -> bool {
        match &self.source {
            Source::Clip { audio, .. } => audio.is_truncated(),
            Source::Decoder(decoder) => decoder.truncated(),
        }
    }

    /// Samples that were read so far.
    pub(super) fn read(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Reads until there is more than one window, or no more.
    fn fill(&mut self) -> Result<(), AudioError> {
        while self.buffer.len() <= self.longest {
            let Some(resampler) = &mut self.resampler else {
                break;
            };
            let ended = match &mut self.source {
                Source::Clip { audio, read } => {
                    // Not all at once: what is in no window yet is moved for each.
                    let rest = &audio.samples()[*read..];
                    let chunk = &rest[..CHUNK.min(rest.len())];
                    resampler.push(chunk, &mut self.buffer)?;
                    *read += chunk.len();
                    chunk.len() == rest.len()
                }
                Source::Decoder(decoder) => match decoder.next() {
                    Some(chunk) => {
                        resampler.push(&chunk?, &mut self.buffer)?;
                        false
                    }
                    None => true,
                },
            };
            if ended {
                resampler.finish(&mut self.buffer)?;
                self.resampler = None;
            }
        }
        Ok(())
    }

    /// Where the next window ends in the buffer.
    fn cut(&self) -> usize {
        if self.buffer.len() <= self.longest {
            return self.buffer.len();
        }
        let activity = Activity::of(&self.buffer[..self.longest], self.sample_rate);
        let cut = activity.cut(self.longest / 2..self.longest);
        cut.clamp(1, self.longest)
    }
}

impl Iterator for Windows {
    type Item = Result<Window, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.resampler = None;
            self.buffer.clear();
            return Some(Err(error));
        }
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split_off(self.cut());
        let samples = std::mem::replace(&mut self.buffer, rest);
        let window = Window {
            start: self.start,
            activity: Activity::of(&samples, self.sample_rate),
            sample_rate: self.sample_rate,
            samples,
        };
        self.start = window.end();
        Some(Ok(window))
    }
}
