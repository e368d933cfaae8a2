//! The `audio` section of a tokenizer file, and how many tokens a piece of audio takes.
//!
//! With the sampling rate `r`, the frame rate `f` (tokens per second) and the hop `h`
//! (samples per mel frame), one token covers `s = floor(r / f)` samples or `m = floor(s / h)`
//! mel frames, and `n` samples take `ceil(floor(n / h) / m)` tokens.
//!
//! A 2507 model sees whole windows of `chunk_length_s` seconds: the clip is padded with zeros
//! at its end to a multiple of the window, and the padding takes tokens like the speech does.
//! For the released models that is 480 000 samples and 375 tokens per window.

use std::time::Duration;

use serde::Deserialize;

use crate::error::TokenizerError;

/// The longest delay of a row of delays that a streaming model takes, in milliseconds, and the
/// single one beyond: what its model card says it was trained for. The file does not tell.
const LONGEST_DELAY_MS: (f64, f64) = (1200.0, 2400.0);

/// Tokens of silence behind the audio, besides the delay and one: the words that are being
/// written when it ends have pieces to come (mistral-common's figure).
const TAIL_TOKENS: usize = 10;

/// Settings of the audio front-end, as the tokenizer file states them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AudioSection {
    /// Samples per second that the model expects.
    pub sampling_rate: u32,
    /// Audio tokens per second.
    pub frame_rate: f64,
    /// How the log-mel spectrogram is computed.
    pub encoding: EncodingConfig,
    /// Length of a window in seconds; audio is padded to whole windows. Absent from
    /// streaming models.
    pub chunk_length_s: Option<f64>,
    /// How the model transcribes.
    pub transcription_format: TranscriptionFormat,
}

/// Settings of the log-mel spectrogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct EncodingConfig {
    /// Number of mel bins.
    pub num_mel_bins: u32,
    /// Samples from one frame to the next.
    pub hop_length: u32,
    /// Samples in a frame.
    pub window_size: u32,
}

/// How a model transcribes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum TranscriptionFormat {
    /// Whole clips, placed in a prompt (the 2507 models).
    Instruct,
    /// One token per step, while the audio comes in (the Realtime models).
    Streaming(StreamingSettings),
}

/// What only a streaming model has.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StreamingSettings {
    /// How far the text follows the audio, in milliseconds, unless asked otherwise.
    pub transcription_delay_ms: f64,
    /// Audio that a step needs beyond its end, in milliseconds.
    pub look_ahead_ms: f64,
    /// Audio that a step needs before its beginning, in milliseconds.
    pub look_back_ms: f64,
    /// Tokens of silence before the audio.
    pub left_pad_tokens: u32,
}

/// A clip padded to whole windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Number of windows.
    pub windows: usize,
    /// Samples in all windows together, padding included.
    pub padded_samples: usize,
    /// Audio tokens in all windows together.
    pub tokens: usize,
}

/// How the audio of a stream is padded for one delay.
///
/// ```text
/// left_pad_tokens of silence | audio, silence up to a whole token | right_pad_tokens of silence
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamLayout {
    /// Samples of one token.
    pub samples_per_token: usize,
    /// Mel frames of one token.
    pub frames_per_token: usize,
    /// Tokens of silence before the audio.
    pub left_pad_tokens: usize,
    /// Tokens by which the text follows the audio.
    pub delay_tokens: usize,
    /// Tokens of silence behind the audio.
    pub right_pad_tokens: usize,
}

impl AudioSection {
    /// How a stream is laid out for this delay, or for that of the file.
    ///
    /// # Errors
    /// [`TokenizerError::NotStreaming`] for a model that takes whole clips,
    /// [`TokenizerError::Delay`] for a delay that the model was not trained for: it takes whole
    /// tokens (80 ms in the released model) up to 1200 ms, and 2400 ms.
    pub fn stream(&self, delay: Option<Duration>) -> Result<StreamLayout, TokenizerError> {
        let TranscriptionFormat::Streaming(settings) = self.transcription_format else {
            return Err(TokenizerError::NotStreaming);
        };
        let delay_ms = match delay {
            Some(delay) => self.check_delay(delay.as_secs_f64() * 1000.0)?,
            None => settings.transcription_delay_ms,
        };
        let samples = (delay_ms / 1000.0 * f64::from(self.sampling_rate)) as usize;
        let delay_tokens = self.num_tokens(samples);
        Ok(StreamLayout {
            samples_per_token: self.samples_per_token(),
            frames_per_token: self.frames_per_token(),
            left_pad_tokens: settings.left_pad_tokens as usize,
            delay_tokens,
            right_pad_tokens: delay_tokens + 1 + TAIL_TOKENS,
        })
    }

    fn check_delay(&self, ms: f64) -> Result<f64, TokenizerError> {
        let step = 1000.0 / self.frame_rate;
        let (longest, beyond) = LONGEST_DELAY_MS;
        let known = (step..=longest).contains(&ms) || ms == beyond;
        if known && ms % step == 0.0 {
            return Ok(ms);
        }
        Err(TokenizerError::Delay {
            found: ms,
            expected: format!("a multiple of {step} ms up to {longest} ms, or {beyond} ms"),
        })
    }

    /// Samples covered by one audio token: 1 280 in the released models.
    pub fn samples_per_token(&self) -> usize {
        (f64::from(self.sampling_rate) / self.frame_rate).floor() as usize
    }

    /// Mel frames covered by one audio token: 8 in the released models.
    pub fn frames_per_token(&self) -> usize {
        self.samples_per_token() / self.encoding.hop_length as usize
    }

    /// Tokens that so many samples take, without any padding.
    ///
    /// The reference counts `n / hop` frames for a multiple of the hop and
    /// `ceil(n / hop - 1)` otherwise, which is the integer quotient in both cases.
    pub fn num_tokens(&self, samples: usize) -> usize {
        let frames = samples / self.encoding.hop_length as usize;
        frames.div_ceil(self.frames_per_token())
    }

    /// Samples in one window, where the model has windows.
    pub fn window_samples(&self) -> Option<usize> {
        let seconds = self.chunk_length_s?;
        Some((seconds * f64::from(self.sampling_rate)) as usize)
    }

    /// So many samples padded to whole windows, where the model has windows.
    ///
    /// ```
    /// # let json = voxtral_tokenizer_doc::json();
    /// # mod voxtral_tokenizer_doc {
    /// #     pub fn json() -> Vec<u8> {
    /// #         use std::io::Read;
    /// #         let file = std::fs::File::open("testdata/tekken_240911.json.gz").unwrap();
    /// #         let mut json = Vec::new();
    /// #         flate2::read::GzDecoder::new(file).read_to_end(&mut json).unwrap();
    /// #         json
    /// #     }
    /// # }
    /// # let tokenizer = voxtral_tokenizer::Tokenizer::from_bytes(&json)?;
    /// let audio = tokenizer.audio().expect("the file has an audio section");
    /// let windows = audio.windows(480_001).expect("the model has windows");
    /// assert_eq!(
    ///     (windows.windows, windows.padded_samples, windows.tokens),
    ///     (2, 960_000, 750)
    /// );
    /// # Ok::<(), voxtral_tokenizer::TokenizerError>(())
    /// ```
    pub fn windows(&self, samples: usize) -> Option<Windows> {
        let window = self.window_samples()?;
        let windows = samples.div_ceil(window);
        let padded_samples = windows * window;
        Some(Windows {
            windows,
            padded_samples,
            tokens: self.num_tokens(padded_samples),
        })
    }
}

/// The section as it stands in the file.
#[derive(Debug, Deserialize)]
pub(crate) struct RawAudioSection {
    sampling_rate: u32,
    frame_rate: f64,
    audio_encoding_config: EncodingConfig,
    chunk_length_s: Option<f64>,
    transcription_format: Option<String>,
    transcription_delay_ms: Option<f64>,
    streaming_look_ahead_ms: Option<f64>,
    streaming_look_back_ms: Option<f64>,
    streaming_n_left_pad_tokens: Option<u32>,
}

impl RawAudioSection {
    /// The section, if its values make sense together.
    pub(crate) fn check(self) -> Result<AudioSection, TokenizerError> {
        self.check_rates()?;
        let transcription_format = match self.transcription_format.as_deref() {
            None | Some("instruct") => self.instruct()?,
            Some("streaming") => self.streaming()?,
            Some(other) => {
                return Err(invalid(
                    "transcription_format",
                    format!("\"{other}\""),
                    "\"instruct\" or \"streaming\"",
                ));
            }
        };
        let section = AudioSection {
            sampling_rate: self.sampling_rate,
            frame_rate: self.frame_rate,
            encoding: self.audio_encoding_config,
            chunk_length_s: self.chunk_length_s,
            transcription_format,
        };
        section.check_lengths()?;
        Ok(section)
    }

    fn check_rates(&self) -> Result<(), TokenizerError> {
        let EncodingConfig {
            num_mel_bins,
            hop_length,
            window_size,
        } = self.audio_encoding_config;
        for (key, value) in [
            ("sampling_rate", self.sampling_rate),
            ("audio_encoding_config.num_mel_bins", num_mel_bins),
            ("audio_encoding_config.hop_length", hop_length),
            ("audio_encoding_config.window_size", window_size),
        ] {
            if value == 0 {
                return Err(invalid(key, 0, "a number above 0"));
            }
        }
        // One token lasts at most an hour, so that every length below fits an integer.
        if !(1.0 / 3600.0..=f64::from(self.sampling_rate)).contains(&self.frame_rate) {
            let expected = format!(
                "a number of tokens per second above 0 and at most {}, the sampling rate",
                self.sampling_rate
            );
            return Err(invalid("frame_rate", self.frame_rate, expected));
        }
        Ok(())
    }

    fn instruct(&self) -> Result<TranscriptionFormat, TokenizerError> {
        let left_pad = self.streaming_n_left_pad_tokens.map(f64::from);
        for (key, value) in [
            ("transcription_delay_ms", self.transcription_delay_ms),
            ("streaming_look_ahead_ms", self.streaming_look_ahead_ms),
            ("streaming_look_back_ms", self.streaming_look_back_ms),
            ("streaming_n_left_pad_tokens", left_pad),
        ] {
            if let Some(found) = value {
                let expected = "none, since `transcription_format` is not \"streaming\"";
                return Err(invalid(key, found, expected));
            }
        }
        Ok(TranscriptionFormat::Instruct)
    }

    fn streaming(&self) -> Result<TranscriptionFormat, TokenizerError> {
        if let Some(found) = self.chunk_length_s {
            let expected = "none, since `transcription_format` is \"streaming\"";
            return Err(invalid("chunk_length_s", found, expected));
        }
        let delay = required("transcription_delay_ms", self.transcription_delay_ms)?;
        let step = 1000.0 / self.frame_rate;
        if delay <= 0.0 || delay % step != 0.0 {
            let expected = format!("a multiple of {step}, one token's duration, above 0");
            return Err(invalid("transcription_delay_ms", delay, expected));
        }
        Ok(TranscriptionFormat::Streaming(StreamingSettings {
            transcription_delay_ms: delay,
            look_ahead_ms: required("streaming_look_ahead_ms", self.streaming_look_ahead_ms)?,
            look_back_ms: required("streaming_look_back_ms", self.streaming_look_back_ms)?,
            left_pad_tokens: required(
                "streaming_n_left_pad_tokens",
                self.streaming_n_left_pad_tokens,
            )?,
        }))
    }
}

impl AudioSection {
    fn check_lengths(&self) -> Result<(), TokenizerError> {
        if self.frames_per_token() == 0 {
            let expected = format!(
                "at most {}, the number of samples of one token",
                self.samples_per_token()
            );
            let found = self.encoding.hop_length;
            return Err(invalid("audio_encoding_config.hop_length", found, expected));
        }
        let longest = f64::from(u32::MAX) / f64::from(self.sampling_rate);
        if let Some(found) = self.chunk_length_s
            && (self.window_samples() == Some(0) || !(0.0..=longest).contains(&found))
        {
            let expected = format!("a number of seconds above 0 and at most {longest:.0}");
            return Err(invalid("chunk_length_s", found, expected));
        }
        Ok(())
    }
}

fn required<T>(key: &'static str, value: Option<T>) -> Result<T, TokenizerError> {
    value.ok_or_else(|| {
        let expected = "a value, since `transcription_format` is \"streaming\"";
        invalid(key, "absent", expected)
    })
}

fn invalid(key: &'static str, found: impl ToString, expected: impl Into<String>) -> TokenizerError {
    TokenizerError::Audio {
        key,
        found: found.to_string(),
        expected: expected.into(),
    }
}
