"""Write the native form (params.json, consolidated.safetensors) of a model that transformers saved.

    python tools/demo-realtime/export.py --model target/demo-realtime/hf --out voxtral-pipeline/demo-realtime
"""

import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from stream import DEFAULT_DELAY, LOG_MEL_MAX, SAMPLE_RATE

STREAMS = "mm_streams_embeddings.embedding_module"
ENCODER = f"{STREAMS}.whisper_encoder"
LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
ENCODER_LAYER = LAYER | {"self_attn_layer_norm": "attention_norm", "final_layer_norm": "ffn_norm"}
DECODER_LAYER = LAYER | {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "ada_rms_norm.linear1": "ada_rms_norm_t_cond.0",
    "ada_rms_norm.linear2": "ada_rms_norm_t_cond.2",
}
OTHERS = {
    "audio_tower.embedder.conv1": f"{ENCODER}.conv_layers.0.conv",
    "audio_tower.embedder.conv2": f"{ENCODER}.conv_layers.1.conv",
    "audio_tower.norm": f"{ENCODER}.transformer.norm",
    "multi_modal_projector.linear_1": f"{STREAMS}.audio_language_projection.0",
    "multi_modal_projector.linear_2": f"{STREAMS}.audio_language_projection.2",
    "language_model.model.embed_tokens": f"{STREAMS}.tok_embeddings",
    "language_model.model.norm": "norm",
}


def native_name(name: str) -> str:
    """The native name of a tensor that transformers wrote."""
    stem, kind = name.rsplit(".", 1)
    if stem in OTHERS:
        return f"{OTHERS[stem]}.{kind}"
    tower, layer, part = re.fullmatch(r"(audio_tower|language_model\.model)\.layers\.(\d+)\.(.+)", stem).groups()
    if tower == "audio_tower":
        return f"{ENCODER}.transformer.layers.{layer}.{ENCODER_LAYER[part]}.{kind}"
    return f"layers.{layer}.{DECODER_LAYER[part]}.{kind}"


def interleaved(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of q or k from the order of split-half RoPE to that of interleaved RoPE."""
    rest = x.shape[1:]
    return x.view(-1, 2, head_dim // 2, *rest).transpose(1, 2).reshape(-1, *rest).contiguous()


def params(config: dict) -> dict:
    """params.json with all the keys of the published one."""
    text, audio = config["text_config"], config["audio_config"]
    return {
        "dim": text["hidden_size"],
        "n_layers": text["num_hidden_layers"],
        "head_dim": text["head_dim"],
        "hidden_dim": text["intermediate_size"],
        "n_heads": text["num_attention_heads"],
        "n_kv_heads": text["num_key_value_heads"],
        "use_biases": False,
        "causal": True,
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "norm_eps": text["rms_norm_eps"],
        "vocab_size": text["vocab_size"],
        "model_parallel": 1,
        "tied_embeddings": True,
        "sliding_window": text["sliding_window"],
        "model_max_length": text["max_position_embeddings"],
        "multimodal": {
            "whisper_model_args": {
                "encoder_args": {
                    "audio_encoding_args": {
                        "sampling_rate": SAMPLE_RATE,
                        "frame_rate": 12.5,
                        "num_mel_bins": audio["num_mel_bins"],
                        "hop_length": 160,
                        "window_size": 400,
                        "chunk_length_s": None,
                        "global_log_mel_max": LOG_MEL_MAX,
                        "transcription_format": "streaming",
                    },
                    "dim": audio["hidden_size"],
                    "n_layers": audio["num_hidden_layers"],
                    "head_dim": audio["head_dim"],
                    "hidden_dim": audio["intermediate_size"],
                    "n_heads": audio["num_attention_heads"],
                    "vocab_size": audio["vocab_size"],
                    "n_kv_heads": audio["num_attention_heads"],
                    "use_biases": True,
                    "use_cache": False,
                    "rope_theta": audio["rope_parameters"]["rope_theta"],
                    "causal": True,
                    "norm_eps": audio["rms_norm_eps"],
                    "pos_embed": "rope",
                    "max_source_positions": None,
                    "ffn_type": "swiglu",
                    "norm_type": "rms_norm",
                    "sliding_window": audio["sliding_window"],
                },
                "downsample_args": {"downsample_factor": config["downsample_factor"]},
            }
        },
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": 32,
    }


def export(model: Path, out: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert config["default_num_delay_tokens"] == DEFAULT_DELAY
    tensors = {}
    for name, x in load_file(model / "model.safetensors").items():
        if re.search(r"\.(q|k)_proj\.", name):
            tower = "audio_config" if name.startswith("audio_tower") else "text_config"
            x = interleaved(x, config[tower]["head_dim"])
        tensors[native_name(name)] = x.to(torch.bfloat16)
    save_file(tensors, out / "consolidated.safetensors")
    (out / "consolidated.safetensors").chmod(0o644)
    (out / "params.json").write_text(json.dumps(params(config), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("target/demo-realtime/hf"))
    parser.add_argument("--out", type=Path, default=Path("voxtral-pipeline/demo-realtime"))
    args = parser.parse_args()
    export(args.model, args.out)


if __name__ == "__main__":
    main()
