//! Log-mel features agree with the references, and do not depend on how they are computed.

use std::fs;

use proptest::prelude::*;
use voxtral_audio::{AudioError, Features, LogMel, LogMelMax, MelConfig};

use crate::{data, speech, tone};

const CONFIG: MelConfig = MelConfig {
    sample_rate: 16_000,
    window_size: 400,
    hop_length: 160,
    num_mel_bins: 128,
};

/// Samples in a window of 30 s.
const WINDOW: usize = 480_000;

/// The f32 transform of the reference is itself off by up to 4e-5.
const TOLERANCE: f32 = 1e-4;

fn mel() -> LogMel {
    LogMel::new(CONFIG).unwrap()
}

fn padded(samples: &[f32]) -> Vec<f32> {
    let mut padded = samples.to_vec();
    padded.resize(samples.len().next_multiple_of(WINDOW), 0.0);
    padded
}

fn mean(features: &Features) -> f64 {
    features.data.iter().copied().map(f64::from).sum::<f64>() / features.data.len() as f64
}

#[track_caller]
fn check(features: &Features, bin: usize, frame: usize, expected: f32) {
    let found = features.get(bin, frame).unwrap();
    assert!(
        (found - expected).abs() < TOLERANCE,
        "({bin}, {frame}): {found}, not {expected}"
    );
}

/// Values of transformers for half of a tone of 440 Hz and one second.
#[test]
fn a_tone_with_the_maximum_of_the_clip() {
    let samples: Vec<f32> = tone(440.0, 16_000, 16_000)
        .iter()
        .map(|x| 0.5 * x)
        .collect();
    let features = mel().features(&padded(&samples), LogMelMax::Clip).unwrap();
    assert_eq!((features.bins, features.frames), (128, 3000));
    check(&features, 0, 0, 0.907_519_6);
    check(&features, 10, 0, 0.985_810_8);
    for bin in [14, 15, 60] {
        check(&features, bin, 50, -0.514_645_9);
    }
    check(&features, 16, 50, 1.344_505_1);
    check(&features, 17, 50, 1.337_491);
    check(&features, 18, 50, 1.485_354_1);
    check(&features, 127, 99, -0.514_645_9);
    check(&features, 15, 99, 0.318_997_8);
    check(&features, 15, 100, 1.085_657_8);
    check(&features, 15, 101, 0.318_998_4);
    assert!(
        (mean(&features) + 0.511_268_6).abs() < 1e-5,
        "{}",
        mean(&features)
    );
}

#[test]
fn a_tone_with_a_fixed_maximum() {
    let samples: Vec<f32> = tone(440.0, 16_000, 16_000)
        .iter()
        .map(|x| 0.5 * x)
        .collect();
    let features = mel().features(&samples, LogMelMax::Fixed(1.5)).unwrap();
    assert_eq!((features.bins, features.frames), (128, 100));
    check(&features, 0, 0, 0.907_519_6);
    check(&features, 10, 0, 0.985_810_8);
    for bin in [14, 15, 60] {
        check(&features, bin, 50, -0.625);
    }
    check(&features, 16, 50, 1.344_505_1);
    check(&features, 17, 50, 1.337_491);
    check(&features, 18, 50, 1.485_354_1);
    check(&features, 127, 99, -0.585_117_5);
    check(&features, 15, 99, 0.482_017_9);
    assert!(
        (mean(&features) + 0.527_137_1).abs() < 1e-5,
        "{}",
        mean(&features)
    );
}

#[test]
fn silence() {
    let clip = mel().features(&vec![0.0; WINDOW], LogMelMax::Clip).unwrap();
    assert!(clip.data.iter().all(|&x| x == -1.5));
    let fixed = mel()
        .features(&vec![0.0; 16_000], LogMelMax::Fixed(1.5))
        .unwrap();
    assert!(fixed.data.iter().all(|&x| x == -0.625));
}

/// What `tools/goldens/mel.py` wrote; see there for the layout.
struct Golden {
    bins: usize,
    frames: usize,
    mean: f64,
    index: Vec<usize>,
    data: Vec<f32>,
}

fn golden(name: &str) -> Golden {
    let bytes = fs::read(data("mel").join(name)).unwrap();
    let word = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap();
    let number = |at| u32::from_le_bytes(word(at)) as usize;
    let count = number(8);
    let data_at = 20 + 4 * count;
    Golden {
        bins: number(0),
        frames: number(4),
        mean: f64::from_le_bytes(bytes[12..20].try_into().unwrap()),
        index: (0..count).map(|i| number(20 + 4 * i)).collect(),
        data: (data_at..bytes.len())
            .step_by(4)
            .map(|at| f32::from_le_bytes(word(at)))
            .collect(),
    }
}

fn compare(name: &str, features: &Features) {
    let golden = golden(name);
    assert_eq!(
        (features.bins, features.frames),
        (golden.bins, golden.frames),
        "{name}"
    );
    assert_eq!(
        golden.data.len(),
        golden.index.len() * golden.bins,
        "{name}"
    );
    let mut worst: f32 = 0.0;
    for (row, &frame) in golden.data.chunks(golden.bins).zip(&golden.index) {
        for (bin, expected) in row.iter().enumerate() {
            worst = worst.max((features.get(bin, frame).unwrap() - expected).abs());
        }
    }
    let mean_error = (mean(features) - golden.mean).abs();
    println!("{name}: max {worst:.2e}, mean {mean_error:.2e}");
    assert!(worst < TOLERANCE, "{name}: off by {worst}");
    assert!(mean_error < 1e-5, "{name}: the mean is off by {mean_error}");
}

#[test]
fn speech_agrees_with_transformers() {
    for (wav, name) in [
        ("jfk.wav", "jfk.bin"),
        ("librispeech-8297-275156-0000.wav", "librispeech.bin"),
    ] {
        compare(
            name,
            &mel()
                .features(&padded(&speech(wav)), LogMelMax::Clip)
                .unwrap(),
        );
    }
    compare(
        "jfk_realtime.bin",
        &mel()
            .features(&speech("jfk.wav"), LogMelMax::Fixed(1.5))
            .unwrap(),
    );
}

/// Quiet, loud, quiet, in two windows: the second has its maximum from the first.
fn two_windows() -> Vec<f32> {
    let jfk = speech("jfk.wav");
    [0.02, 1.0, 0.05]
        .iter()
        .flat_map(|scale| jfk.iter().map(move |x| x * scale))
        .collect()
}

#[test]
fn two_windows_share_a_maximum() {
    let samples = two_windows();
    let features = mel().features(&padded(&samples), LogMelMax::Clip).unwrap();
    compare("two_windows.bin", &features);
    // The rule matters for this clip.
    let second = mel()
        .features(&padded(&samples[WINDOW..]), LogMelMax::Clip)
        .unwrap();
    assert!((second.get(60, 2000).unwrap() - features.get(60, 5000).unwrap()).abs() > 0.1);
}

/// Puts windows side by side.
fn concatenate(windows: &[Features]) -> Features {
    let frames = windows.iter().map(|window| window.frames).sum();
    let data = (0..windows[0].bins)
        .flat_map(|bin| {
            windows.iter().flat_map(move |window| {
                window.data[bin * window.frames..(bin + 1) * window.frames]
                    .iter()
                    .copied()
            })
        })
        .collect();
    Features {
        bins: windows[0].bins,
        frames,
        data,
    }
}

#[test]
fn windows_are_the_whole_exactly() {
    let (mel, samples) = (mel(), two_windows());
    let whole = padded(&samples);
    let max = mel.clip_maximum(&samples, whole.len());
    let windows: Vec<Features> = (0..whole.len() / WINDOW)
        .map(|index| {
            mel.window(&samples, whole.len(), index * 3000, 3000, max)
                .unwrap()
        })
        .collect();
    assert_eq!(windows.len(), 2);
    assert_eq!(
        concatenate(&windows),
        mel.features(&whole, LogMelMax::Clip).unwrap()
    );
}

#[test]
fn the_last_frame_is_dropped() {
    for (samples, frames) in [
        (201, 1),
        (319, 1),
        (400, 2),
        (1279, 7),
        (1280, 8),
        (1281, 8),
    ] {
        let features = mel()
            .features(&vec![0.1; samples], LogMelMax::Clip)
            .unwrap();
        assert_eq!(features.frames, frames, "{samples} samples");
        assert_eq!(features.data.len(), frames * 128);
    }
}

#[test]
fn impossible_requests() {
    let error = mel().features(&[0.0; 200], LogMelMax::Clip).unwrap_err();
    assert!(
        matches!(
            error,
            AudioError::TooShort {
                found: 200,
                expected: 201
            }
        ),
        "{error}"
    );
    let samples = [0.0; 1600];
    let error = mel().window(&samples, 1600, 5, 6, 0.0).unwrap_err();
    assert!(
        matches!(
            error,
            AudioError::FrameRange {
                start: 5,
                end: 11,
                available: 10
            }
        ),
        "{error}"
    );
    assert!(mel().window(&samples, 1600, usize::MAX, 6, 0.0).is_err());
    let error = mel().window(&samples, 1599, 0, 1, 0.0).unwrap_err();
    assert!(
        matches!(
            error,
            AudioError::PaddedLength {
                found: 1599,
                expected: 1600
            }
        ),
        "{error}"
    );
    assert_eq!(mel().window(&samples, 1600, 10, 0, 0.0).unwrap().frames, 0);
    assert_eq!(mel().clip_maximum(&[], 0), -10.0);
    for config in [
        MelConfig {
            sample_rate: 0,
            ..CONFIG
        },
        MelConfig {
            window_size: 401,
            ..CONFIG
        },
        MelConfig {
            window_size: 0,
            ..CONFIG
        },
        MelConfig {
            hop_length: 0,
            ..CONFIG
        },
        MelConfig {
            num_mel_bins: 0,
            ..CONFIG
        },
        MelConfig {
            num_mel_bins: usize::MAX,
            ..CONFIG
        },
    ] {
        let error = LogMel::new(config).unwrap_err();
        assert!(matches!(error, AudioError::MelConfig { .. }), "{error}");
    }
}

/// The transform against its definition, O(N²), with dimensions unlike the usual ones.
#[test]
fn odd_dimensions_follow_the_definition() {
    let config = MelConfig {
        sample_rate: 8_000,
        window_size: 90,
        hop_length: 100,
        num_mel_bins: 7,
    };
    let samples: Vec<f32> = (0..1234).map(|n| ((n * n) as f32 * 0.01).sin()).collect();
    let features = LogMel::new(config)
        .unwrap()
        .features(&samples, LogMelMax::Fixed(30.0))
        .unwrap();
    let filters = voxtral_audio::mel_filter_bank(&config);
    assert_eq!(
        (features.bins, features.frames, filters.len()),
        (7, 12, 7 * 46)
    );
    for frame in 0..12 {
        let power: Vec<f64> = (0..46).map(|k| power(&samples, frame * 100, k)).collect();
        for bin in 0..7 {
            let row = &filters[bin * 46..(bin + 1) * 46];
            let sum: f64 = row.iter().zip(&power).map(|(&w, p)| f64::from(w) * p).sum();
            let expected = (sum.max(1e-10).log10().max(22.0) + 4.0) / 4.0;
            assert!((f64::from(features.get(bin, frame).unwrap()) - expected).abs() < 1e-5);
        }
    }
}

/// |DFT|² of the windowed samples around `centre`, reflected at the edges.
fn power(samples: &[f32], centre: usize, k: usize) -> f64 {
    let last = samples.len() as isize - 1;
    let (mut re, mut im) = (0.0, 0.0);
    for n in 0..90_isize {
        let position = (centre as isize + n - 45).abs();
        let position = if position > last {
            2 * last - position
        } else {
            position
        };
        let angle = std::f64::consts::TAU * n as f64 / 90.0;
        let x = f64::from(samples[position as usize]) * (0.5 - 0.5 * angle.cos());
        re += x * (angle * k as f64).cos();
        im -= x * (angle * k as f64).sin();
    }
    re * re + im * im
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any clip, padding and cuts: windows are the padded whole, to the bit.
    #[test]
    fn any_windows_are_the_whole(
        length in 1_usize..6000,
        padding in 201_usize..4000,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mel = mel();
        let samples: Vec<f32> = (0..length).map(|n| ((n * n) as f32 * 0.013).sin() * 0.3).collect();
        let mut whole = samples.clone();
        whole.resize(length + padding, 0.0);
        let expected = mel.features(&whole, LogMelMax::Clip).unwrap();
        let max = mel.clip_maximum(&samples, whole.len());

        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(expected.frames + 1)).collect();
        edges.extend([0, expected.frames]);
        edges.sort_unstable();
        let windows: Vec<Features> = edges
            .windows(2)
            .map(|edge| mel.window(&samples, whole.len(), edge[0], edge[1] - edge[0], max).unwrap())
            .collect();
        prop_assert_eq!(concatenate(&windows), expected);
    }
}
