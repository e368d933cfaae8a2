//! `params.json` to [`ModelConfig`].
//!
//! Keys that vLLM and transformers index must be there; what an absent one of the others means
//! stands at its place, after vLLM's `transformers_utils/configs/mistral.py`. Unknown keys are
//! tolerated, except those that would change the computation.

use crate::config::{
    AttentionConfig, ConvPadding, DecoderConfig, EncoderConfig, FeatureConfig, Fusion, Mask, Mlp,
    ModelConfig, Norm, Position, ProjectorConfig,
};
use crate::error::CheckpointError;
use crate::hf::LAYER_NORM_EPS;
use crate::json::Field;

/// Keys of Mistral's files that ask for something no Voxtral model has.
const FOREIGN: [&str; 6] = [
    "yarn",
    "rope_scaling",
    "llama_4_scaling",
    "moe",
    "quantization",
    "lora",
];

/// Reads the model's configuration.
pub(crate) fn read(root: &Field<'_>) -> Result<ModelConfig, CheckpointError> {
    for key in FOREIGN {
        if let Some(field) = root.get(key) {
            return Err(field.unsupported("none"));
        }
    }
    let audio = root.need("multimodal")?.need("whisper_model_args")?;
    let args = audio.need("encoder_args")?;
    // vLLM tells the streaming models by their causal encoder.
    let causal = flag(&args, "causal", false)?;
    let encoder = encoder(&args, causal)?;
    let decoder = decoder(root)?;
    let downsample = audio
        .need("downsample_args")?
        .need("downsample_factor")?
        .nonzero()?;
    Ok(ModelConfig {
        features: front_end(&args.need("audio_encoding_args")?)?,
        projector: ProjectorConfig {
            downsample,
            input_size: downsample.get() * encoder.hidden_size,
            output_size: decoder.hidden_size,
        },
        encoder,
        decoder,
        // The placeholder's id and the default delay are the tokenizer's in this form.
        fusion: if causal {
            Fusion::Sum {
                default_delay_tokens: None,
            }
        } else {
            Fusion::Splice {
                audio_token_id: None,
            }
        },
    })
}

fn encoder(args: &Field<'_>, causal: bool) -> Result<EncoderConfig, CheckpointError> {
    if !flag(args, "use_biases", true)? {
        return Err(args.need("use_biases")?.unsupported("true"));
    }
    let num_heads = args.need("n_heads")?.size()?;
    let num_kv_heads = args
        .get("n_kv_heads")
        .map_or(Ok(num_heads), |field| field.size())?;
    let max_positions = || args.need("max_source_positions")?.size();
    let position = match choice(args, "pos_embed", "sinusoidal", "rope")? {
        false => Position::Table {
            max_positions: max_positions()?,
        },
        true => Position::Rope {
            theta: args.need("rope_theta")?.positive()?,
        },
    };
    let norm = match choice(args, "norm_type", "layer_norm", "rms_norm")? {
        false => Norm::Layer {
            eps: args
                .get("norm_eps")
                .map_or(Ok(LAYER_NORM_EPS), |field| field.positive())?,
        },
        true => Norm::Rms {
            eps: args.need("norm_eps")?.positive()?,
        },
    };
    let mlp = match choice(args, "ffn_type", "mlp", "swiglu")? {
        false => Mlp::Gelu,
        true => Mlp::SwiGlu,
    };
    let config = EncoderConfig {
        num_mel_bins: args
            .need("audio_encoding_args")?
            .need("num_mel_bins")?
            .size()?,
        hidden_size: args.need("dim")?.size()?,
        intermediate_size: args.need("hidden_dim")?.size()?,
        num_layers: args.need("n_layers")?.size()?,
        attention: AttentionConfig {
            num_heads,
            num_kv_heads,
            head_dim: args.need("head_dim")?.size()?,
        },
        norm,
        mlp,
        position,
        padding: if causal {
            ConvPadding::Causal
        } else {
            ConvPadding::Symmetric
        },
        mask: if causal {
            causal_mask(args)?
        } else {
            Mask::Full
        },
    };
    check_kind(args, causal, &config)?;
    Ok(config)
}

/// The names of tensors follow the kind, so its parts come together or not at all.
fn check_kind(
    args: &Field<'_>,
    causal: bool,
    config: &EncoderConfig,
) -> Result<(), CheckpointError> {
    let parts = [
        (
            "pos_embed",
            matches!(config.position, Position::Rope { .. }),
        ),
        ("norm_type", matches!(config.norm, Norm::Rms { .. })),
        ("ffn_type", config.mlp == Mlp::SwiGlu),
    ];
    match parts.iter().find(|(_, streaming)| *streaming != causal) {
        None => Ok(()),
        Some((key, _)) => Err(CheckpointError::Inconsistent {
            file: args.file(),
            what: format!(
                "encoder_args.causal is {causal}, which does not go with encoder_args.{key}"
            ),
        }),
    }
}

fn decoder(root: &Field<'_>) -> Result<DecoderConfig, CheckpointError> {
    if flag(root, "use_biases", false)? {
        return Err(root.need("use_biases")?.unsupported("false"));
    }
    let ada_norm = match flag(root, "ada_rms_norm_t_cond", false)? {
        true => Some(root.need("ada_rms_norm_t_cond_dim")?.size()?),
        false => None,
    };
    let max_positions = ["max_position_embeddings", "max_seq_len", "model_max_length"]
        .iter()
        .find_map(|key| root.get(key))
        .map(|field| field.size())
        .transpose()?;
    Ok(DecoderConfig {
        vocab_size: root.need("vocab_size")?.size()?,
        hidden_size: root.need("dim")?.size()?,
        intermediate_size: root.need("hidden_dim")?.size()?,
        num_layers: root.need("n_layers")?.size()?,
        attention: AttentionConfig {
            num_heads: root.need("n_heads")?.size()?,
            num_kv_heads: root.need("n_kv_heads")?.size()?,
            head_dim: root.need("head_dim")?.size()?,
        },
        norm_eps: root.need("norm_eps")?.positive()?,
        rope_theta: root.need("rope_theta")?.positive()?,
        mask: causal_mask(root)?,
        tied_head: flag(root, "tied_embeddings", false)?,
        ada_norm,
        max_positions,
    })
}

fn front_end(at: &Field<'_>) -> Result<FeatureConfig, CheckpointError> {
    Ok(FeatureConfig {
        sample_rate: at.need("sampling_rate")?.id()?,
        num_mel_bins: at.need("num_mel_bins")?.size()?,
        hop_length: at.need("hop_length")?.size()?,
        window_size: at.need("window_size")?.size()?,
        // Absent: the clip's own maximum.
        log_mel_max: at
            .get("global_log_mel_max")
            .map(|field| field.number())
            .transpose()?
            .map(|maximum| maximum as f32),
    })
}

fn causal_mask(at: &Field<'_>) -> Result<Mask, CheckpointError> {
    let window = at
        .get("sliding_window")
        .map(|field| field.window())
        .transpose()?
        .flatten();
    Ok(window.map_or(Mask::Causal, Mask::SlidingWindow))
}

/// A flag, with what its absence means.
fn flag(at: &Field<'_>, key: &str, absent: bool) -> Result<bool, CheckpointError> {
    at.get(key).map_or(Ok(absent), |field| field.flag())
}

/// Whether `key` is `second`; absent it is `first`, and there is nothing else.
fn choice(at: &Field<'_>, key: &str, first: &str, second: &str) -> Result<bool, CheckpointError> {
    match at.get(key) {
        None => Ok(false),
        Some(field) => match field.text()? {
            text if text == second => Ok(true),
            text if text == first => Ok(false),
            _ => Err(field.unsupported(&format!("\"{first}\" and \"{second}\""))),
        },
    }
}
