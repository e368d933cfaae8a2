//! Streams that cannot seek: decoded while they are written, to whatever end they come.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use voxtral_audio::{Audio, AudioError, Decoder};

use crate::{data, wav, wav_f32, wav_i16};

/// Gives bytes in reads of the sizes given, over and over, and counts them.
struct Trickle {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
    reads: usize,
    given: Arc<Mutex<usize>>,
}

impl Trickle {
    fn new(bytes: impl Into<Vec<u8>>, sizes: impl Into<Vec<usize>>) -> Self {
        Self {
            bytes: bytes.into(),
            sizes: sizes.into(),
            reads: 0,
            given: Arc::default(),
        }
    }
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.reads % self.sizes.len()];
        self.reads += 1;
        if size == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut given = self.given.lock().unwrap();
        let end = self.bytes.len().min(*given + size);
        let count = (&self.bytes[*given..end]).read(buffer)?;
        *given += count;
        Ok(count)
    }
}

/// All samples, and whether the decoder found the stream truncated.
fn decode(reader: impl Read + Send + Sync + 'static) -> Result<(Vec<f32>, bool), AudioError> {
    let mut decoder = Decoder::from_stream(reader)?;
    let mut samples = Vec::new();
    for chunk in &mut decoder {
        let chunk = chunk?;
        assert!(!chunk.is_empty());
        samples.extend(chunk);
    }
    Ok((samples, decoder.truncated()))
}

/// The same by the reader of files.
fn of_file(bytes: &[u8]) -> (Vec<f32>, bool) {
    let mut decoder = Decoder::new(io::Cursor::new(bytes.to_vec())).unwrap();
    let samples = decoder.by_ref().flat_map(Result::unwrap).collect();
    (samples, decoder.truncated())
}

/// A stream has these samples, and was truncated or not.
#[track_caller]
fn check(reader: Trickle, expected: &[f32], truncated: bool, what: &str) {
    let (samples, found) = decode(reader).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(
        (samples.len(), found),
        (expected.len(), truncated),
        "{what}"
    );
    assert!(samples == expected, "{what}");
}

fn error_of(reader: impl Read + Send + Sync + 'static) -> AudioError {
    decode(reader)
        .map(|(samples, _)| samples.len())
        .unwrap_err()
}

fn ramp(samples: i16) -> Vec<u8> {
    wav_i16(16_000, 1, 0..samples)
}

/// The header of a stream of 16 bits at 16 kHz whose length is stated as the numbers given.
fn header(riff: u32, data: u32) -> Vec<u8> {
    let mut bytes = ramp(0);
    bytes[4..8].copy_from_slice(&riff.to_le_bytes());
    bytes[40..44].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// The lengths that ffmpeg, sox, arecord and interrupted programs state.
const UNKNOWN: [(u32, u32); 7] = [
    (u32::MAX, u32::MAX),
    (0x7fff_f024, 0x7fff_f000),
    (0x7fff_ff24, 0x7fff_ff00),
    (0x8000_0024, 0x8000_0000),
    (u32::MAX, 0x7fff_ffff),
    (0, 0),
    (36, 0),
];

/// As ffmpeg writes RF64 to a pipe: `size` is 0.
fn rf64(size: u64, samples: &[u8]) -> Vec<u8> {
    let plain = ramp(0);
    let mut bytes = b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0".to_vec();
    bytes.extend([0; 8]);
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(&plain[12..36]);
    bytes.extend(b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf59.27.100\0");
    bytes.extend(b"data\xff\xff\xff\xff");
    bytes.extend(samples);
    bytes
}

#[test]
fn an_unknown_length_means_to_the_end() {
    let (expected, _) = of_file(&ramp(20_000));
    for (riff, length) in UNKNOWN {
        let mut bytes = header(riff, length);
        bytes.extend(&ramp(20_000)[44..]);
        let decoder = Decoder::from_stream(Trickle::new(bytes.clone(), [100])).unwrap();
        assert_eq!(decoder.duration(), None, "{length:#x}");
        let what = format!("stated as {length:#x}");
        check(Trickle::new(bytes.clone(), [777]), &expected, false, &what);
        // Half a sample.
        bytes.push(1);
        check(Trickle::new(bytes, [1001]), &expected, true, &what);
    }
    for size in [0, 5 << 30, u64::MAX] {
        let bytes = rf64(size, &ramp(20_000)[44..]);
        check(
            Trickle::new(bytes, [512]),
            &expected,
            false,
            &format!("RF64, {size}"),
        );
    }
}

#[test]
fn a_stated_length_is_kept() {
    let (expected, _) = of_file(&ramp(5_000));
    let whole = ramp(5_000);
    let decoder = Decoder::from_stream(Trickle::new(whole.clone(), [100])).unwrap();
    assert_eq!(
        decoder.duration().unwrap().as_secs_f64(),
        5_000.0 / 16_000.0
    );

    for rf64 in [false, true] {
        let whole = if rf64 { rf64_of(&whole) } else { whole.clone() };
        let mut longer = whole.clone();
        longer.extend(b"LIST\x04\0\0\0INFO, which is no sound");
        for bytes in [whole.clone(), longer] {
            check(Trickle::new(bytes, [100]), &expected, false, "whole");
        }
        // Cut off, between samples and within one.
        for (missing, samples) in [(2, 4_999), (1, 4_999), (999, 4_500), (9_996, 2)] {
            let cut = &whole[..whole.len() - missing];
            let what = format!("{missing} bytes are missing");
            check(Trickle::new(cut, [100]), &expected[..samples], true, &what);
        }
    }
}

fn rf64_of(plain: &[u8]) -> Vec<u8> {
    rf64(plain.len() as u64 - 44, &plain[44..])
}

/// Stereo, floats, 24 bits, the extensible header: the end within a frame takes no more than that.
#[test]
fn frames_are_never_torn() {
    let noise: Vec<u8> = (0..12_000_u32).map(|n| (n * n % 251) as u8).collect();
    let quiet: Vec<u8> = (0..3_000_u16)
        .flat_map(|n| (f32::from(n) / 3_000.0).to_le_bytes())
        .collect();
    let mut extensible = io::Cursor::new(Vec::new());
    let specification = hound::WavSpec {
        channels: 3,
        sample_rate: 44_100,
        bits_per_sample: 24,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::new(&mut extensible, specification).unwrap();
    for n in 0..6_000 {
        writer.write_sample(n * 1_000).unwrap();
    }
    writer.finalize().unwrap();
    let adpcm = |name| fs::read(data("audio/formats").join(name)).unwrap();
    for (name, bytes) in [
        ("stereo", wav(48_000, 2, 16, &noise)),
        ("seven channels", wav(8_000, 7, 16, &noise[..11_998])),
        ("float", wav(16_000, 1, 32, &quiet)),
        ("extensible", extensible.into_inner()),
        ("ms", adpcm("wav-adpcm-ms.wav")),
        ("ima", adpcm("wav-adpcm-ima.wav")),
    ] {
        let (expected, _) = of_file(&bytes);
        assert!(expected.len() > 800, "{name}");
        for size in [1, 5, 64, 100_000] {
            let what = format!("{name} by {size}");
            check(Trickle::new(bytes.clone(), [size]), &expected, false, &what);
        }
        let (cut, truncated) = decode(Trickle::new(&bytes[..bytes.len() - 1], [333])).unwrap();
        assert!(truncated, "{name}");
        assert!(cut == expected[..cut.len()], "{name}");
        let lost = expected.len() - cut.len();
        let block = if name.len() < 4 { 2048 } else { 1 };
        assert!((1..=block).contains(&lost), "{name}: {lost} samples lost");
    }
}

/// Whatever is written comes out before more is asked for.
#[test]
fn nothing_is_read_ahead_of_need() {
    let mut bytes = header(u32::MAX, u32::MAX);
    bytes.extend(&ramp(16_000)[44..]);
    for size in [2, 64, 640, 2_560] {
        let reader = Trickle::new(bytes.clone(), [size]);
        let given = Arc::clone(&reader.given);
        let decoder = Decoder::from_stream(reader).unwrap();
        let mut samples = 0;
        for chunk in decoder {
            samples += chunk.unwrap().len();
            let given = *given.lock().unwrap();
            // What a demuxer reads at a time, 1152 samples or less, may make two chunks.
            assert!(
                given <= 44 + 2 * samples + size.saturating_sub(2_304),
                "{given} bytes for {samples} samples, {size} at a time"
            );
        }
        assert_eq!(samples, 16_000);
    }
}

/// A true pipe, whose writer waits for the listener.
#[test]
fn a_pipe_is_decoded_while_it_is_written() {
    let (reader, mut writer) = io::pipe().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let half_second = ramp(8_000)[44..].to_vec();
    let written = half_second.clone();
    let thread = thread::spawn(move || {
        writer.write_all(&header(u32::MAX, u32::MAX)).unwrap();
        for _ in 0..3 {
            writer.write_all(&written).unwrap();
            wait.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    });
    let mut decoder = Decoder::from_stream(reader).unwrap();
    assert_eq!((decoder.sample_rate(), decoder.channels()), (16_000, 1));
    let mut samples = Vec::new();
    for seconds in 1..=3 {
        // All of it, although nothing more was written and the pipe is open.
        while samples.len() < seconds * 8_000 {
            samples.extend(decoder.next().unwrap().unwrap());
        }
        go.send(()).unwrap();
    }
    assert!(decoder.next().is_none());
    assert!(!decoder.truncated());
    thread.join().unwrap();
    let (expected, _) = of_file(&wav(16_000, 1, 16, &half_second.repeat(3)));
    assert!(samples == expected);
}

/// An hour, of which nothing is kept; read in the sizes that a fast writer gives.
#[test]
fn a_long_stream() {
    let bytes = header(0, 0);
    let stream = io::Cursor::new(bytes).chain(io::repeat(0).take(2 * 16_000 * 3_600));
    let mut decoder = Decoder::from_stream(stream).unwrap();
    let (mut samples, mut largest) = (0, 0);
    for chunk in &mut decoder {
        let chunk = chunk.unwrap();
        samples += chunk.len();
        largest = largest.max(chunk.len());
    }
    assert_eq!((samples, largest), (16_000 * 3_600, 1152));
    assert!(!decoder.truncated());
}

/// Files that are only read with their ends in sight.
const FILES_ONLY: [&str; 4] = ["m4a-aac.m4a", "m4a-alac.m4a", "caf-s16.caf", "caf-alac.caf"];

/// Every other file of `tests/data/audio/formats` gives the same samples as a stream.
#[test]
fn other_formats() {
    for entry in fs::read_dir(data("audio/formats")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = fs::read(&path).unwrap();
        let sizes = [0, 500, 1, 0, 9_000];
        if FILES_ONLY.contains(&name) {
            let error = error_of(Trickle::new(bytes, sizes));
            assert!(
                matches!(error, AudioError::Malformed { .. }),
                "{name}: {error}"
            );
            continue;
        }
        check(
            Trickle::new(bytes.clone(), sizes),
            &of_file(&bytes).0,
            false,
            name,
        );
        // Cut, it still begins the same, unless too little is left to begin with.
        let cut = &bytes[..bytes.len() * 2 / 3];
        match decode(Trickle::new(cut, sizes)) {
            Ok((samples, truncated)) => {
                let wav = name.contains("wav") || name.contains("aiff");
                assert!(truncated || !wav, "{name}");
                let whole = of_file(&bytes).0;
                let same = samples.iter().zip(&whole).take_while(|(a, b)| a == b);
                assert!(
                    samples.len() < whole.len() && same.count() * 10 > samples.len() * 8,
                    "{name}: {} samples",
                    samples.len()
                );
            }
            Err(AudioError::Empty | AudioError::Malformed { .. }) => {
                let short = ["flac.flac", "webm-vorbis.webm"];
                assert!(name.starts_with("ogg") || short.contains(&name), "{name}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// AIFF as ffmpeg writes it to a pipe.
#[test]
fn aiff_of_unknown_length() {
    let mut bytes = fs::read(data("audio/formats/aiff-s16.aiff")).unwrap();
    let (expected, _) = of_file(&bytes);
    let find = |name: &[u8]| bytes.windows(4).position(|word| word == name).unwrap();
    for at in [4, find(b"COMM") + 10, find(b"SSND") + 4] {
        bytes[at..at + 4].fill(0);
    }
    check(Trickle::new(bytes.clone(), [321]), &expected, false, "AIFF");
    bytes.truncate(bytes.len() - 2);
    let expected = &expected[..expected.len() - 1];
    check(Trickle::new(bytes, [321]), expected, false, "AIFF");
}

#[test]
fn streams_that_are_not_audio() {
    assert!(matches!(error_of(io::empty()), AudioError::Empty));
    // A header without samples, whatever length it states.
    for (riff, length) in UNKNOWN.into_iter().chain([(1_036, 1_000)]) {
        let error = error_of(Trickle::new(header(riff, length), [10]));
        assert!(matches!(error, AudioError::Empty), "{length:#x}: {error}");
    }
    let error = error_of(Trickle::new(b"This is a letter.\n".repeat(200), [100]));
    assert!(matches!(error, AudioError::NotAudio(_)), "{error}");
    // Without end, too.
    let error = error_of(io::repeat(0));
    assert!(matches!(error, AudioError::NotAudio(_)), "{error}");
    for length in [4, 12, 20, 40] {
        let error = error_of(Trickle::new(&ramp(10)[..length], [3]));
        assert!(
            matches!(
                error,
                AudioError::Malformed { .. } | AudioError::NotAudio(_)
            ),
            "{length}: {error}"
        );
    }
    for (at, value) in [(22, 0), (34, 0), (34, 17)] {
        let mut bytes = ramp(100);
        bytes[at] = value;
        let error = error_of(Trickle::new(bytes, [3]));
        assert!(matches!(error, AudioError::Malformed { .. }), "{error}");
    }
    let mut bytes = ramp(100);
    bytes[24..28].fill(0);
    let error = error_of(Trickle::new(bytes, [3]));
    assert!(
        matches!(error, AudioError::SampleRate { found: 0, .. }),
        "{error}"
    );
}

#[test]
fn numbers_that_are_none() {
    let mut samples = vec![0.25; 5_000];
    samples[4_321] = f32::NAN;
    let error = error_of(Trickle::new(wav_f32(16_000, &samples), [100]));
    assert!(
        error
            .to_string()
            .starts_with("audio contains NaN at sample 4321"),
        "{error}"
    );
}

/// A reader that breaks, in the header or behind it, is not a stream that ends.
#[test]
fn a_failing_reader_is_an_error() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("line is dead"))
        }
    }
    for length in [0, 1, 30, 44, 45, 5_000] {
        let bytes = ramp(5_000)[..length].to_vec();
        let error = error_of(io::Cursor::new(bytes).chain(Failing));
        assert!(matches!(error, AudioError::Read(_)), "{length}: {error}");
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "line is dead", "{length}");
    }
}

/// Chunks in front of the samples, of odd lengths, as large as a picture, and one that lies.
#[test]
fn large_headers() {
    let plain = ramp(2_000);
    let (expected, _) = of_file(&plain);
    for size in [1, 5, 70_000, 3_000_001, 20_000_000] {
        let mut bytes = plain[..12].to_vec();
        bytes.extend(b"JUNK");
        bytes.extend((size as u32).to_le_bytes());
        bytes.resize(bytes.len() + size + size % 2, 7);
        bytes.extend(&plain[12..]);
        // A chunk that is longer than what is looked at is believed.
        let length = (bytes.len() as u32 - 8).to_le_bytes();
        bytes[4..8].copy_from_slice(&length);
        check(
            Trickle::new(bytes, [5_000]),
            &expected,
            false,
            &size.to_string(),
        );
    }
    let mut bytes = plain[..12].to_vec();
    bytes.extend(b"JUNK\xff\xff\xff\x7f");
    let error = error_of(io::Cursor::new(bytes).chain(io::repeat(0).take(1 << 25)));
    assert!(matches!(error, AudioError::Malformed { .. }), "{error}");
}

/// From a pipe to a clip in memory at another rate.
#[test]
fn a_clip_from_a_stream() {
    let bytes = fs::read(data("audio/jfk.wav")).unwrap();
    let decoder = Decoder::from_stream(Trickle::new(bytes, [4_096])).unwrap();
    let audio = Audio::from_decoder(decoder, 8_000, Duration::MAX).unwrap();
    let expected = Audio::from_file(data("audio/jfk.wav"), 8_000).unwrap();
    assert!(audio == expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any cut and any reads of a WAV stream: the samples up to there, and a truth about the end.
    #[test]
    fn any_reads_and_any_end(
        channels in 1_u16..4,
        length in 45_usize..9_000,
        open in any::<bool>(),
        sizes in proptest::collection::vec(prop_oneof![0..8_usize, 0..3_000_usize], 1..9),
    ) {
        let mut bytes = wav_i16(16_000, channels, (0..12_000_i16).map(|n| n.wrapping_mul(1_117)));
        let (expected, _) = of_file(&bytes);
        if open {
            bytes[40..44].fill(0xff);
        }
        bytes.truncate(length);
        let block = 2 * usize::from(channels);
        let samples = (length - 44) / block;
        let mut sizes = sizes;
        sizes.push(100);
        match decode(Trickle::new(bytes, sizes)) {
            Ok(found) => {
                let truncated = !open || (length - 44) % block > 0;
                prop_assert_eq!((found.0.len(), found.1), (samples, truncated));
                prop_assert!(found.0 == expected[..samples]);
            }
            Err(error) => prop_assert!(samples == 0 && matches!(error, AudioError::Empty), "{}", error),
        }
    }

    #[test]
    fn random_headers_never_panic(
        changes in proptest::collection::vec((0..80_usize, any::<u8>()), 1..8),
        size in 1..500_usize,
    ) {
        let mut bytes = rf64(0, &ramp(300)[44..]);
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = decode(Trickle::new(bytes, [size]));
    }
}
