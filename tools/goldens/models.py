"""Small Voxtral checkpoints with the outputs that `transformers` computes from them.

    python tools/goldens/models.py --out tests/data/models            # write every folder
    python tools/goldens/models.py --out tests/data/models --check    # write elsewhere and compare

Here are the checkpoints of the 2507 kind; those of the Realtime kind are in `realtime.py`.
Each folder holds a checkpoint as `save_pretrained` writes it, and

* `golden.safetensors`: inputs and outputs, float32 and int64 (see `README.md` for the names),
* `golden.json`: seed, sizes, the smallest lead of a greedy choice, versions,
* `native/` (where the position table is the sinusoid): the same model under the names and the
  row order of the native form, `params.json` + `consolidated.safetensors`.

`tiny-a` is filled by a formula and checked against printed values. The `odd-*` models are random:
sizes that share no factor by accident, biases and norms that are not 0 and 1, and hidden states
small enough for an epsilon to matter. Seeds are tried from 0 upwards until the greedy path is one
that a correct implementation must find again: every choice leads by `MIN_MARGIN`, the path
visits many ids, holds neither the end nor the audio token, and changes with the audio.

Every output is computed in float32 from the checkpoint as read back from disk.
"""

import argparse
import json
import math
import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.utils import logging

import realtime
from common import (
    Tensors,
    check_pins,
    compare,
    described,
    formula_fill,
    formula_mel,
    interleave,
    is_norm_gain,
    read_tensors,
    write_json,
)

BOS, EOS, PAD = 1, 2, 11
AUDIO, BEGIN_AUDIO, TRANSCRIBE = 24, 25, 34
STACK = 4  # encoder positions per audio token
GREEDY_TOKENS = 64
MIN_MARGIN = 0.01
MIN_DISTINCT = 16
ATTENDING = 8  # positions whose attention to the audio is kept: the prompt's last, and greedy tokens


@dataclass(frozen=True)
class Recipe:
    """One checkpoint: its sizes, how it is filled and how it is stored."""

    audio: dict
    text: dict
    windows: int = 1
    formula: bool = False
    sinusoid: bool = False
    dtype: torch.dtype = torch.float32
    table_dtype: torch.dtype = torch.float32
    shard_size: str = "5GB"
    legacy_config: bool = False
    row_step: int = 1  # keep every n-th encoder and projector row, and the last
    pins: dict[str, list[tuple[int, list[float]]]] = field(default_factory=dict)


def audio_config(width: int, layers: int, heads: int, positions: int, mel_bins: int = 128) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": STACK * width,  # transformers derives the stacking from this
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_mel_bins": mel_bins,
        "max_source_positions": positions,
    }


def text_config(
    vocab: int,
    width: int,
    mlp: int,
    layers: int,
    heads: int,
    kv: int,
    head: int,
    theta: float,
    eps: float,
    context: int,
) -> dict:
    return {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rms_norm_eps": eps,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }


RECIPES: dict[str, Recipe] = {
    "tiny-a": Recipe(
        audio=audio_config(width=16, layers=2, heads=2, positions=1500),
        text=text_config(64, 24, 40, 2, heads=4, kv=2, head=8, theta=1e8, eps=1e-5, context=131072),
        formula=True,
        row_step=50,
        pins={
            "encoder": [
                (0, [-1.4334, -0.162819, 1.335899, 1.641537]),
                (1499, [-1.427538, -0.029859, 1.388875, 1.600261]),
            ],
            "projector": [
                (0, [-0.021868, -0.073724, 0.089794, -0.009008]),
                (374, [0.220658, 0.203122, -0.407806, 0.172613]),
            ],
            "logits": [
                (0, [0.289034, 0.11912, -0.398786, 0.248304]),
                (379, [0.715041, -0.870685, 0.087171, 0.790369, -0.815384, -0.03911]),
            ],
        },
    ),
    "odd-f32": Recipe(
        audio=audio_config(width=24, layers=3, heads=3, positions=100),
        text=text_config(80, 42, 56, 3, heads=6, kv=1, head=10, theta=12345.0, eps=3e-4, context=512),
        windows=2,
    ),
    "odd-bf16": Recipe(
        audio=audio_config(width=32, layers=2, heads=4, positions=100),
        text=text_config(96, 48, 72, 2, heads=4, kv=2, head=16, theta=250000.0, eps=1e-3, context=512),
        windows=3,
        sinusoid=True,
        dtype=torch.bfloat16,
        shard_size="40KB",
    ),
    "odd-f16": Recipe(
        audio=audio_config(width=20, layers=2, heads=4, positions=200, mel_bins=80),
        text=text_config(72, 36, 52, 2, heads=4, kv=4, head=14, theta=500000.0, eps=2e-5, context=512),
        dtype=torch.float16,
        table_dtype=torch.float16,
        legacy_config=True,
    ),
}


def disk_name(name: str) -> str:
    """Name in the file of a tensor that the model in memory calls `name`."""
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    name = name.removeprefix("model.")
    return name.replace("language_model.", "language_model.model.", 1)


def sinusoid(positions: int, width: int) -> np.ndarray:
    """`[sin(t w_i), cos(t w_i)]` with `w_i = 10000^(-i / (width/2 - 1))`, `[positions, width]`."""
    half = width // 2
    rate = np.exp(-np.arange(half) * math.log(10000) / (half - 1))
    angle = np.arange(positions)[:, None] * rate
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def random_fill(rng: np.random.Generator, recipe: Recipe, name: str, shape: torch.Size) -> np.ndarray:
    """Normal values; matrices are scaled by `gain / sqrt(fan_in)`."""
    values = rng.standard_normal(shape)
    if is_norm_gain(name):
        return 1 + 0.2 * values
    if name.endswith("embed_positions.weight"):
        return sinusoid(*shape) if recipe.sinusoid else 0.02 * values
    if name.endswith("embed_tokens.weight"):
        return 0.05 * values
    if name.endswith(".bias"):
        return (0.02 if "conv" in name else 0.1) * values
    gains = {
        "conv2": 4.0 if recipe.sinusoid else 0.1,  # the table must not drown the audio
        "q_proj": 1.5,
        "k_proj": 1.5,
        "out_proj": 0.3,
        "o_proj": 0.3,
        "fc2": 0.3,
        "down_proj": 0.3,
        "linear_2": 0.2,
        "lm_head": 3.0,
    }
    return gains.get(name.split(".")[-2], 1.0) / math.sqrt(math.prod(shape[1:])) * values


def build(recipe: Recipe, seed: int) -> VoxtralForConditionalGeneration:
    config = VoxtralConfig(audio_config=recipe.audio, text_config=recipe.text, audio_token_id=AUDIO)
    model = VoxtralForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    rng = np.random.default_rng(seed)
    parameters = sorted((disk_name(name), p) for name, p in model.named_parameters())
    with torch.no_grad():
        for index, (name, p) in enumerate(parameters):
            if recipe.formula:
                values = formula_fill(index, name, p.shape)
            else:
                values = random_fill(rng, recipe, name, p.shape)
            p.copy_(torch.from_numpy(values.astype(np.float32)))
    for name, p in parameters:
        p.data = p.data.to(recipe.table_dtype if "embed_positions" in name else recipe.dtype)
    return model


def mel_input(recipe: Recipe, seed: int) -> torch.Tensor:
    """`[windows, mel bins, 2 positions]`."""
    bins, frames = recipe.audio["num_mel_bins"], 2 * recipe.audio["max_source_positions"]
    if recipe.formula:
        mel = formula_mel(bins, frames)
    else:
        mel = 0.5 * np.random.default_rng([seed, 1]).standard_normal((recipe.windows, bins, frames))
    return torch.from_numpy(mel.astype(np.float32))


def prompt(recipe: Recipe) -> torch.Tensor:
    audio = [AUDIO] * (recipe.windows * recipe.audio["max_source_positions"] // STACK)
    return torch.tensor([[BOS, 3, BEGIN_AUDIO, *audio, 4, TRANSCRIBE]])


@dataclass(frozen=True)
class Greedy:
    ids: torch.Tensor  # [GREEDY_TOKENS]
    logprobs: torch.Tensor  # [GREEDY_TOKENS]
    margin: float  # smallest lead of the best logit over the second


@torch.inference_mode()
def greedy(model: VoxtralForConditionalGeneration, ids: torch.Tensor, mel: torch.Tensor, cached: bool) -> Greedy:
    """The most likely token, `GREEDY_TOKENS` times; nothing ends the path earlier."""
    embed = model.get_input_embeddings()
    embeds = embed(ids)
    embeds[ids == AUDIO] = model.get_audio_features(mel).pooler_output
    chosen, logprobs, margins, past = [], [], [], None
    for _ in range(GREEDY_TOKENS):
        out = model(inputs_embeds=embeds, past_key_values=past, use_cache=cached)
        logits = out.logits[0, -1]
        best, second = logits.topk(2).values
        chosen.append(logits.argmax())
        logprobs.append(logits.log_softmax(-1)[chosen[-1]])
        margins.append(float(best - second))
        past = out.past_key_values
        step = embed(chosen[-1])[None, None]
        embeds = step if cached else torch.cat([embeds, step], dim=1)
    return Greedy(torch.stack(chosen), torch.stack(logprobs), min(margins))


def is_telling(model: VoxtralForConditionalGeneration, ids: torch.Tensor, mel: torch.Tensor) -> bool:
    """Whether the greedy path has clear margins, variety, no special meaning, and depends on the audio."""
    path = greedy(model, ids, mel, cached=True)
    if path.margin < MIN_MARGIN or len(set(path.ids.tolist())) < MIN_DISTINCT:
        return False
    if {EOS, AUDIO} & set(path.ids.tolist()):
        return False
    return not torch.equal(path.ids, greedy(model, ids, -mel, cached=True).ids)


@torch.inference_mode()
def attention(
    model: VoxtralForConditionalGeneration, ids: torch.Tensor, mel: torch.Tensor, answer: torch.Tensor
) -> torch.Tensor:
    """`[layers, heads, ATTENDING, audio]`: the decoder's attention to the audio from the prompt's last position on,
    in one pass over prompt and answer."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    whole = torch.cat([ids, answer[None, : ATTENDING - 1]], dim=1)
    layers = model(input_ids=whole, input_features=mel, output_attentions=True).attentions
    model.set_attn_implementation(implementation)
    return torch.cat(layers)[:, :, -ATTENDING:][..., torch.where(whole[0] == AUDIO)[0]]


@torch.inference_mode()
def outputs(
    model: VoxtralForConditionalGeneration, recipe: Recipe, ids: torch.Tensor, mel: torch.Tensor
) -> tuple[Tensors, float]:
    """Everything that goes into `golden.safetensors`, and the smallest margin."""
    features = model.get_audio_features(mel)
    encoder = features.last_hidden_state.flatten(0, 1)
    logits = model(input_ids=ids, input_features=mel).logits[0]
    path, again = greedy(model, ids, mel, cached=True), greedy(model, ids, mel, cached=False)
    assert torch.equal(path.ids, again.ids), "cached and uncached generation differ"
    torch.testing.assert_close(path.logprobs, again.logprobs, rtol=0, atol=1e-5)

    def rows(length: int) -> torch.Tensor:
        return torch.tensor(sorted({*range(0, length, recipe.row_step), length - 1}))

    encoder_rows, projector_rows = rows(len(encoder)), rows(len(features.pooler_output))
    tensors = {
        "input_ids": ids[0],
        "encoder_rows": encoder_rows,
        "encoder": encoder[encoder_rows],
        "projector_rows": projector_rows,
        "projector": features.pooler_output[projector_rows],
        "logits": logits,
        "greedy_ids": path.ids,
        "greedy_logprobs": path.logprobs,
        "attention": attention(model, ids, mel, path.ids),
    }
    if not recipe.formula:
        tensors["mel"] = mel
    full = {"encoder": encoder, "projector": features.pooler_output, "logits": logits}
    check_pins(full, recipe.pins)
    return tensors, path.margin


ENCODER = "mm_whisper_embeddings.whisper_encoder"
NATIVE_PREFIXES = {
    "audio_tower.conv1": f"{ENCODER}.conv_layers.0",
    "audio_tower.conv2": f"{ENCODER}.conv_layers.1",
    "audio_tower.layers": f"{ENCODER}.transformer.layers",
    "audio_tower.layer_norm": f"{ENCODER}.transformer.norm",
    "multi_modal_projector.linear_1": "mm_whisper_embeddings.audio_language_projection.0",
    "multi_modal_projector.linear_2": "mm_whisper_embeddings.audio_language_projection.2",
    "language_model.model.embed_tokens": "mm_whisper_embeddings.tok_embeddings",
    "language_model.model.layers": "layers",
    "language_model.model.norm": "norm",
    "language_model.lm_head": "output",
}
NATIVE_PARTS = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.out_proj": "attention.wo",
    "self_attn.o_proj": "attention.wo",
    "self_attn_layer_norm": "attention_norm",
    "input_layernorm": "attention_norm",
    "final_layer_norm": "ffn_norm",
    "post_attention_layernorm": "ffn_norm",
    "fc1": "feed_forward.w1",
    "fc2": "feed_forward.w2",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}


def native_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    prefix = next(p for p in NATIVE_PREFIXES if stem == p or stem.startswith(p + "."))
    rest = stem.removeprefix(prefix).removeprefix(".")
    if rest:
        layer, part = rest.split(".", 1)
        rest = f".{layer}.{NATIVE_PARTS[part]}"
    return f"{NATIVE_PREFIXES[prefix]}{rest}.{kind}"


def write_native(folder: Path, recipe: Recipe, tensors: Tensors) -> None:
    native: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("embed_positions.weight"):
            continue
        if name.startswith("language_model.") and ("q_proj" in name or "k_proj" in name):
            tensor = interleave(tensor, recipe.text["head_dim"])
        native[native_name(name)] = tensor
    assert len(native) == len(tensors) - 1
    folder.mkdir()
    save_file(native, folder / "consolidated.safetensors")
    audio, text = recipe.audio, recipe.text
    params = {
        "dim": text["hidden_size"],
        "n_layers": text["num_hidden_layers"],
        "head_dim": text["head_dim"],
        "hidden_dim": text["intermediate_size"],
        "n_heads": text["num_attention_heads"],
        "n_kv_heads": text["num_key_value_heads"],
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "norm_eps": text["rms_norm_eps"],
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_position_embeddings"],
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {
                        "sampling_rate": 16000,
                        "num_mel_bins": audio["num_mel_bins"],
                        "hop_length": 160,
                        "window_size": 400,
                    },
                    "dim": audio["hidden_size"],
                    "n_layers": audio["num_hidden_layers"],
                    "head_dim": audio["hidden_size"] // audio["num_attention_heads"],
                    "hidden_dim": audio["intermediate_size"],
                    "n_heads": audio["num_attention_heads"],
                    "vocab_size": 51866,
                    "max_source_positions": audio["max_source_positions"],
                },
                "downsample_args": {"downsample_factor": STACK},
            }
        },
    }
    write_json(folder / "params.json", params)


def to_legacy_config(path: Path) -> None:
    """The spelling of `config.json` before transformers 5: `rope_theta` and `torch_dtype`."""
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    text = config["text_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    text["rope_scaling"] = None
    write_json(path, config)


def write_checkpoint(folder: Path, recipe: Recipe, seed: int) -> None:
    model = build(recipe, seed)
    names = {disk_name(name) for name, _ in model.named_parameters()}
    model.save_pretrained(folder, max_shard_size=recipe.shard_size)
    tensors = read_tensors(folder)
    assert set(tensors) == names, set(tensors) ^ names
    seconds = recipe.audio["max_source_positions"] // 50
    WhisperFeatureExtractor(feature_size=recipe.audio["num_mel_bins"], chunk_length=seconds).save_pretrained(folder)
    if recipe.legacy_config:
        to_legacy_config(folder / "config.json")
    if recipe.sinusoid:
        write_native(folder / "native", recipe, tensors)


def read_checkpoint(folder: Path) -> VoxtralForConditionalGeneration:
    return VoxtralForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


def find_seed(recipe: Recipe) -> int:
    for seed in count():
        with tempfile.TemporaryDirectory() as scratch:
            write_checkpoint(Path(scratch), recipe, seed)
            if is_telling(read_checkpoint(Path(scratch)), prompt(recipe), mel_input(recipe, seed)):
                return seed
    raise AssertionError("unreachable")


def write_model(folder: Path, recipe: Recipe) -> dict:
    folder.mkdir(parents=True)
    seed = 0 if recipe.formula else find_seed(recipe)
    write_checkpoint(folder, recipe, seed)
    model, ids, mel = read_checkpoint(folder), prompt(recipe), mel_input(recipe, seed)
    assert model.config.text_config.rope_parameters["rope_theta"] == recipe.text["rope_parameters"]["rope_theta"]
    tensors, margin = outputs(model, recipe, ids, mel)
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "golden.safetensors")
    summary = {
        "seed": None if recipe.formula else seed,
        "windows": recipe.windows,
        "frames_per_window": mel.shape[-1],
        "mel": "0.5 * sin(0.01 * t * (c + 1))" if recipe.formula else "stored",
        "min_greedy_margin": margin,
        "distinct_greedy_ids": len(set(tensors["greedy_ids"].tolist())),
        "largest": {name: float(tensors[name].abs().max()) for name in ("encoder", "projector", "logits")},
    } | described(tensors)
    write_json(folder / "golden.json", summary)
    return summary


def make(name: str, scratch: Path) -> tuple[str, dict[str, Path]]:
    """Writes one recipe's folders under `scratch`: a line about them, and the folders by name."""
    if name in realtime.RECIPES:
        line = realtime.write_model(scratch, name)
    else:
        summary = write_model(scratch / name, RECIPES[name])
        line = f"seed {summary['seed']}, smallest margin {summary['min_greedy_margin']:.4g}"
    return line, {folder.name: folder for folder in sorted(scratch.iterdir())}


def main() -> None:
    names = [*RECIPES, *realtime.RECIPES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model folders")
    parser.add_argument("--only", choices=names, help="one model only")
    parser.add_argument("--check", action="store_true", help="compare with what --out holds; write nothing there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()

    failed = False
    for recipe in [args.only] if args.only else names:
        with tempfile.TemporaryDirectory() as scratch:
            line, folders = make(recipe, Path(scratch))
            for name, fresh in folders.items():
                stored = args.out / name
                if args.check:
                    problems = compare(stored, fresh)
                    failed |= bool(problems)
                    verdict = " -- differs\n  " + "\n  ".join(problems) if problems else " -- same"
                else:
                    verdict = ""
                    shutil.rmtree(stored, ignore_errors=True)
                    shutil.copytree(fresh, stored, copy_function=shutil.copyfile)
                print(f"{name}: {line}{verdict}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
