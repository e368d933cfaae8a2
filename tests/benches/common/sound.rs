//! Sound and numbers that are the same in every run.

use std::f32::consts::TAU;

/// Numbers without a pattern, from -1 to 1 (SplitMix64: Steele, Lea & Flood, 2014).
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..count)
        .map(|_| (next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0)
        .collect()
}

/// Tones that come and go three times a second, over noise.
pub(crate) fn sound(seconds: usize, sample_rate: u32) -> Vec<f32> {
    let rate = sample_rate as f32;
    let samples = seconds * sample_rate as usize;
    noise(samples, 3)
        .into_iter()
        .enumerate()
        .map(|(n, noise)| {
            // Whole periods in a second, so that a long stream loses no precision.
            let phase = TAU * (n % sample_rate as usize) as f32 / rate;
            let loudness = 0.5 - 0.5 * (3.0 * phase).cos();
            let tones = (180.0 * phase).sin() + (720.0 * phase).sin() + (2_500.0 * phase).sin();
            0.01 * noise + 0.1 * loudness * tones
        })
        .collect()
}
