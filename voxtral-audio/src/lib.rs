//! From a sound file to the log-mel features of the Voxtral speech models.
//!
//! | step | item | result |
//! |---|---|---|
//! | decode | [`Decoder`] | mono samples at the file's rate, a packet at a time; of a pipe, as they are written |
//! | resample | [`Resampler`] | mono samples at another rate, any chunking |
//! | both, for a whole clip | [`Audio`] | samples in memory |
//! | features | [`LogMel`] | `[mel bins, frames]`, of a clip or one 30 s window at a time |
//! | voice activity | [`Activity`] | where there is sound, where there is speech, where it is quiet |
//! | features of a stream | [`LogMelStream`] | `[new frames, mel bins]` for every piece, the same as of the whole clip |
//!
//! WAV (integers of 8 to 32 bits, floats, A-law, µ-law, ADPCM), AIFF, CAF, FLAC, MP1 to MP3,
//! Ogg (Vorbis, Opus, FLAC), MP4/M4A (AAC-LC, ALAC), ADTS, MKV and WebM are recognised by their
//! content, never by their name. Opus of more than two channels is not decoded, and of HE-AAC at
//! most the lower half of the spectrum.
//!
//! Live audio is [`Decoder::from_stream`], [`Resampler::push`] and [`LogMelStream::push`] in a
//! row: memory does not grow with the stream, and the features are those of the whole clip.
//!
//! ```
//! use voxtral_audio::{Audio, LogMel, LogMelMax, MelConfig};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/audio/jfk.wav");
//! let config = MelConfig { sample_rate: 16_000, window_size: 400, hop_length: 160, num_mel_bins: 128 };
//! let audio = Audio::from_file(path, config.sample_rate)?;
//! assert_eq!(audio.duration().as_secs(), 11);
//!
//! // What the encoder of the 2507 models takes: windows of 30 s, padded with zeros, normalised
//! // by the maximum of the whole clip.
//! let mel = LogMel::new(config)?;
//! let window = 30 * 16_000;
//! let padded = audio.samples().len().next_multiple_of(window);
//! let maximum = mel.clip_maximum(audio.samples(), padded);
//! let features = mel.window(audio.samples(), padded, 0, 3_000, maximum)?;
//! assert_eq!((features.bins, features.frames), (128, 3_000));
//!
//! // What Realtime takes: the maximum is a constant of the model.
//! let features = mel.features(audio.samples(), LogMelMax::Fixed(1.5))?;
//! assert_eq!(features.frames, 1_100);
//! # Ok::<(), voxtral_audio::AudioError>(())
//! ```

#![forbid(unsafe_code)]

mod activity;
mod audio;
mod container;
mod decode;
mod error;
mod filter_bank;
mod header;
mod mel;
mod resample;
mod source;
mod stream;

pub use activity::Activity;
pub use audio::Audio;
pub use decode::Decoder;
pub use error::{AudioError, Cause};
pub use filter_bank::mel_filter_bank;
pub use mel::{Features, LogMel, LogMelMax, MelConfig};
pub use resample::Resampler;
pub use stream::LogMelStream;
