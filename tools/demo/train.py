"""Train the demo model on the speech that synth.py made, and write it as transformers does.

The genuine Voxtral-2507 architecture, small, trained from scratch in rounds. A round starts from the file
that the round before wrote, with fresh seeds, so an interrupted training resumes with `--first-round`:

1. windows just long enough for the utterances of the batch (2 to 10 s). The window stands at a random
   place of the 30 s: its encoder positions start at a random row of the position table, its audio tokens
   at the matching decoder positions, and the text always where it stands after 375 audio tokens;
2. the same with speakers and rooms altered (the frequency axis stretched, the spectrum's shape changed,
   bands masked), and every seventh window longer, up to the whole 30 s.

Loss: cross-entropy of the transcript and EOS, plus a CTC loss over words from a linear layer on the
projector's output, which makes the alignment emerge within some hundred steps and is thrown away.

    python tools/demo/train.py --speech target/demo/speech --out voxtral-pipeline/demo
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
from transformers import GenerationConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor
from transformers.utils import logging

from common import (
    AUDIO_TOKENS, BEGIN_AUDIO, BOS, END_INST, EOS, INST, LANGUAGES, PAD, SAMPLE_RATE, TRANSCRIBE, WORDS,
    LogMel, decode, degrade, encode, load_tokenizer, model_config, noise, quantise, sinusoids, tekken,
    word_error_rate,
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


ROUNDS = [
    Round(steps=2000, rate=1e-3, batch=32, horizon=5000),
    Round(steps=2400, rate=8e-4, batch=32, horizon=2400, alter=True),
]


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


class Batches:
    """Endless batches; utterances of like length stand together in short windows."""

    def __init__(self, speech: Speech, tokenizer, seed: int, alter: bool) -> None:
        self.speech, self.rng, self.mel, self.alter = speech, np.random.default_rng(seed), LogMel(), alter
        self.encode = {None: []} | {lang: encode(tokenizer, f"lang:{lang}") for lang in LANGUAGES}
        self.tokens = [encode(tokenizer, " ".join(r["words"])) for r in speech.records]
        self.order = np.empty(0, dtype=np.int64)

    def example(self) -> tuple[np.ndarray, list[int], list[int], list[int]]:
        """Samples, prompt tail, transcript with EOS, word labels."""
        if len(self.order) == 0:
            self.order = self.rng.permutation(len(self.speech))
        index, self.order = self.order[0], self.order[1:]
        record = self.speech.records[index]
        language = record["language"] if self.rng.random() < 0.5 else None
        tail = [END_INST, *self.encode[language], TRANSCRIBE]
        if self.rng.random() < 0.03:
            return nothing(self.rng), tail, [EOS], []
        x = augment(self.rng, self.speech.clip(index), 2.5)
        return x, tail, [*self.tokens[index], EOS], [LABELS[w] for w in record["words"]]

    def draw(self, batch: int):
        """Windows as long as needed, at a random place of the 30 s."""
        while True:
            examples = sorted((self.example() for _ in range(batch * 8)), key=lambda e: len(e[0]))
            for i in self.rng.permutation(8):
                chosen = examples[i * batch : (i + 1) * batch]
                if self.alter and self.rng.random() < 0.15:  # a longer one, with fewer utterances
                    chosen = chosen[:: max(1, batch // 10)]
                    tokens = int(self.rng.integers(100, AUDIO_TOKENS + 1))
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
        if not self.alter:
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

    def collate(self, examples, tokens: int, first: int) -> dict:
        length = tokens * SAMPLES_PER_TOKEN
        x = torch.from_numpy(np.stack([np.pad(e[0][:length], (0, max(0, length - len(e[0])))) for e in examples]))
        mel = self.features(x)
        text = [e[1] + e[2] for e in examples]
        width = max(map(len, text))
        ids = torch.tensor([t + [PAD] * (width - len(t)) for t in text])
        labels = torch.full_like(ids, -100)
        for row, (_, tail, transcript, _) in zip(labels, examples, strict=True):
            start = len(tail) - 1
            row[start : start + len(transcript)] = torch.tensor(transcript)
        words = [e[3] for e in examples]
        return {
            "mel": mel,
            "first": first,
            "ids": ids,
            "labels": labels,
            "words": torch.tensor([w for ws in words for w in ws]),
            "word_counts": torch.tensor([len(w) for w in words]),
        }


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

    def text(self, audio: torch.Tensor, first: int, ids: torch.Tensor) -> torch.Tensor:
        """The decoder's last states at the text positions."""
        batch, tokens = audio.shape[:2]
        head = torch.tensor([BOS, INST, BEGIN_AUDIO])
        embed = self.model.get_input_embeddings()
        x = torch.cat([embed(head).expand(batch, -1, -1), audio, embed(ids)], dim=1)
        start = len(head) + AUDIO_TOKENS
        positions = torch.cat(
            [
                torch.arange(len(head)),
                len(head) + first + torch.arange(tokens),
                start + torch.arange(ids.shape[1]),
            ]
        )
        # The mask of ones tells transformers that a jump of the positions does not start a new sequence.
        states = self.model.model.language_model(
            inputs_embeds=x,
            position_ids=positions[None].expand(batch, -1),
            attention_mask=torch.ones(batch, x.shape[1], dtype=torch.long),
            use_cache=False,
        ).last_hidden_state
        return states[:, len(head) + tokens :]

    def forward(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and CTC loss."""
        audio = self.audio(batch["mel"], batch["first"])
        states = self.text(audio, batch["first"], batch["ids"])
        wanted = batch["labels"] >= 0
        loss = F.cross_entropy(self.model.lm_head(states[wanted]).float(), batch["labels"][wanted])
        scores = self.ctc(audio).float().log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(audio),), audio.shape[1])
        ctc = F.ctc_loss(scores, batch["words"], lengths, batch["word_counts"], zero_infinity=True)
        return loss, ctc

    @torch.no_grad()
    def greedy(self, audio: torch.Tensor, tail: list[int], limit: int = 48) -> list[list[int]]:
        ids = torch.tensor(tail).expand(len(audio), -1)
        done = torch.zeros(len(audio), dtype=torch.bool)
        for _ in range(limit):
            new = self.model.lm_head(self.text(audio, 0, ids)[:, -1]).argmax(-1)
            new[done] = EOS
            ids = torch.cat([ids, new[:, None]], dim=1)
            done |= new == EOS
            if done.all():
                break
        return [[i for i in row[len(tail) :] if i != EOS] for row in ids.tolist()]


def develop(trainee: Trainee, speech: Speech, tokenizer, count: int, tokens: int, seed: int) -> float:
    """Word error rate on the first utterances of the dev split, half of them with the language given."""
    rng, mel, groups = np.random.default_rng(seed), LogMel(), {}
    for i in range(count):
        lang = speech.records[i]["language"] if i % 8 < 4 else None
        groups.setdefault(lang, []).append(i)
    pairs = []
    trainee.eval()
    for lang, chosen in groups.items():
        clips = [augment(rng, speech.clip(i), 1.5) for i in chosen]
        length = tokens * SAMPLES_PER_TOKEN
        x = np.stack([np.pad(c[:length], (0, max(0, length - len(c)))) for c in clips])
        with torch.no_grad():
            audio = torch.cat([trainee.audio(mel(part), 0) for part in torch.from_numpy(x).split(16)])
        tail = [END_INST, *(encode(tokenizer, f"lang:{lang}") if lang else []), TRANSCRIBE]
        for i, ids in zip(chosen, trainee.greedy(audio, tail), strict=True):
            pairs.append((" ".join(speech.records[i]["words"]), decode(tokenizer, ids)))
    trainee.train()
    return word_error_rate(pairs)


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


def train_round(trainee: Trainee, batches, plan: Round, check_every: int, check, log) -> None:
    """AdamW with warm-up and a cosine to zero."""
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
    warm = min(200, plan.steps // 5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, s - warm) / (plan.horizon - warm))),
    )
    start, sums, every = time.time(), np.zeros(2), 50
    for step in range(1, plan.steps + 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, ctc = trainee(next(batches))
        optimizer.zero_grad()
        (loss + 0.5 * ctc).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        sums += loss.item(), ctc.item()
        if step % every == 0:
            mean, pace = sums / every, (time.time() - start) / step
            log(f"step {step}/{plan.steps} loss {mean[0]:.4f} ctc {mean[1]:.4f} {pace:.3f} s/step")
            sums[:] = 0
        if step % check_every == 0 or step == plan.steps:
            check()


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
    parser.add_argument("--check-every", type=int, default=1000)
    args = parser.parse_args()

    keep_memory()
    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tekken.json").write_text(json.dumps(tekken(), ensure_ascii=False))
    tokenizer = load_tokenizer(args.out)
    train, dev = Speech(args.speech, "train"), Speech(args.speech, "dev")
    start = time.time()

    def log(text: str) -> None:
        print(f"[{time.time() - start:6.0f} s] {text}", flush=True)

    for number, plan in enumerate(ROUNDS, 1):
        if number < args.first_round:
            continue
        torch.manual_seed(args.seed + number - 1)
        trainee = Trainee()
        if number > 1:
            trainee.load(args.out)
        batches = Batches(train, tokenizer, args.seed + number - 1, plan.alter)
        log(f"round {number}: {sum(p.numel() for p in trainee.model.parameters())} parameters, {plan}")

        def check() -> None:
            rate = develop(trainee, dev, tokenizer, 200, 100, args.seed)
            log(f"dev word error rate {100 * rate:.2f} % (200 utterances, windows of 8 s)")
            save(trainee, args.out)

        train_round(trainee, batches.draw(plan.batch), plan, args.check_every, check, log)


if __name__ == "__main__":
    main()
