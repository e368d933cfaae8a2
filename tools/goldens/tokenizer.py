"""Test vocabulary of voxtral-tokenizer, and what `mistral-common` computes with it.

    python tools/goldens/tokenizer.py --out voxtral-tokenizer/testdata            # write
    python tools/goldens/tokenizer.py --out voxtral-tokenizer/testdata --check    # compare

Files (see `README.md` beside them for the fields):

* `tekken_240911.json.gz`: the vocabulary that ships inside mistral-common, shortened, with the
  special tokens and the audio section of a 2507 model;
* `realtime.json`: the two sections that a Realtime model has instead;
* `encode.json.gz`: random strings of many scripts and their ids;
* `decode.json.gz`: random ids and their text;
* `prompts.json.gz`: transcription prompts, run-length coded, and numbers of audio tokens;
* `realtime_prompts.json`: prompts and padding of a Realtime model for every delay.

The ids come from the whole genuine file, of which mistral-common cuts the surplus entries itself.
Two runs give the same bytes.
"""

import argparse
import base64
import gzip
import io
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import mistral_common
import numpy as np
import pycountry
import soundfile
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.protocol.transcription.request import StreamingMode, TranscriptionRequest
from mistral_common.tokens.tokenizers.audio import AudioConfig, AudioSpectrogramConfig
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

SOURCE = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
VERSIONS = ("v7", "v11", "v13")
# More than the 130 072 that the model has, so that a reader must cut them.
KEPT_ENTRIES = 131_500
STRINGS = 4_000
ID_SEQUENCES = 400
SEED = 20_240_911

NAMES = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] "
    "[TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] "
    "[/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()
AUDIO = {
    "sampling_rate": 16000,
    "frame_rate": 12.5,
    "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
}


def special_tokens(named: dict[int, str]) -> list[dict]:
    """Every rank up to the last one named; gaps get the name that mistral-common fills in."""
    names = dict(enumerate(NAMES)) | named
    return [
        {"rank": rank, "token_str": names.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(max(names) + 1)
    ]


INSTRUCT = {
    "special_tokens": special_tokens(
        {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[ARGS]", 33: "[CALL_ID]", 34: "[TRANSCRIBE]"}
    ),
    "audio": AUDIO | {"chunk_length_s": 30.0},
}
REALTIME = {
    "special_tokens": special_tokens(
        {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[STREAMING_PAD]", 33: "[STREAMING_WORD]"}
    ),
    "audio": AUDIO
    | {
        "transcription_format": "streaming",
        "transcription_delay_ms": 480,
        "streaming_look_ahead_ms": 2.5,
        "streaming_look_back_ms": 52.5,
        "streaming_n_left_pad_tokens": 32,
    },
}


def dump(value, compress: bool = True) -> bytes:
    """JSON, with one line feed at the end when it is for people, without spaces otherwise."""
    if not compress:
        return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def rows(values: list) -> bytes:
    """JSON, with one line for each value."""
    lines = ",\n".join(json.dumps(value) for value in values)
    return f"[\n{lines}\n]\n".encode()


def shortened(genuine: dict) -> dict:
    """The vocabulary without what no reader needs: texts of tokens, image section, late entries."""
    vocab = [{key: entry[key] for key in ("rank", "token_bytes")} for entry in genuine["vocab"][:KEPT_ENTRIES]]
    config = genuine["config"] | {"num_vocab_tokens": KEPT_ENTRIES, "version": "v11"}
    return {"config": config, "vocab": vocab} | INSTRUCT


def tokenizer(
    genuine: dict, sections: dict, version: str, folder: Path, mode: ValidationMode = ValidationMode.test
) -> MistralTokenizer:
    """mistral-common's tokenizer with the sections of one kind of model in one version."""
    path = folder / f"tekken_{version}.json"
    path.write_text(json.dumps(genuine | sections | {"config": genuine["config"] | {"version": version}}))
    return MistralTokenizer.from_file(str(path), mode=mode)


# --- strings ---------------------------------------------------------------------------------------


def letters(*ranges: tuple[int, int]) -> list[str]:
    """The assigned characters of some ranges."""
    characters = (chr(code) for first, last in ranges for code in range(first, last + 1))
    return [c for c in characters if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


ALPHABETS = {
    "latin": letters((0x41, 0x5A), (0x61, 0x7A)),
    "accents": letters((0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "greek": letters((0x370, 0x3FF)),
    "cyrillic": letters((0x400, 0x4FF)),
    "armenian": letters((0x531, 0x586)),
    "hebrew": letters((0x591, 0x5F4)),
    "arabic": letters((0x600, 0x6FF)),
    "devanagari": letters((0x900, 0x97F)),
    "bengali": letters((0x980, 0x9FE)),
    "tamil": letters((0xB82, 0xBFA)),
    "thai": letters((0xE01, 0xE5B)),
    "georgian": letters((0x10A0, 0x10FF)),
    "hangul": letters((0xAC00, 0xD7A3)),
    "kana": letters((0x3041, 0x30FF)),
    "han": letters((0x4E00, 0x9FA5)),
    "rare han": letters((0x20000, 0x20FFF)),
    "emoji": letters((0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x2600, 0x27BF)),
    "marks": letters((0x300, 0x36F), (0x20D0, 0x20F0), (0xFE00, 0xFE0F)),
    "numbers": letters((0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0x2150, 0x218B), (0xB2, 0xB3), (0xBC, 0xBE)),
    "title case": [chr(code) for code in (0x1C5, 0x1C8, 0x1CB, 0x1F2, 0x1F88, 0x1FBC)],
    "modifiers": letters((0x2B0, 0x2FF)),
    "spaces": list(" \t\u00a0\u1680\u2002\u2003\u2009\u2028\u2029\u202f\u205f\u3000\u0085\u000b\u000c"),
    "breaks": ["\n", "\r", "\r\n", "\n\n", " \n", "\n ", "\t\n"],
    "controls": [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)]],
    "punctuation": list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + letters((0x2010, 0x205E), (0x3001, 0x3030)),
    "symbols": letters((0x20A0, 0x20BF), (0x2190, 0x22FF), (0x2500, 0x257F)),
    "private": [chr(code) for code in (0xE000, 0xF8FF, 0xFFF0, 0xFFFD, 0xFEFF, 0x200B, 0x200D, 0x10FFFF)],
    "mathematical": letters((0x1D400, 0x1D7FF)),
}
WORDS = (
    "the quick brown fox jumps over lazy dog Hello WORLD Don't I'm you'll iPhone McDonald's HTTPServer camelCase "
    "snake_case naïve café Straße ÉCOLE garçon niño coração über Zürich Paris l'été aujourd'hui São don’t "
    "привет МИР Москва здравствуйте مرحبا العالم السلام नमस्ते दुनिया हिन्दी 你好 世界 中文 こんにちは カタカナ "
    "안녕하세요 한국어 สวัสดี γειά Ελλάδα שלום 2024 3.14 1,000 42nd x1 v13 lang:en lang:nl"
).split()
EMOJI = ["👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇫🇷", "❤️", "1️⃣", "🧑🏿‍🚀", "😀", "☃"]
LOOK_ALIKES = [*NAMES, "[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]", "[ARGS]", "[STREAMING_PAD]", "<SPECIAL_20>", "<|im_end|>"]
CODE = [
    "def f(x):\n    return x**2  # square\n",
    "for (int i = 0; i < n; ++i) {\r\n\ta[i] += b[i];\r\n}",
    '{"name": "get_weather", "arguments": {"city": "Zürich"}}',
    "SELECT * FROM t WHERE a != 'b' -- comment\n",
    "fn main() {\n\tprintln!(\"{:?}\", x?.y);\n}\n\n",
    "<a href=\"https://example.org/?q=1&r=é#top\">x</a>",
    "$ ls -la ~/dir/*.{rs,py} | grep -v '^$' > /dev/null 2>&1",
    "https://www.example.com/a/b/c.html?x=1&y=%20#frag",
    "mailto:someone@example.org",
    "C:\\Users\\x\\file.txt",
    "E = mc², ∑ᵢ xᵢ ≤ ½ · 10⁻³",
]


def piece(rng: random.Random) -> str:
    """Some characters of one kind."""
    kind = rng.random()
    if kind < 0.45:
        alphabet = rng.choice(list(ALPHABETS.values()))
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 8)))
    if kind < 0.75:
        return rng.choice(WORDS)
    if kind < 0.80:
        return rng.choice(EMOJI)
    if kind < 0.85:
        return rng.choice(LOOK_ALIKES)
    if kind < 0.90:
        return rng.choice(CODE)
    if kind < 0.95:
        return rng.choice(" \n\t\r=-*.a") * rng.randint(2, 20)
    letter = rng.choice(ALPHABETS["latin"] + ALPHABETS["accents"])
    return "".join(letter + rng.choice(ALPHABETS["marks"]) * rng.randint(1, 3) for _ in range(3))


def words(rng: random.Random) -> str:
    """A sentence, more or less."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 12))) + rng.choice([".", "!", "?", "…", "\n", ""])


def scripts(rng: random.Random) -> str:
    """Words of one script."""
    alphabet = rng.choice(list(ALPHABETS.values()))
    return " ".join(
        "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 7))) for _ in range(rng.randint(1, 5))
    )


def strings(rng: random.Random) -> list[str]:
    """The strings of the fixture: long runs first, then random ones."""
    runs = [character * 3_000 for character in ("a", "A", "é", "1", " ", "\n", "\t", "中", "😀", "́", "=", " \n", "aB")]
    runs += [" " * 3_000 + "x", "a" * 3_000 + "B" * 3_000, "\u3000" * 1_500 + "\r\n", "ab" * 2_000 + "!" * 2_000]
    out = ["", *runs, *WORDS, *EMOJI, *LOOK_ALIKES, *CODE]
    makers = [words, scripts, lambda rng: "".join(piece(rng) for _ in range(rng.randint(1, 6)))]
    while len(out) < STRINGS:
        out.append(rng.choices(makers, weights=(2, 3, 5))[0](rng))
    return out


# --- fixtures --------------------------------------------------------------------------------------


def encoded(tekken, rng: random.Random) -> list:
    return [[text, tekken.encode(text, bos=False, eos=False)] for text in strings(rng)]


def decoded(tekken, rng: random.Random) -> list:
    """Rows of [ids, text with special tokens kept, text with them ignored or null].

    mistral-common ends a character at an ignored special token, and we do not; so the last is given
    only where that makes no difference.
    """
    rows = []
    for _ in range(ID_SEQUENCES):
        pools = [range(1000, 1256), range(1000, 131_072), range(40)]
        weights = rng.choice([(1, 0, 0), (1, 3, 0), (3, 3, 1), (0, 3, 1)])
        ids = [rng.choice(rng.choices(pools, weights)[0]) for _ in range(rng.randint(1, 12))]
        keep, ignore = (tekken.decode(ids, policy) for policy in (SpecialTokenPolicy.KEEP, SpecialTokenPolicy.IGNORE))
        together = tekken.decode([id for id in ids if id >= 1000], SpecialTokenPolicy.IGNORE)
        rows.append([ids, keep, ignore if ignore == together else None])
    return rows


def wav(samples: int, value: float = 0.0) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(samples, value, np.float32), 16_000, format="WAV")
    return base64.b64encode(buffer.getvalue()).decode()


def transcriptions(tekken: MistralTokenizer, version: str) -> list[dict]:
    """Prompts for every language, and for lengths around every boundary."""
    languages = [None] + [language.alpha_2 for language in pycountry.languages if hasattr(language, "alpha_2")]
    lengths = [1, 159, 160, 399, 400, 16_000, 479_999, 480_000, 480_001, 640_000, 960_000, 960_001, 4_800_123]
    cases = [(16_000, language) for language in languages]
    cases += [(samples, language) for samples in lengths for language in (None, "en", "nl")]
    rows = []
    for samples, language in dict.fromkeys(cases):
        request = TranscriptionRequest(model="voxtral", audio=wav(samples), language=language)
        ids = tekken.encode_transcription(request).tokens
        runs = [[id, len(list(run))] for id, run in groupby(ids)]
        rows.append({"version": version, "samples": samples, "language": language, "runs": runs})
    return rows


DELAYS_MS = [None, *range(80, 1201, 80), 2400]
STREAMED_SAMPLES = [1, 159, 1279, 1280, 1281, 16_000, 57_280]


def streaming_prompts(tekken: MistralTokenizer) -> list[dict]:
    """Prompt and padding for every delay, of whole files (offline) and of streams (online).

    The padding of a file is counted in the padded samples, among which the file's own are not zero.
    """
    encoder = tekken.instruct_tokenizer.audio_encoder
    out = []
    for delay in DELAYS_MS:

        def encoded(mode: StreamingMode, audio: str) -> tuple[list[int], list[np.ndarray]]:
            request = TranscriptionRequest(
                model="voxtral", audio=audio, language=None, streaming=mode, target_streaming_delay_ms=delay
            )
            result = tekken.instruct_tokenizer.encode_transcription(request)
            return result.tokens, [audio.audio_array for audio in result.audios]

        ids, (left, right) = encoded(StreamingMode.ONLINE, "")
        assert not left.any() and not right.any()
        offline = []
        for samples in STREAMED_SAMPLES:
            same, (padded,) = encoded(StreamingMode.OFFLINE, wav(samples, 0.5))
            assert same == ids
            own = np.flatnonzero(padded)
            assert own[-1] + 1 - own[0] == samples
            offline.append([samples, int(own[0]), len(padded) - int(own[-1]) - 1])
        out.append(
            {
                "delay_ms": delay,
                "delay_tokens": encoder.audio_config.get_num_delay_tokens(delay),
                "runs": [[id, len(list(run))] for id, run in groupby(ids)],
                "online": [len(left), len(right)],
                "offline": offline,
            }
        )
    return out


def audio_tokens(rng: random.Random) -> list[dict]:
    """Numbers of tokens of unpadded audio, and of windows, for the released settings and odd ones."""
    settings = [(16_000, 12.5, 160, 30.0), (24_000, 12.5, 240, 20.48), (44_100, 7.3, 441, 9.999), (8_000, 50.0, 160, 1.0)]
    out = []
    for rate, frame_rate, hop, seconds in settings:
        config = AudioConfig(rate, frame_rate, AudioSpectrogramConfig(128, hop, 400), chunk_length_s=seconds)
        lengths = [*range(0, 2 * config.raw_audio_length_per_tok, hop // 2 - 1), *(rng.randrange(10**7) for _ in range(50))]
        window = config.chunk_frames
        lengths += [window - 1, window, window + 1, 2 * window, 2 * window + 1]
        rows = []
        for samples in lengths:
            padded = -(-samples // window) * window
            rows.append([samples, config.num_audio_tokens(samples), padded, config.num_audio_tokens(padded)])
        section = {
            "sampling_rate": rate,
            "frame_rate": frame_rate,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": hop, "window_size": 400},
            "chunk_length_s": seconds,
        }
        out.append({"audio": section, "rows": rows})
    return out


def fixtures() -> dict[str, bytes]:
    """Every file by its name."""
    genuine = json.loads(SOURCE.read_text())
    with tempfile.TemporaryDirectory() as folder:
        by_version = {version: tokenizer(genuine, INSTRUCT, version, Path(folder)) for version in VERSIONS}
        # Its special tokens lack those that mistral-common requires from v11 on; the prompts know no version.
        realtime = tokenizer(genuine, REALTIME, "v7", Path(folder))
    tekken = by_version["v11"].instruct_tokenizer.tokenizer
    prompts = {
        "transcriptions": [row for version, t in by_version.items() for row in transcriptions(t, version)],
        "audio_tokens": audio_tokens(random.Random(SEED)),
    }
    return {
        "tekken_240911.json.gz": dump(shortened(genuine)),
        "realtime.json": dump(REALTIME, compress=False),
        "encode.json.gz": dump(encoded(tekken, random.Random(SEED))),
        "decode.json.gz": dump(decoded(tekken, random.Random(SEED))),
        "prompts.json.gz": dump(prompts),
        "realtime_prompts.json": rows(streaming_prompts(realtime)),
    }


def write_or_check(description: str, fixtures: Callable[[], dict[str, bytes]]) -> None:
    """The command line of this script and of `chat.py`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the fixtures")
    parser.add_argument("--check", action="store_true", help="compare with the files there instead of writing them")
    args = parser.parse_args()
    if not args.check:
        args.out.mkdir(parents=True, exist_ok=True)
    differing = []
    for name, content in fixtures().items():
        path = args.out / name
        if not args.check:
            path.write_bytes(content)
        # By content: another zlib may compress otherwise.
        elif (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes()) != (
            gzip.decompress if path.suffix == ".gz" else bytes
        )(content):
            differing.append(name)
        print(f"{name}: {len(content)} bytes")
    if differing:
        sys.exit(f"not as they would be made now: {', '.join(differing)}")


if __name__ == "__main__":
    write_or_check(__doc__, fixtures)
