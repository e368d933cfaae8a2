"""What the scripts share: the model's configuration and tokenizer file, how streams are padded, prompted and
written, and how utterances are put together from single words."""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import VoxtralRealtimeConfig

sys.path.append(str(Path(__file__).resolve().parent.parent / "demo"))

from common import BOS, EOS, NUM_SPECIAL, SAMPLE_RATE, SPECIAL_TOKENS, edit_distance, tekken

# Ids of the special tokens that the other models do not have.
STREAMING_PAD, STREAMING_WORD = 32, 33
NUM_TEXT = 3000  # entries kept of the genuine vocabulary
SAMPLES_PER_TOKEN = 1280
LEFT_PAD = 32  # tokens of silence in front
FLUSH = 11  # tokens of silence behind, in addition to the delay
LOG_MEL_MAX = 1.5
DEFAULT_DELAY = 6  # tokens: 480 ms


def tokenizer_file() -> dict:
    """tekken.json as the Realtime model has it, cut short."""
    return tekken(
        num_text=NUM_TEXT,
        version="v13",
        special={i: name for i, name in SPECIAL_TOKENS.items() if i <= 25}
        # mistral-common asks for the last two in every file of this version; no stream has them.
        | {STREAMING_PAD: "[STREAMING_PAD]", STREAMING_WORD: "[STREAMING_WORD]", 34: "[ARGS]", 35: "[CALL_ID]"},
        audio={
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": LEFT_PAD,
        },
    )


def model_config() -> VoxtralRealtimeConfig:
    """The genuine architecture, small: 4 x 48 is not the encoder's width, windows are shorter than streams."""
    vocab = NUM_SPECIAL + NUM_TEXT
    return VoxtralRealtimeConfig(
        audio_config=dict(
            model_type="voxtral_realtime_encoder",
            vocab_size=vocab,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            head_dim=48,
            num_mel_bins=128,
            rms_norm_eps=1e-5,
            sliding_window=100,
            # Without it transformers would take 10 000.
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        text_config=dict(
            model_type="voxtral_realtime_text",
            vocab_size=vocab,
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            sliding_window=64,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
        ),
        default_num_delay_tokens=DEFAULT_DELAY,
        tie_word_embeddings=True,
    )


def tokens(samples: int) -> int:
    """Tokens that cover the samples."""
    return -(-samples // SAMPLES_PER_TOKEN)


def padded(x: np.ndarray, delay: int, count: int | None = None) -> np.ndarray:
    """Silence before and after, as for a whole file; `count` tokens of audio instead of as many as needed."""
    behind = (count or tokens(len(x))) * SAMPLES_PER_TOKEN - len(x)
    return np.pad(x, (LEFT_PAD * SAMPLES_PER_TOKEN, behind + (delay + FLUSH) * SAMPLES_PER_TOKEN))


def prompt(delay: int) -> list[int]:
    return [BOS, *[STREAMING_PAD] * (LEFT_PAD + delay)]


def target(ends: list[int], pieces: list[list[int]], count: int) -> list[int]:
    """The tokens to generate for words that end before the samples `ends`, `count` tokens in all.

    A word's pieces follow a [STREAMING_WORD] at the token in which the word ends; or, where pieces of earlier
    words are still being written then, come right after these and have none.
    """
    out = [STREAMING_PAD] * count
    free = 0
    for end, ids in zip(ends, pieces, strict=True):
        at = tokens(end) - 1
        if free <= at:
            out[at : at + 1 + len(ids)] = [STREAMING_WORD, *ids]
            free = at + 1 + len(ids)
        else:
            out[free : free + len(ids)] = ids
            free += len(ids)
    return out[:count]


def written(ids: list[int], starts_word) -> list[tuple[list[int], int, bool]]:
    """The words in generated ids: pieces, the token that marks the end, whether it has its own mark."""
    words = []
    for k, token in enumerate(ids):
        if token < NUM_SPECIAL:
            continue
        if starts_word(token) or not words:
            marked = k > 0 and ids[k - 1] == STREAMING_WORD
            # Without a mark, where the mark would have stood.
            words.append(([], max(k - 1, 0), marked))
        words[-1][0].append(token)
    return words


def matches(reference: list[str], heard: list[str]) -> list[tuple[int, int]]:
    """The places of the equal words in an alignment with the fewest errors."""
    pairs, i, j = [], len(reference), len(heard)
    while i and j:
        whole = edit_distance(reference[:i], heard[:j])
        if reference[i - 1] == heard[j - 1] and whole == edit_distance(reference[: i - 1], heard[: j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif whole == edit_distance(reference[: i - 1], heard[: j - 1]) + 1:
            i, j = i - 1, j - 1
        elif whole == edit_distance(reference[: i - 1], heard[:j]) + 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def gap(rng: np.random.Generator) -> float:
    """Seconds between two words: hardly any, some, or a pause."""
    kind = rng.random()
    if kind < 0.25:
        return rng.uniform(0, 0.04)
    return rng.uniform(0, 0.6) if kind < 0.92 else rng.uniform(1, 3)


def compose(
    rng: np.random.Generator, words: list[np.ndarray], lead: float, tail: float
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """One utterance of the words, with silence before, between and behind them (lead and tail in seconds), and
    where each word starts and ends."""
    spans, at = [], int(lead * SAMPLE_RATE)
    for i, word in enumerate(words):
        if i:
            at += int(gap(rng) * SAMPLE_RATE)
        spans.append((at, at + len(word)))
        at += len(word)
    x = np.zeros(at + int(tail * SAMPLE_RATE), np.float32)
    for (start, end), word in zip(spans, words, strict=True):
        x[start:end] = word
    return x, spans


@torch.no_grad()
def greedy(model, mel: torch.Tensor, delay: int) -> list[list[int]]:
    """Generated ids of streams of equal length: the encoder over the whole, the decoder with its cache."""
    from transformers import DynamicCache

    audio = model.get_audio_features(mel, return_dict=True).pooler_output
    inner = model.model
    condition = inner.time_embedding(torch.tensor([float(delay)]))[None]
    cache = DynamicCache(config=model.config.text_config)
    ids = torch.tensor(prompt(delay)).expand(len(mel), -1)
    out = []
    at = 0
    while at < audio.shape[1]:
        x = audio[:, at : at + ids.shape[1]] + model.get_input_embeddings()(ids)
        at += ids.shape[1]
        states = inner.language_model(
            inputs_embeds=x, past_key_values=cache, use_cache=True, t_cond=condition
        ).last_hidden_state
        ids = model.lm_head(states[:, -1:]).argmax(-1)
        out.append(ids)
    return torch.cat(out, dim=1).tolist()
