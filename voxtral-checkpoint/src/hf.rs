//! The Hugging Face form: names, layout and files.
//!
//! Source: what `save_pretrained` of transformers 5.23 writes for `VoxtralForConditionalGeneration`
//! and `VoxtralRealtimeForConditionalGeneration`.

mod config;
mod emit;

pub(crate) use config::{ADA_NORM_WIDTH, LAYER_NORM_EPS, read};
pub(crate) use emit::{Extra, config_json, generation_json, merge, preprocessor_json, shortest};

use crate::form::{Rule, Stored};
use crate::names::{Module, TensorSpec};

/// The configuration of the model.
pub(crate) const CONFIG: &str = "config.json";
/// The configuration of the log-mel front-end.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";
/// Where newer tools put that configuration, as its member `feature_extractor`.
pub(crate) const PROCESSOR: &str = "processor_config.json";
/// The defaults of text generation.
pub(crate) const GENERATION: &str = "generation_config.json";
/// All weights in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Where a configuration says how the weights are quantized.
pub(crate) const QUANTIZATION: &str = "quantization_config";

/// The name of shard `number`, from 1, of `count`.
pub(crate) fn shard(number: usize, count: usize) -> String {
    format!("model-{number:05}-of-{count:05}.safetensors")
}

/// Where this form stores a tensor. The canonical layout is this form's own.
pub(crate) fn stored(spec: &TensorSpec, realtime: bool) -> Stored {
    let on_disk = spec.spell(module(spec.module, realtime));
    let in_memory = in_memory(&on_disk);
    Stored {
        names: vec![on_disk, in_memory],
        rule: Rule::Keep,
    }
}

/// The name of a tensor inside a model of transformers 5, which some files carry.
pub(crate) fn in_memory(on_disk: &str) -> String {
    const TEXT_MODEL: &str = "language_model.model.";
    const TEXT: &str = "language_model.";
    if let Some(rest) = on_disk.strip_prefix(TEXT_MODEL) {
        format!("model.{TEXT}{rest}")
    } else if let Some(head) = on_disk.strip_prefix(TEXT) {
        head.to_owned()
    } else {
        format!("model.{on_disk}")
    }
}

/// This form's name of a module.
const fn module(module: Module, realtime: bool) -> &'static str {
    match module {
        Module::EncoderConv1 if realtime => "audio_tower.embedder.conv1",
        Module::EncoderConv1 => "audio_tower.conv1",
        Module::EncoderConv2 if realtime => "audio_tower.embedder.conv2",
        Module::EncoderConv2 => "audio_tower.conv2",
        Module::EncoderPositions => "audio_tower.embed_positions",
        Module::EncoderAttentionNorm => "audio_tower.layers.{i}.self_attn_layer_norm",
        Module::EncoderQuery => "audio_tower.layers.{i}.self_attn.q_proj",
        Module::EncoderKey => "audio_tower.layers.{i}.self_attn.k_proj",
        Module::EncoderValue => "audio_tower.layers.{i}.self_attn.v_proj",
        Module::EncoderOutput if realtime => "audio_tower.layers.{i}.self_attn.o_proj",
        Module::EncoderOutput => "audio_tower.layers.{i}.self_attn.out_proj",
        Module::EncoderMlpNorm => "audio_tower.layers.{i}.final_layer_norm",
        Module::EncoderGate => "audio_tower.layers.{i}.mlp.gate_proj",
        Module::EncoderUp if realtime => "audio_tower.layers.{i}.mlp.up_proj",
        Module::EncoderUp => "audio_tower.layers.{i}.fc1",
        Module::EncoderDown if realtime => "audio_tower.layers.{i}.mlp.down_proj",
        Module::EncoderDown => "audio_tower.layers.{i}.fc2",
        Module::EncoderNorm if realtime => "audio_tower.norm",
        Module::EncoderNorm => "audio_tower.layer_norm",
        Module::Projector1 => "multi_modal_projector.linear_1",
        Module::Projector2 => "multi_modal_projector.linear_2",
        Module::Embedding => "language_model.model.embed_tokens",
        Module::AttentionNorm => "language_model.model.layers.{i}.input_layernorm",
        Module::Query => "language_model.model.layers.{i}.self_attn.q_proj",
        Module::Key => "language_model.model.layers.{i}.self_attn.k_proj",
        Module::Value => "language_model.model.layers.{i}.self_attn.v_proj",
        Module::Output => "language_model.model.layers.{i}.self_attn.o_proj",
        Module::MlpNorm => "language_model.model.layers.{i}.post_attention_layernorm",
        Module::Gate => "language_model.model.layers.{i}.mlp.gate_proj",
        Module::Up => "language_model.model.layers.{i}.mlp.up_proj",
        Module::Down => "language_model.model.layers.{i}.mlp.down_proj",
        Module::AdaDown => "language_model.model.layers.{i}.ada_rms_norm.linear1",
        Module::AdaUp => "language_model.model.layers.{i}.ada_rms_norm.linear2",
        Module::Norm => "language_model.model.norm",
        Module::Head => "language_model.lm_head",
    }
}
