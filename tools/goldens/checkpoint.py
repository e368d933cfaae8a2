"""Tiny checkpoints written by transformers and safetensors, for the tests of voxtral-checkpoint.

    python tools/goldens/checkpoint.py voxtral-checkpoint/testdata

For each kind of model (2507 and Realtime), with seeded random weights in bf16:

* NAME/native        params.json and consolidated.safetensors, renamed and permuted here;
* NAME/hf            what transformers' conversion script makes of it: the configuration classes
                     filled from params.json, the position table in float32, `save_pretrained`;
* NAME/hf-sharded    the same in shards of 12 kB, with an index (2507 only);
* NAME/hf-in-memory  the same under the names of the module tree (`model.audio_tower...`), which
                     some uploads carry, with the tied head stored as a copy.

Sizes are odd on purpose: head size other than width / heads, few mel channels, short window.
Needs transformers 5.23.0, torch 2.15.0 and safetensors 0.8.0.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    VoxtralRealtimeForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import sinusoids

SEED = 20250715
FRONT_END = {"sampling_rate": 16000, "num_mel_bins": 20, "hop_length": 160, "window_size": 400}
DECODER = {
    "dim": 24,
    "n_layers": 2,
    "head_dim": 8,
    "hidden_dim": 40,
    "n_heads": 4,
    "n_kv_heads": 2,
    "norm_eps": 1e-5,
    "vocab_size": 64,
}
OFFLINE = {
    **DECODER,
    "rope_theta": 1e8,
    "max_position_embeddings": 131072,
    "multimodal": {
        "whisper_model_args": {
            "encoder_args": {
                "dim": 16,
                "n_layers": 2,
                "head_dim": 8,
                "hidden_dim": 64,
                "n_heads": 2,
                "vocab_size": 51866,
                "max_source_positions": 100,
                "audio_encoding_args": FRONT_END,
            },
            "downsample_args": {"downsample_factor": 4},
        }
    },
}
REALTIME = {
    **DECODER,
    "rope_theta": 1e6,
    "use_biases": False,
    "causal": True,
    "model_parallel": 1,
    "tied_embeddings": True,
    "sliding_window": 5,
    "model_max_length": 131072,
    "ada_rms_norm_t_cond": True,
    "ada_rms_norm_t_cond_dim": 32,
    "multimodal": {
        "whisper_model_args": {
            "encoder_args": {
                "dim": 16,
                "n_layers": 2,
                "head_dim": 12,
                "hidden_dim": 40,
                "n_heads": 2,
                "n_kv_heads": 2,
                "vocab_size": 131072,
                "use_biases": True,
                "use_cache": False,
                "causal": True,
                "rope_theta": 1e6,
                "norm_eps": 1e-5,
                "pos_embed": "rope",
                "max_source_positions": None,
                "ffn_type": "swiglu",
                "norm_type": "rms_norm",
                "sliding_window": 6,
                "audio_encoding_args": {
                    **FRONT_END,
                    "frame_rate": 12.5,
                    "chunk_length_s": None,
                    "global_log_mel_max": 1.5,
                    "transcription_format": "streaming",
                },
            },
            "downsample_args": {"downsample_factor": 4},
        }
    },
}


def text_config(params):
    """The decoder's fields of config.json, as the conversion scripts fill them."""
    return {
        "hidden_size": params["dim"],
        "num_hidden_layers": params["n_layers"],
        "intermediate_size": params["hidden_dim"],
        "num_attention_heads": params["n_heads"],
        "num_key_value_heads": params["n_kv_heads"],
        "rms_norm_eps": params["norm_eps"],
        "head_dim": params["head_dim"],
        "vocab_size": params["vocab_size"],
        "rope_theta": params["rope_theta"],
        "sliding_window": params.get("sliding_window"),
        "max_position_embeddings": params.get("max_seq_len", 131072),
    }


def audio_config(params):
    """The encoder's fields of config.json; the scripts leave the small sizes to their defaults."""
    args = params["multimodal"]["whisper_model_args"]["encoder_args"]
    config = {
        "hidden_size": args["dim"],
        "num_hidden_layers": args["n_layers"],
        "intermediate_size": args["hidden_dim"],
        "num_attention_heads": args["n_heads"],
        "num_key_value_heads": args["n_heads"],
        "head_dim": args["head_dim"],
        "vocab_size": args["vocab_size"],
        "num_mel_bins": args["audio_encoding_args"]["num_mel_bins"],
    }
    if args["max_source_positions"] is not None:
        config["max_source_positions"] = args["max_source_positions"]
    else:
        config["rope_theta"] = args["rope_theta"]
        config["sliding_window"] = args["sliding_window"]
    return config


def build(params, realtime):
    """A model with random weights; norms and biases too, which would hide mistakes as 1 and 0."""
    torch.manual_seed(SEED)
    parts = {"audio_config": audio_config(params), "text_config": text_config(params)}
    if realtime:
        config = VoxtralRealtimeConfig(**parts, projector_hidden_act="gelu")
        model = VoxtralRealtimeForConditionalGeneration(config)
    else:
        config = VoxtralConfig(**parts, audio_token_id=24, projector_hidden_act="gelu")
        model = VoxtralForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.to(torch.bfloat16)
        if not realtime:
            table = model.model.audio_tower.embed_positions
            table.weight = torch.nn.Parameter(sinusoids(*table.weight.shape), requires_grad=False)
    del model.generation_config._from_model_config
    model.generation_config.pad_token_id = 11
    return model


def neighbours(tensor, heads):
    """Rows of each head from halves to neighbouring pairs."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def native_name(name, realtime):
    """The native spelling of an on-disk Hugging Face name."""
    audio = "mm_streams_embeddings.embedding_module" if realtime else "mm_whisper_embeddings"
    conv = ".conv" if realtime else ""
    spellings = [
        ("audio_tower.embedder.conv", "audio_tower.conv"),
        ("audio_tower.conv1", f"{audio}.whisper_encoder.conv_layers.0{conv}"),
        ("audio_tower.conv2", f"{audio}.whisper_encoder.conv_layers.1{conv}"),
        ("audio_tower.layer_norm", "audio_tower.norm"),
        ("audio_tower.", f"{audio}.whisper_encoder.transformer."),
        ("multi_modal_projector.linear_1", f"{audio}.audio_language_projection.0"),
        ("multi_modal_projector.linear_2", f"{audio}.audio_language_projection.2"),
        ("language_model.model.embed_tokens", f"{audio}.tok_embeddings"),
        ("language_model.lm_head", "output"),
        ("language_model.model.", ""),
        ("self_attn_layer_norm", "attention_norm"),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("final_layer_norm", "ffn_norm"),
        ("self_attn.q_proj", "attention.wq"),
        ("self_attn.k_proj", "attention.wk"),
        ("self_attn.v_proj", "attention.wv"),
        ("self_attn.out_proj", "attention.wo"),
        ("self_attn.o_proj", "attention.wo"),
        ("fc1", "feed_forward.w1"),
        ("fc2", "feed_forward.w2"),
        ("mlp.gate_proj", "feed_forward.w1"),
        ("mlp.down_proj", "feed_forward.w2"),
        ("mlp.up_proj", "feed_forward.w3"),
        ("ada_rms_norm.linear1", "ada_rms_norm_t_cond.0"),
        ("ada_rms_norm.linear2", "ada_rms_norm_t_cond.2"),
    ]
    for old, new in spellings:
        name = name.replace(old, new)
    return name


def write_native(folder, params, tensors, realtime):
    """params.json and consolidated.safetensors."""
    encoder_heads = params["multimodal"]["whisper_model_args"]["encoder_args"]["n_heads"]
    native = {}
    for name, tensor in tensors.items():
        if "embed_positions" in name:
            continue
        audio = name.startswith("audio_tower")
        if realtime or not audio:
            if "q_proj" in name:
                tensor = neighbours(tensor, encoder_heads if audio else params["n_heads"])
            if "k_proj" in name:
                tensor = neighbours(tensor, encoder_heads if audio else params["n_kv_heads"])
        native[native_name(name, realtime)] = tensor
    folder.mkdir(parents=True)
    save_file(native, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(params, indent=2, sort_keys=True) + "\n")


def main(out):
    for name, params, realtime in (("offline", OFFLINE, False), ("realtime", REALTIME, True)):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        model = build(params, realtime)
        if realtime:
            extractor = VoxtralRealtimeFeatureExtractor(feature_size=FRONT_END["num_mel_bins"])
        else:
            # 100 positions, at 50 a second.
            extractor = WhisperFeatureExtractor(feature_size=FRONT_END["num_mel_bins"], chunk_length=2)
        for variant, limit in (("hf", "5GB"), ("hf-sharded", "12KB"), ("hf-in-memory", "5GB")):
            if realtime and variant == "hf-sharded":
                continue
            model.save_pretrained(folder / variant, max_shard_size=limit)
            extractor.save_pretrained(folder / variant)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        save_file(state, folder / "hf-in-memory" / "model.safetensors", {"format": "pt"})
        tensors = load_file(folder / "hf" / "model.safetensors")
        write_native(folder / "native", params, tensors, realtime)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
