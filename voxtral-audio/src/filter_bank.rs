//! The Slaney mel filter bank.
//!
//! The mel scale is linear below 1 kHz and logarithmic above (M. Slaney, "Auditory Toolbox",
//! 1998), with mel m and frequency f in Hz:
//!
//! ```text
//! m = 3f/200                     for f < 1000,   m = 15 + 27·ln(f/1000)/ln(6.4)    otherwise
//! f = 200m/3                     for m < 15,     f = 1000·exp((m − 15)·ln(6.4)/27) otherwise
//! ```
//!
//! With p_0 … p_{B+1} equally spaced in mel from 0 Hz to half the sample rate, and f_k the
//! frequency of FFT bin k, filter i is a triangle of area 1 (in Hz) over p_i, p_{i+1}, p_{i+2}:
//!
//! ```text
//! W[i,k] = max(0, min((f_k − p_i)/(p_{i+1} − p_i), (p_{i+2} − f_k)/(p_{i+2} − p_{i+1})))
//!          · 2/(p_{i+2} − p_i)
//! ```
//!
//! The same as `mel_filter_bank(norm="slaney", mel_scale="slaney")` of transformers'
//! `audio_utils.py` and `librosa.filters.mel`.

use crate::mel::MelConfig;

/// Where the scale turns from linear to logarithmic, in Hz.
const BREAK_HZ: f64 = 1000.0;

/// The same place in mel.
const BREAK_MEL: f64 = 15.0;

/// Mel per Hz below the break.
const SLOPE: f64 = 3.0 / 200.0;

/// Mel per natural logarithm of the frequency above the break: 27 steps for a factor of 6.4.
fn mel_per_ln() -> f64 {
    27.0 / 6.4_f64.ln()
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < BREAK_HZ {
        hz * SLOPE
    } else {
        BREAK_MEL + mel_per_ln() * (hz / BREAK_HZ).ln()
    }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < BREAK_MEL {
        mel / SLOPE
    } else {
        BREAK_HZ * ((mel - BREAK_MEL) / mel_per_ln()).exp()
    }
}

/// The weights `[num_mel_bins, window_size / 2 + 1]`, row by row.
///
/// They are computed in f64 and rounded once.
///
/// ```
/// use voxtral_audio::{MelConfig, mel_filter_bank};
///
/// let config = MelConfig { sample_rate: 16_000, window_size: 400, hop_length: 160, num_mel_bins: 128 };
/// let weights = mel_filter_bank(&config);
/// assert_eq!(weights.len(), 128 * 201);
/// assert_eq!(weights[1], 0.012_373_987);
/// ```
pub fn mel_filter_bank(config: &MelConfig) -> Vec<f32> {
    let nyquist = f64::from(config.sample_rate) / 2.0;
    let bins = config.window_size / 2 + 1;
    let step = hz_to_mel(nyquist) / (config.num_mel_bins + 1) as f64;
    let points: Vec<f64> = (0..config.num_mel_bins + 2)
        .map(|i| mel_to_hz(i as f64 * step))
        .collect();
    let bin_hz = f64::from(config.sample_rate) / config.window_size as f64;

    let mut weights = Vec::with_capacity(config.num_mel_bins * bins);
    for point in points.windows(3) {
        let (low, centre, high) = (point[0], point[1], point[2]);
        weights.extend((0..bins).map(|k| {
            let hz = k as f64 * bin_hz;
            let triangle = ((hz - low) / (centre - low)).min((high - hz) / (high - centre));
            (triangle.max(0.0) * 2.0 / (high - low)) as f32
        }));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that transformers and mistral-common agree on to 2e-16.
    #[test]
    fn agrees_with_the_reference() {
        let weights = mel_filter_bank(&MelConfig {
            sample_rate: 16_000,
            window_size: 400,
            hop_length: 160,
            num_mel_bins: 128,
        });
        let rows: Vec<&[f32]> = weights.chunks(201).collect();
        assert_eq!(rows.len(), 128);
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        assert!((sum - 3.190_985_528_540_699_6).abs() < 1e-6, "sum {sum}");
        let max = weights.iter().copied().fold(0.0, f32::max);
        assert!((max - 0.041_681_749).abs() < 1e-8, "max {max}");
        assert!((rows[0][1] - 0.012_373_99).abs() < 1e-8);
        assert_eq!((rows[0][0], &rows[0][2..]), (0.0, &[0.0; 199][..]));
        let filled: Vec<usize> = (0..201).filter(|&k| rows[64][k] > 0.0).collect();
        assert_eq!(filled, [42, 43]);
        for (found, expected) in
            rows[127][197..]
                .iter()
                .zip([0.003_342_84, 0.002_228_56, 0.001_114_28, 0.0])
        {
            assert!((found - expected).abs() < 1e-8, "{found} for {expected}");
        }
        for (index, row) in rows.iter().enumerate() {
            let count = row.iter().filter(|&&weight| weight > 0.0).count();
            assert!((1..=9).contains(&count), "filter {index} has {count} bins");
        }
    }

    #[test]
    fn the_scale_is_its_own_inverse_and_continuous() {
        for hz in [0.0, 1.0, 999.999, 1000.0, 1000.001, 8000.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-9);
        }
        assert_eq!(hz_to_mel(1000.0), 15.0);
    }
}
