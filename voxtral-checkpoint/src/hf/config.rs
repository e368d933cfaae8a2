//! `config.json` and `preprocessor_config.json` to [`ModelConfig`].
//!
//! transformers 5.23 writes every field of its configuration classes, so a field that is missing
//! here is an error. What the files never state stands in this module's constants and in the
//! comments of [`tied`] and [`encoder_heads`].

use std::num::NonZeroUsize;

use crate::config::{
    AttentionConfig, ConvPadding, DecoderConfig, EncoderConfig, FeatureConfig, Fusion, Mask, Mlp,
    ModelConfig, Norm, Position, ProjectorConfig,
};
use crate::error::CheckpointError;
use crate::json::Field;

/// Epsilon of the Whisper encoder's layer norms: PyTorch's default for `LayerNorm`, which
/// `VoxtralEncoderLayer` does not override and no configuration states.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-5;

/// Bottleneck of the delay conditioning: `VoxtralRealtimeTextAdaRmsNorm` spells it out, and
/// `VoxtralRealtimeTextConfig` has no field for it.
pub(crate) const ADA_NORM_WIDTH: usize = 32;

/// Reads the model's configuration; `features` is the front-end's.
pub(crate) fn read(root: &Field<'_>, features: &Field<'_>) -> Result<ModelConfig, CheckpointError> {
    let realtime = match root.need("model_type")?.text()? {
        "voxtral" => false,
        "voxtral_realtime" => true,
        _ => {
            return Err(root
                .need("model_type")?
                .unsupported("\"voxtral\" and \"voxtral_realtime\""));
        }
    };
    if let Some(activation) = root.get("projector_hidden_act") {
        activation.only("gelu")?;
    }
    let (audio, text) = (root.need("audio_config")?, root.need("text_config")?);
    let encoder = if realtime {
        streaming_encoder(&audio)?
    } else {
        whisper_encoder(&audio)?
    };
    let decoder = decoder(root, &text, realtime)?;
    let downsample = if realtime {
        root.need("downsample_factor")?.nonzero()?
    } else {
        stacking(&audio, &encoder)?
    };
    let fusion = if realtime {
        check_frames_per_token(root, downsample)?;
        let delay = root
            .get("default_num_delay_tokens")
            .map(|field| field.id())
            .transpose()?;
        Fusion::Sum {
            default_delay_tokens: delay.map(|tokens| tokens as usize),
        }
    } else {
        let id = root
            .get("audio_token_id")
            .map(|field| field.id())
            .transpose()?;
        Fusion::Splice { audio_token_id: id }
    };
    let projector = ProjectorConfig {
        downsample,
        input_size: downsample.get() * encoder.hidden_size,
        output_size: decoder.hidden_size,
    };
    Ok(ModelConfig {
        features: front_end(features, realtime)?,
        encoder,
        projector,
        decoder,
        fusion,
    })
}

/// transformers reshapes encoder frames to rows of `intermediate_size`, so the stacking is implied.
fn stacking(audio: &Field<'_>, encoder: &EncoderConfig) -> Result<NonZeroUsize, CheckpointError> {
    let (inner, width) = (encoder.intermediate_size, encoder.hidden_size);
    NonZeroUsize::new(inner / width).filter(|_| inner % width == 0).ok_or_else(|| {
        CheckpointError::Inconsistent {
            file: audio.file(),
            what: format!(
                "audio_config.intermediate_size ({inner}), the projector's input, is not a multiple of \
                 audio_config.hidden_size ({width})"
            ),
        }
    })
}

/// The stem halves the frame rate, then `downsample` frames make one token.
fn check_frames_per_token(
    root: &Field<'_>,
    downsample: NonZeroUsize,
) -> Result<(), CheckpointError> {
    let Some(field) = root.get("audio_length_per_tok") else {
        return Ok(());
    };
    let (found, expected) = (field.size()?, 2 * downsample.get());
    if found == expected {
        return Ok(());
    }
    Err(CheckpointError::Inconsistent {
        file: root.file(),
        what: format!("audio_length_per_tok is {found}, and 2 · downsample_factor is {expected}"),
    })
}

fn whisper_encoder(audio: &Field<'_>) -> Result<EncoderConfig, CheckpointError> {
    check_kind(audio, "voxtral_encoder")?;
    if let Some(scale) = audio.get("scale_embedding") {
        scale.only_flag(false)?;
    }
    let position = Position::Table {
        max_positions: audio.need("max_source_positions")?.size()?,
    };
    let norm = Norm::Layer {
        eps: LAYER_NORM_EPS,
    };
    encoder(
        audio,
        norm,
        Mlp::Gelu,
        position,
        ConvPadding::Symmetric,
        Mask::Full,
    )
}

fn streaming_encoder(audio: &Field<'_>) -> Result<EncoderConfig, CheckpointError> {
    check_kind(audio, "voxtral_realtime_encoder")?;
    audio.need("hidden_act")?.only("silu")?;
    let position = Position::Rope {
        theta: rope_theta(audio)?,
    };
    let norm = Norm::Rms {
        eps: audio.need("rms_norm_eps")?.positive()?,
    };
    encoder(
        audio,
        norm,
        Mlp::SwiGlu,
        position,
        ConvPadding::Causal,
        causal_mask(audio)?,
    )
}

/// What both encoders state alike.
fn encoder(
    audio: &Field<'_>,
    norm: Norm,
    mlp: Mlp,
    position: Position,
    padding: ConvPadding,
    mask: Mask,
) -> Result<EncoderConfig, CheckpointError> {
    audio.need("activation_function")?.only("gelu")?;
    let hidden_size = audio.need_any(["hidden_size", "d_model"])?.size()?;
    Ok(EncoderConfig {
        num_mel_bins: audio.need("num_mel_bins")?.size()?,
        hidden_size,
        intermediate_size: audio
            .need_any(["intermediate_size", "encoder_ffn_dim"])?
            .size()?,
        num_layers: audio
            .need_any(["num_hidden_layers", "encoder_layers"])?
            .size()?,
        attention: encoder_heads(audio, hidden_size)?,
        norm,
        mlp,
        position,
        padding,
        mask,
    })
}

/// `VoxtralAttention` derives its head size as width / heads and has as many key heads as query
/// heads; files made by the conversion script state both all the same. What is stated counts.
fn encoder_heads(
    audio: &Field<'_>,
    hidden_size: usize,
) -> Result<AttentionConfig, CheckpointError> {
    let heads = audio.need_any(["num_attention_heads", "encoder_attention_heads"])?;
    let num_heads = heads.size()?;
    let num_kv_heads = match audio.get("num_key_value_heads") {
        Some(field) => field.size()?,
        None => num_heads,
    };
    let head_dim = match audio.get("head_dim") {
        Some(field) => field.size()?,
        None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
        None => return Err(heads.bad(&format!("a divisor of the width {hidden_size}"))),
    };
    Ok(AttentionConfig {
        num_heads,
        num_kv_heads,
        head_dim,
    })
}

fn decoder(
    root: &Field<'_>,
    text: &Field<'_>,
    realtime: bool,
) -> Result<DecoderConfig, CheckpointError> {
    check_kind(
        text,
        if realtime {
            "voxtral_realtime_text"
        } else {
            "llama"
        },
    )?;
    text.need("hidden_act")?.only("silu")?;
    for bias in ["attention_bias", "mlp_bias"] {
        if let Some(field) = text.get(bias) {
            field.only_flag(false)?;
        }
    }
    Ok(DecoderConfig {
        vocab_size: text.need("vocab_size")?.size()?,
        hidden_size: text.need("hidden_size")?.size()?,
        intermediate_size: text.need("intermediate_size")?.size()?,
        num_layers: text.need("num_hidden_layers")?.size()?,
        attention: AttentionConfig {
            num_heads: text.need("num_attention_heads")?.size()?,
            num_kv_heads: text.need("num_key_value_heads")?.size()?,
            head_dim: text.need("head_dim")?.size()?,
        },
        norm_eps: text.need("rms_norm_eps")?.positive()?,
        rope_theta: rope_theta(text)?,
        mask: causal_mask(text)?,
        tied_head: tied(root, text, realtime)?,
        ada_norm: realtime.then_some(ADA_NORM_WIDTH),
        max_positions: text
            .get("max_position_embeddings")
            .map(|field| field.size())
            .transpose()?,
    })
}

/// Older versions of transformers leave the field out where it equals its class's default: false
/// for `LlamaConfig`, true for `VoxtralRealtimeConfig`, which states it at the top.
fn tied(root: &Field<'_>, text: &Field<'_>, realtime: bool) -> Result<bool, CheckpointError> {
    const FIELD: &str = "tie_word_embeddings";
    let flag = |at: &Field<'_>| at.get(FIELD).map(|field| field.flag()).transpose();
    match (flag(root)?, flag(text)?) {
        (Some(top), Some(inner)) if top != inner => Err(CheckpointError::Inconsistent {
            file: root.file(),
            what: format!("{FIELD} is {top}, and text_config.{FIELD} is {inner}"),
        }),
        (Some(flag), _) | (None, Some(flag)) => Ok(flag),
        (None, None) => Ok(realtime),
    }
}

/// The base, where newer (`rope_parameters`) or older (`rope_theta`, `rope_scaling`) files put it.
fn rope_theta(at: &Field<'_>) -> Result<f64, CheckpointError> {
    let nested = at.get("rope_parameters");
    for scaling in nested.iter().chain(at.get("rope_scaling").iter()) {
        for key in ["rope_type", "type"] {
            if let Some(kind) = scaling.get(key) {
                kind.only("default")?;
            }
        }
    }
    match nested
        .as_ref()
        .and_then(|field| field.get("rope_theta"))
        .or_else(|| at.get("rope_theta"))
    {
        Some(theta) => theta.positive(),
        None => nested.as_ref().unwrap_or(at).need("rope_theta")?.positive(),
    }
}

fn causal_mask(at: &Field<'_>) -> Result<Mask, CheckpointError> {
    let window = at
        .get("sliding_window")
        .map(|field| field.window())
        .transpose()?
        .flatten();
    Ok(window.map_or(Mask::Causal, Mask::SlidingWindow))
}

fn check_kind(at: &Field<'_>, expected: &str) -> Result<(), CheckpointError> {
    at.get("model_type")
        .map_or(Ok(()), |kind| kind.only(expected))
}

/// The log-mel front-end: WhisperFeatureExtractor, or VoxtralRealtimeFeatureExtractor.
fn front_end(at: &Field<'_>, realtime: bool) -> Result<FeatureConfig, CheckpointError> {
    let n_fft = at.need("n_fft")?;
    let window_size = n_fft.size()?;
    if let Some(window) = at.get("win_length")
        && window.size()? != window_size
    {
        return Err(window.unsupported(&format!("n_fft, {window_size}")));
    }
    if let Some(dither) = at.get("dither")
        && dither.number()? != 0.0
    {
        return Err(dither.unsupported("0"));
    }
    let log_mel_max = match (
        at.get("global_log_mel_max"),
        at.value().get("global_log_mel_max"),
    ) {
        (Some(field), _) => Some(field.number()? as f32),
        // A null means the clip's own maximum; the streaming extractor always states one or other.
        (None, None) if realtime => Some(at.need("global_log_mel_max")?.number()? as f32),
        (None, _) => None,
    };
    Ok(FeatureConfig {
        sample_rate: at.need("sampling_rate")?.id()?,
        num_mel_bins: at.need("feature_size")?.size()?,
        hop_length: at.need("hop_length")?.size()?,
        window_size,
        log_mel_max,
    })
}
