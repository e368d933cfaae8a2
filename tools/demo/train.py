"""Train the demo model on the speech that synth.py made, and write it as transformers does.

The genuine Voxtral-2507 architecture, small, trained from scratch in rounds. A round starts from the file
that the round before wrote, with fresh seeds, so an interrupted training resumes with `--first-round`:

1. windows just long enough for the utterances of the batch (2 to 10 s). The window stands at a random
   place of the 30 s: its encoder positions start at a random row of the position table, its audio tokens
   at the matching decoder positions, and the text always where it stands after 375 audio tokens;
2. the same with speakers and rooms altered (the frequency axis stretched, the spectrum's shape changed,
   bands masked), and every seventh window longer, up to the whole 30 s;
3. conversations (chat.py) beside transcription: each window is heard once and stands in several of them.
   The encoder stays as it is, here and in round 5;
4. to 6. the same, with weights rounded to 4 bits in part of the steps, so that rounding them later changes little;
7. the same with more transcription, and with English accents that synth.py makes up;
8. the same at half the rate, ending with a mean of the weights that it begins and ends with;
9. the codes behind `lang:`, which that mean had thinned out. Whatever else is said is taught by the scores of the
   model that the round begins with, so that it stays as good as it was. The encoder stays as it is. A mean
   as in round 8 is the model.

Loss: cross-entropy of the transcript and EOS, plus a CTC loss over words from a linear layer on the
projector's output, which makes the alignment emerge within some hundred steps and is thrown away. Of
conversations every answer is learned, and of the transcription prompt the code behind `lang:`.

    python tools/demo/train.py --speech target/demo/speech --out voxtral-pipeline/demo
"""

import argparse
import ctypes
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Threads that wait for each other sleep: on a machine that does other work too, spinning halves the speed.
# OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import GenerationConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor
from transformers.utils import logging

import chat
from chat import Conversation
from common import (
    AUDIO, AUDIO_TOKENS, BOS, EOS, LANGUAGES, PAD, SAMPLE_RATE, WORDS, LogMel, decode, degrade, encode,
    load_tokenizer, model_config, noise, quantise, sinusoids, tekken, word_error_rate,
)  # fmt: skip

SAMPLES_PER_TOKEN = 1280
POSITIONS_PER_TOKEN = 4
LABELS = {w: i + 1 for i, w in enumerate(dict.fromkeys(w for lang in LANGUAGES for w in WORDS[lang]))}  # 0: blank


@dataclass
class Round:
    steps: int
    rate: float  # peak of the learning rate
    batch: int
    horizon: int  # step at which the cosine of the learning rate reaches zero, or would reach it
    alter: bool = False  # alter speakers and rooms, lengthen some windows
    talk: bool = False  # conversations, not transcription alone
    transcribed: float = 0.34  # share of the windows that are transcribed beside the conversations
    encoder: float = 1.0  # the encoder's learning rate, of `rate`; it stays as it is with 0
    rounded: float = 0.0  # share of the steps with weights rounded to 4 bits
    ctc: float = 0.5  # weight of the CTC loss
    every: int = 1  # steps after which another batch is heard; more than 1 needs an encoder that stays as it is
    workers: int = 1  # processes that share the threads, each with batches of its own
    kept: float = 0.0  # share of the weights it began with in those it ends with
    as_before: bool = False  # learn the languages' codes alone, and else to score as when the round began


ROUNDS = [
    Round(steps=2000, rate=1e-3, batch=32, horizon=5000),
    Round(steps=2400, rate=8e-4, batch=32, horizon=2400, alter=True),
    Round(steps=400, rate=1e-3, batch=32, horizon=700, alter=True, talk=True, encoder=0.0, ctc=0),
    Round(steps=150, rate=1e-3, batch=20, horizon=430, alter=True, talk=True, encoder=0.4, rounded=0.4, workers=2),
    Round(steps=600, rate=1e-3, batch=32, horizon=840, alter=True, talk=True, encoder=0.0, ctc=0, every=3, workers=2),
    Round(steps=800, rate=4e-4, batch=20, horizon=800, alter=True, talk=True, encoder=0.6, ctc=0, rounded=0.5, workers=2),
    Round(
        steps=1300, rate=4e-4, batch=20, horizon=1300, alter=True, talk=True, transcribed=0.5, ctc=0,
        rounded=0.4, workers=2,
    ),
    Round(
        steps=500, rate=2e-4, batch=20, horizon=500, alter=True, talk=True, transcribed=0.5, ctc=0, rounded=0.5,
        workers=2, kept=0.4,
    ),
    Round(
        steps=240, rate=1e-4, batch=24, horizon=240, alter=True, talk=True, transcribed=1.0, encoder=0.0, ctc=0, rounded=0.5,
        every=3, workers=2, kept=0.3, as_before=True,
    ),
]  # fmt: skip


class Speech:
    """One split: short clips of float samples with their records."""

    def __init__(self, folder: Path, split: str) -> None:
        self.samples = np.load(folder / f"{split}.npy", mmap_mode="r")
        self.records = json.loads((folder / f"{split}.json").read_text())

    def __len__(self) -> int:
        return len(self.records)

    def clip(self, index: int) -> np.ndarray:
        r = self.records[index]
        return self.samples[r["start"] : r["start"] + r["samples"]].astype(np.float32) / 32768


def augment(rng: np.random.Generator, clip: np.ndarray, lead_limit: float) -> np.ndarray:
    """Silence before and after, level, noise, 8-bit rounding."""
    lead = rng.uniform(0, 1.5) if rng.random() < 0.75 else rng.uniform(0, lead_limit)
    tail = rng.uniform(0, 0.8)
    x = np.pad(clip, (int(lead * SAMPLE_RATE), int(tail * SAMPLE_RATE)))
    peak = 10 ** (-rng.uniform(0, 30) / 20)
    snr = rng.uniform(5, 45) if rng.random() < 0.6 else None
    x = degrade(rng, x, peak, snr, pink=rng.random() < 0.5)
    return quantise(x) if rng.random() < 0.4 and peak > 0.1 else x


def nothing(rng: np.random.Generator) -> np.ndarray:
    """Silence or noise alone."""
    length = int(rng.uniform(0.5, 4) * SAMPLE_RATE)
    if rng.random() < 0.3:
        return np.zeros(length, np.float32)
    return noise(rng, length, pink=rng.random() < 0.5) * np.float32(10 ** (-rng.uniform(20, 70) / 20))


@dataclass
class Rows:
    """Conversations, padded on the right."""

    ids: torch.Tensor  # [rows, length], with AUDIO where a window's tokens stand
    positions: torch.Tensor  # as ids: where each stands when every window has 30 s
    labels: torch.Tensor  # as ids: what follows where it is to be said, and else -100
    clips: list[int]  # the windows, row by row


def lay_out(encode_text, talk: Conversation, tokens: int, first: int) -> tuple[list[int], ...]:
    """The row of a conversation: windows of `tokens` audio tokens, each at place `first` of its 30 s."""
    ids, positions, said, clips, at = [], [], [], [], 0
    for piece in chat.pieces(encode_text, talk):
        if isinstance(piece, int):
            clips.append(piece)
            ids += [AUDIO] * tokens
            positions += range(at + first, at + first + tokens)
            said += [False] * tokens
            at += AUDIO_TOKENS
        else:
            ids += piece[0]
            positions += range(at, at + len(piece[0]))
            said += [piece[1]] * len(piece[0])
            at += len(piece[0])
    labels = [i if s else -100 for i, s in zip(ids[1:], said[1:], strict=True)]
    return ids, positions, labels, clips


def stack(rows: list[tuple[list[int], ...]]) -> Rows:
    width = max(len(row[0]) for row in rows)

    def padded(k: int, value: int) -> torch.Tensor:
        return torch.tensor([row[k] + [value] * (width - len(row[k])) for row in rows])

    return Rows(padded(0, PAD), padded(1, 0), padded(2, -100), [c for row in rows for c in row[3]])


def groups(rows: list[tuple[list[int], ...]]) -> list[Rows]:
    """Rows of like length stacked together."""
    out = []
    for row in sorted(rows, key=lambda row: len(row[0])):
        if not out or len(row[0]) > 1.3 * len(out[-1][0][0]):
            out.append([])
        out[-1].append(row)
    return [stack(rows) for rows in out]


class Batches:
    """Endless batches; utterances of like length stand together in short windows."""

    long = 0.15  # share of longer windows where speakers and rooms are altered

    def __init__(self, speech: Speech, tokenizer, seed: int, rank: int | None, plan: Round) -> None:
        self.speech, self.rng, self.mel, self.plan = speech, np.random.default_rng(seed), LogMel(), plan
        # What decides how long a step takes: alike for all workers, as they wait for each other.
        self.pace = self.rng
        if rank is not None:
            self.pace, self.rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 1 + rank])
        self.encode = encoder(tokenizer)
        self.order = np.empty(0, dtype=np.int64)

    def example(self) -> tuple[np.ndarray, dict]:
        """Samples and what they say, with the language of the prompt."""
        if len(self.order) == 0:
            self.order = self.rng.permutation(len(self.speech))
        index, self.order = self.order[0], self.order[1:]
        record = self.speech.records[index]
        prompt_language = record["language"] if self.rng.random() < 0.5 else None
        if self.rng.random() < 0.03:
            return nothing(self.rng), {**record, "prompt_language": prompt_language, "words": []}
        x = augment(self.rng, self.speech.clip(index), 2.5)
        return x, {**record, "prompt_language": prompt_language}

    def draw(self, batch: int):
        """Windows as long as needed, at a random place of the 30 s."""
        while True:
            examples = sorted((self.example() for _ in range(batch * 8)), key=lambda e: len(e[0]))
            for i in self.pace.permutation(8):
                chosen = examples[i * batch : (i + 1) * batch]
                if self.plan.alter and self.pace.random() < self.long:  # a longer one, with fewer utterances
                    chosen = chosen[:: max(1, batch // 10)]
                    tokens = int(self.pace.integers(100, AUDIO_TOKENS + 1))
                else:
                    need = -(-len(chosen[-1][0]) // SAMPLES_PER_TOKEN)
                    tokens = min(AUDIO_TOKENS, need + int(self.rng.integers(0, 8)))
                first = int(self.rng.integers(0, AUDIO_TOKENS - tokens + 1)) if self.rng.random() < 0.6 else 0
                yield self.collate(chosen, tokens, first)

    def uniform(self, low: float, high: float, *size: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, size).astype(np.float32))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Log-mel of altered speakers, microphones and rooms."""
        n = len(x)
        # The spectrum's slope: up to 1 (10 dB) at the ends.
        shape = self.uniform(-1, 1, n, 1) * torch.linspace(-1, 1, 128)
        if not self.plan.alter:
            return self.mel(x, shape)
        bumps = torch.from_numpy(self.rng.normal(0, 0.35, (n, 1, 8)).astype(np.float32))
        shape = shape + F.interpolate(bumps, 128, mode="linear", align_corners=True)[:, 0]
        warp = torch.where(self.uniform(0, 1, n) < 0.7, self.uniform(0.82, 1.22, n), torch.ones(n))
        mel = self.mel(x, shape, warp)
        for row in mel:
            if self.rng.random() < 0.3:
                width, at = self.rng.integers(2, 14), self.rng.integers(0, 116)
                row[at : at + width] = row.mean()
        return mel

    def talks(self, records: list[dict]) -> list[Conversation]:
        """What is said of the windows."""
        return [chat.transcription(i, r, r["prompt_language"]) for i, r in enumerate(records)]

    def rows(self, records: list[dict], tokens: int, first: int) -> list[Rows]:
        return groups([lay_out(self.encode, talk, tokens, first) for talk in self.talks(records)])

    def collate(self, examples, tokens: int, first: int) -> dict:
        length = tokens * SAMPLES_PER_TOKEN
        x = torch.from_numpy(np.stack([np.pad(e[0][:length], (0, max(0, length - len(e[0])))) for e in examples]))
        mel = self.features(x)
        records = [e[1] for e in examples]
        labels = [[LABELS[w] for w in r["words"]] for r in records]
        return {
            "mel": mel,
            "first": first,
            "records": records,
            "rows": self.rows(records, tokens, first),
            "words": torch.tensor([w for ws in labels for w in ws]),
            "word_counts": torch.tensor([len(ws) for ws in labels]),
        }


class Chats(Batches):
    """Transcription of some of the windows, and conversations over all of them."""

    long = 0.1

    # For every 32 windows.
    mix = {"digits": 4, "language": 3, "words": 2, "follow-up": 5, "pair": 11, "pair follow-up": 4}
    mix |= {"call": 2, "result": 4, "no call": 3}

    def talks(self, records: list[dict]) -> list[Conversation]:
        rng, n = self.rng, len(records)
        order = rng.permutation(n).tolist()
        spoken = itertools.cycle([i for i in order if records[i]["words"]])

        def take() -> chat.Clip:
            number = next(spoken)
            return number, records[number]

        talks = [chat.transcription(i, records[i], records[i]["prompt_language"]) for i in order[-round(n * self.plan.transcribed) :]]
        for task, count in self.mix.items():
            talks += [chat.TASKS[task](rng, take) for _ in range(int(count * n / 32 + rng.random()))]
        return talks


    @torch.no_grad()
    def draw_again(self, trainee: "Trainee", batch: int, every: int):
        """Every so many steps another batch through the encoder, and between them new conversations over one of those
        before."""
        pool, new = [], self.draw(batch)
        for step in itertools.count():
            if step % every == 0:
                heard = next(new)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    heard["audio"] = trainee.audio(heard.pop("mel"), heard["first"])
                pool.append(heard)
            else:
                heard = pool[self.pace.integers(len(pool))]
            yield heard | {"rows": self.rows(heard["records"], heard["audio"].shape[1], heard["first"])}


def encoder(tokenizer) -> Callable[[str], list[int]]:
    return lru_cache(4096)(lambda text: encode(tokenizer, text))


def initialise(model: torch.nn.Module) -> None:
    """Weights at 1/sqrt(inputs): transformers' own 0.02 suits wide layers and leaves this model deaf for long."""
    depth = {"audio_tower": 4, "language_model": 3}
    for name, p in model.named_parameters():
        if p.ndim < 2 or "embed_positions" in name:
            continue
        if "embed_tokens" in name:
            std = 0.5
        else:
            std = p[0].numel() ** -0.5
            if "conv" in name:
                std *= 1.5
            if name.endswith(("out_proj.weight", "o_proj.weight", "fc2.weight", "down_proj.weight")):
                std *= (2 * next(n for part, n in depth.items() if part in name)) ** -0.5
        torch.nn.init.normal_(p, std=std)


class Trainee(torch.nn.Module):
    """The model with windows of any length, and the throw-away CTC layer."""

    def __init__(self) -> None:
        super().__init__()
        self.model = VoxtralForConditionalGeneration(model_config())
        initialise(self.model)
        self.model.set_attn_implementation("eager")  # twice as fast as the CPU's fused attention at these sizes
        self.ctc = torch.nn.Linear(self.model.config.text_config.hidden_size, len(LABELS) + 1)
        self.table = sinusoids(1500, self.model.config.audio_config.hidden_size)
        self.set_window(AUDIO_TOKENS, 0)

    def load(self, folder: Path) -> None:
        """Start from what `save` wrote."""
        saved = VoxtralForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())

    def freeze_encoder(self) -> None:
        for part in (self.model.model.audio_tower, self.model.model.multi_modal_projector):
            part.requires_grad_(False)

    def set_window(self, tokens: int, first: int) -> None:
        """Let the encoder take `tokens` audio tokens that start `first` tokens into the 30 s."""
        tower = self.model.model.audio_tower
        tower.config.max_source_positions = tokens * POSITIONS_PER_TOKEN
        rows = self.table[first * POSITIONS_PER_TOKEN : (first + tokens) * POSITIONS_PER_TOKEN]
        tower.embed_positions.weight.data = rows.clone()

    def audio(self, mel: torch.Tensor, first: int) -> torch.Tensor:
        """[B, 128, 8 T] -> [B, T, width of the decoder]."""
        tokens = mel.shape[-1] // 8
        self.set_window(tokens, first)
        return self.model.get_audio_features(mel, return_dict=True).pooler_output.view(len(mel), tokens, -1)

    def states(self, audio: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The decoder's last states at every token."""
        heard = rows.ids == AUDIO
        x = self.model.get_input_embeddings()(rows.ids)
        x = x.masked_scatter(heard[..., None], audio[rows.clips].to(x.dtype))
        # The mask of ones tells transformers that a jump of the positions does not start a new sequence.
        return self.model.model.language_model(
            inputs_embeds=x,
            position_ids=rows.positions,
            attention_mask=torch.ones_like(rows.ids),
            use_cache=False,
        ).last_hidden_state

    def scores(self, audio: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of what is to be said, and what is to be said."""
        wanted = rows.labels >= 0
        return self.model.lm_head(self.states(audio, rows)[wanted]).float(), rows.labels[wanted]

    def said(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """As `scores`, of all rows."""
        said = [self.scores(batch["audio"], rows) for rows in batch["rows"]]
        return torch.cat([s for s, _ in said]), torch.cat([w for _, w in said])

    def forward(self, batch: dict, with_ctc: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and CTC loss. The former is with what the batch's `taught` scores of what is not `learned`,
        where it has them."""
        if "audio" not in batch:
            batch["audio"] = self.audio(batch["mel"], batch["first"])
        audio = batch["audio"]
        scores, wanted = self.said(batch)
        if "taught" in batch:
            learned = torch.isin(wanted, batch["learned"])
            taught = batch["taught"].softmax(-1)[~learned]
            of_taught = -(taught * scores[~learned].log_softmax(-1)).sum(-1).mean()
            loss = F.cross_entropy(scores[learned], wanted[learned]) + 4 * of_taught
        else:
            loss = F.cross_entropy(scores, wanted)
        if not with_ctc:
            return loss, torch.zeros(())
        scores = self.ctc(audio).float().log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(audio),), audio.shape[1])
        ctc = F.ctc_loss(scores, batch["words"], lengths, batch["word_counts"], zero_infinity=True)
        return loss, ctc

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """With matrices as 4 bits and a scale for every 16 inputs leave them; gradients pass as if they were not."""
        kept = {m: m.weight.data for m in self.model.modules() if isinstance(m, torch.nn.Linear)}
        for m, exact in kept.items():
            if m is not self.model.lm_head:
                blocks = exact.view(len(exact), -1, 16)
                scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 7
                m.weight.data = ((blocks / scale).round() * scale).view_as(exact)
        try:
            yield
        finally:
            for m, exact in kept.items():
                m.weight.data = exact

    @torch.no_grad()
    def greedy(self, audio: torch.Tensor, rows: Rows, limit: int = 48) -> list[list[int]]:
        """Rows of one length, without answers."""
        start = rows.ids.shape[1]
        done = torch.zeros(len(audio), dtype=torch.bool)
        for _ in range(limit):
            new = self.model.lm_head(self.states(audio, rows)[:, -1]).argmax(-1)
            new[done] = EOS
            ids = torch.cat([rows.ids, new[:, None]], dim=1)
            rows = Rows(ids, torch.cat([rows.positions, rows.positions[:, -1:] + 1], dim=1), rows.labels, rows.clips)
            done |= new == EOS
            if done.all():
                break
        return [[i for i in row[start:] if i != EOS] for row in rows.ids.tolist()]


def hear(trainee: Trainee, speech: Speech, chosen: list[int], tokens: int, seed: int) -> torch.Tensor:
    """Utterances of the dev split in windows of `tokens` audio tokens."""
    rng, mel, length = np.random.default_rng(seed), LogMel(), tokens * SAMPLES_PER_TOKEN
    clips = [augment(rng, speech.clip(i), 1.5) for i in chosen]
    x = np.stack([np.pad(c[:length], (0, max(0, length - len(c)))) for c in clips])
    with torch.no_grad():
        return torch.cat([trainee.audio(mel(part), 0) for part in torch.from_numpy(x).split(16)])


def develop(trainee: Trainee, speech: Speech, tokenizer, count: int, tokens: int, seed: int) -> float:
    """Word error rate on the first utterances of the dev split, half of them with the language given."""
    groups = {}
    for i in range(count):
        lang = speech.records[i]["language"] if i % 8 < 4 else None
        groups.setdefault(lang, []).append(i)
    pairs = []
    trainee.eval()
    for lang, chosen in groups.items():
        audio = hear(trainee, speech, chosen, tokens, seed)
        talks = [chat.transcription(i, speech.records[c], lang) for i, c in enumerate(chosen)]
        for talk in talks:
            talk.messages.pop()
        rows = stack([lay_out(encoder(tokenizer), talk, tokens, 0) for talk in talks])
        for i, ids in zip(chosen, trainee.greedy(audio, rows), strict=True):
            pairs.append((" ".join(speech.records[i]["words"]), decode(tokenizer, ids)))
    trainee.train()
    return word_error_rate(pairs)


@torch.no_grad()
def converse(trainee: Trainee, speech: Speech, tokenizer, count: int, tokens: int, seed: int) -> dict[str, float]:
    """Share of `count` conversations of each task, over utterances of the dev split, that are right throughout."""
    rng, encode_text, shares = np.random.default_rng(seed), encoder(tokenizer), {}
    chosen = list(range(min(200, 2 * count)))
    trainee.eval()
    audio = hear(trainee, speech, chosen, tokens, seed)

    def take() -> chat.Clip:
        number = int(rng.integers(len(chosen)))
        return number, speech.records[number]

    for task, draw in chat.TASKS.items():
        right = 0
        for _ in range(0, count, 20):
            rows = stack([lay_out(encode_text, draw(rng, take), tokens, 0) for _ in range(20)])
            best = trainee.model.lm_head(trainee.states(audio, rows)).argmax(-1)
            right += ((best == rows.labels) | (rows.labels < 0)).all(-1).sum().item()
        shares[task] = right / count
    trainee.train()
    return shares


def save(trainee: Trainee, out: Path) -> None:
    """Everything but tekken.json, which lies there already; the weights in bf16."""
    trainee.set_window(AUDIO_TOKENS, 0)
    model = VoxtralForConditionalGeneration(model_config())
    model.load_state_dict(trainee.model.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    features = WhisperFeatureExtractor(feature_size=128)
    features.processor_class = "VoxtralProcessor"
    features.save_pretrained(out)


def share(parameters: list[torch.nn.Parameter], done: float) -> float:
    """Give every worker the mean of the gradients; returns the mean of what is done."""
    grads = [p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([done])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, mean in zip(grads, flat[:-1].split([g.numel() for g in grads]), strict=True):
        g.copy_(mean.view_as(g))
    return flat[-1].item()


def parameter_groups(trainee: Trainee, encoder: float) -> list[dict]:
    """Decay of matrices alone; the rate of what comes before the decoder is `encoder` of the others'."""
    out = {}
    for name, p in trainee.named_parameters():
        if p.requires_grad:
            before = "audio_tower" in name or "projector" in name
            out.setdefault((encoder if before else 1.0, 0.01 if p.ndim > 1 else 0.0), []).append(p)
    return [{"params": ps, "part": part, "weight_decay": decay} for (part, decay), ps in out.items()]


@torch.no_grad()
def taught(batches, teacher: Trainee, codes: list[int]):
    """The batches, with the teacher's scores of what is said."""
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, _ = teacher.said(batch)
        yield batch | {"taught": scores, "learned": torch.tensor(codes)}


def train_round(trainee: Trainee, batches, plan: Round, rank: int, minutes: float, check_every: int, check, log):
    """AdamW with warm-up and a cosine to zero. Where `minutes` do not suffice for all steps, the cosine
    follows the clock."""
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameter_groups(trainee, plan.encoder), betas=(0.9, 0.98), fused=True)
    warm = min(200, plan.steps // 5)
    start, sums, every, rng = time.time(), np.zeros(2), 50, np.random.default_rng([plan.steps, rank])
    for step in range(1, plan.steps + 1):
        optimizer.zero_grad()
        with trainee.rounded() if rng.random() < plan.rounded else nullcontext():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, ctc = trainee(next(batches), plan.ctc > 0)
            (loss + plan.ctc * ctc).backward()
        done = max(step - 1, (time.time() - start) / (60 * minutes) * plan.steps)
        if plan.workers > 1:
            done = share(parameters, done)
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, done - warm) / (plan.horizon - warm))
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * group["part"] * min(step / warm, cosine)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        sums += loss.item(), ctc.item()
        last = step == plan.steps or done >= plan.steps - 1
        if step % every == 0 or last:
            mean, pace = sums / ((step - 1) % every + 1), (time.time() - start) / step
            log(f"step {step}/{plan.steps} ({done:.0f}) loss {mean[0]:.4f} ctc {mean[1]:.4f} {pace:.3f} s/step")
            sums[:] = 0
        if step % check_every == 0 or last:
            check(last)
        if last:
            return


def keep_memory() -> None:
    """Tell glibc to keep freed memory: otherwise every step spends its time on page faults."""
    mmap_max, top_pad, trim_threshold = -4, -2, -1
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_max, 0)
        libc.mallopt(top_pad, 1 << 28)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("target/demo/speech"))
    parser.add_argument("--out", type=Path, default=Path("voxtral-pipeline/demo"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--first-round", type=int, default=1, help="resume: begin with this one from what --out holds")
    parser.add_argument("--last-round", type=int, default=len(ROUNDS))
    parser.add_argument("--minutes", type=float, default=math.inf, help="of a round at most (default: %(default)s)")
    parser.add_argument("--check-every", type=int, default=1000)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tekken.json").write_text(json.dumps(tekken(), ensure_ascii=False))
    for number in range(args.first_round, args.last_round + 1):
        workers = ROUNDS[number - 1].workers
        if workers == 1:
            work(0, args, number, "")
        else:
            with tempfile.TemporaryDirectory() as folder:
                torch.multiprocessing.spawn(work, (args, number, f"file://{folder}/meet"), workers)


def work(rank: int, args: argparse.Namespace, number: int, meet: str) -> None:
    """One worker of a round; the first one tells and writes."""
    keep_memory()
    logging.disable_progress_bar()
    plan, seed, start = ROUNDS[number - 1], args.seed + number - 1, time.time()
    torch.set_num_threads(max(1, args.threads // plan.workers))
    if meet:
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=plan.workers)
    tokenizer = load_tokenizer(args.out)
    train, dev = Speech(args.speech, "train"), Speech(args.speech, "dev")
    torch.manual_seed(seed)
    trainee = Trainee()
    if number > 1:
        trainee.load(args.out)
    if plan.encoder == 0:
        trainee.freeze_encoder()
    trainee.ctc.requires_grad_(plan.ctc > 0)
    trainee.set_window(AUDIO_TOKENS, 0)
    began_with = [p.detach().clone() for p in trainee.model.parameters()]
    batches = (Chats if plan.talk else Batches)(train, tokenizer, seed, rank if plan.workers > 1 else None, plan)

    def log(text: str) -> None:
        if rank == 0:
            print(f"[{time.time() - start:6.0f} s] {text}", flush=True)

    def check(last: bool) -> None:
        if rank > 0:
            return
        if last:
            trainee.set_window(AUDIO_TOKENS, 0)
            with torch.no_grad():
                for p, before in zip(trainee.model.parameters(), began_with, strict=True):
                    p.lerp_(before, plan.kept)
        save(trainee, args.out)
        if plan.talk:
            shares = converse(trainee, dev, tokenizer, 100 if last else 20, 100, args.seed)
            log("right: " + ", ".join(f"{task} {100 * share:.0f} %" for task, share in shares.items()))
        if last or not plan.talk:
            rate = develop(trainee, dev, tokenizer, 200, 100, args.seed)
            log(f"dev word error rate {100 * rate:.2f} % (200 utterances, windows of 8 s)")

    drawn = batches.draw_again(trainee, plan.batch, plan.every) if plan.every > 1 else batches.draw(plan.batch)
    if plan.as_before:
        teacher = Trainee()
        teacher.load(args.out)
        known = len(encode(tokenizer, "lang:"))
        codes = {code for language in LANGUAGES for code in encode(tokenizer, f"lang:{language}")[known:]}
        drawn = taught(drawn, teacher, sorted(codes))
    log(f"round {number}: {sum(p.numel() for p in trainee.model.parameters())} parameters, {plan}")
    train_round(trainee, drawn, plan, rank, args.minutes, args.check_every, check, log)
    if meet:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
