"""Build the evaluation set from speakers kept out of training, let transformers transcribe it, and count errors.

The model is read from its native files alone, by a reader of its own that knows nothing of export.py; the
weights are bf16 values in float32. With `--check` it is compared with the form that transformers wrote.

Writes `<eval>/utterances.flac` (all utterances one after the other, 16 kHz, 16 bits), `<eval>/utterances.json`
(what is spoken and when, and the ids that transformers generates) and `<samples>/digits-stream-en.wav`.

    python tools/demo-realtime/evaluate.py --bank target/demo-realtime/bank \\
        --model voxtral-pipeline/demo-realtime --eval tests/data/demo-realtime-eval --samples samples
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file
from transformers import (
    GenerationConfig, VoxtralRealtimeConfig, VoxtralRealtimeFeatureExtractor, VoxtralRealtimeForConditionalGeneration,
)  # fmt: skip
from transformers.utils import logging

from bank import Bank
from stream import (
    DEFAULT_DELAY, FLUSH, NUM_SPECIAL, SAMPLE_RATE, SAMPLES_PER_TOKEN, compose, greedy, matches, padded, prompt,
    tokens, written,
)  # fmt: skip
from common import (  # isort: skip
    EOS, LANGUAGES, WORDS, decode, degrade, load_tokenizer, quantise, word_error_rate,
)  # fmt: skip
from synth import speak  # isort: skip

OTHER_DELAYS = [1, 3, 12, 30]  # tokens
WITH_OTHER_DELAYS = 8  # one utterance of so many has the ids for these

# What the sample says: the speaker, and the digits with the seconds of silence before each.
SAMPLE = ("en-gb+f4", [(0.5, 7), (0.25, 2), (0.02, 9), (1.2, 4), (0.4, 0), (0.0, 5), (2.0, 8), (0.3, 3), (0.15, 6)])


def from_native(folder: Path) -> VoxtralRealtimeForConditionalGeneration:
    """The model of params.json and consolidated.safetensors, in float32."""
    p = json.loads((folder / "params.json").read_text())
    whisper = p["multimodal"]["whisper_model_args"]
    e = whisper["encoder_args"]
    assert p["ada_rms_norm_t_cond"] and p["tied_embeddings"] and e["causal"] and e["n_kv_heads"] == e["n_heads"]
    config = VoxtralRealtimeConfig(
        audio_config={
            "model_type": "voxtral_realtime_encoder",
            "vocab_size": e["vocab_size"],
            "hidden_size": e["dim"],
            "intermediate_size": e["hidden_dim"],
            "num_hidden_layers": e["n_layers"],
            "num_attention_heads": e["n_heads"],
            "head_dim": e["head_dim"],
            "num_mel_bins": e["audio_encoding_args"]["num_mel_bins"],
            "rms_norm_eps": e["norm_eps"],
            "sliding_window": e["sliding_window"],
            "rope_parameters": {"rope_type": "default", "rope_theta": e["rope_theta"]},
        },
        text_config={
            "model_type": "voxtral_realtime_text",
            "vocab_size": p["vocab_size"],
            "hidden_size": p["dim"],
            "intermediate_size": p["hidden_dim"],
            "num_hidden_layers": p["n_layers"],
            "num_attention_heads": p["n_heads"],
            "num_key_value_heads": p["n_kv_heads"],
            "head_dim": p["head_dim"],
            "rms_norm_eps": p["norm_eps"],
            "sliding_window": p["sliding_window"],
            "rope_parameters": {"rope_type": "default", "rope_theta": p["rope_theta"]},
            "max_position_embeddings": p["model_max_length"],
            "tie_word_embeddings": True,
        },
        downsample_factor=whisper["downsample_args"]["downsample_factor"],
        tie_word_embeddings=True,
    )
    files = load_file(folder / "consolidated.safetensors")
    left = set(files)

    def take(name: str) -> torch.Tensor:
        left.discard(name)
        return files[name].float()

    def turned(name: str, size: int) -> torch.Tensor:
        """Rows of heads of this size: the even ones to the front, the odd ones behind."""
        x = take(name)
        heads = x.unflatten(0, (len(x) // size, size))
        return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).flatten(0, 1)

    state = {}

    def layer(to: str, at: str, size: int, biases: bool) -> None:
        state[f"{to}.self_attn.q_proj.weight"] = turned(f"{at}.attention.wq.weight", size)
        state[f"{to}.self_attn.k_proj.weight"] = turned(f"{at}.attention.wk.weight", size)
        state[f"{to}.self_attn.v_proj.weight"] = take(f"{at}.attention.wv.weight")
        state[f"{to}.self_attn.o_proj.weight"] = take(f"{at}.attention.wo.weight")
        for part, number in {"gate": 1, "down": 2, "up": 3}.items():
            state[f"{to}.mlp.{part}_proj.weight"] = take(f"{at}.feed_forward.w{number}.weight")
        if biases:
            state[f"{to}.self_attn.q_proj.bias"] = turned(f"{at}.attention.wq.bias", size)
            state[f"{to}.self_attn.v_proj.bias"] = take(f"{at}.attention.wv.bias")
            state[f"{to}.self_attn.o_proj.bias"] = take(f"{at}.attention.wo.bias")
            state[f"{to}.mlp.down_proj.bias"] = take(f"{at}.feed_forward.w2.bias")

    streams = "mm_streams_embeddings.embedding_module"
    whisper = f"{streams}.whisper_encoder"
    for i in range(2):
        for kind in ("weight", "bias"):
            to = f"model.audio_tower.embedder.conv{i + 1}.{kind}"
            state[to] = take(f"{whisper}.conv_layers.{i}.conv.{kind}")
        to = f"model.multi_modal_projector.linear_{i + 1}.weight"
        state[to] = take(f"{streams}.audio_language_projection.{2 * i}.weight")
    for i in range(e["n_layers"]):
        to, at = f"model.audio_tower.layers.{i}", f"{whisper}.transformer.layers.{i}"
        layer(to, at, e["head_dim"], biases=True)
        state[f"{to}.self_attn_layer_norm.weight"] = take(f"{at}.attention_norm.weight")
        state[f"{to}.final_layer_norm.weight"] = take(f"{at}.ffn_norm.weight")
    state["model.audio_tower.norm.weight"] = take(f"{whisper}.transformer.norm.weight")
    for i in range(p["n_layers"]):
        to, at = f"model.language_model.layers.{i}", f"layers.{i}"
        layer(to, at, p["head_dim"], biases=False)
        state[f"{to}.input_layernorm.weight"] = take(f"{at}.attention_norm.weight")
        state[f"{to}.post_attention_layernorm.weight"] = take(f"{at}.ffn_norm.weight")
        for j in range(2):
            state[f"{to}.ada_rms_norm.linear{j + 1}.weight"] = take(f"{at}.ada_rms_norm_t_cond.{2 * j}.weight")
    state["model.language_model.norm.weight"] = take("norm.weight")
    embedding = take(f"{streams}.tok_embeddings.weight")
    state["model.language_model.embed_tokens.weight"] = state["lm_head.weight"] = embedding
    assert not left, left
    model = VoxtralRealtimeForConditionalGeneration(config).eval()
    model.load_state_dict(state)
    return model


class Transcriber:
    """Greedy ids by transformers, float32."""

    def __init__(self, folder: Path) -> None:
        self.model = from_native(folder)
        self.features = VoxtralRealtimeFeatureExtractor(feature_size=128)
        self.tokenizer = load_tokenizer(folder)

    def mel(self, x: np.ndarray, delay: int, count: int | None = None) -> torch.Tensor:
        out = self.features(padded(x, delay, count), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return out["input_features"]

    @torch.no_grad()
    def __call__(self, x: np.ndarray, delay: int) -> list[int]:
        """The ids that `generate` makes of the whole utterance, one for each position from the prompt's last."""
        ids = torch.tensor([prompt(delay)])
        # Nothing ends the stream but the audio.
        new = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=self.mel(x, delay),
            num_delay_tokens=delay,
            generation_config=GenerationConfig(
                do_sample=False,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=11,
                max_new_tokens=tokens(len(x)) + FLUSH - 1,
            ),
        )
        # The positions of the audio are the limit of `generate`; the last one's id would be the next token.
        return self.complete(x, delay, new[0, len(prompt(delay)) :].tolist())

    def complete(self, x: np.ndarray, delay: int, ids: list[int]) -> list[int]:
        """The ids of one pass over the stream with these ids fed back, which must be the same ones again and the
        id of the last position, which `generate` leaves out."""
        count = tokens(len(x)) + FLUSH
        assert len(ids) == count - 1 and EOS not in ids, (len(ids), count)
        out = self.model(
            input_ids=torch.tensor([prompt(delay) + ids]), input_features=self.mel(x, delay), num_delay_tokens=delay
        ).logits[0, -count:]
        best = out.topk(2).values
        self.margin = float((best[:, 0] - best[:, 1]).min())
        whole = out.argmax(-1).tolist()
        assert whole[:-1] == ids and EOS not in whole
        return whole

    def many(self, clips: list[np.ndarray], delay: int, batch: int = 20) -> list[list[int]]:
        """The same ids in batches, by a loop of our own."""
        out: list = [None] * len(clips)
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
        for i in range(0, len(order), batch):
            chosen = order[i : i + batch]
            count = max(tokens(len(clips[j])) for j in chosen)
            mel = torch.cat([self.mel(clips[j], delay, count) for j in chosen])
            for j, ids in zip(chosen, greedy(self.model, mel, delay), strict=True):
                out[j] = ids[: tokens(len(clips[j])) + FLUSH]
        return out

    def text(self, ids: list[int]) -> str:
        return decode(self.tokenizer, ids)

    def words(self, ids: list[int]) -> list[tuple[str, int, bool]]:
        """Words, the samples at which they end, and whether they have a mark of their own."""
        found = written(ids, lambda i: self.text([i]).startswith(" "))
        return [(self.text(pieces).strip(), (k + 1) * SAMPLES_PER_TOKEN, marked) for pieces, k, marked in found]


def check(model: VoxtralRealtimeForConditionalGeneration, folder: Path) -> None:
    """The native files hold the model that transformers wrote."""
    other = VoxtralRealtimeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    rng = torch.Generator().manual_seed(1)
    mel = torch.randn(2, 128, 8 * 90, generator=rng) * 0.5
    ids = torch.randint(0, NUM_SPECIAL + 1000, (2, 90), generator=rng)
    with torch.no_grad():
        a, b = (m(input_ids=ids, input_features=mel, num_delay_tokens=DEFAULT_DELAY).logits for m in (model, other))
    difference = float((a - b).abs().max())
    print(f"native files against those of transformers: logits differ by {difference:.1e} at most")
    assert difference < 1e-5


def sixteen_bits(x: np.ndarray) -> np.ndarray:
    return (np.clip(np.round(x * 32768), -32768, 32767) / 32768).astype(np.float32)


def build(bank: Bank, count: int, seed: int) -> tuple[list[dict], list[np.ndarray]]:
    """Utterances of the first speaker settings: one to nine words, half of them with noise; most rounded to 8
    bits, which keeps the file small."""
    records, clips, start = [], [], 0
    for i in range(count):
        rng = np.random.default_rng([seed, 99, i])
        setting = bank.records[i]
        digits = rng.integers(0, 10, int(rng.integers(1, 10)))
        x, spans = compose(
            rng, [bank.word(i, d) for d in digits], lead=rng.uniform(0, 1.5), tail=rng.uniform(0.02, 0.4)
        )
        snr = rng.uniform(10, 40) if rng.random() < 0.5 else None
        x = degrade(rng, x, 10 ** (-rng.uniform(4, 20) / 20), snr, pink=rng.random() < 0.5)
        x = sixteen_bits(x) if rng.random() < (0.3 if snr is None else 0.1) else quantise(x)
        clips.append(x)
        words = [WORDS[setting["language"]][d] for d in digits]
        records.append(
            {
                "id": i,
                "start": start,
                "samples": len(x),
                "language": setting["language"],
                "voice": setting["voice"],
                "speed": setting["speed"],
                "pitch": setting["pitch"],
                "snr_db": None if snr is None else round(snr, 1),
                "reference": " ".join(words),
                "words": [{"word": w, "start": a, "end": b} for w, (a, b) in zip(words, spans, strict=True)],
            }
        )
        start += len(x)
    return records, clips


def report(transcribe: Transcriber, name: str, chosen: list[tuple[dict, list[int]]]) -> None:
    """Word errors, and how far the marks are from the ends of the words that are right."""
    errors_of, marked, bare = [], [], []
    for r, ids in chosen:
        errors_of.append((r["reference"], transcribe.text(ids)))
        heard = transcribe.words(ids)
        for i, j in matches([w["word"] for w in r["words"]], [w for w, _, _ in heard]):
            _, end, own = heard[j]
            (marked if own else bare).append(end - r["words"][i]["end"])
    exact = sum(a.split() == b.split() for a, b in errors_of)
    count = sum(len(a.split()) for a, _ in errors_of)
    rate = word_error_rate(errors_of)

    def near(found: list[int], milliseconds: int) -> str:
        share = np.mean(np.abs(found) <= milliseconds * SAMPLE_RATE // 1000) if found else float("nan")
        return f"{100 * share:5.1f} %"

    every = marked + bare
    print(
        f"{name:14} {len(chosen):4} utterances, {exact:3} exact; word errors {round(rate * count):3} of {count} = "
        f"{100 * rate:5.2f} %; ends of right words within 80 / 160 ms: marked {near(marked, 80)} {near(marked, 160)} "
        f"of {len(marked)}, all {near(every, 80)} {near(every, 160)} of {len(every)}",
        flush=True,
    )


def sample(transcribe: Transcriber, path: Path) -> None:
    voice, said = SAMPLE
    parts, ends, at = [], [], 0
    for silence, digit in said:
        what = {"words": [WORDS["en"][digit]], "comma": False, "voice": voice, "speed": 150, "pitch": 50, "gap": 0}
        word = speak(what)
        parts += [np.zeros(int(silence * SAMPLE_RATE), np.int16), word]
        at += len(parts[-2]) + len(word)
        ends.append(at)
    parts.append(np.zeros(SAMPLE_RATE // 2, np.int16))
    soundfile.write(path, np.concatenate(parts), SAMPLE_RATE, subtype="PCM_16")
    clip = soundfile.read(path, dtype="float32")[0]
    heard = transcribe.words(transcribe(clip, DEFAULT_DELAY))
    words = [WORDS["en"][digit] for _, digit in said]
    right = words == [w for w, _, _ in heard]
    print(f"{path.name}: {len(clip) / SAMPLE_RATE:.1f} s, {' '.join(words)}", "" if right else f"WRONG: {heard}")
    if right:
        late = [round((end - true) / 16) for (_, end, _), true in zip(heard, ends, strict=True)]
        print(f"  marks after the words' ends, ms: {late}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=Path("target/demo-realtime/bank"))
    parser.add_argument("--model", type=Path, default=Path("voxtral-pipeline/demo-realtime"))
    parser.add_argument("--check", type=Path, help="folder of the form that transformers wrote")
    parser.add_argument("--eval", type=Path, default=Path("tests/data/demo-realtime-eval"))
    parser.add_argument("--samples", type=Path, default=Path("samples"))
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    transcribe = Transcriber(args.model)
    if args.check:
        check(transcribe.model, args.check)
    records, clips = build(Bank(args.bank, "test"), args.count, args.seed)
    args.eval.mkdir(parents=True, exist_ok=True)
    flac = args.eval / "utterances.flac"
    whole = (np.concatenate(clips) * 32768).astype(np.int16)
    soundfile.write(flac, whole, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    assert np.array_equal(soundfile.read(flac, dtype="float32")[0], np.concatenate(clips))
    print(f"{flac.name}: {len(whole) / SAMPLE_RATE:.0f} s, {flac.stat().st_size} bytes", flush=True)

    smallest = np.inf
    for r, x in zip(records, clips, strict=True):
        r["transformers_ids"] = transcribe(x, DEFAULT_DELAY)
        smallest = min(smallest, transcribe.margin)
        r["transformers_text"] = transcribe.text(r["transformers_ids"])
        if r["id"] % WITH_OTHER_DELAYS == r["id"] // WITH_OTHER_DELAYS % WITH_OTHER_DELAYS:
            r["other_delays"] = {}
            for delay in OTHER_DELAYS:
                r["other_delays"][str(80 * delay)] = transcribe(x, delay)
                smallest = min(smallest, transcribe.margin)
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    (args.eval / "utterances.json").write_text(f"[\n{lines}\n]\n")
    print(f"smallest distance of the two highest logits: {smallest:.5f}")
    print(f"{sum('other_delays' in r for r in records)} utterances with the ids for other delays")

    ids = [r["transformers_ids"] for r in records]
    assert transcribe.many(clips, DEFAULT_DELAY) == ids
    both = list(zip(records, ids, strict=True))
    report(transcribe, "480 ms", both)
    for lang in LANGUAGES:
        report(transcribe, f"  {lang}", [b for b in both if b[0]["language"] == lang])
    report(transcribe, "  clean", [b for b in both if b[0]["snr_db"] is None])
    report(transcribe, "  with noise", [b for b in both if b[0]["snr_db"] is not None])
    for r, i in both:
        if r["reference"] != transcribe.text(i).strip():
            print(f"  {r['id']:3} {r['voice']:22} {r['snr_db']} | {r['reference']} |{transcribe.text(i)}")
    for delay in OTHER_DELAYS:
        other = transcribe.many(clips, delay)
        for r, i in zip(records, other, strict=True):
            assert "other_delays" not in r or r["other_delays"][str(80 * delay)] == i
        report(transcribe, f"{80 * delay} ms", list(zip(records, other, strict=True)))

    args.samples.mkdir(parents=True, exist_ok=True)
    sample(transcribe, args.samples / "digits-stream-en.wav")


if __name__ == "__main__":
    main()
