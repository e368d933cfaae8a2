//! Tests of the public interface, on real files.

#![expect(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![expect(
    clippy::print_stdout,
    reason = "measured figures, shown with --nocapture"
)]

mod clip;
mod damage;
mod formats;
mod mel;
mod pipe;
mod resample;
mod stream;

use std::path::PathBuf;

use voxtral_audio::Audio;

/// A file under `tests/data`. It must exist.
fn data(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(name);
    assert!(path.exists(), "fixture {} is missing", path.display());
    path
}

/// Samples of a 16 kHz file under `tests/data/audio`.
fn speech(name: &str) -> Vec<f32> {
    Audio::from_file(data("audio").join(name), 16_000)
        .unwrap()
        .into_samples()
}

/// A sine of amplitude 1.
fn tone(frequency: f64, sample_rate: u32, samples: usize) -> Vec<f32> {
    let step = std::f64::consts::TAU * frequency / f64::from(sample_rate);
    (0..samples)
        .map(|n| (step * n as f64).sin() as f32)
        .collect()
}

/// The bytes of a WAV file with a plain header; `bits` are 16, or 32 for floats.
fn wav(sample_rate: u32, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
    let block = channels * (bits / 8);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0");
    bytes.extend(if bits == 32 { 3_u16 } else { 1 }.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(sample_rate.to_le_bytes());
    bytes.extend((sample_rate * u32::from(block)).to_le_bytes());
    bytes.extend(block.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// A WAV file of 16-bit samples, `[frames, channels]`.
fn wav_i16(sample_rate: u32, channels: u16, samples: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let data: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    wav(sample_rate, channels, 16, &data)
}

/// A WAV file of floats.
fn wav_f32(sample_rate: u32, samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    wav(sample_rate, 1, 32, &data)
}
