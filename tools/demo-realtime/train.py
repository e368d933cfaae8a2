"""Train the Realtime demo model on streams put together from the words of bank.py, and export it.

The genuine Voxtral-Mini-4B-Realtime architecture, small, trained from scratch with teacher forcing. Every
batch has one delay and streams of about the same length: either one utterance each, or several of different
speakers one after the other, up to half a minute, much longer than the windows of encoder and decoder. Loss:
cross-entropy of all generated tokens, plus the cross-entropy of a linear layer on the projector's output that
tells which word has just ended, which is thrown away.

Writes the transformers form to `--work` and the native form (export.py) to `--out`. A round starts from what
the round before wrote, with fresh seeds; `--first-round` resumes.

    python tools/demo-realtime/train.py --bank target/demo-realtime/bank --out voxtral-pipeline/demo-realtime
"""

import argparse
import ctypes
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

# Threads that wait for each other sleep: on a machine that does other work too, spinning halves the speed.
# OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, VoxtralRealtimeForConditionalGeneration
from transformers.utils import logging

from bank import Bank
from stream import (
    DEFAULT_DELAY, FLUSH, LEFT_PAD, LOG_MEL_MAX, SAMPLE_RATE, STREAMING_PAD, compose, greedy, model_config, padded,
    prompt, target, tokenizer_file, tokens, written,
)  # fmt: skip
from common import (  # isort: skip
    LANGUAGES, WORDS, LogMel, decode, degrade, encode, load_tokenizer, noise, quantise, word_error_rate,
)  # fmt: skip
from export import export

LABELS = {w: i + 1 for i, w in enumerate(dict.fromkeys(w for lang in LANGUAGES for w in WORDS[lang]))}  # 0: none
LABEL_LAGS = range(1, 4)  # tokens after a word's end at which the thrown-away layer has to tell the word
ROUNDING = 8  # tokens that a batch's length is a multiple of
LATE = 30  # 2400 ms, in tokens


@dataclass
class Round:
    steps: int
    rate: float  # peak of the learning rate
    batch: int  # tokens in a batch
    final: float  # the learning rate's end as a part of the peak


ROUNDS = [
    Round(steps=1800, rate=1.2e-3, batch=2800, final=0.2),
    Round(steps=700, rate=5e-4, batch=2800, final=0.0),
]


def banded(module, query, key, value, attention_mask, scaling, dropout=0.0, sliding_window=None, **kwargs):
    """Causal sliding-window attention of whole sequences from position 0, without computing what lies far
    outside the window: blocks of one window's length look at themselves and at the block before."""
    window = sliding_window or module.config.sliding_window
    batch, heads, length, size = query.shape
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    blocks = -(-length // window)
    extra = blocks * window - length
    query = F.pad(query, (0, 0, 0, extra)).view(batch, heads, blocks, window, size)

    def with_previous(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, window, extra)).view(batch, heads, blocks + 1, window, size)
        return torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3)

    behind = torch.arange(window)[:, None] + window - torch.arange(2 * window)
    allowed = (behind >= 0) & (behind < window)
    first = allowed & (torch.arange(2 * window) >= window)
    mask = torch.stack([first, *[allowed] * (blocks - 1)])
    scores = (query @ with_previous(key).transpose(-1, -2)) * scaling
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    out = (weights @ with_previous(value)).view(batch, heads, blocks * window, size)[:, :, :length]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("banded", banded)
AttentionMaskInterface.register("banded", lambda *args, **kwargs: None)


def initialise(model: torch.nn.Module) -> None:
    """Weights at 1/sqrt(inputs): transformers' own 0.02 suits wide layers and leaves this model deaf for long."""
    depth = {"audio_tower": 4, "language_model": 3}
    for name, p in model.named_parameters():
        if p.ndim < 2:
            continue
        std = p[0].numel() ** -0.5
        if "embed_tokens" in name:
            std = 0.1
        if "conv" in name:
            std *= 1.5
        if "ada_rms_norm.linear2" in name:
            std *= 0.3
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std *= (2 * next(n for part, n in depth.items() if part in name)) ** -0.5
        torch.nn.init.normal_(p, std=std)


def degraded(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Level, noise, 8-bit rounding."""
    peak = 10 ** (-rng.uniform(0, 30) / 20)
    snr = rng.uniform(5, 45) if rng.random() < 0.6 else None
    x = degrade(rng, x, peak, snr, pink=rng.random() < 0.5)
    return quantise(x) if rng.random() < 0.3 and peak > 0.1 else x


def nothing(rng: np.random.Generator) -> np.ndarray:
    """Silence or noise alone."""
    length = int(rng.uniform(0.5, 6) * SAMPLE_RATE)
    if rng.random() < 0.3:
        return np.zeros(length, np.float32)
    return noise(rng, length, pink=rng.random() < 0.5) * np.float32(10 ** (-rng.uniform(20, 70) / 20))


@dataclass
class Example:
    samples: np.ndarray
    ends: list[int]
    pieces: list[list[int]]
    labels: list[int]


class Batches:
    """Endless batches, put together from the bank as they are drawn."""

    def __init__(self, bank: Bank, tokenizer, seed: int, alter: bool = True) -> None:
        self.bank, self.rng, self.alter = bank, np.random.default_rng(seed), alter
        self.mel = LogMel(LOG_MEL_MAX)
        self.pieces = {word: encode(tokenizer, f" {word}") for word in LABELS}
        self.order = np.empty(0, dtype=np.int64)

    def utterance(self, count: int) -> Example:
        """One utterance of a speaker, or none."""
        rng = self.rng
        if rng.random() < 0.03:
            return Example(nothing(rng), [], [], [])
        if len(self.order) == 0:
            self.order = rng.permutation(len(self.bank))
        index, self.order = self.order[0], self.order[1:]
        digits = rng.integers(0, 10, count)
        x, spans = compose(
            rng, [self.bank.word(index, d) for d in digits], lead=rng.uniform(0, 1.5), tail=rng.uniform(0, 0.8)
        )
        words = [WORDS[self.bank.records[index]["language"]][d] for d in digits]
        return Example(
            degraded(rng, x), [end for _, end in spans], [self.pieces[w] for w in words], [LABELS[w] for w in words]
        )

    def delay(self) -> int:
        kind = self.rng.random()
        if kind < 0.4:
            return DEFAULT_DELAY
        return LATE if kind < 0.47 else int(self.rng.integers(1, 16))

    def stream(self, least: float) -> Example:
        """Utterances of several speakers, until there are so many seconds."""
        parts, ends, pieces, labels, at = [], [], [], [], 0
        while at < least * SAMPLE_RATE:
            e = self.utterance(int(self.rng.integers(4, 13)))
            parts.append(e.samples)
            ends += [at + end for end in e.ends]
            pieces += e.pieces
            labels += e.labels
            at += len(e.samples)
        return Example(np.concatenate(parts), ends, pieces, labels)

    def draw(self, batch: int):
        """By turns utterances of like length, and a few long streams; `batch` tokens or some more."""

        def fill(examples: list[Example], delay: int) -> list[Example]:
            longest = max(tokens(len(e.samples)) for e in examples) + LEFT_PAD + delay + FLUSH
            return examples[-max(2, -(-batch // longest)) :]

        while True:
            counts = self.rng.choice([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 6 * 36)
            examples = sorted((self.utterance(int(n)) for n in counts), key=lambda e: len(e.samples))
            for i in self.rng.permutation(6):
                delay = self.delay()
                yield self.collate(fill(examples[i * 36 : (i + 1) * 36], delay), delay)
                delay = self.delay()
                streams = [self.stream(self.rng.uniform(12, 24)) for _ in range(9)]
                yield self.collate(fill(sorted(streams, key=lambda e: len(e.samples)), delay), delay)

    def uniform(self, low: float, high: float, *size: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, size).astype(np.float32))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Log-mel of altered speakers, microphones and rooms."""
        if not self.alter:
            return self.mel(x)
        n = len(x)
        # The spectrum's slope: up to 1 (10 dB) at the ends; bumps on it.
        bumps = torch.from_numpy(self.rng.normal(0, 0.35, (n, 1, 8)).astype(np.float32))
        bumps = F.interpolate(bumps, 128, mode="linear", align_corners=True)[:, 0]
        shape = self.uniform(-1, 1, n, 1) * torch.linspace(-1, 1, 128) + bumps
        warp = torch.where(self.uniform(0, 1, n) < 0.7, self.uniform(0.82, 1.22, n), torch.ones(n))
        mel = self.mel(x, shape, warp)
        for row in mel:
            if self.rng.random() < 0.3:
                width, at = self.rng.integers(2, 14), self.rng.integers(0, 116)
                row[at : at + width] = row.mean()
        return mel

    def collate(self, examples: list[Example], delay: int) -> dict:
        fixed = LEFT_PAD + delay + FLUSH
        longest = max(tokens(len(e.samples)) for e in examples)
        # Few different lengths keep the memory from falling to pieces.
        count = -(-(longest + fixed) // ROUNDING) * ROUNDING - fixed
        x = torch.from_numpy(np.stack([padded(e.samples, delay, count) for e in examples]))
        targets = torch.tensor([target(e.ends, e.pieces, count + FLUSH) for e in examples])
        labels = torch.zeros(len(examples), fixed + count, dtype=torch.long)
        for row, e in zip(labels, examples, strict=True):
            for end, label in zip(e.ends, e.labels, strict=True):
                for lag in LABEL_LAGS:
                    row[LEFT_PAD + tokens(end) - 1 + lag] = label
        # Some of the fed-back tokens are lost, as if the model had not written them.
        fed = torch.where(self.uniform(0, 1, *targets.shape) < 0.05, torch.tensor(STREAMING_PAD), targets)
        ids = torch.cat([torch.tensor(prompt(delay)).expand(len(fed), -1), fed[:, :-1]], dim=1)
        return {"mel": self.features(x), "ids": ids, "targets": targets, "labels": labels, "delay": delay}


class Endless(torch.utils.data.IterableDataset):
    """Batches for another process to make while this one trains."""

    def __init__(self, batches: Batches, batch: int) -> None:
        self.batches, self.batch = batches, batch

    def __iter__(self):
        return self.batches.draw(self.batch)


class Trainee(torch.nn.Module):
    """The model, and the layer that is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.model = VoxtralRealtimeForConditionalGeneration(model_config())
        initialise(self.model)
        self.words = torch.nn.Linear(self.model.config.text_config.hidden_size, len(LABELS) + 1)
        self.attend("banded")

    def attend(self, how: str) -> None:
        self.model.model.audio_tower.set_attn_implementation(how)
        self.model.model.language_model.set_attn_implementation(how)

    def forward(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Both losses."""
        out = self.model.model(
            input_ids=batch["ids"], input_features=batch["mel"], num_delay_tokens=batch["delay"], use_cache=False
        )
        targets = batch["targets"]
        states = out.last_hidden_state[:, -targets.shape[1] :]
        scores = self.model.lm_head(states).float()
        each = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
        weight = torch.where(targets.flatten() == STREAMING_PAD, 1.0, 1.5)
        loss = (each * weight).sum() / weight.sum()
        ended = self.words(out.audio_hidden_states).float()
        return loss, F.cross_entropy(ended.flatten(0, 1), batch["labels"].flatten())

    def load(self, folder: Path) -> None:
        saved = VoxtralRealtimeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())


def develop(trainee: Trainee, bank: Bank, tokenizer, count: int, seed: int, delay: int) -> tuple[float, float]:
    """Word error rate on streams of the dev split, and the share of marks at most 160 ms from the word's end
    (of the transcripts that are right)."""
    batches = Batches(bank, tokenizer, seed, alter=False)
    texts = {i: decode(tokenizer, [i]) for e in batches.pieces.values() for i in e}
    trainee.attend("eager")
    trainee.eval()
    pairs, near = [], []
    counts = [int(n) for n in batches.rng.integers(1, 11, count)]
    examples = sorted((batches.utterance(n) for n in counts), key=lambda e: len(e.samples))
    for i in range(0, count, 20):
        chosen = examples[i : i + 20]
        batch = batches.collate(chosen, delay)
        for e, ids in zip(chosen, greedy(trainee.model, batch["mel"], delay), strict=True):
            said = decode(tokenizer, [piece for word in e.pieces for piece in word])
            pairs.append((said, decode(tokenizer, ids)))
            if said == pairs[-1][1]:
                words = written(ids, lambda i: texts[i].startswith(" "))
                near += [abs((k + 1) * 1280 - end) <= 2560 for (_, k, _), end in zip(words, e.ends, strict=True)]
    trainee.train()
    trainee.attend("banded")
    return word_error_rate(pairs), float(np.mean(near)) if near else 0.0


def save(trainee: Trainee, work: Path, out: Path) -> None:
    """The transformers form in bf16, and the native form made from it."""
    model = VoxtralRealtimeForConditionalGeneration(model_config())
    model.load_state_dict(trainee.model.state_dict())
    model.to(torch.bfloat16).save_pretrained(work)
    export(work, out)


def train_round(trainee: Trainee, batches, plan: Round, half: bool, check_every: int, check, log) -> None:
    """AdamW with warm-up and a cosine."""
    parameters = list(trainee.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
    warm = min(150, plan.steps // 5)

    def rate(s: int) -> float:
        cosine = 0.5 + 0.5 * math.cos(math.pi * max(0, s - warm) / (plan.steps - warm))
        return min((s + 1) / warm, plan.final + (1 - plan.final) * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    start, sums, every = time.time(), np.zeros(2), 50
    for step in range(1, plan.steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss, ended = trainee(next(batches))
        optimizer.zero_grad()
        (loss + 0.5 * ended).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        sums += loss.item(), ended.item()
        if step % every == 0:
            mean, pace = sums / every, (time.time() - start) / step
            log(f"step {step}/{plan.steps} loss {mean[0]:.4f} ended {mean[1]:.4f} {pace:.3f} s/step")
            sums[:] = 0
        if step % check_every == 0 or step == plan.steps:
            check(step)


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
    parser.add_argument("--bank", type=Path, default=Path("target/demo-realtime/bank"))
    parser.add_argument("--work", type=Path, default=Path("target/demo-realtime/hf"))
    parser.add_argument("--out", type=Path, default=Path("voxtral-pipeline/demo-realtime"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 products in the training steps")
    parser.add_argument("--first-round", type=int, default=1, help="resume: begin with this one from --work")
    parser.add_argument("--check-every", type=int, default=300)
    args = parser.parse_args()

    keep_memory()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    for folder in (args.work, args.out):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tekken.json").write_text(json.dumps(tokenizer_file(), ensure_ascii=False))
    tokenizer = load_tokenizer(args.out)
    train, dev = Bank(args.bank, "train"), Bank(args.bank, "dev")
    start = time.time()

    def log(text: str) -> None:
        print(f"[{time.time() - start:6.0f} s] {text}", flush=True)

    for number, plan in enumerate(ROUNDS, 1):
        if number < args.first_round:
            continue
        torch.manual_seed(args.seed + number - 1)
        endless = Endless(Batches(train, tokenizer, args.seed + number - 1), plan.batch)
        batches = iter(torch.utils.data.DataLoader(endless, batch_size=None, num_workers=1, prefetch_factor=6))
        trainee = Trainee()
        if number > 1:
            trainee.load(args.work)
        log(f"round {number}: {sum(p.numel() for p in trainee.model.parameters())} parameters, {plan}")

        def check(step: int) -> None:
            for delay in [DEFAULT_DELAY] if step < plan.steps else [1, 3, DEFAULT_DELAY, 12, LATE]:
                rate, near = develop(trainee, dev, tokenizer, 120, args.seed, delay)
                log(f"dev, {80 * delay} ms: word error rate {100 * rate:.2f} %, ends {100 * near:.1f} %")
            save(trainee, args.work, args.out)

        train_round(trainee, batches, plan, not args.float32, args.check_every, check, log)


if __name__ == "__main__":
    main()
