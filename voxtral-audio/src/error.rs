//! The one error type of this crate.
//!
//! Messages are fragments that read well after "cannot decode `talk.mp3`: ": they name the
//! subject, what was found and what was expected. They do not repeat the file's name, which the
//! caller knows, except where the file itself is at fault ([`AudioError::Open`],
//! [`AudioError::Directory`], [`AudioError::Write`]). A cause stands in
//! [`source`](std::error::Error::source) and is not part of the message.

use std::path::PathBuf;

/// A cause from a library that is not part of this crate's interface.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What can go wrong between a file and its features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The file does not exist or may not be read.
    #[error("cannot open `{path}`")]
    Open {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// The path names a folder.
    #[error("`{path}` is a directory, expected an audio file")]
    Directory {
        /// The path that was asked for.
        path: PathBuf,
    },

    /// The reader failed while it was read, or its length could not be found.
    #[error("cannot read the audio")]
    Read(#[source] std::io::Error),

    /// A pipe or device delivered more than is kept in memory.
    #[error("stream is longer than {limit} bytes, store it in a file first")]
    StreamTooLong {
        /// The largest stream that is read into memory, in bytes.
        limit: u64,
    },

    /// No container that this crate knows was recognised in the content.
    #[error(
        "not audio in a known format, expected one of WAV, AIFF, CAF, FLAC, MP3, Ogg, MP4/M4A, \
         AAC, MKV or WebM (names are not looked at, only content); convert it with \
         `ffmpeg -i INPUT output.wav`"
    )]
    NotAudio(#[source] Cause),

    /// The container is known, but holds no audio track.
    #[error("file has no audio track, found {tracks} other track(s)")]
    NoAudioTrack {
        /// The number of tracks of other kinds.
        tracks: usize,
    },

    /// The audio is coded in a way that this crate cannot decode.
    #[error("{what} is not supported, convert it with `ffmpeg -i INPUT output.wav`")]
    Unsupported {
        /// The codec, or the property of the stream.
        what: String,
        /// What the decoder said.
        source: Cause,
    },

    /// The container or every packet in it is damaged.
    #[error("{what} is damaged")]
    Malformed {
        /// The part that could not be understood.
        what: &'static str,
        /// What the decoder said.
        source: Cause,
    },

    /// There is not a single sample.
    #[error("audio is empty, it has no samples")]
    Empty,

    /// A sample is not a number, or is infinite.
    #[error("audio contains {value} at sample {sample}, expected finite numbers")]
    NonFinite {
        /// `NaN`, `inf` or `-inf`.
        value: f32,
        /// Position of the first such sample, per channel.
        sample: u64,
    },

    /// A sample rate that makes no sense or cannot be resampled.
    #[error("sample rate is {found} Hz, expected {min} to {max} Hz")]
    SampleRate {
        /// The rate that was given, in Hz.
        found: u32,
        /// The lowest rate that works, in Hz.
        min: u32,
        /// The highest rate that works, in Hz.
        max: u32,
    },

    /// The resampler refused its input; this is a defect of this crate.
    #[error("cannot resample from {from} Hz to {to} Hz")]
    Resample {
        /// Rate of the input in Hz.
        from: u32,
        /// Rate of the output in Hz.
        to: u32,
        /// What the resampler said.
        source: Cause,
    },

    /// A dimension of the log-mel front-end is impossible.
    #[error("mel `{field}` is {found}, expected {expected}")]
    MelConfig {
        /// The field of [`MelConfig`](crate::MelConfig).
        field: &'static str,
        /// Its value.
        found: usize,
        /// What would have been accepted.
        expected: &'static str,
    },

    /// A clip is too short for a single frame with reflected edges.
    #[error("clip has {found} samples, expected at least {expected}; pad it with zeros")]
    TooShort {
        /// Samples of the clip after padding.
        found: usize,
        /// The smallest number that works: half a window and one.
        expected: usize,
    },

    /// The padded length is less than the clip.
    #[error("padded length is {found} samples, expected at least the clip's {expected}")]
    PaddedLength {
        /// The padded length that was given.
        found: usize,
        /// Samples of the clip.
        expected: usize,
    },

    /// Frames were asked for that the clip does not have.
    #[error("frames {start}..{end} were asked for, but the padded clip has {available}")]
    FrameRange {
        /// The first frame that was asked for.
        start: usize,
        /// One past the last frame that was asked for.
        end: usize,
        /// The number of frames of the padded clip.
        available: usize,
    },

    /// A WAV file could not be written; nothing is left at its place.
    #[error("cannot write `{path}`")]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the operating system or the writer said.
        source: Cause,
    },
}
