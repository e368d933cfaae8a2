//! [`ModelConfig`] to the JSON files of the Hugging Face form.
//!
//! The files are those that transformers' `convert_voxtral*_weights_to_hf.py` end up with, written
//! by `save_pretrained` of transformers 5.23: every field of the configuration classes, with the
//! classes' defaults where the native form has nothing to say.

use serde_json::{Value, json};

use super::LAYER_NORM_EPS;
use crate::config::{Fusion, Mask, ModelConfig, Norm, Position};
use crate::dtype::Dtype;
use crate::error::CheckpointError;

/// The version whose files these are.
const VERSION: &str = "5.23.0";

/// What the conversion script puts for the `[AUDIO]` token, and the tokenizers agree.
const AUDIO_TOKEN: u32 = 24;
/// `max_position_embeddings` where `params.json` states none: the conversion script's.
const MAX_POSITIONS: usize = 131_072;
/// `VoxtralRealtimeConfig.default_num_delay_tokens`.
const DELAY_TOKENS: usize = 6;
/// `VoxtralRealtimeEncoderConfig.max_position_embeddings`, which limits nothing.
const ENCODER_POSITIONS: usize = 1500;

/// What a `config.json` holds beyond [`ModelConfig`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra {
    /// The type that the weights have.
    pub(crate) dtype: Dtype,
    /// The encoder's unused vocabulary.
    pub(crate) encoder_vocab: Option<u64>,
    /// The id of `[AUDIO]`, where the tokenizer states it.
    pub(crate) audio_token: Option<u32>,
}

/// The contents of `config.json`.
pub(crate) fn config_json(config: &ModelConfig, extra: Extra) -> Result<Value, CheckpointError> {
    match config.fusion {
        Fusion::Splice { audio_token_id } => {
            let token = audio_token_id.or(extra.audio_token).unwrap_or(AUDIO_TOKEN);
            offline(config, extra, token)
        }
        Fusion::Sum {
            default_delay_tokens,
        } => realtime(config, extra, default_delay_tokens.unwrap_or(DELAY_TOKENS)),
    }
}

fn offline(config: &ModelConfig, extra: Extra, token: u32) -> Result<Value, CheckpointError> {
    let (encoder, decoder) = (&config.encoder, &config.decoder);
    let heads = encoder.attention;
    let stacked = config.projector.input_size;
    if encoder.intermediate_size != stacked {
        return Err(no_place(format!(
            "transformers takes the projector's input size for the encoder's feed-forward width, and \
             they are {stacked} and {}",
            encoder.intermediate_size
        )));
    }
    if heads.num_heads * heads.head_dim != encoder.hidden_size
        || heads.num_kv_heads != heads.num_heads
    {
        return Err(no_place(
            "the encoder's heads do not make up its width".to_owned(),
        ));
    }
    if encoder.norm
        != (Norm::Layer {
            eps: LAYER_NORM_EPS,
        })
        || decoder.ada_norm.is_some()
    {
        return Err(no_place(
            "its norms are not those of VoxtralForConditionalGeneration".to_owned(),
        ));
    }
    let Position::Table { max_positions } = encoder.position else {
        return Err(no_place("its encoder has rotary positions".to_owned()));
    };
    let window = match decoder.mask {
        Mask::SlidingWindow(window) => Some(window),
        Mask::Causal | Mask::Full => None,
    };
    let mut text = text_json(config);
    merge(
        &mut text,
        json!({
            "model_type": "llama",
            "attention_bias": false,
            "mlp_bias": false,
            "pretraining_tp": 1,
            "sliding_window": window,
        }),
    );
    Ok(json!({
        "architectures": ["VoxtralForConditionalGeneration"],
        "model_type": "voxtral",
        "dtype": extra.dtype.torch_name(),
        "hidden_size": decoder.hidden_size,
        "audio_token_id": token,
        "projector_hidden_act": "gelu",
        "transformers_version": VERSION,
        "audio_config": {
            "model_type": "voxtral_encoder",
            "activation_dropout": 0.0,
            "activation_function": "gelu",
            "attention_dropout": 0.0,
            "dropout": 0.0,
            "head_dim": heads.head_dim,
            "hidden_size": encoder.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": encoder.intermediate_size,
            "layerdrop": 0.0,
            "max_source_positions": max_positions,
            "num_attention_heads": heads.num_heads,
            "num_hidden_layers": encoder.num_layers,
            "num_key_value_heads": heads.num_kv_heads,
            "num_mel_bins": encoder.num_mel_bins,
            "scale_embedding": false,
            "vocab_size": extra.encoder_vocab.unwrap_or(51_866),
        },
        "text_config": text,
    }))
}

fn realtime(config: &ModelConfig, extra: Extra, delay: usize) -> Result<Value, CheckpointError> {
    let (encoder, decoder) = (&config.encoder, &config.decoder);
    let heads = encoder.attention;
    let (Norm::Rms { eps }, Position::Rope { theta }) = (encoder.norm, encoder.position) else {
        return Err(no_place(
            "its encoder is not that of VoxtralRealtime".to_owned(),
        ));
    };
    let (Mask::SlidingWindow(window), Mask::SlidingWindow(text_window)) =
        (encoder.mask, decoder.mask)
    else {
        return Err(no_place("it has no sliding windows".to_owned()));
    };
    if heads.num_kv_heads != heads.num_heads || decoder.ada_norm != Some(super::ADA_NORM_WIDTH) {
        return Err(no_place(
            "transformers fixes the encoder's key heads and the width of the delay conditioning"
                .to_owned(),
        ));
    }
    let mut text = text_json(config);
    merge(
        &mut text,
        json!({
            "model_type": "voxtral_realtime_text",
            "sliding_window": text_window,
        }),
    );
    Ok(json!({
        "architectures": ["VoxtralRealtimeForConditionalGeneration"],
        "model_type": "voxtral_realtime",
        "dtype": extra.dtype.torch_name(),
        "hidden_size": decoder.hidden_size,
        "audio_length_per_tok": 2 * config.projector.downsample.get(),
        "default_num_delay_tokens": delay,
        "downsample_factor": config.projector.downsample,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": decoder.tied_head,
        "transformers_version": VERSION,
        "use_cache": true,
        "audio_config": {
            "model_type": "voxtral_realtime_encoder",
            "activation_function": "gelu",
            "attention_dropout": 0.0,
            "head_dim": heads.head_dim,
            "hidden_act": "silu",
            "hidden_size": encoder.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": encoder.intermediate_size,
            "max_position_embeddings": ENCODER_POSITIONS,
            "num_attention_heads": heads.num_heads,
            "num_hidden_layers": encoder.num_layers,
            "num_mel_bins": encoder.num_mel_bins,
            "rms_norm_eps": eps,
            "rope_parameters": { "rope_theta": theta, "rope_type": "default" },
            "sliding_window": window,
            "use_cache": true,
            "vocab_size": extra.encoder_vocab.unwrap_or(131_072),
        },
        "text_config": text,
    }))
}

/// What both kinds of decoder state alike.
fn text_json(config: &ModelConfig) -> Value {
    let decoder = &config.decoder;
    json!({
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": decoder.attention.head_dim,
        "hidden_act": "silu",
        "hidden_size": decoder.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": decoder.intermediate_size,
        "max_position_embeddings": decoder.max_positions.unwrap_or(MAX_POSITIONS),
        "num_attention_heads": decoder.attention.num_heads,
        "num_hidden_layers": decoder.num_layers,
        "num_key_value_heads": decoder.attention.num_kv_heads,
        "pad_token_id": null,
        "rms_norm_eps": decoder.norm_eps,
        "rope_parameters": { "rope_theta": decoder.rope_theta, "rope_type": "default" },
        "tie_word_embeddings": decoder.tied_head,
        "use_cache": true,
        "vocab_size": decoder.vocab_size,
    })
}

/// The contents of `generation_config.json`; the script sets the padding token.
pub(crate) fn generation_json() -> Value {
    json!({
        "bos_token_id": 1,
        "eos_token_id": 2,
        "output_attentions": false,
        "output_hidden_states": false,
        "pad_token_id": 11,
        "transformers_version": VERSION,
        "use_cache": true,
    })
}

/// The contents of `preprocessor_config.json`: WhisperFeatureExtractor's, whose window is what the
/// encoder's positions hold, or VoxtralRealtimeFeatureExtractor's.
pub(crate) fn preprocessor_json(config: &ModelConfig) -> Value {
    let features = &config.features;
    let mut json = json!({
        "feature_size": features.num_mel_bins,
        "hop_length": features.hop_length,
        "n_fft": features.window_size,
        "padding_side": "right",
        "padding_value": 0.0,
        "sampling_rate": features.sample_rate,
    });
    let own = match config.encoder.position {
        Position::Table { max_positions } => {
            let samples = 2 * max_positions * features.hop_length;
            let seconds = samples as f64 / f64::from(features.sample_rate);
            json!({
                "chunk_length": if seconds.fract() == 0.0 { json!(seconds as u64) } else { json!(seconds) },
                "dither": 0.0,
                "feature_extractor_type": "WhisperFeatureExtractor",
                "n_samples": samples,
                "nb_max_frames": 2 * max_positions,
                "return_attention_mask": false,
            })
        }
        Position::Rope { .. } => json!({
            "feature_extractor_type": "VoxtralRealtimeFeatureExtractor",
            "global_log_mel_max": features.log_mel_max.map(shortest),
            "return_attention_mask": true,
            "win_length": features.window_size,
        }),
    };
    merge(&mut json, own);
    json
}

/// The double that prints as the single does.
pub(crate) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// Adds the members of `more` to `json`.
pub(crate) fn merge(json: &mut Value, more: Value) {
    if let (Value::Object(json), Value::Object(more)) = (json, more) {
        json.extend(more);
    }
}

fn no_place(why: String) -> CheckpointError {
    CheckpointError::NotExpressible {
        form: crate::Form::HuggingFace,
        why,
    }
}
