//! Log-mel features of a stream are those of the whole clip, and come as soon as they can.

use proptest::prelude::*;
use voxtral_audio::{AudioError, LogMel, LogMelMax, LogMelStream, MelConfig};

use crate::speech;

const MAX: f32 = 1.5;

fn mel(window_size: usize, hop_length: usize, num_mel_bins: usize) -> LogMel {
    LogMel::new(MelConfig {
        sample_rate: 16_000,
        window_size,
        hop_length,
        num_mel_bins,
    })
    .unwrap()
}

/// White noise, the same every time.
fn noise(samples: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..samples)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Features of the whole clip, frame-major.
fn whole(mel: &LogMel, samples: &[f32]) -> Vec<f32> {
    let features = mel.features(samples, LogMelMax::Fixed(MAX)).unwrap();
    (0..features.frames)
        .flat_map(|frame| (0..features.bins).map(move |bin| (bin, frame)))
        .map(|(bin, frame)| features.get(bin, frame).unwrap())
        .collect()
}

/// Features by pieces of the sizes given, over and over.
fn pushed(stream: &mut LogMelStream<'_>, samples: &[f32], sizes: &[usize]) -> Vec<f32> {
    let (mut frames, mut rest) = (Vec::new(), samples);
    for &size in sizes.iter().cycle() {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        stream.push(piece, &mut frames);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    stream.finish(&mut frames).unwrap();
    frames
}

#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let at = found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found.to_bits() != expected.to_bits());
    assert_eq!(at, None, "{what}");
}

#[test]
fn pieces_of_any_size_give_the_features_of_the_whole() {
    let mel = mel(400, 160, 128);
    let mut stream = mel.stream(MAX);
    for (name, samples) in [("speech", speech("jfk.wav")), ("noise", noise(20_011))] {
        let expected = whole(&mel, &samples);
        for size in [1, 7, 159, 160, 161, 399, 400, 401, 1280, 30_000, usize::MAX] {
            let found = pushed(&mut stream, &samples, &[size]);
            assert_same(&found, &expected, &format!("{name} by {size}"));
        }
        let found = pushed(&mut stream, &samples, &[0, 1, 15_000, 0, 3, 799, 12_345]);
        assert_same(&found, &expected, &format!("{name} by many"));
    }
}

/// Ends at every place between two frames, near to the beginning and far from it.
#[test]
fn the_end_is_reflected() {
    let mel = mel(400, 160, 8);
    let mut stream = mel.stream(MAX);
    let samples = noise(5000);
    for length in (201..900).chain(4600..4800) {
        let samples = &samples[..length];
        let found = pushed(&mut stream, samples, &[250]);
        assert_same(&found, &whole(&mel, samples), &format!("{length} samples"));
    }
}

/// Windows much longer than the hop, shorter than it, hops between half and a whole one.
const SHAPES: [(usize, usize); 10] = [
    (398, 50),
    (400, 400),
    (400, 200),
    (400, 201),
    (400, 333),
    (90, 100),
    (90, 1000),
    (2, 1),
    (2, 3),
    (64, 1),
];

#[test]
fn odd_dimensions() {
    for (window, hop) in SHAPES {
        let mel = mel(window, hop, 5);
        let mut stream = mel.stream(MAX);
        let samples = noise(4000);
        for length in [window / 2 + 1, window, 1001, 3999, 4000] {
            let samples = &samples[..length];
            let expected = whole(&mel, samples);
            for size in [1, 7, hop, window, 2000] {
                let found = pushed(&mut stream, samples, &[size]);
                let what = format!("window {window}, hop {hop}, {length} samples by {size}");
                assert_same(&found, &expected, &what);
            }
        }
    }
    // Never reached, but nothing overflows.
    let mel = mel(400, usize::MAX, 5);
    assert_eq!(mel.stream(MAX).push(&noise(2000), &mut Vec::new()), 0);
}

/// One sample at a time: a frame comes with the last sample of its window, unless a stream that
/// ended there would not have it.
#[test]
fn no_frame_is_late() {
    for (window, hop) in [(400, 160)].into_iter().chain(SHAPES) {
        let mel = mel(window, hop, 3);
        let mut stream = mel.stream(MAX);
        let (mut frames, mut count) = (Vec::new(), 0);
        for (index, &sample) in noise(3000).iter().enumerate() {
            let samples = index + 1;
            count += stream.push(&[sample], &mut frames);
            let expected = (0..)
                .take_while(|frame| {
                    let needed = (frame * hop + window / 2).max(window / 2 + 1);
                    samples >= needed.max((frame + 1) * hop)
                })
                .count();
            let what = format!("window {window}, hop {hop}, after {samples} samples");
            assert_eq!((count, frames.len()), (expected, expected * 3), "{what}");
        }
    }
}

/// What is there already stays as it is, and new frames follow it.
#[test]
fn frames_are_appended() {
    let mel = mel(400, 160, 4);
    let (mut stream, mut frames) = (mel.stream(MAX), vec![7.0; 3]);
    assert_eq!(stream.push(&[], &mut frames), 0);
    assert_eq!(stream.push(&noise(1000), &mut frames), 6);
    assert_eq!(stream.push(&[], &mut frames), 0);
    assert_eq!(stream.finish(&mut frames).unwrap(), 0);
    assert_eq!((&frames[..3], frames.len()), (&[7.0; 3][..], 3 + 6 * 4));
}

#[test]
fn a_stream_can_be_used_again() {
    let mel = mel(400, 160, 4);
    let samples = noise(3000);
    let expected = whole(&mel, &samples);
    let mut stream = mel.stream(MAX);
    for begun in [0, 100, 201, 700, 2999] {
        stream.push(&noise(begun), &mut Vec::new());
        stream.reset();
        assert_same(&pushed(&mut stream, &samples, &[333]), &expected, "reset");
        assert_same(&pushed(&mut stream, &samples, &[333]), &expected, "finish");
    }
}

#[test]
fn too_short() {
    let mel = mel(400, 160, 4);
    let mut stream = mel.stream(MAX);
    let mut frames = Vec::new();
    for samples in [0, 1, 200] {
        stream.push(&noise(samples), &mut frames);
        let error = stream.finish(&mut frames).unwrap_err();
        assert!(
            matches!(error, AudioError::TooShort { found, expected: 201 } if found == samples),
            "{error}"
        );
    }
    assert!(frames.is_empty());
    // An error ends the stream, too.
    assert_eq!(stream.push(&noise(201), &mut frames), 1);
    assert_eq!(stream.finish(&mut frames).unwrap(), 0);
    assert_eq!(frames, whole(&mel, &noise(201)));
}

#[test]
fn a_stream_may_go_to_another_thread() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let mel = mel(400, 160, 4);
    let mut stream = sent(mel.stream(MAX));
    let samples = noise(2000);
    let expected = whole(&mel, &samples);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_same(&pushed(&mut stream, &samples, &[100]), &expected, "thread"));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_are_the_whole(
        half in 1_usize..150,
        hop in 1_usize..400,
        length in 151_usize..30_000,
        sizes in proptest::collection::vec(prop_oneof![0..20_usize, 0..2000_usize, 0..20_000_usize], 1..12),
    ) {
        let mel = mel(2 * half, hop, 2);
        let samples = noise(length);
        let mut sizes = sizes;
        sizes.push(50);
        assert_same(&pushed(&mut mel.stream(MAX), &samples, &sizes), &whole(&mel, &samples), "pieces");
    }
}
