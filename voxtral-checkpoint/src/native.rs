//! The native form: names, layout and files.
//!
//! Sources: the readers of transformers (`convert_voxtral*_weights_to_hf.py`), vLLM (`voxtral.py`,
//! `voxtral_realtime.py`) and antirez/voxtral.c, which agree.

mod config;
mod emit;

pub(crate) use config::read;
pub(crate) use emit::params_json;

use crate::form::{Rule, Stored};
use crate::names::{Module, TensorSpec};

/// The configuration of the model and its front-end.
pub(crate) const PARAMS: &str = "params.json";
/// All weights.
pub(crate) const WEIGHTS: &str = "consolidated.safetensors";

/// Where this form stores a tensor: rotated rows lie in neighbouring pairs, and the position table
/// is left out.
pub(crate) fn stored(spec: &TensorSpec, realtime: bool) -> Stored {
    let (audio, modules) = modules(spec.module, realtime);
    let names = modules
        .iter()
        .map(|module| spec.spell(&module.replace("{audio}", audio)))
        .collect();
    let rule = match (spec.module, spec.rotary_heads) {
        (Module::EncoderPositions, _) => Rule::Drop,
        (_, Some(heads)) => Rule::PermuteRope { heads },
        _ => Rule::Keep,
    };
    Stored { names, rule }
}

/// The prefix of everything around the audio, and this form's names of a module, the usual one
/// first. vLLM reads the convolutions of either kind with and without the inner `conv`.
const fn modules(module: Module, realtime: bool) -> (&'static str, &'static [&'static str]) {
    const CONV1: [&str; 2] = [
        "{audio}.whisper_encoder.conv_layers.0",
        "{audio}.whisper_encoder.conv_layers.0.conv",
    ];
    const CONV2: [&str; 2] = [
        "{audio}.whisper_encoder.conv_layers.1",
        "{audio}.whisper_encoder.conv_layers.1.conv",
    ];
    let audio = if realtime {
        "mm_streams_embeddings.embedding_module"
    } else {
        "mm_whisper_embeddings"
    };
    let names: &[&str] = match module {
        Module::EncoderConv1 if realtime => &[CONV1[1], CONV1[0]],
        Module::EncoderConv1 => &CONV1,
        Module::EncoderConv2 if realtime => &[CONV2[1], CONV2[0]],
        Module::EncoderConv2 => &CONV2,
        Module::EncoderPositions => &[],
        Module::EncoderAttentionNorm => {
            &["{audio}.whisper_encoder.transformer.layers.{i}.attention_norm"]
        }
        Module::EncoderQuery => &["{audio}.whisper_encoder.transformer.layers.{i}.attention.wq"],
        Module::EncoderKey => &["{audio}.whisper_encoder.transformer.layers.{i}.attention.wk"],
        Module::EncoderValue => &["{audio}.whisper_encoder.transformer.layers.{i}.attention.wv"],
        Module::EncoderOutput => &["{audio}.whisper_encoder.transformer.layers.{i}.attention.wo"],
        Module::EncoderMlpNorm => &["{audio}.whisper_encoder.transformer.layers.{i}.ffn_norm"],
        // A gated block is w2(silu(w1 x) · w3 x), a plain one w2(gelu(w1 x)).
        Module::EncoderGate => &["{audio}.whisper_encoder.transformer.layers.{i}.feed_forward.w1"],
        Module::EncoderUp if realtime => {
            &["{audio}.whisper_encoder.transformer.layers.{i}.feed_forward.w3"]
        }
        Module::EncoderUp => &["{audio}.whisper_encoder.transformer.layers.{i}.feed_forward.w1"],
        Module::EncoderDown => &["{audio}.whisper_encoder.transformer.layers.{i}.feed_forward.w2"],
        Module::EncoderNorm => &["{audio}.whisper_encoder.transformer.norm"],
        Module::Projector1 => &["{audio}.audio_language_projection.0"],
        Module::Projector2 => &["{audio}.audio_language_projection.2"],
        Module::Embedding => &["{audio}.tok_embeddings", "tok_embeddings"],
        Module::AttentionNorm => &["layers.{i}.attention_norm"],
        Module::Query => &["layers.{i}.attention.wq"],
        Module::Key => &["layers.{i}.attention.wk"],
        Module::Value => &["layers.{i}.attention.wv"],
        Module::Output => &["layers.{i}.attention.wo"],
        Module::MlpNorm => &["layers.{i}.ffn_norm"],
        Module::Gate => &["layers.{i}.feed_forward.w1"],
        Module::Up => &["layers.{i}.feed_forward.w3"],
        Module::Down => &["layers.{i}.feed_forward.w2"],
        Module::AdaDown => &["layers.{i}.ada_rms_norm_t_cond.0"],
        Module::AdaUp => &["layers.{i}.ada_rms_norm_t_cond.2"],
        Module::Norm => &["norm"],
        Module::Head => &["output"],
    };
    (audio, names)
}
