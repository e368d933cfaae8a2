//! Bad input: an error that says what, or the samples that are there; never a panic.

use std::error::Error;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use proptest::prelude::*;
use voxtral_audio::{Audio, AudioError, Decoder};

use crate::{data, wav, wav_f32, wav_i16};

fn error_of(bytes: impl Into<Vec<u8>>) -> AudioError {
    Audio::from_bytes(bytes, 16_000)
        .map(|audio| audio.samples().len())
        .unwrap_err()
}

/// All samples of a file and whether the decoder found it truncated.
fn decode(bytes: Vec<u8>) -> Result<(usize, bool), AudioError> {
    let mut decoder = Decoder::new(Cursor::new(bytes))?;
    let mut samples = 0;
    for chunk in &mut decoder {
        samples += chunk?.len();
    }
    Ok((samples, decoder.truncated()))
}

fn ramp(samples: i16) -> Vec<u8> {
    wav_i16(16_000, 1, 0..samples)
}

/// Overwrites a little-endian number in a header.
fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[test]
fn files_that_are_not_there_or_not_audio() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Audio::from_file(folder.path().join("no.wav"), 16_000).unwrap_err();
    assert!(missing.to_string().contains("no.wav"), "{missing}");
    assert!(missing.source().is_some());
    let directory = Audio::from_file(folder.path(), 16_000).unwrap_err();
    assert!(
        matches!(directory, AudioError::Directory { .. }),
        "{directory}"
    );

    let text = folder.path().join("text.wav");
    fs::write(&text, "This is a letter and not a sound.\n".repeat(200)).unwrap();
    let error = Audio::from_file(&text, 16_000).unwrap_err();
    assert!(matches!(error, AudioError::NotAudio(_)), "{error}");
    assert!(error.to_string().starts_with("not audio"), "{error}");
    assert!(matches!(error_of(&b"short"[..]), AudioError::NotAudio(_)));
    assert!(matches!(error_of([0; 100_000]), AudioError::NotAudio(_)));
    assert!(matches!(error_of([]), AudioError::Empty));
}

#[cfg(unix)]
#[test]
fn devices_are_read_to_their_end() {
    let error = Audio::from_file("/dev/null", 16_000).unwrap_err();
    assert!(matches!(error, AudioError::Empty), "{error}");
}

/// A cause is told by `source`, not in the message as well.
#[test]
fn causes_are_not_printed_twice() {
    let error = Audio::from_file("no/such/file", 16_000).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(!error.to_string().contains(&cause), "{error}: {cause}");
}

#[test]
fn zero_samples() {
    assert!(matches!(error_of(ramp(0)), AudioError::Empty));
    assert!(matches!(
        error_of(wav(16_000, 0, 16, &[])),
        AudioError::Malformed { .. }
    ));
}

#[test]
fn lengths_that_lie() {
    for (riff, data, expected) in [
        (0_u32, 0_u32, (1000, false)),
        (36, 0, (1000, false)),
        (u32::MAX, u32::MAX, (1000, false)),
        (u32::MAX, 0x7fff_ffff, (1000, false)),
        (5, 2000, (1000, false)),
        (2036, 4000, (1000, true)),
        (2036, 0x7000_0000, (1000, true)),
        (2036, 1000, (500, false)),
    ] {
        let mut bytes = ramp(1000);
        set(&mut bytes, 4, riff.to_le_bytes());
        set(&mut bytes, 40, data.to_le_bytes());
        assert_eq!(decode(bytes).unwrap(), expected, "RIFF {riff}, data {data}");
    }
    // Half a sample at the end is none.
    let mut bytes = ramp(1000);
    bytes.pop();
    assert_eq!(decode(bytes).unwrap(), (999, true));
}

#[test]
fn formats_that_lie() {
    let field = |at: usize, value: u16| {
        let mut bytes = ramp(1000);
        set(&mut bytes, at, value.to_le_bytes());
        error_of(bytes)
    };
    assert!(
        matches!(field(22, 0), AudioError::Malformed { .. }),
        "no channels"
    );
    assert!(
        matches!(field(22, 60_000), AudioError::Malformed { .. }),
        "many channels"
    );
    assert!(
        matches!(field(34, 0), AudioError::Malformed { .. }),
        "no bits"
    );
    assert!(
        matches!(field(34, 17), AudioError::Malformed { .. }),
        "odd bits"
    );
    assert!(
        matches!(field(20, 0x1234), AudioError::Unsupported { .. }),
        "unknown codec"
    );

    let rate = |value: u32| {
        let mut bytes = ramp(1000);
        set(&mut bytes, 24, value.to_le_bytes());
        error_of(bytes)
    };
    for found in [0, 5, 4_000_000_000] {
        match rate(found) {
            AudioError::SampleRate {
                found: reported, ..
            } => assert_eq!(reported, found),
            error => panic!("{found} Hz: {error}"),
        }
    }
}

#[test]
fn numbers_that_are_none() {
    let mut samples = vec![0.25; 5000];
    samples[4321] = f32::NAN;
    let error = error_of(wav_f32(16_000, &samples));
    assert!(
        error
            .to_string()
            .starts_with("audio contains NaN at sample 4321"),
        "{error}"
    );
    samples[17] = f32::NEG_INFINITY;
    let error = error_of(wav_f32(16_000, &samples));
    assert!(
        error
            .to_string()
            .starts_with("audio contains -inf at sample 17"),
        "{error}"
    );
    // Large is not wrong.
    assert_eq!(decode(wav_f32(16_000, &[3.0e38; 100])).unwrap().0, 100);
}

/// Cut in the middle, every format gives its first part.
#[test]
fn truncated_files_give_what_is_there() {
    for (name, told) in [
        ("source.wav", true),
        ("wav-f32.wav", true),
        ("aiff-s16.aiff", true),
        ("caf-s16.caf", true),
        ("mp3.mp3", false),
        ("ogg-vorbis.ogg", false),
        ("ogg-opus.opus", false),
        ("adts-aac.aac", false),
        ("mkv-pcm.mkv", true),
        ("mp4-film.mp4", true),
        ("webm-opus.webm", false),
    ] {
        let bytes = fs::read(data("audio/formats").join(name)).unwrap();
        let (whole, truncated) = decode(bytes.clone()).unwrap();
        assert!(!truncated, "{name}");
        let cut = bytes[..bytes.len() * 2 / 3].to_vec();
        match decode(cut) {
            Ok((part, truncated)) => {
                assert!(part < whole, "{name}: {part} of {whole}");
                assert!(truncated || !told, "{name}: not told");
            }
            // A single Ogg page that is cut holds no packet.
            Err(AudioError::Empty | AudioError::Malformed { .. }) => {
                assert!(name.starts_with("ogg"), "{name}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// The same with longer files, where a part must come through.
#[test]
fn a_long_file_cut_in_the_middle_is_told() {
    let bytes = fs::read(data("audio/jfk.wav")).unwrap();
    let (samples, truncated) = decode(bytes[..bytes.len() / 2].to_vec()).unwrap();
    assert!(truncated && samples.abs_diff(88_000) < 100, "{samples}");
}

#[test]
fn damaged_packets_are_left_out() {
    let mut bytes = fs::read(data("audio/formats/flac.flac")).unwrap();
    let length = bytes.len();
    // Zeros instead of a frame's content.
    bytes[length - 3000..length - 2900].fill(0);
    let whole = decode(fs::read(data("audio/formats/flac.flac")).unwrap())
        .unwrap()
        .0;
    match decode(bytes) {
        Ok((samples, _)) => assert!(samples <= whole),
        Err(error) => assert!(matches!(error, AudioError::Malformed { .. }), "{error}"),
    }
}

/// A disk that breaks is not a file that ends.
#[test]
fn a_failing_reader_is_an_error() {
    struct Failing(Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.position() > 100_000 {
                return Err(io::Error::other("disk failure"));
            }
            self.0.read(buffer)
        }
    }
    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let bytes = fs::read(data("audio/jfk.wav")).unwrap();
    let error = Audio::from_reader(Failing(Cursor::new(bytes)), 16_000).unwrap_err();
    assert!(matches!(error, AudioError::Read(_)), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "disk failure");
}

/// Fixtures that mutations start from: small, and one of each demuxer and decoder.
const SEEDS: [&str; 15] = [
    "source.wav",
    "wav-s24-8k.wav",
    "wav-adpcm-ms.wav",
    "wav-adpcm-ima.wav",
    "aiff-s16.aiff",
    "caf-alac.caf",
    "flac.flac",
    "mp2.mp2",
    "mp3.mp3",
    "ogg-vorbis.ogg",
    "ogg-opus.opus",
    "webm-opus.webm",
    "m4a-aac.m4a",
    "m4a-alac.m4a",
    "mkv-flac.mkv",
];

/// What files begin with.
const MAGIC: [&[u8]; 10] = [
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"FORM\0\0\xff\xffAIFFCOMM",
    b"caff\0\x01\0\0desc",
    b"fLaC\0\0\0\x22",
    b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64",
    b"OggS\0\x02",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x18ftypM4A ",
    b"\xff\xf1\x50\x80",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(
        magic in 0..MAGIC.len(),
        rest in proptest::collection::vec(any::<u8>(), 0..4096),
    ) {
        let mut bytes = MAGIC[magic].to_vec();
        bytes.extend(rest);
        let _ = decode(bytes);
    }

    #[test]
    fn mutated_files_never_panic(
        seed in 0..SEEDS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        in_header in any::<bool>(),
        keep in prop_oneof![Just(1.0), 0.0..1.0],
    ) {
        let mut bytes = fs::read(data("audio/formats").join(SEEDS[seed])).unwrap();
        bytes.truncate((bytes.len() as f64 * keep) as usize + 1);
        let range = if in_header { bytes.len().min(256) } else { bytes.len() };
        for (index, value) in changes {
            bytes[index.index(range)] = value;
        }
        if let Ok((samples, _)) = decode(bytes) {
            prop_assert!(samples < 50_000_000);
        }
    }
}
