"""Synthesise spoken digits with espeak-ng: the train, dev and test speech of the demo model.

Every utterance is drawn from its own generator, seeded by (seed, split, index), so that the result does
not depend on the number of workers. A split is two files: `<split>.npy` (int16, 16 kHz mono, all
utterances one after the other, silence at both ends trimmed) and `<split>.json` (one record each).

    python tools/demo/synth.py --out target/demo/speech
"""

import argparse
import json
import subprocess
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from common import LANGUAGES, SAMPLE_RATE, WORDS

ESPEAK_RATE = 22_050

# Voices (accents) and variants (speakers) of espeak-ng. What the dev and test splits use of the variants
# is absent from training; the test split also has two accents that are absent from training. espeak-ng
# has only one accent of German and two of Spanish, so there the speaker alone is new.
ACCENTS = {
    "en": ["en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc"],
    "fr": ["fr-fr", "fr-ch"],
    "de": ["de"],
    "es": ["es", "es-419"],
}
TEST_ACCENTS = {
    "en": ["en-gb-x-gbcwmd", "en-us", "en-gb"],
    "fr": ["fr-be", "fr-fr"],
    "de": ["de"],
    "es": ["es", "es-419"],
}
VARIANTS = {
    # An empty name is the plain voice. The common variants come more often than the others.
    "train": 3 * ["", "m1", "m2", "m5", "m6", "m7", "m8", "f1", "f2", "f5"]
    + [
        "Alex", "Alicia", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky",
        "Lee", "Marco", "Mario", "Mike", "Nguyen", "Storm", "adam", "anika", "antonio", "aunty", "benjamin",
        "boris", "caleb", "david", "ed", "edward", "edward2", "grandma", "grandpa", "gustave", "iven", "iven2",
        "john", "klatt", "klatt2", "klatt4", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul",
        "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "travis", "victor", "zac",
    ],
    "dev": ["m3", "f3", "pedro"],
    "test": ["m4", "f4", "Andy", "Michael", "belinda", "linda"],
}  # fmt: skip
SPLITS = {"train": 0, "dev": 1, "test": 2}

# English accents differ most in vowels, and espeak-ng has few of them: in training each speaker of half of the
# English utterances says a digit in one of these ways (phonemes of espeak-ng).
PHONEMES = {
    "zero": ["z'i@roU", "z'i:rO:", "z'i@raU", "z'EroU"],
    "one": ["w'0n", "w'Vn", "w'Un", "w'an"],
    "two": ["t'u:", "t'u", "t'Iu:"],
    "three": ["Tr'i:", "fr'i:", "tr'i:", "Tr'eI"],
    "four": ["f'o@", "f'O:", "f'oU", "f'o@r"],
    "five": ["f'aIv", "f'OIv", "f'A:v", "f'VIv"],
    "six": ["s'Iks", "s'i:ks", "s'Eks", "s'@ks"],
    "seven": ["s'Ev@n", "s'IvIn", "s'avn", "s'eIv@n"],
    "eight": ["'eIt", "'aIt", "'e:t", "'Et"],
    "nine": ["n'aIn", "n'OIn", "n'A:n", "n'VIn"],
}


def draw(seed: int, split: str, index: int) -> dict:
    """What utterance `index` of `split` says, and how."""
    rng = np.random.default_rng([seed, SPLITS[split], index])
    language = LANGUAGES[index % len(LANGUAGES)]
    accents = (TEST_ACCENTS if split == "test" else ACCENTS)[language]
    # In training one digit alone and long rows are the hard cases: they get a larger share.
    count = int(rng.choice([1, 1, 2, 3, 4, 5, 6, 7, 8, 8]) if split == "train" else rng.integers(1, 9))
    words = [WORDS[language][d] for d in rng.integers(0, 10, count)]
    comma = rng.random() < 0.5
    what = {
        "language": language,
        "voice": "+".join(filter(None, [str(rng.choice(accents)), str(rng.choice(VARIANTS[split]))])),
        "words": words,
        "comma": bool(comma),
        "speed": int(rng.integers(110, 221)),
        "pitch": int(rng.integers(20, 81)),
        "gap": int(rng.integers(0, 3 if comma else 11)),
    }
    if split == "train" and language == "en" and rng.random() < 0.5:
        said = {word: f"[[{rng.choice(ways)}]]" for word, ways in PHONEMES.items()}
        what["said"] = [said[word] for word in words]
    return what


def speak(what: dict) -> np.ndarray:
    """Run espeak-ng; returns trimmed int16 samples at 16 kHz."""
    text = (", " if what["comma"] else " ").join(what.get("said", what["words"]))
    command = ["espeak-ng", "-v", what["voice"], "-s", str(what["speed"]), "-p", str(what["pitch"])]
    wav = subprocess.run([*command, "-g", str(what["gap"]), "--stdout", text], capture_output=True, check=True).stdout
    x = np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], dtype="<i2").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(x) > 0.005)
    x = soxr.resample(x[loud[0] : loud[-1] + 1], ESPEAK_RATE, SAMPLE_RATE)
    return np.clip(np.round(x * 32768), -32768, 32767).astype(np.int16)


def make(seed: int, split: str, index: int) -> tuple[dict, np.ndarray]:
    what = draw(seed, split, index)
    return what, speak(what)


def synthesise(out: Path, split: str, count: int, seed: int, workers: int) -> None:
    records, parts, start = [], [], 0
    with ProcessPoolExecutor(workers) as pool:
        for what, x in pool.map(partial(make, seed, split), range(count), chunksize=64):
            records.append({"start": start, "samples": len(x), **what})
            parts.append(x)
            start += len(x)
    np.save(out / f"{split}.npy", np.concatenate(parts))
    (out / f"{split}.json").write_text(json.dumps(records, ensure_ascii=False))
    print(f"{split}: {count} utterances, {start / SAMPLE_RATE / 3600:.2f} h", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("target/demo/speech"))
    parser.add_argument("--train", type=int, default=40_000, help="utterances to train on (default: %(default)s)")
    parser.add_argument("--dev", type=int, default=400)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split in ("test", "dev", "train"):
        synthesise(args.out, split, getattr(args, split), args.seed, args.workers)


if __name__ == "__main__":
    main()
