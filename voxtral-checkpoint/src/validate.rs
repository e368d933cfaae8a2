//! Whether the numbers of a configuration agree with each other, whatever file they came from.

use crate::config::{AttentionConfig, ModelConfig, Position};
use crate::error::CheckpointError;

/// More layers than any model has; a damaged file must not make us list billions of tensors.
const MAX_LAYERS: usize = 4096;

/// Checks `config`, which `file` describes.
pub(crate) fn validate(file: &str, config: &ModelConfig) -> Result<(), CheckpointError> {
    problem(config).map_or(Ok(()), |what| {
        Err(CheckpointError::Inconsistent {
            file: file.to_owned(),
            what,
        })
    })
}

fn problem(config: &ModelConfig) -> Option<String> {
    let (encoder, decoder) = (&config.encoder, &config.decoder);
    let layers = encoder.num_layers.max(decoder.num_layers);
    if layers > MAX_LAYERS {
        return Some(format!(
            "{layers} layers, and at most {MAX_LAYERS} make sense"
        ));
    }
    if config.features.num_mel_bins != encoder.num_mel_bins {
        return Some(format!(
            "the front-end makes {} mel channels, and the encoder takes {}",
            config.features.num_mel_bins, encoder.num_mel_bins
        ));
    }
    let rotary = matches!(encoder.position, Position::Rope { .. });
    heads("encoder", encoder.attention, rotary)
        .or_else(|| heads("decoder", decoder.attention, true))
        .or_else(|| table(config))
}

fn heads(part: &str, attention: AttentionConfig, rotary: bool) -> Option<String> {
    let AttentionConfig {
        num_heads,
        num_kv_heads,
        head_dim,
    } = attention;
    if num_heads % num_kv_heads != 0 {
        return Some(format!(
            "the {part}'s {num_heads} query heads are not a multiple of its {num_kv_heads} key heads"
        ));
    }
    (rotary && head_dim % 2 != 0).then(|| {
        format!("the {part}'s head size {head_dim} is odd, and rotary embeddings turn pairs")
    })
}

fn table(config: &ModelConfig) -> Option<String> {
    let Position::Table { max_positions } = config.encoder.position else {
        return None;
    };
    let (width, stack) = (config.encoder.hidden_size, config.projector.downsample);
    if max_positions % stack != 0 {
        return Some(format!(
            "{max_positions} encoder positions are not a multiple of the stacking {stack}"
        ));
    }
    // The sinusoid divides by width / 2 − 1.
    (width % 2 != 0 || width < 4)
        .then(|| format!("an encoder of width {width} has no table of sines and cosines"))
}
