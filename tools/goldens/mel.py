"""Log-mel features by transformers, sampled, for the parity tests of voxtral-audio.

Usage: python tools/goldens/mel.py
Needs: the packages pinned in tools/goldens/requirements.txt.
Reads: tests/data/audio/*.wav (16 kHz, mono, 16 bit).
Writes: tests/data/mel/*.bin, one file for each clip, all little-endian:

    u32 bins, u32 frames (of the whole clip), u32 count, f64 mean of all features,
    u32 frame[count], f32 features[count, bins]

Clips:
    jfk            one window of 30 s, maximum of the clip
    librispeech    one window of 30 s, maximum of the clip
    two_windows    jfk three times, scaled by SCALES, in two windows: the maximum lies in the
                   first window, and the second would differ by itself
    jfk_realtime   without padding, the constant maximum of Realtime
"""

import struct
from pathlib import Path

import numpy as np
import soundfile
from transformers import VoxtralRealtimeFeatureExtractor, WhisperFeatureExtractor

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
SCALES = (0.02, 1.0, 0.05)
FRAMES = 48


def read(name):
    samples, rate = soundfile.read(DATA / "audio" / f"{name}.wav", dtype="float32")
    assert rate == 16000 and samples.ndim == 1
    return samples


def whisper(samples):
    """As VoxtralProcessor does: padded to whole windows, one maximum for the clip."""
    extract = WhisperFeatureExtractor(feature_size=128)
    features = extract(
        samples,
        sampling_rate=16000,
        padding=True,
        truncation=False,
        pad_to_multiple_of=480000,
        return_tensors="np",
    )
    return features["input_features"][0]


def realtime(samples):
    extract = VoxtralRealtimeFeatureExtractor(feature_size=128, n_fft=400)
    assert extract.global_log_mel_max == 1.5
    features = extract(samples, sampling_rate=16000, padding=False, return_tensors="np")
    return features["input_features"][0]


def write(name, features, speech):
    """Stores the first and last frames, and others spread over the `speech` frames."""
    features = np.asarray(features)
    bins, frames = features.shape
    spread = np.linspace(0, min(speech + 2, frames - 1), FRAMES - 4).round().astype(int)
    index = np.unique(np.concatenate([[0, 1, 2], spread, [frames - 1]])).astype("<u4")
    path = DATA / "mel" / f"{name}.bin"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<IIId", bins, frames, len(index), features.mean(dtype="f8")))
        file.write(index.tobytes())
        file.write(features.T[index].astype("<f4").tobytes())
    print(name, features.shape, path.stat().st_size)


def main():
    jfk = read("jfk")
    librispeech = read("librispeech-8297-275156-0000")
    write("jfk", whisper(jfk), len(jfk) // 160)
    write("librispeech", whisper(librispeech), len(librispeech) // 160)
    parts = np.concatenate([jfk * np.float32(scale) for scale in SCALES])
    write("two_windows", whisper(parts), len(parts) // 160)
    write("jfk_realtime", realtime(jfk), len(jfk) // 160)


if __name__ == "__main__":
    main()
