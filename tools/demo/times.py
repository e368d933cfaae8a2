"""Say when each word of the evaluation set is spoken, by the events of espeak-ng's library.

Every utterance is spoken once more through libespeak-ng, which tells at which sample a word begins; the samples
must be those of `<speech>/test.npy`, bit by bit. A word starts with its first sample, and ends with its last, that
is louder than what `synth.py` trims. Writes `<eval>/words.json`: for each utterance of `utterances.json` a list of
`[start, end]`, in samples of the utterance.

    python tools/demo/times.py --speech target/demo/speech --eval tests/data/demo-eval
"""

import argparse
import ctypes
import json
import multiprocessing
from pathlib import Path

import numpy as np
import soxr

from common import SAMPLE_RATE
from synth import ESPEAK_RATE

LIBRARY = "libespeak-ng.so.1"
SYNCHRONOUS, POSITION_CHARACTER, END_PAUSE = 2, 1, 0x1000
RATE, PITCH, WORD_GAP = 1, 3, 7
END, WORD = 0, 1
LOUD = 0.005


class Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int64),
    ]


class Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("properties", ctypes.c_ubyte * 4),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


def spoken(what: dict) -> tuple[np.ndarray, list[int]]:
    """The samples of an utterance at espeak-ng's rate, and where its words begin; in a process of its own, since a
    voice leaves traces in the next."""
    library = ctypes.CDLL(LIBRARY)
    assert library.espeak_Initialize(SYNCHRONOUS, 0, None, 0) == ESPEAK_RATE
    pieces, begins = [], []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
    def take(samples, count, events) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != END:
            if events[i].type == WORD:
                begins.append(events[i].sample)
            i += 1
        return 0

    library.espeak_SetSynthCallback(take)
    # As the program does with `-v`.
    voice = what["voice"].encode()
    if library.espeak_SetVoiceByName(voice) != 0:
        library.espeak_SetVoiceByProperties(ctypes.byref(Voice(languages=voice)))
    for parameter, key in ((RATE, "speed"), (PITCH, "pitch"), (WORD_GAP, "gap")):
        library.espeak_SetParameter(parameter, what[key], 0)
    text = (", " if what["comma"] else " ").join(what["words"]).encode() + b"\0"
    library.espeak_Synth(text, len(text), 0, POSITION_CHARACTER, 0, END_PAUSE, None, None)
    return np.concatenate(pieces).astype(np.float32) / 32768, begins


def words(what: dict, expected: np.ndarray) -> list[tuple[float, float]]:
    """Start and end of each word, in seconds of the trimmed utterance."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        x, begins = pool.apply(spoken, (what,))
    assert len(begins) == len(what["words"]), what
    loud = np.flatnonzero(np.abs(x) > LOUD)
    trimmed = soxr.resample(x[loud[0] : loud[-1] + 1], ESPEAK_RATE, SAMPLE_RATE)
    trimmed = np.clip(np.round(trimmed * 32768), -32768, 32767).astype(np.int16)
    assert np.array_equal(trimmed, expected), what
    times = []
    for begin, end in zip(begins, [*begins[1:], len(x)], strict=True):
        own = loud[(loud >= begin) & (loud < end)]
        times.append(tuple(float(t - loud[0]) / ESPEAK_RATE for t in (own[0], own[-1] + 1)))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("target/demo/speech"))
    parser.add_argument("--eval", type=Path, default=Path("tests/data/demo-eval"))
    parser.add_argument("--seed", type=int, default=1, help="that of evaluate.py")
    args = parser.parse_args()
    speech = np.load(args.speech / "test.npy", mmap_mode="r")
    lines = []
    utterances = json.loads((args.eval / "utterances.json").read_text())
    for i, (what, utterance) in enumerate(
        zip(json.loads((args.speech / "test.json").read_text()), utterances, strict=True)
    ):
        # The silence that evaluate.py puts around the utterance.
        rng = np.random.default_rng([args.seed, 99, i])
        lead, tail = (int(rng.uniform(*limits) * SAMPLE_RATE) for limits in ((0, 1.5), (0.05, 0.4)))
        assert utterance["samples"] == lead + what["samples"] + tail, "another evaluation set"
        assert utterance["reference"].split() == what["words"]
        expected = speech[what["start"] : what["start"] + what["samples"]]
        times = words(what, expected)
        lines.append(json.dumps([[lead + round(t * SAMPLE_RATE) for t in span] for span in times]))
    (args.eval / "words.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
