"""What the scripts share: the words, the tokenizer file, the model's configuration, features and noise."""

import json
from pathlib import Path

import mistral_common
import numpy as np
import torch
from transformers import VoxtralConfig, WhisperFeatureExtractor

SAMPLE_RATE = 16_000
LANGUAGES = ["en", "fr", "de", "es"]
WORDS = {
    "en": "zero one two three four five six seven eight nine".split(),
    "fr": "zéro un deux trois quatre cinq six sept huit neuf".split(),
    "de": "null eins zwei drei vier fünf sechs sieben acht neun".split(),
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve".split(),
}

# Ids of the special tokens of the 2507 models.
BOS, EOS, INST, END_INST, PAD, AUDIO, BEGIN_AUDIO, TRANSCRIBE = 1, 2, 3, 4, 11, 24, 25, 34
AVAILABLE_TOOLS, END_AVAILABLE_TOOLS, TOOL_RESULTS, END_TOOL_RESULTS, TOOL_CALLS, ARGS = 5, 6, 7, 8, 9, 32
SYSTEM_PROMPT, END_SYSTEM_PROMPT = 17, 18
SPECIAL_TOKENS = {
    0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]", 6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]", 10: "[IMG]", 11: "<pad>", 12: "[IMG_BREAK]",
    13: "[IMG_END]", 14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]", 19: "[TOOL_CONTENT]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[ARGS]",
    33: "[CALL_ID]", 34: "[TRANSCRIBE]",
}  # fmt: skip
NUM_SPECIAL = 1000
NUM_TEXT = 1300  # entries kept of the genuine vocabulary
AUDIO_SECTION = {"chunk_length_s": 30.0}
WINDOW = 30 * SAMPLE_RATE
AUDIO_TOKENS = 375  # per 30 s window


def tekken(
    num_text: int = NUM_TEXT, version: str = "v13", special: dict = SPECIAL_TOKENS, audio: dict = AUDIO_SECTION
) -> dict:
    """The genuine vocabulary cut to its first entries, with special tokens and audio section (those of 2507)."""
    source = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    full = json.loads(source.read_text())
    return {
        "config": {
            "pattern": full["config"]["pattern"],
            "num_vocab_tokens": num_text,
            "default_vocab_size": NUM_SPECIAL + num_text,
            "default_num_special_tokens": NUM_SPECIAL,
            "version": version,
        },
        "vocab": full["vocab"][:num_text],
        "special_tokens": [
            {"rank": i, "token_str": special.get(i, f"<SPECIAL_{i}>"), "is_control": True}
            for i in range(max(special) + 1)
        ],
        "audio": {
            "sampling_rate": SAMPLE_RATE,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            **audio,
        },
    }


def load_tokenizer(folder: Path):
    """mistral-common's tokenizer for the folder's tekken.json."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    return MistralTokenizer.from_file(str(folder / "tekken.json"))


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False)


def decode(tokenizer, ids: list[int]) -> str:
    """Text of the generated ids, special tokens dropped."""
    return tokenizer.decode([i for i in ids if i >= NUM_SPECIAL])


def prompt(tokenizer, language: str | None, audio_tokens: int = AUDIO_TOKENS) -> list[int]:
    """The transcription prompt, with or without the language."""
    lang = encode(tokenizer, f"lang:{language}") if language else []
    return [BOS, INST, BEGIN_AUDIO, *[AUDIO] * audio_tokens, END_INST, *lang, TRANSCRIBE]


def model_config(positions: int = 1500) -> VoxtralConfig:
    """The genuine architecture, small. `positions` is 50 per second of the encoder's window."""
    return VoxtralConfig(
        audio_config=dict(
            hidden_size=160,
            intermediate_size=640,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_mel_bins=128,
            max_source_positions=positions,
            vocab_size=NUM_SPECIAL + NUM_TEXT,
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=NUM_SPECIAL + NUM_TEXT,
            hidden_size=192,
            intermediate_size=448,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e8},
            hidden_act="silu",
            attention_bias=False,
            mlp_bias=False,
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        ),
        audio_token_id=AUDIO,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Whisper's position table: sines in the first half of the columns, cosines in the second."""
    rate = torch.exp(-torch.arange(width // 2, dtype=torch.float64) * np.log(10_000) / (width // 2 - 1))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


class LogMel:
    """Batched log-mel of clips that are already zero-padded to the window: [B, n] -> [B, 128, n / 160].

    The same numbers as WhisperFeatureExtractor. For training, `warp` [B] stretches the frequency axis (a
    longer or shorter vocal tract) and `shape` [B, 128] is added to the logarithm of the spectrum.
    `maximum` stands for the clip's own maximum: with 1.5 the numbers are VoxtralRealtimeFeatureExtractor's.
    """

    def __init__(self, maximum: float | None = None) -> None:
        self.maximum = maximum
        filters = WhisperFeatureExtractor(feature_size=128).mel_filters
        self.filters = torch.from_numpy(np.ascontiguousarray(filters.T)).float()
        self.hann = torch.hann_window(400, periodic=True)

    def __call__(
        self, x: torch.Tensor, shape: torch.Tensor | None = None, warp: torch.Tensor | None = None
    ) -> torch.Tensor:
        power = torch.stft(x, 400, 160, window=self.hann, return_complex=True)[..., :-1].abs().square()
        filters = self.filters
        if warp is not None:
            # Row k of the stretched spectrum is read, by interpolation, at k / warp of the true one.
            bins = power.shape[1]
            at = (torch.arange(bins) / warp[:, None]).clamp(max=bins - 1)
            low, part = at.floor().long(), at.frac()
            move = torch.zeros(len(x), bins, bins)
            move.scatter_(2, low[..., None], (1 - part)[..., None])
            move.scatter_add_(2, (low + 1).clamp(max=bins - 1)[..., None], part[..., None])
            filters = filters @ move
        mel = torch.clamp(filters @ power, min=1e-10).log10()
        if shape is not None:
            mel = torch.where(mel > -10, mel + shape[:, :, None], mel)
        if self.maximum is None:
            mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8)
        else:
            mel = mel.clamp(min=self.maximum - 8)
        return (mel + 4) / 4


def noise(rng: np.random.Generator, length: int, pink: bool) -> np.ndarray:
    """Noise of unit power, white or pink."""
    x = rng.standard_normal(1 << (length - 1).bit_length() if pink else length, dtype=np.float32)
    if pink:
        spectrum = np.fft.rfft(x)
        x = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1))[:length]
    return (x / np.sqrt(np.mean(x**2) + 1e-12)).astype(np.float32)


def degrade(rng: np.random.Generator, x: np.ndarray, peak: float, snr: float | None, pink: bool) -> np.ndarray:
    """Scale to the peak value, then add noise at a signal-to-noise ratio in dB (None: clean)."""
    x = x * (peak / max(float(np.abs(x).max()), 1e-6))
    if snr is not None:
        power = float(np.mean(x[np.abs(x) > 0.02 * peak] ** 2))
        x = x + noise(rng, len(x), pink) * np.sqrt(power / 10 ** (snr / 10))
    return x.astype(np.float32)


def quantise(x: np.ndarray) -> np.ndarray:
    """Round to 8 bits: values k / 128."""
    return (np.clip(np.round(x * 128), -128, 127) / 128).astype(np.float32)


def edit_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def word_error_rate(pairs: list[tuple[str, str]]) -> float:
    """Word errors per word of the reference, over (reference, hypothesis) pairs."""
    errors = sum(edit_distance(r.split(), h.split()) for r, h in pairs)
    return errors / max(1, sum(len(r.split()) for r, _ in pairs))
