//! Band-limited conversion of the sample rate, as a stream.
//!
//! rubato's synchronous resampler does the work: blocks of N samples are transformed by an FFT of
//! 2N, multiplied by the spectrum of a windowed sinc of length N (squared Blackman-Harris window,
//! cut-off just under the lower of the two Nyquist frequencies), the spectrum is cut or extended
//! to the new rate and transformed back, overlapping by addition. A linear-phase filter of length
//! N delays by N/2; that many samples are dropped at the start and made up for at the end, so
//! that sample n of the input and sample n·to/from of the output are the same moment.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

use crate::error::{AudioError, Cause};

/// The lowest rate that is resampled, in Hz.
const MIN_RATE: u32 = 1_000;

/// The highest rate that is resampled, in Hz. With rates that have no common divisor the filter
/// is as long as a second of samples, so there must be a limit.
const MAX_RATE: u32 = 384_000;

/// Least length of the filter in samples of the lower rate. At 512 the pass band ends at 0.946
/// and the stop band begins at 1.0 of the lower Nyquist frequency.
const MIN_FILTER: usize = 512;

/// A streaming resampler of mono samples.
///
/// For n samples in, there are `round(n·to/from)` out, whatever the sizes of the pieces that they
/// are pushed in, and the very same ones: the pieces are collected to blocks inside. A block is
/// 32 ms at 16 kHz for the common rates, which bounds the latency to 48 ms; it is longer where the
/// rates have a small common divisor. Equal rates pass through unchanged and without latency.
///
/// ```
/// let mut resampler = voxtral_audio::Resampler::new(48_000, 16_000)?;
/// let mut output = Vec::new();
/// for piece in vec![0.5; 48_000].chunks(1_000) {
///     resampler.push(piece, &mut output)?;
/// }
/// resampler.finish(&mut output)?;
/// assert_eq!(output.len(), 16_000);
/// assert!((output[8_000] - 0.5).abs() < 1e-5);
/// # Ok::<(), voxtral_audio::AudioError>(())
/// ```
#[derive(Debug)]
pub struct Resampler {
    from: u32,
    to: u32,
    /// Absent where the rates are equal.
    blocks: Option<Blocks>,
    consumed: u64,
    produced: u64,
}

/// Fixed-size blocks in and out of the FFT resampler.
#[derive(Debug)]
struct Blocks {
    fft: Fft<f32>,
    /// Samples that do not fill a block yet.
    pending: Vec<f32>,
    output: Vec<f32>,
    /// Samples still to be dropped for the delay of the filter.
    delay: usize,
}

impl Resampler {
    /// Prepares the conversion from one rate to another, both in Hz.
    ///
    /// # Errors
    /// [`AudioError::SampleRate`] for a rate below 1 kHz or above 384 kHz.
    pub fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        for found in [from, to] {
            if !(MIN_RATE..=MAX_RATE).contains(&found) {
                return Err(AudioError::SampleRate {
                    found,
                    min: MIN_RATE,
                    max: MAX_RATE,
                });
            }
        }
        let blocks = if from == to {
            None
        } else {
            Some(Blocks::new(from, to)?)
        };
        Ok(Self {
            from,
            to,
            blocks,
            consumed: 0,
            produced: 0,
        })
    }

    /// Takes samples in and appends those that are ready to `output`.
    ///
    /// # Errors
    /// [`AudioError::Resample`], which no input causes.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) -> Result<(), AudioError> {
        let before = output.len();
        match &mut self.blocks {
            None => output.extend_from_slice(input),
            Some(blocks) => blocks
                .push(input, output)
                .map_err(|source| resample_error(self.from, self.to, source))?,
        }
        self.consumed += input.len() as u64;
        self.produced += (output.len() - before) as u64;
        Ok(())
    }

    /// Appends the rest to `output`; the next [`push`](Self::push) begins a new clip.
    ///
    /// # Errors
    /// [`AudioError::Resample`], which no input causes.
    pub fn finish(&mut self, output: &mut Vec<f32>) -> Result<(), AudioError> {
        let total = (u128::from(self.consumed) * u128::from(self.to) * 2 + u128::from(self.from))
            / (u128::from(self.from) * 2);
        let missing = (total as u64).saturating_sub(self.produced);
        if let Some(blocks) = &mut self.blocks {
            blocks
                .flush(missing as usize, output)
                .map_err(|source| resample_error(self.from, self.to, source))?;
        }
        (self.consumed, self.produced) = (0, 0);
        Ok(())
    }
}

impl Blocks {
    fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        let divisor = gcd(from, to);
        let (step_in, step_out) = ((from / divisor) as usize, (to / divisor) as usize);
        // An even number of steps, so that half a block is a whole number of samples on both
        // sides and the delay can be taken back exactly.
        let steps = MIN_FILTER
            .div_ceil(step_in.min(step_out))
            .next_multiple_of(2);
        let fft = Fft::new(
            from as usize,
            to as usize,
            steps * step_in,
            1,
            FixedSync::Both,
        )
        .map_err(|source| resample_error(from, to, source))?;
        Ok(Self {
            pending: Vec::with_capacity(fft.input_frames_next()),
            output: vec![0.0; fft.output_frames_next()],
            delay: fft.output_delay(),
            fft,
        })
    }

    fn push(&mut self, mut input: &[f32], output: &mut Vec<f32>) -> Result<(), Cause> {
        let block = self.fft.input_frames_next();
        while !input.is_empty() {
            let (head, rest) = input.split_at(input.len().min(block - self.pending.len()));
            self.pending.extend_from_slice(head);
            input = rest;
            if self.pending.len() == block {
                self.block(output)?;
            }
        }
        Ok(())
    }

    /// Feeds zeros until `missing` more samples have come out, and starts over.
    fn flush(&mut self, missing: usize, output: &mut Vec<f32>) -> Result<(), Cause> {
        let end = output.len() + missing;
        while output.len() < end {
            self.pending.resize(self.fft.input_frames_next(), 0.0);
            self.block(output)?;
        }
        output.truncate(end);
        self.pending.clear();
        self.fft.reset();
        self.delay = self.fft.output_delay();
        Ok(())
    }

    /// Resamples the full block in `pending`.
    fn block(&mut self, output: &mut Vec<f32>) -> Result<(), Cause> {
        let (frames_in, frames_out) = (self.pending.len(), self.output.len());
        let from = SequentialSlice::new(&self.pending, 1, frames_in)?;
        let mut to = SequentialSlice::new_mut(&mut self.output, 1, frames_out)?;
        self.fft
            .process_into_buffer(&from, &mut to, None::<&Indexing>)?;
        let dropped = self.delay.min(frames_out);
        self.delay -= dropped;
        output.extend_from_slice(&self.output[dropped..]);
        self.pending.clear();
        Ok(())
    }
}

fn resample_error(from: u32, to: u32, source: impl Into<Cause>) -> AudioError {
    AudioError::Resample {
        from,
        to,
        source: source.into(),
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
