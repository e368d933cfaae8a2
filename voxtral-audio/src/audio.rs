//! A whole clip in memory.

use std::io::{BufWriter, Cursor, Read, Seek};
use std::path::Path;
use std::time::Duration;

use crate::decode::Decoder;
use crate::error::{AudioError, Cause};
use crate::resample::Resampler;

/// A clip of mono samples, nominally in [-1, 1] and always finite.
///
/// Values beyond ±1 are kept: nothing here clips, normalises or dithers.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    samples: Vec<f32>,
    sample_rate: u32,
    truncated: bool,
}

impl Audio {
    /// Takes samples as they are; an empty clip is allowed.
    ///
    /// # Errors
    /// [`AudioError::NonFinite`] for NaN or an infinity, [`AudioError::SampleRate`] for 0 Hz.
    pub fn new(samples: Vec<f32>, sample_rate: u32) -> Result<Self, AudioError> {
        if sample_rate == 0 {
            return Err(AudioError::SampleRate {
                found: 0,
                min: 1,
                max: u32::MAX,
            });
        }
        if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(AudioError::NonFinite {
                value: samples[at],
                sample: at as u64,
            });
        }
        Ok(Self {
            samples,
            sample_rate,
            truncated: false,
        })
    }

    /// Decodes a file, averages its channels and resamples to `sample_rate` Hz.
    ///
    /// The kind of file is found from its content, never from its name. Of a damaged file all
    /// that can be decoded is returned, with a warning by `tracing` and
    /// [`is_truncated`](Self::is_truncated); a [`Decoder`] tells more.
    ///
    /// # Errors
    /// Those of [`Decoder::open`] and [`Resampler::new`].
    pub fn from_file(path: impl AsRef<Path>, sample_rate: u32) -> Result<Self, AudioError> {
        Self::from_decoder(Decoder::open(path)?, sample_rate, Duration::MAX)
    }

    /// Like [`from_file`](Self::from_file), from the bytes of a file.
    ///
    /// # Errors
    /// Those of [`Decoder::new`] and [`Resampler::new`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>, sample_rate: u32) -> Result<Self, AudioError> {
        Self::from_reader(Cursor::new(bytes.into()), sample_rate)
    }

    /// Like [`from_file`](Self::from_file), from anything that can be read and sought.
    ///
    /// # Errors
    /// Those of [`Decoder::new`] and [`Resampler::new`].
    pub fn from_reader<R>(reader: R, sample_rate: u32) -> Result<Self, AudioError>
    where
        R: Read + Seek + Send + Sync + 'static,
    {
        Self::from_decoder(Decoder::new(reader)?, sample_rate, Duration::MAX)
    }

    /// Like [`from_file`](Self::from_file), from a file whose header was looked at already, and not
    /// more than about `limit` of it: a header may state no length, or a wrong one.
    ///
    /// # Errors
    /// Those of [`Decoder`]'s items and [`Resampler::new`].
    pub fn from_decoder(
        mut decoder: Decoder,
        sample_rate: u32,
        limit: Duration,
    ) -> Result<Self, AudioError> {
        let enough = limit.as_secs_f64() * f64::from(sample_rate);
        let mut resampler = Resampler::new(decoder.sample_rate(), sample_rate)?;
        let mut samples = Vec::new();
        for chunk in decoder.by_ref() {
            resampler.push(&chunk?, &mut samples)?;
            if samples.len() as f64 >= enough {
                break;
            }
        }
        resampler.finish(&mut samples)?;
        if samples.is_empty() {
            return Err(AudioError::Empty);
        }
        Ok(Self {
            samples,
            sample_rate,
            truncated: decoder.truncated(),
        })
    }

    /// The same clip at another rate, of `round(len · sample_rate / self.sample_rate())` samples.
    ///
    /// # Errors
    /// Those of [`Resampler::new`].
    pub fn resampled(&self, sample_rate: u32) -> Result<Self, AudioError> {
        let mut resampler = Resampler::new(self.sample_rate, sample_rate)?;
        let mut samples = Vec::new();
        resampler.push(&self.samples, &mut samples)?;
        resampler.finish(&mut samples)?;
        Ok(Self {
            samples,
            sample_rate,
            truncated: self.truncated,
        })
    }

    /// Whether the file broke off before its end.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The samples.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// The samples, without a copy.
    pub fn into_samples(self) -> Vec<f32> {
        self.samples
    }

    /// Samples per second.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// How long the clip is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(self.sample_rate))
    }

    /// Writes a mono WAV file of 16 bits; samples beyond ±1 are clipped.
    ///
    /// The file is written under another name in the same folder and then renamed, so that there
    /// is never half a file at `path`.
    ///
    /// # Errors
    /// [`AudioError::Write`], after which what was at `path` before is still there.
    pub fn write_wav(&self, path: impl AsRef<Path>) -> Result<(), AudioError> {
        let path = path.as_ref();
        self.write_and_rename(path)
            .map_err(|source| AudioError::Write {
                path: path.into(),
                source,
            })
    }

    fn write_and_rename(&self, path: &Path) -> Result<(), Cause> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut options = tempfile::Builder::new();
        // The library's own choice is a file that only its owner may read.
        #[cfg(unix)]
        options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = options.tempfile_in(folder)?;
        let specification = hound::WavSpec {
            channels: 1,
            sample_rate: self.sample_rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(BufWriter::new(file.as_file_mut()), specification)?;
        for &sample in &self.samples {
            // The cast saturates; decoding divides by the same 32768.
            writer.write_sample((sample * 32_768.0).round() as i16)?;
        }
        writer.finalize()?;
        file.persist(path)?;
        Ok(())
    }
}
