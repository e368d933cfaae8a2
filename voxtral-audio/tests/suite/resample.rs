//! The resampler keeps what both rates can carry, in time and amplitude, and nothing else.

use std::f64::consts::TAU;

use proptest::prelude::*;
use voxtral_audio::{Audio, AudioError, Resampler};

use crate::tone;

const TARGET: u32 = 16_000;
const RATES: [u32; 8] = [
    8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000,
];

/// One second at `from`, resampled, without its edges.
fn middle(signal: &[f32], from: u32, to: u32) -> (Vec<f32>, usize) {
    let audio = Audio::new(signal.to_vec(), from)
        .unwrap()
        .resampled(to)
        .unwrap();
    let start = audio.samples().len() / 4;
    (
        audio.samples()[start..audio.samples().len() - start].to_vec(),
        start,
    )
}

/// Amplitude and phase of a frequency by least squares over whole numbers of samples.
fn fit(samples: &[f32], start: usize, frequency: f64, rate: u32) -> (f64, f64) {
    let step = TAU * frequency / f64::from(rate);
    let (mut ss, mut sc, mut cc, mut xs, mut xc) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (n, &x) in samples.iter().enumerate() {
        let (s, c) = (step * (start + n) as f64).sin_cos();
        ss += s * s;
        sc += s * c;
        cc += c * c;
        xs += f64::from(x) * s;
        xc += f64::from(x) * c;
    }
    let determinant = ss * cc - sc * sc;
    let (a, b) = (
        (xs * cc - xc * sc) / determinant,
        (xc * ss - xs * sc) / determinant,
    );
    (a.hypot(b), b.atan2(a))
}

fn rms(samples: &[f32]) -> f64 {
    (samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

/// Tones up to 0.9 of the lower Nyquist frequency: same amplitude, same phase, nothing added.
#[test]
fn tones_are_kept() {
    let (mut worst_gain, mut worst_shift, mut worst_rest): (f64, f64, f64) = (0.0, 0.0, 0.0);
    for (from, to) in RATES
        .into_iter()
        .flat_map(|rate| [(rate, TARGET), (TARGET, rate)])
    {
        let nyquist = f64::from(from.min(to)) / 2.0;
        for part in [0.01, 0.1, 0.25, 0.5, 0.75, 0.85, 0.9] {
            let frequency = (nyquist * part).round();
            let signal = tone(frequency, from, from as usize);
            let (samples, start) = middle(&signal, from, to);
            let (amplitude, phase) = fit(&samples, start, frequency, to);
            let step = TAU * frequency / f64::from(to);
            let rest: Vec<f32> = samples
                .iter()
                .enumerate()
                .map(|(n, &x)| {
                    let clean = amplitude * (step * (start + n) as f64 + phase).sin();
                    (f64::from(x) - clean) as f32
                })
                .collect();
            worst_gain = worst_gain.max((amplitude - 1.0).abs());
            worst_shift = worst_shift.max((phase / step).abs());
            worst_rest = worst_rest.max(rms(&rest) * f64::sqrt(2.0));
        }
    }
    println!(
        "gain {worst_gain:.2e}, shift {worst_shift:.2e} samples, rest {:.1} dB",
        20.0 * worst_rest.log10()
    );
    assert!(worst_gain < 1e-3, "gain is off by {worst_gain}");
    assert!(
        worst_shift < 1e-3,
        "shifted by {worst_shift} samples of the output"
    );
    assert!(worst_rest < 1e-5, "distortion {worst_rest}");
}

/// Tones above the new Nyquist frequency disappear, whatever they would be folded to.
#[test]
fn aliases_are_suppressed() {
    let mut worst: f64 = 0.0;
    for from in RATES.into_iter().filter(|&rate| rate > TARGET) {
        let nyquist = f64::from(TARGET) / 2.0;
        let highest = f64::from(from) / 2.0;
        for part in [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.95] {
            let signal = tone(
                (nyquist + part * (highest - nyquist)).round(),
                from,
                from as usize,
            );
            worst = worst.max(rms(&middle(&signal, from, TARGET).0) * f64::sqrt(2.0));
        }
    }
    println!("aliases {:.1} dB", 20.0 * worst.log10());
    assert!(worst < 1e-4, "{worst} is more than -80 dB");
}

/// A sweep through the whole pass band comes out as the sweep made at the other rate.
#[test]
fn a_sweep_stays_where_it_is() {
    let sweep = |rate: u32| -> Vec<f32> {
        let top = 3_600.0;
        (0..2 * rate)
            .map(|n| {
                let t = f64::from(n) / f64::from(rate);
                // Faded in and out, so that the ends of the clip are band-limited, too.
                let fade = (0.5 - 0.5 * (TAU * t / 2.0).cos()).powi(2);
                (fade * (TAU * (50.0 * t + (top - 50.0) * t * t / 4.0)).sin()) as f32
            })
            .collect()
    };
    let expected = sweep(TARGET);
    for from in RATES {
        let audio = Audio::new(sweep(from), from)
            .unwrap()
            .resampled(TARGET)
            .unwrap();
        assert_eq!(audio.samples().len(), expected.len(), "{from} Hz");
        let error = audio
            .samples()
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f32::max);
        assert!(error < 1e-4, "{from} Hz: {error}");
    }
}

/// An impulse stays at its place, at the very beginning and end as well.
#[test]
fn an_impulse_stays_where_it_is() {
    for from in RATES {
        let length = from as usize / 2;
        for at in [0, length / 3, length - 1] {
            let mut signal = vec![0.0; length];
            signal[at] = 1.0;
            let audio = Audio::new(signal, from).unwrap().resampled(TARGET).unwrap();
            let samples = audio.samples();
            let peak = (0..samples.len())
                .max_by(|&a, &b| samples[a].total_cmp(&samples[b]))
                .unwrap();
            let expected = at as f64 * f64::from(TARGET) / f64::from(from);
            let distance = (peak as f64 - expected).abs();
            assert!(
                distance <= 1.0,
                "{from} Hz, {at}: peak at {peak}, not {expected}"
            );
        }
    }
}

#[test]
fn rates_without_a_common_divisor() {
    for from in [12_345, 44_099, 47_999] {
        let signal = tone(440.0, from, from as usize);
        let (samples, start) = middle(&signal, from, TARGET);
        let (amplitude, phase) = fit(&samples, start, 440.0, TARGET);
        assert!(
            (amplitude - 1.0).abs() < 1e-3 && phase.abs() < 1e-3,
            "{from} Hz"
        );
    }
}

#[test]
fn equal_rates_change_nothing() {
    let signal = tone(1000.0, TARGET, 777);
    let audio = Audio::new(signal.clone(), TARGET).unwrap();
    assert_eq!(audio.resampled(TARGET).unwrap().into_samples(), signal);
}

#[test]
fn impossible_rates() {
    for (from, to) in [(0, 16_000), (16_000, 0), (999, 16_000), (16_000, u32::MAX)] {
        let error = Resampler::new(from, to).unwrap_err();
        assert!(
            matches!(
                error,
                AudioError::SampleRate {
                    min: 1_000,
                    max: 384_000,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_resampler_can_be_used_again() {
    let mut resampler = Resampler::new(44_100, TARGET).unwrap();
    let signal = tone(300.0, 44_100, 5_000);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for output in [&mut first, &mut second] {
        resampler.push(&signal, output).unwrap();
        resampler.finish(output).unwrap();
    }
    assert_eq!(first, second);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chunking_gives_the_same(
        rate in prop::sample::select(RATES.to_vec()),
        pieces in proptest::collection::vec(0_usize..3000, 0..12),
    ) {
        let total = pieces.iter().sum();
        let signal: Vec<f32> = (0..total).map(|n| ((n * n) as f32 * 0.37).sin()).collect();
        let (mut whole, mut chunked) = (Vec::new(), Vec::new());

        let mut resampler = Resampler::new(rate, TARGET).unwrap();
        resampler.push(&signal, &mut whole).unwrap();
        resampler.finish(&mut whole).unwrap();

        let mut resampler = Resampler::new(rate, TARGET).unwrap();
        let mut rest = &signal[..];
        for piece in pieces {
            let (head, tail) = rest.split_at(piece);
            resampler.push(head, &mut chunked).unwrap();
            rest = tail;
        }
        resampler.finish(&mut chunked).unwrap();

        prop_assert_eq!(&whole, &chunked);
        let exact = total as f64 * f64::from(TARGET) / f64::from(rate);
        prop_assert_eq!(whole.len(), exact.round() as usize);
    }
}
