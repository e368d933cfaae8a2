//! [`ModelConfig`] to `params.json`.

use serde_json::{Value, json};

use crate::config::{Fusion, Mask, ModelConfig, Norm, Position};
use crate::hf::{merge, shortest};

/// The contents of `params.json`; `encoder_vocab` is the encoder's unused vocabulary.
///
/// The offline models' file has the keys that vLLM and transformers index, the streaming models'
/// those of the published file.
pub(crate) fn params_json(config: &ModelConfig, encoder_vocab: Option<u64>) -> Value {
    let decoder = &config.decoder;
    let mut json = json!({
        "dim": decoder.hidden_size,
        "n_layers": decoder.num_layers,
        "head_dim": decoder.attention.head_dim,
        "hidden_dim": decoder.intermediate_size,
        "n_heads": decoder.attention.num_heads,
        "n_kv_heads": decoder.attention.num_kv_heads,
        "rope_theta": decoder.rope_theta,
        "norm_eps": decoder.norm_eps,
        "vocab_size": decoder.vocab_size,
        "multimodal": { "whisper_model_args": {
            "encoder_args": encoder_json(config, encoder_vocab),
            "downsample_args": { "downsample_factor": config.projector.downsample },
        } },
    });
    if let Mask::SlidingWindow(window) = decoder.mask {
        merge(&mut json, json!({ "sliding_window": window }));
    }
    if decoder.tied_head {
        merge(&mut json, json!({ "tied_embeddings": true }));
    }
    if let Some(width) = decoder.ada_norm {
        let ada = json!({ "ada_rms_norm_t_cond": true, "ada_rms_norm_t_cond_dim": width });
        merge(&mut json, ada);
    }
    let streaming = matches!(config.fusion, Fusion::Sum { .. });
    if streaming {
        merge(
            &mut json,
            json!({ "use_biases": false, "causal": true, "model_parallel": 1 }),
        );
    }
    if let Some(positions) = decoder.max_positions {
        let key = if streaming {
            "model_max_length"
        } else {
            "max_position_embeddings"
        };
        merge(&mut json, json!({ key: positions }));
    }
    json
}

fn encoder_json(config: &ModelConfig, vocab: Option<u64>) -> Value {
    let (encoder, features) = (&config.encoder, &config.features);
    let mut audio = json!({
        "sampling_rate": features.sample_rate,
        "num_mel_bins": features.num_mel_bins,
        "hop_length": features.hop_length,
        "window_size": features.window_size,
    });
    if let Some(maximum) = features.log_mel_max {
        merge(
            &mut audio,
            json!({ "global_log_mel_max": shortest(maximum) }),
        );
    }
    let mut json = json!({
        "dim": encoder.hidden_size,
        "n_layers": encoder.num_layers,
        "head_dim": encoder.attention.head_dim,
        "hidden_dim": encoder.intermediate_size,
        "n_heads": encoder.attention.num_heads,
    });
    if let Some(vocab) = vocab {
        merge(&mut json, json!({ "vocab_size": vocab }));
    }
    match encoder.position {
        Position::Table { max_positions } => {
            merge(&mut json, json!({ "max_source_positions": max_positions }));
        }
        Position::Rope { theta } => {
            // The stem halves the frame rate, then the projector stacks.
            let token = features.hop_length * 2 * config.projector.downsample.get();
            merge(
                &mut audio,
                json!({
                    "frame_rate": f64::from(features.sample_rate) / token as f64,
                    "chunk_length_s": null,
                    "transcription_format": "streaming",
                }),
            );
            merge(&mut json, streaming_json(config, theta));
        }
    }
    merge(&mut json, json!({ "audio_encoding_args": audio }));
    json
}

fn streaming_json(config: &ModelConfig, theta: f64) -> Value {
    let encoder = &config.encoder;
    let (Norm::Rms { eps } | Norm::Layer { eps }) = encoder.norm;
    let mut json = json!({
        "n_kv_heads": encoder.attention.num_kv_heads,
        "use_biases": true,
        "use_cache": false,
        "rope_theta": theta,
        "causal": true,
        "norm_eps": eps,
        "pos_embed": "rope",
        "max_source_positions": null,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
    });
    if let Mask::SlidingWindow(window) = encoder.mask {
        merge(&mut json, json!({ "sliding_window": window }));
    }
    json
}
