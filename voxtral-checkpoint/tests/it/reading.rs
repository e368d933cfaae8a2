//! Both forms, all spellings, one set of canonical tensors.

use std::fs;
use std::num::NonZeroUsize;

use voxtral_checkpoint::{
    AttentionConfig, Checkpoint, ConvPadding, DecoderConfig, Dtype, EncoderConfig, FeatureConfig,
    Form, Fusion, Mask, Mlp, ModelConfig, Norm, Position, ProjectorConfig,
};

use crate::common::{self, fixture, load, tensor};

fn open(name: &str) -> Checkpoint {
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    checkpoint.check_complete().unwrap();
    checkpoint
}

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// As `OFFLINE` of `tools/goldens/checkpoint.py`.
fn offline() -> ModelConfig {
    ModelConfig {
        features: FeatureConfig {
            sample_rate: 16000,
            num_mel_bins: 20,
            hop_length: 160,
            window_size: 400,
            log_mel_max: None,
        },
        encoder: EncoderConfig {
            num_mel_bins: 20,
            hidden_size: 16,
            intermediate_size: 64,
            num_layers: 2,
            attention: AttentionConfig {
                num_heads: 2,
                num_kv_heads: 2,
                head_dim: 8,
            },
            norm: Norm::Layer { eps: 1e-5 },
            mlp: Mlp::Gelu,
            position: Position::Table { max_positions: 100 },
            padding: ConvPadding::Symmetric,
            mask: Mask::Full,
        },
        projector: ProjectorConfig {
            downsample: size(4),
            input_size: 64,
            output_size: 24,
        },
        decoder: DecoderConfig {
            vocab_size: 64,
            hidden_size: 24,
            intermediate_size: 40,
            num_layers: 2,
            attention: AttentionConfig {
                num_heads: 4,
                num_kv_heads: 2,
                head_dim: 8,
            },
            norm_eps: 1e-5,
            rope_theta: 1e8,
            mask: Mask::Causal,
            tied_head: false,
            ada_norm: None,
            max_positions: Some(131_072),
        },
        fusion: Fusion::Splice {
            audio_token_id: Some(24),
        },
    }
}

/// As `REALTIME` of `tools/goldens/checkpoint.py`.
fn realtime() -> ModelConfig {
    let offline = offline();
    ModelConfig {
        features: FeatureConfig {
            log_mel_max: Some(1.5),
            ..offline.features
        },
        encoder: EncoderConfig {
            intermediate_size: 40,
            attention: AttentionConfig {
                num_heads: 2,
                num_kv_heads: 2,
                head_dim: 12,
            },
            norm: Norm::Rms { eps: 1e-5 },
            mlp: Mlp::SwiGlu,
            position: Position::Rope { theta: 1e6 },
            padding: ConvPadding::Causal,
            mask: Mask::SlidingWindow(size(6)),
            ..offline.encoder
        },
        decoder: DecoderConfig {
            rope_theta: 1e6,
            mask: Mask::SlidingWindow(size(5)),
            tied_head: true,
            ada_norm: Some(32),
            ..offline.decoder
        },
        fusion: Fusion::Sum {
            default_delay_tokens: Some(6),
        },
        ..offline
    }
}

#[test]
fn configurations_are_read_in_full() {
    for name in ["offline/hf", "offline/hf-sharded", "offline/hf-in-memory"] {
        assert_eq!(open(name).config(), &offline(), "{name}");
    }
    for name in ["realtime/hf", "realtime/hf-in-memory"] {
        assert_eq!(open(name).config(), &realtime(), "{name}");
    }
    let fusion = Fusion::Splice {
        audio_token_id: None,
    };
    assert_eq!(
        open("offline/native").config(),
        &ModelConfig {
            fusion,
            ..offline()
        }
    );
    let fusion = Fusion::Sum {
        default_delay_tokens: None,
    };
    assert_eq!(
        open("realtime/native").config(),
        &ModelConfig {
            fusion,
            ..realtime()
        }
    );
}

#[test]
fn every_variant_holds_the_same_tensors() {
    for (one, others) in [
        (
            "offline/hf",
            &[
                "offline/hf-sharded",
                "offline/hf-in-memory",
                "offline/native",
            ][..],
        ),
        (
            "realtime/hf",
            &["realtime/hf-in-memory", "realtime/native"][..],
        ),
    ] {
        let expected = open(one);
        for other in others {
            let found = open(other);
            assert!(found.names().eq(expected.names()), "{other}");
            for name in expected.names() {
                let (x, y) = (tensor(&expected, name), tensor(&found, name));
                assert_eq!(
                    (x.dtype, &x.shape),
                    (y.dtype, &y.shape),
                    "`{name}` of {other}"
                );
                if name == "encoder.positions" && found.form() == Form::Native {
                    let close = |(x, y): (f32, f32)| (x - y).abs() < 1e-5;
                    assert!(x.to_f32().into_iter().zip(y.to_f32()).all(close));
                } else {
                    assert_eq!(x.data, y.data, "`{name}` of {other}");
                }
            }
        }
    }
}

#[test]
fn canonical_names_mean_what_they_say() {
    let pairs = [
        ("encoder.conv1.weight", "audio_tower.conv1.weight"),
        ("encoder.conv2.bias", "audio_tower.conv2.bias"),
        ("encoder.positions", "audio_tower.embed_positions.weight"),
        (
            "encoder.layers.1.attention_norm.bias",
            "audio_tower.layers.1.self_attn_layer_norm.bias",
        ),
        (
            "encoder.layers.1.attention.wk.weight",
            "audio_tower.layers.1.self_attn.k_proj.weight",
        ),
        (
            "encoder.layers.0.attention.wo.bias",
            "audio_tower.layers.0.self_attn.out_proj.bias",
        ),
        (
            "encoder.layers.0.mlp_norm.weight",
            "audio_tower.layers.0.final_layer_norm.weight",
        ),
        (
            "encoder.layers.0.mlp.up.bias",
            "audio_tower.layers.0.fc1.bias",
        ),
        (
            "encoder.layers.0.mlp.down.weight",
            "audio_tower.layers.0.fc2.weight",
        ),
        ("encoder.norm.bias", "audio_tower.layer_norm.bias"),
        (
            "projector.linear1.weight",
            "multi_modal_projector.linear_1.weight",
        ),
        (
            "decoder.embedding.weight",
            "language_model.model.embed_tokens.weight",
        ),
        (
            "decoder.layers.1.mlp_norm.weight",
            "language_model.model.layers.1.post_attention_layernorm.weight",
        ),
        (
            "decoder.layers.1.attention.wq.weight",
            "language_model.model.layers.1.self_attn.q_proj.weight",
        ),
        (
            "decoder.layers.1.mlp.gate.weight",
            "language_model.model.layers.1.mlp.gate_proj.weight",
        ),
        (
            "decoder.layers.1.mlp.up.weight",
            "language_model.model.layers.1.mlp.up_proj.weight",
        ),
        ("decoder.norm.weight", "language_model.model.norm.weight"),
        ("decoder.head.weight", "language_model.lm_head.weight"),
    ];
    let (checkpoint, file) = (
        open("offline/hf"),
        load(&fixture("offline/hf").join("model.safetensors")),
    );
    for (canonical, stored) in pairs {
        let (found, expected) = (tensor(&checkpoint, canonical), &file[stored]);
        assert_eq!(found.shape, expected.1, "{canonical}");
        assert_eq!(found.data, expected.2, "{canonical}");
    }
    let pairs = [
        ("encoder.conv1.weight", "audio_tower.embedder.conv1.weight"),
        (
            "encoder.layers.0.attention.wq.bias",
            "audio_tower.layers.0.self_attn.q_proj.bias",
        ),
        (
            "encoder.layers.0.attention.wo.weight",
            "audio_tower.layers.0.self_attn.o_proj.weight",
        ),
        (
            "encoder.layers.0.mlp.gate.weight",
            "audio_tower.layers.0.mlp.gate_proj.weight",
        ),
        (
            "encoder.layers.0.mlp.down.bias",
            "audio_tower.layers.0.mlp.down_proj.bias",
        ),
        ("encoder.norm.weight", "audio_tower.norm.weight"),
        (
            "decoder.layers.0.ada_norm.down.weight",
            "language_model.model.layers.0.ada_rms_norm.linear1.weight",
        ),
        (
            "decoder.layers.0.ada_norm.up.weight",
            "language_model.model.layers.0.ada_rms_norm.linear2.weight",
        ),
    ];
    let (checkpoint, file) = (
        open("realtime/hf"),
        load(&fixture("realtime/hf").join("model.safetensors")),
    );
    for (canonical, stored) in pairs {
        assert_eq!(
            tensor(&checkpoint, canonical).data,
            file[stored].2,
            "{canonical}"
        );
    }
}

#[test]
fn counts_and_sizes() {
    for (name, stored, canonical) in [
        ("offline/hf", 60, 60),
        ("offline/native", 59, 60),
        ("realtime/hf", 57, 57),
        ("realtime/hf-in-memory", 58, 57),
        ("realtime/native", 57, 57),
    ] {
        let checkpoint = open(name);
        assert_eq!(
            (checkpoint.num_tensors(), checkpoint.names().count()),
            (stored, canonical),
            "{name}"
        );
    }
    let checkpoint = open("offline/hf");
    let table = 100 * 16;
    assert_eq!(
        checkpoint.total_bytes(),
        2 * checkpoint.num_parameters() + 2 * table
    );
    let info = checkpoint.info("encoder.positions").unwrap();
    assert_eq!(
        (info.dtype, info.shape, info.bytes),
        (Dtype::F32, vec![100, 16], 6400)
    );
}

#[test]
fn data_is_not_copied() {
    let checkpoint = open("offline/hf");
    for name in checkpoint.names() {
        let (once, twice) = (tensor(&checkpoint, name), tensor(&checkpoint, name));
        assert_eq!(once.data.as_ptr(), twice.data.as_ptr(), "{name}");
    }
}

#[test]
fn data_outlives_the_checkpoint_and_crosses_threads() {
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let checkpoint = open("offline/hf");
    is_shared(&checkpoint);
    let view = tensor(&checkpoint, "decoder.norm.weight");
    drop(checkpoint);
    let sum = std::thread::spawn(move || view.to_f32().iter().sum::<f32>())
        .join()
        .unwrap();
    assert!(sum.is_finite());
}

#[test]
fn a_checkpoint_in_memory_at_any_address() {
    let dir = fixture("offline/hf");
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (config, preprocessor) = (read("config.json"), read("preprocessor_config.json"));
    let expected = open("offline/hf");
    for offset in 0..4 {
        let mut bytes = vec![0; offset];
        bytes.extend(read("model.safetensors"));
        let weights = bytes::Bytes::from(bytes).slice(offset..);
        let found = Checkpoint::from_bytes(&config, &preprocessor, weights).unwrap();
        found.check_complete().unwrap();
        assert_eq!(found.dir(), None);
        for name in expected.names() {
            let view = tensor(&found, name);
            assert_eq!(view.data, tensor(&expected, name).data, "{name}");
            assert_eq!(
                view.data.as_ptr().align_offset(view.dtype.size()),
                0,
                "{name}"
            );
        }
    }
}

#[test]
fn a_folder_with_both_forms_is_read_as_hugging_face() {
    let dir = common::copy("offline/hf-sharded");
    common::add(dir.path(), "offline/native");
    assert_eq!(
        Checkpoint::open(dir.path()).unwrap().form(),
        Form::HuggingFace
    );
    assert_eq!(
        Checkpoint::open_form(dir.path(), Form::Native)
            .unwrap()
            .form(),
        Form::Native
    );
    // With a shard missing only the native form is complete.
    fs::remove_file(dir.path().join("model-00003-of-00006.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().form(), Form::Native);
}

#[test]
fn the_front_end_may_stand_in_the_processors_file() {
    let dir = common::copy("offline/hf");
    let features = dir.path().join("preprocessor_config.json");
    let nested = serde_json::json!({ "feature_extractor": common::json(&features) });
    fs::remove_file(features).unwrap();
    fs::write(dir.path().join("processor_config.json"), nested.to_string()).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config(), &offline());
}

#[test]
fn alternative_native_spellings() {
    for (name, change) in [
        ("offline/native", ("conv_layers.0.", "conv_layers.0.conv.")),
        (
            "offline/native",
            ("mm_whisper_embeddings.tok_embeddings", "tok_embeddings"),
        ),
        ("realtime/native", ("conv_layers.1.conv.", "conv_layers.1.")),
        (
            "realtime/native",
            (
                "mm_streams_embeddings.embedding_module.tok_embeddings",
                "tok_embeddings",
            ),
        ),
    ] {
        let dir = common::copy(name);
        let mut renamed = 0;
        common::edit(&dir.path().join("consolidated.safetensors"), |tensors| {
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(name, tensor)| {
                    renamed += usize::from(name.contains(change.0));
                    (name.replace(change.0, change.1), tensor)
                })
                .collect();
        });
        assert!(renamed > 0, "{change:?}");
        Checkpoint::open(dir.path())
            .unwrap()
            .check_complete()
            .unwrap();
    }
}

#[test]
fn asking_for_what_is_not_there() {
    let checkpoint = open("offline/hf");
    let error = checkpoint
        .tensor("decoder.layers.1.attention.wk.weight", &[24, 16])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `decoder.layers.1.attention.wk.weight` has shape [16, 24], expected [24, 16]"
    );
    let error = checkpoint.tensor("decoder.layers.2.norm", &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `decoder.layers.2.norm` is not a part of this model"
    );
    assert!(checkpoint.info("decoder.layers.2.norm").is_none());
}
