//! Every container and codec gives the same speech, whatever the file is called.

use std::fs;

use voxtral_audio::{Audio, Decoder};

use crate::{data, wav_i16};

/// How near a file comes to its source.
enum Like {
    /// The very same samples.
    Exact,
    /// A correlation above this, at a shift of at most so many samples at 16 kHz, with at most
    /// so many samples more or fewer.
    Near {
        correlation: f64,
        shift: usize,
        length: usize,
    },
}

/// Coded, but sample by sample.
const COARSE: Like = Like::Near {
    correlation: 0.99,
    shift: 0,
    length: 0,
};

/// Resampled on the way.
const RESAMPLED: Like = Like::Near {
    correlation: 0.95,
    shift: 0,
    length: 1,
};

/// Lossy, with its encoder delay and padding removed.
const GAPLESS: Like = Like::Near {
    correlation: 0.95,
    shift: 1,
    length: 1,
};

/// Lossy, with padding or delay up to `length` samples left in.
const fn padded(shift: usize, length: usize) -> Like {
    Like::Near {
        correlation: 0.95,
        shift,
        length,
    }
}

/// File, rate in Hz, channels, likeness.
#[rustfmt::skip]
const FILES: [(&str, u32, usize, Like); 30] = [
    ("source.wav", 16_000, 1, Like::Exact),
    ("wav-u8.wav", 16_000, 1, COARSE),
    ("wav-s24-8k.wav", 8_000, 1, RESAMPLED),
    ("wav-s32-8k.wav", 8_000, 1, RESAMPLED),
    ("wav-f32.wav", 16_000, 1, Like::Exact),
    ("wav-f64-8k.wav", 8_000, 1, RESAMPLED),
    ("wav-alaw.wav", 16_000, 1, COARSE),
    ("wav-mulaw.wav", 16_000, 1, COARSE),
    ("wav-adpcm-ms.wav", 16_000, 1, padded(0, 2048)),
    ("wav-adpcm-ima.wav", 16_000, 1, padded(0, 2048)),
    ("wav-rf64.wav", 16_000, 1, Like::Exact),
    ("aiff-s16.aiff", 16_000, 1, Like::Exact),
    ("caf-s16.caf", 16_000, 1, Like::Exact),
    ("caf-alac.caf", 16_000, 1, Like::Exact),
    ("flac.flac", 16_000, 1, Like::Exact),
    ("ogg-flac.oga", 16_000, 1, Like::Exact),
    ("mp2.mp2", 16_000, 1, padded(481, 2 * 1152)),
    ("mp3.mp3", 16_000, 1, GAPLESS),
    ("mp3-stereo-44k1.mp3", 44_100, 2, GAPLESS),
    ("ogg-vorbis.ogg", 16_000, 1, GAPLESS),
    ("ogg-opus.opus", 48_000, 1, GAPLESS),
    ("ogg-opus-stereo.opus", 48_000, 2, GAPLESS),
    ("webm-opus.webm", 48_000, 1, padded(1, 320)),
    ("webm-vorbis.webm", 16_000, 1, padded(256, 1024)),
    ("m4a-aac.m4a", 16_000, 1, padded(1024, 2 * 1024)),
    ("adts-aac.aac", 16_000, 1, padded(1024, 2 * 1024)),
    ("m4a-alac.m4a", 16_000, 1, Like::Exact),
    ("mkv-flac.mkv", 16_000, 1, Like::Exact),
    ("mkv-pcm.mkv", 16_000, 1, Like::Exact),
    ("mp4-film.mp4", 16_000, 1, padded(1024, 2 * 1024)),
];

#[test]
fn every_format_gives_the_same_speech() {
    let source = Audio::from_file(data("audio/formats/source.wav"), 16_000).unwrap();
    assert_eq!(source.samples().len(), 4800);
    for (name, rate, channels, like) in FILES {
        let path = data("audio/formats").join(name);
        let decoder = Decoder::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (decoder.sample_rate(), decoder.channels()),
            (rate, channels),
            "{name}"
        );
        let audio = Audio::from_file(&path, 16_000).unwrap();
        compare(name, audio.samples(), source.samples(), &like);
    }
}

#[test]
fn no_fixture_is_forgotten() {
    for entry in fs::read_dir(data("audio/formats")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = FILES.iter().any(|(file, ..)| *file == name);
        assert!(known, "{name} is not tested");
    }
}

#[test]
fn nothing_is_lost_or_reported_on_good_files() {
    for (name, ..) in FILES {
        let mut decoder = Decoder::open(data("audio/formats").join(name)).unwrap();
        let samples: usize = (&mut decoder).map(|chunk| chunk.unwrap().len()).sum();
        assert!(
            !decoder.truncated(),
            "{name}: {decoder:?}, {samples} samples"
        );
        assert_eq!(decoder.skipped(), 0, "{name}");
    }
}

#[test]
fn names_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    for (name, as_name) in [
        ("mp3.mp3", "talk.wav"),
        ("m4a-aac.m4a", "talk.mp3"),
        ("source.wav", "talk.flac"),
        ("ogg-opus.opus", "talk"),
        ("flac.flac", "talk.txt"),
    ] {
        let (from, to) = (
            data("audio/formats").join(name),
            folder.path().join(as_name),
        );
        fs::copy(&from, &to).unwrap();
        let expected = Audio::from_file(&from, 16_000).unwrap();
        assert_eq!(
            Audio::from_file(&to, 16_000).unwrap(),
            expected,
            "{name} as {as_name}"
        );
    }
}

#[test]
fn bytes_and_readers_are_like_files() {
    let path = data("audio/formats/m4a-alac.m4a");
    let expected = Audio::from_file(&path, 16_000).unwrap();
    assert_eq!(
        Audio::from_bytes(fs::read(&path).unwrap(), 16_000).unwrap(),
        expected
    );
    let reader = std::io::BufReader::new(fs::File::open(&path).unwrap());
    assert_eq!(Audio::from_reader(reader, 16_000).unwrap(), expected);
}

#[test]
fn channels_are_averaged() {
    for channels in [1_i16, 2, 7, 8] {
        let frames = (0..500_i16).flat_map(|n| (0..channels).map(move |c| n * 10 + c * 100));
        let audio = Audio::from_bytes(wav_i16(16_000, channels as u16, frames), 16_000).unwrap();
        assert_eq!(audio.samples().len(), 500);
        for (n, &sample) in audio.samples().iter().enumerate() {
            let mean = n as f32 * 10.0 + f32::from(channels - 1) * 50.0;
            assert!(
                (sample - mean / 32_768.0).abs() < 1e-6,
                "{channels} channels, frame {n}"
            );
        }
    }
}

/// Files as recorders write them: with the channel mask of the extensible header.
#[test]
fn many_channels_at_any_rate() {
    for (rate, channels) in [(8_000, 1), (192_000, 2), (48_000, 7), (96_000, 6)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let specification = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 24,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut bytes, specification).unwrap();
        for _ in 0..rate * u32::from(channels) {
            writer.write_sample(1 << 21).unwrap();
        }
        writer.finalize().unwrap();
        let audio = Audio::from_bytes(bytes.into_inner(), 16_000).unwrap();
        assert_eq!(audio.samples().len(), 16_000, "{rate} Hz");
        assert!(
            (audio.samples()[8_000] - 0.25).abs() < 1e-4,
            "{rate} Hz, {channels} channels"
        );
    }
}

fn compare(name: &str, found: &[f32], expected: &[f32], like: &Like) {
    match *like {
        Like::Exact => assert!(found == expected, "{name}: samples differ"),
        Like::Near {
            correlation,
            shift,
            length,
        } => {
            let (best, at) = correlate(found, expected);
            let difference = found.len().abs_diff(expected.len());
            println!(
                "{name}: correlation {best:.4} at {at}, {} samples",
                found.len()
            );
            assert!(difference <= length, "{name}: {} samples", found.len());
            assert!(best > correlation, "{name}: correlation {best} at {at}");
            assert!(at.unsigned_abs() <= shift, "{name}: shifted by {at}");
        }
    }
}

/// The largest correlation of two signals over shifts of up to 2000 samples, and that shift.
fn correlate(found: &[f32], expected: &[f32]) -> (f64, isize) {
    let at = |signal: &[f32], n: isize| {
        usize::try_from(n)
            .ok()
            .and_then(|n| signal.get(n))
            .copied()
            .map_or(0.0, f64::from)
    };
    (-2000..=2000)
        .map(|shift| {
            let (mut product, mut power_a, mut power_b) = (0.0, 0.0, 0.0);
            for n in 0..expected.len() as isize {
                let (a, b) = (at(found, n + shift), at(expected, n));
                product += a * b;
                power_a += a * a;
                power_b += b * b;
            }
            (product / f64::sqrt(power_a * power_b + 1e-12), shift)
        })
        .fold(
            (-1.0, 0),
            |best, next| if next.0 > best.0 { next } else { best },
        )
}
