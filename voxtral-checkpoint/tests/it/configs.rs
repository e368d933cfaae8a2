//! Configurations that lack, contradict or ask for something.

use std::fs;
use std::num::NonZeroUsize;

use serde_json::{Value, json};
use voxtral_checkpoint::{Checkpoint, Mask};

use crate::common::{self, failure, set};

/// What `file` of a copy of `fixture` leads to with `value` at `pointer` (null: removed).
fn with(fixture: &str, file: &str, pointer: &str, value: Value) -> Result<Checkpoint, String> {
    let dir = common::copy(fixture);
    set(&dir.path().join(file), pointer, value);
    Checkpoint::open(dir.path()).map_err(|error| error.to_string())
}

#[track_caller]
pub(crate) fn assert_fails(fixture: &str, file: &str, pointer: &str, value: Value, expected: &str) {
    let error = with(fixture, file, pointer, value)
        .err()
        .unwrap_or_default();
    assert!(
        error.contains(expected),
        "{pointer}: {error:?} does not say {expected:?}"
    );
}

#[test]
fn wrong_types_and_ranges() {
    for (pointer, value, expected) in [
        (
            "/text_config/hidden_size",
            json!("24"),
            "is \"24\", expected a whole number above 0",
        ),
        (
            "/text_config/hidden_size",
            json!(0),
            "field `text_config.hidden_size` of `config.json` is 0",
        ),
        (
            "/text_config/hidden_size",
            json!(-1),
            "is -1, expected a whole number above 0",
        ),
        (
            "/text_config/num_hidden_layers",
            json!(2.5),
            "is 2.5, expected a whole number",
        ),
        (
            "/text_config/num_hidden_layers",
            json!(100_000),
            "100000 layers",
        ),
        (
            "/text_config/vocab_size",
            json!(1u64 << 40),
            "expected a whole number",
        ),
        (
            "/text_config/rms_norm_eps",
            json!("tiny"),
            "expected a number above 0",
        ),
        (
            "/text_config/rms_norm_eps",
            json!(-1e-5),
            "expected a number above 0",
        ),
        (
            "/text_config/tie_word_embeddings",
            json!("no"),
            "expected true or false",
        ),
        (
            "/audio_token_id",
            json!(-3),
            "expected a whole number below 2³²",
        ),
        (
            "/text_config",
            json!([]),
            "lacks the field `text_config.hidden_act`",
        ),
        ("/model_type", json!(3), "expected a string"),
    ] {
        assert_fails("offline/hf", "config.json", pointer, value, expected);
    }
}

#[test]
fn what_no_voxtral_model_has() {
    for (fixture, file, pointer, value, expected) in [
        (
            "offline/hf",
            "config.json",
            "/model_type",
            json!("whisper"),
            "\"whisper\", which is not supported",
        ),
        (
            "offline/hf",
            "config.json",
            "/projector_hidden_act",
            json!("relu"),
            "(supported: gelu)",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/activation_function",
            json!("relu"),
            "(supported: gelu)",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/scale_embedding",
            json!(true),
            "(supported: false)",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/model_type",
            json!("whisper"),
            "voxtral_encoder",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/model_type",
            json!("qwen2"),
            "(supported: llama)",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/hidden_act",
            json!("gelu"),
            "(supported: silu)",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/attention_bias",
            json!(true),
            "attention_bias",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/mlp_bias",
            json!(true),
            "mlp_bias",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/rope_parameters/rope_type",
            json!("yarn"),
            "\"yarn\"",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/rope_scaling",
            json!({"type": "linear"}),
            "\"linear\"",
        ),
        (
            "offline/hf",
            "preprocessor_config.json",
            "/dither",
            json!(0.1),
            "(supported: 0)",
        ),
        (
            "realtime/hf",
            "preprocessor_config.json",
            "/win_length",
            json!(320),
            "n_fft, 400",
        ),
        (
            "offline/native",
            "params.json",
            "/yarn",
            json!({"factor": 2}),
            "`yarn`",
        ),
        (
            "offline/native",
            "params.json",
            "/quantization",
            json!({}),
            "`quantization`",
        ),
        (
            "offline/native",
            "params.json",
            "/use_biases",
            json!(true),
            "(supported: false)",
        ),
        (
            "offline/native",
            "params.json",
            "/multimodal/whisper_model_args/encoder_args/pos_embed",
            json!("alibi"),
            "\"sinusoidal\" and \"rope\"",
        ),
        (
            "realtime/native",
            "params.json",
            "/multimodal/whisper_model_args/encoder_args/use_biases",
            json!(false),
            "(supported: true)",
        ),
        (
            "realtime/native",
            "params.json",
            "/sliding_window",
            json!([5, 7]),
            "one window for every layer",
        ),
    ] {
        assert_fails(fixture, file, pointer, value, expected);
    }
}

#[test]
fn contradictions() {
    for (fixture, file, pointer, value, expected) in [
        (
            "offline/hf",
            "config.json",
            "/text_config/num_key_value_heads",
            json!(3),
            "not a multiple of its 3 key heads",
        ),
        (
            "offline/hf",
            "config.json",
            "/text_config/head_dim",
            json!(7),
            "the decoder's head size 7 is odd",
        ),
        (
            "realtime/hf",
            "config.json",
            "/audio_config/head_dim",
            json!(11),
            "the encoder's head size 11 is odd",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/intermediate_size",
            json!(50),
            "is not a multiple",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/max_source_positions",
            json!(99),
            "multiple of the stacking 4",
        ),
        (
            "offline/hf",
            "config.json",
            "/audio_config/num_mel_bins",
            json!(80),
            "makes 20 mel channels",
        ),
        (
            "offline/hf",
            "preprocessor_config.json",
            "/feature_size",
            json!(80),
            "the encoder takes 20",
        ),
        (
            "realtime/hf",
            "config.json",
            "/audio_length_per_tok",
            json!(4),
            "audio_length_per_tok is 4",
        ),
        (
            "realtime/hf",
            "config.json",
            "/tie_word_embeddings",
            json!(false),
            "text_config.tie_word_embeddings is true",
        ),
        (
            "realtime/native",
            "params.json",
            "/multimodal/whisper_model_args/encoder_args/norm_type",
            json!("layer_norm"),
            "does not go with encoder_args.norm_type",
        ),
    ] {
        assert_fails(fixture, file, pointer, value, expected);
    }
}

#[test]
fn json_that_does_not_parse() {
    for (fixture, file) in [
        ("offline/hf", "config.json"),
        ("offline/hf", "preprocessor_config.json"),
        ("offline/native", "params.json"),
    ] {
        let dir = common::copy(fixture);
        fs::write(dir.path().join(file), "{ \"dim\": ").unwrap();
        let error = failure(dir.path());
        assert!(
            error.starts_with(&format!("`{file}` is not valid JSON: EOF")),
            "{error}"
        );
    }
}

#[test]
fn older_fields_and_aliases() {
    let expected = Checkpoint::open(common::fixture("offline/hf")).unwrap();
    let dir = common::copy("offline/hf");
    let path = dir.path().join("config.json");
    let mut root = common::json(&path);
    let audio = root["audio_config"].as_object_mut().unwrap();
    for (new, old) in [
        ("hidden_size", "d_model"),
        ("num_hidden_layers", "encoder_layers"),
        ("num_attention_heads", "encoder_attention_heads"),
        ("intermediate_size", "encoder_ffn_dim"),
    ] {
        let value = audio.remove(new).unwrap();
        audio.insert(old.to_owned(), value);
    }
    // Derived by transformers where they are not stated.
    audio.remove("head_dim");
    audio.remove("num_key_value_heads");
    let text = root["text_config"].as_object_mut().unwrap();
    text.remove("rope_parameters");
    text.insert("rope_theta".to_owned(), json!(1e8));
    text.insert("rope_scaling".to_owned(), Value::Null);
    text.remove("tie_word_embeddings");
    fs::write(&path, root.to_string()).unwrap();
    assert_eq!(
        Checkpoint::open(dir.path()).unwrap().config(),
        expected.config()
    );
}

#[test]
fn windows_in_native_files() {
    let window = |value: Value| {
        with("realtime/native", "params.json", "/sliding_window", value)
            .unwrap()
            .config()
            .decoder
            .mask
    };
    let seven = Mask::SlidingWindow(NonZeroUsize::new(7).unwrap());
    assert_eq!(window(json!("7")), seven);
    assert_eq!(window(json!([7, 7])), seven);
    assert_eq!(window(Value::Null), Mask::Causal);
}

#[test]
fn unknown_keys_are_tolerated() {
    with(
        "offline/native",
        "params.json",
        "/new_thing",
        json!({"a": 1}),
    )
    .unwrap();
    with(
        "offline/hf",
        "config.json",
        "/text_config/new_thing",
        json!([1]),
    )
    .unwrap();
}
