"""Synthesise single words with espeak-ng: the bank that the streams of the Realtime demo are put together from.

A split is two files: `<split>.npy` (int16, 16 kHz mono, all words one after the other, silence at both ends
trimmed) and `<split>.json` (one record per speaker setting: language, voice, speed, pitch, and for each of
its ten words where it starts and how many samples it has). The splits have the speakers and accents of
tools/demo/synth.py: the speakers of dev and test are absent from training. Every setting is drawn from its
own generator, seeded by (seed, split, index), so the result does not depend on the number of workers.

    python tools/demo-realtime/bank.py --out target/demo-realtime/bank
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "demo"))

from common import LANGUAGES, SAMPLE_RATE, WORDS
from synth import ACCENTS, SPLITS, TEST_ACCENTS, VARIANTS, speak


def draw(seed: int, split: str, index: int) -> dict:
    """Speaker setting `index` of `split`."""
    rng = np.random.default_rng([seed, SPLITS[split], index])
    language = LANGUAGES[index % len(LANGUAGES)]
    accents = (TEST_ACCENTS if split == "test" else ACCENTS)[language]
    return {
        "language": language,
        "voice": "+".join(filter(None, [str(rng.choice(accents)), str(rng.choice(VARIANTS[split]))])),
        "speed": int(rng.integers(110, 221)),
        "pitch": int(rng.integers(20, 81)),
    }


def make(seed: int, split: str, index: int) -> tuple[dict, list[np.ndarray]]:
    what = draw(seed, split, index)
    words = WORDS[what["language"]]
    return what, [speak({**what, "words": [word], "comma": False, "gap": 0}) for word in words]


def synthesise(out: Path, split: str, count: int, seed: int, workers: int) -> None:
    records, parts, start = [], [], 0
    with ProcessPoolExecutor(workers) as pool:
        for what, words in pool.map(partial(make, seed, split), range(count), chunksize=8):
            what["words"] = []
            for x in words:
                what["words"].append([start, len(x)])
                start += len(x)
            records.append(what)
            parts += words
    np.save(out / f"{split}.npy", np.concatenate(parts))
    (out / f"{split}.json").write_text(json.dumps(records))
    mean = start / SAMPLE_RATE / len(parts)
    print(f"{split}: {count} speaker settings, {len(parts)} words of {mean:.3f} s on average", flush=True)


class Bank:
    """One split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.samples = np.load(folder / f"{split}.npy", mmap_mode="r")
        self.records = json.loads((folder / f"{split}.json").read_text())

    def __len__(self) -> int:
        return len(self.records)

    def word(self, index: int, digit: int) -> np.ndarray:
        start, length = self.records[index]["words"][digit]
        return self.samples[start : start + length].astype(np.float32) / 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("target/demo-realtime/bank"))
    parser.add_argument("--train", type=int, default=3000, help="speaker settings to train on (default: %(default)s)")
    parser.add_argument("--dev", type=int, default=160)
    parser.add_argument("--test", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split in ("test", "dev", "train"):
        synthesise(args.out, split, getattr(args, split), args.seed, args.workers)


if __name__ == "__main__":
    main()
