//! Finding out what a file is, and the decoder for what is in it; all that asks Symphonia.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, MediaInfo, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_probe, register_enabled_codecs};
use symphonia_adapter_libopus::OpusDecoder;

use crate::error::AudioError;
use crate::source::Source;

/// The rate that Opus is always decoded at; containers state that of the original (RFC 7845 §5.1).
const OPUS_RATE: u32 = 48_000;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut registry = CodecRegistry::new();
    register_enabled_codecs(&mut registry);
    registry.register_audio_decoder::<OpusDecoder>();
    registry
});

/// Finds out what kind of file this is. No hint is given: only the content counts.
pub(crate) fn probe(source: Source) -> Result<Box<dyn FormatReader>, AudioError> {
    let stream = MediaSourceStream::new(Box::new(source), Default::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    guard(|| get_probe().probe(&Hint::new(), stream, format, metadata)).map_err(|error| match error
    {
        Symphonia::Unsupported(what) if what.starts_with("core (probe)") => {
            AudioError::NotAudio(Box::new(error))
        }
        Symphonia::Unsupported(what) if what.contains("missing") => {
            malformed("file (a part of it is missing)", error)
        }
        Symphonia::Unsupported(_) => unsupported("form of this file", error),
        // Too little of a file to tell its kind.
        Symphonia::IoError(ref cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
            malformed("header (file ends within it)", error)
        }
        _ => malformed("header", error),
    })
}

/// The first audio track, with a codec that is known if there is one.
pub(crate) fn select(format: &dyn FormatReader) -> Result<&Track, AudioError> {
    format
        .first_track_known_codec(TrackType::Audio)
        .or_else(|| format.first_track(TrackType::Audio))
        .ok_or(AudioError::NoAudioTrack {
            tracks: format.tracks().len(),
        })
}

/// The decoder for a track.
pub(crate) fn codec(track: &Track) -> Result<Box<dyn AudioDecoder>, AudioError> {
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(AudioError::NoAudioTrack { tracks: 1 });
    };
    if parameters.sample_rate == Some(0) {
        return Err(AudioError::SampleRate {
            found: 0,
            min: 1,
            max: u32::MAX,
        });
    }
    let mut parameters = parameters.clone();
    if parameters.codec == CODEC_ID_OPUS {
        parameters.sample_rate = Some(OPUS_RATE);
    }
    guard(|| CODECS.make_audio_decoder(&parameters, &AudioDecoderOptions::default())).map_err(
        |error| match error {
            Symphonia::Unsupported(_) => unsupported(&describe(&parameters), error),
            _ => malformed("codec header", error),
        },
    )
}

/// Names a codec as well as is possible without its decoder.
fn describe(parameters: &AudioCodecParameters) -> String {
    let channels = parameters
        .channels
        .as_ref()
        .map_or(0, |channels| channels.count());
    match parameters.codec {
        CODEC_ID_OPUS => format!("Opus with {channels} channels"),
        codec => format!("audio codec {codec} with {channels} channel(s)"),
    }
}

fn unsupported(what: &str, error: Symphonia) -> AudioError {
    AudioError::Unsupported {
        what: what.into(),
        source: Box::new(error),
    }
}

/// A damaged part of the file.
pub(crate) fn malformed(what: &'static str, error: Symphonia) -> AudioError {
    AudioError::Malformed {
        what,
        source: Box::new(error),
    }
}

/// How long a track, or the whole file, says it is; a length of zero says nothing.
pub(crate) fn duration(track: &Track, media: &MediaInfo) -> Option<Duration> {
    let (base, duration) = track
        .time_base
        .zip(track.duration)
        .or(media.time_base.zip(media.duration))
        .filter(|(_, duration)| duration.get() > 0)?;
    let time = base.calc_duration(duration)?;
    Duration::try_from_secs_f64(time.as_secs_f64()).ok()
}

/// Calls into a demuxer or decoder; a panic there is an error of the file.
///
/// Those are large programs that read hostile bytes. In a build with overflow checks some headers
/// make their arithmetic panic, which must not take a program down that decodes many files.
pub(crate) fn guard<T>(call: impl FnOnce() -> Result<T, Symphonia>) -> Result<T, Symphonia> {
    // What a panic leaves half-done is dropped, or skips a packet; it is memory-safe either way.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Symphonia::DecodeError(
        "decoder failed an internal check",
    )))
}
