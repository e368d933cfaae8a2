//! Every way in which weights files can lie, and that each is said and none is fatal.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use voxtral_checkpoint::Checkpoint;

use crate::common::{self, failure, fixture, set};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Puts a file together from a header and `data` bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// The error of opening a checkpoint with these weights.
fn with_weights(bytes: &[u8]) -> String {
    let dir = common::copy("offline/hf");
    fs::write(dir.path().join(WEIGHTS), bytes).unwrap();
    failure(dir.path())
}

/// The error of opening a checkpoint whose header was changed.
fn with_header(change: impl FnOnce(&mut Value)) -> String {
    let bytes = fs::read(fixture("offline/hf").join(WEIGHTS)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let mut changed = file(&header.to_string(), 0);
    changed.extend(&bytes[8 + length..]);
    with_weights(&changed)
}

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert!(!error.contains('\n'), "{error:?} is more than a line");
}

#[test]
fn empty_and_truncated_files() {
    assert_says(&with_weights(&[]), &["`model.safetensors`", "0 bytes"]);
    assert_says(
        &with_weights(&[1, 2, 3]),
        &["`model.safetensors`", "3 bytes"],
    );
    let whole = fs::read(fixture("offline/hf").join(WEIGHTS)).unwrap();
    assert_says(
        &with_weights(&whole[..200]),
        &["`model.safetensors`", "truncated"],
    );
    assert_says(
        &with_weights(&whole[..whole.len() - 1]),
        &[
            "tensor `multi_modal_projector.linear_2.weight` of `model.safetensors`",
            "truncated",
        ],
    );
    let mut longer = whole;
    longer.extend([0; 5]);
    assert_says(
        &with_weights(&longer),
        &["its tensors take", "and it holds"],
    );
}

#[test]
fn headers_that_lie_about_their_length() {
    let mut bytes = file("{}", 0);
    bytes[..8].copy_from_slice(&1000u64.to_le_bytes());
    assert_says(
        &with_weights(&bytes),
        &["declares a header of 1000 bytes", "2 after it"],
    );
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_says(
        &with_weights(&bytes),
        &["declares a header of 18446744073709551615 bytes"],
    );
}

#[test]
fn headers_that_do_not_parse() {
    assert_says(
        &with_weights(&file("[]", 0)),
        &["header does not parse", "an object of tensors"],
    );
    assert_says(
        &with_weights(&file("{\"a\":", 0)),
        &["header does not parse", "EOF"],
    );
    assert_says(
        &with_weights(&file("{\"a\":7}", 0)),
        &["header does not parse", "tensor `a`"],
    );
    assert_says(
        &with_weights(&file(
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            4,
        )),
        &["tensor `a`", "-1"],
    );
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert_says(&with_weights(&file(twice, 4)), &["`a` occurs twice"]);
    let mut bytes = file("{}  ", 0);
    bytes[8] = 0xff;
    assert_says(&with_weights(&bytes), &["header does not parse"]);
}

#[test]
fn offsets_that_lie() {
    const NAME: &str = "audio_tower.layer_norm.bias";
    let offsets = |from: i64, to: i64| {
        with_header(|header| {
            let offsets = &mut header[NAME]["data_offsets"];
            offsets[0] = json!(offsets[0].as_i64().unwrap() + from);
            offsets[1] = json!(offsets[1].as_i64().unwrap() + to);
        })
    };
    assert_says(
        &offsets(1 << 40, 1 << 40),
        &[NAME, "`model.safetensors`", "truncated"],
    );
    assert_says(&offsets(-2, -2), &["overlaps another tensor"]);
    assert_says(&offsets(2, 2), &[NAME, "leaves a gap"]);
    assert_says(&offsets(0, -33), &[NAME, "before it starts"]);
    assert_says(&offsets(0, 2), &[NAME, "it has 34 bytes", "[16] takes 32"]);
}

#[test]
fn shapes_and_types_that_lie() {
    const NAME: &str = "audio_tower.layer_norm.bias";
    assert_says(
        &with_header(|header| header[NAME]["shape"] = json!([17])),
        &[NAME, "[17] takes 34"],
    );
    assert_says(
        &with_header(|header| header[NAME]["shape"] = json!([1u64 << 40, 1u64 << 40])),
        &[NAME, "takes more than there are"],
    );
    assert_says(
        &with_header(|header| header[NAME]["dtype"] = json!("F32")),
        &[NAME, "F32", "takes 64"],
    );
    for dtype in ["F64", "I8", "F8_E4M3", "NEW"] {
        assert_says(
            &with_header(|header| header[NAME]["dtype"] = json!(dtype)),
            &[&format!(
                "tensor `{NAME}` of `model.safetensors` has type {dtype}, expected F32, F16 or BF16"
            )],
        );
    }
}

#[test]
fn missing_surplus_and_misshapen_tensors() {
    let changed = |change: &dyn Fn(&mut std::collections::BTreeMap<String, common::Raw>)| {
        let dir = common::copy("offline/hf");
        common::edit(&dir.path().join(WEIGHTS), |tensors| change(tensors));
        failure(dir.path())
    };
    let error =
        changed(&|tensors| tensors.retain(|name, _| !name.contains("layers.1.self_attn.q_proj")));
    assert_eq!(
        error,
        "tensors `encoder.layers.1.attention.wq.weight` (stored as \
         `audio_tower.layers.1.self_attn.q_proj.weight`), `encoder.layers.1.attention.wq.bias` (stored as \
         `audio_tower.layers.1.self_attn.q_proj.bias`), `decoder.layers.1.attention.wq.weight` (stored as \
         `language_model.model.layers.1.self_attn.q_proj.weight`) are missing"
    );
    let error = changed(&|tensors| {
        let bias = tensors["audio_tower.layers.0.self_attn.q_proj.bias"].clone();
        tensors.insert(
            "audio_tower.layers.0.self_attn.k_proj.bias".to_owned(),
            bias,
        );
    });
    assert_eq!(
        error,
        "tensor `audio_tower.layers.0.self_attn.k_proj.bias` is not a part of the model that the \
         configuration describes"
    );
    let error = changed(&|tensors| {
        tensors
            .get_mut("language_model.model.layers.1.self_attn.k_proj.weight")
            .unwrap()
            .1 = vec![24, 16];
    });
    assert_eq!(
        error,
        "tensor `decoder.layers.1.attention.wk.weight` has shape [24, 16], expected [16, 24]"
    );
}

#[test]
fn rows_are_not_reordered_where_their_number_is_wrong() {
    let dir = common::copy("offline/native");
    common::edit(&dir.path().join("consolidated.safetensors"), |tensors| {
        tensors.get_mut("layers.0.attention.wq.weight").unwrap().1 = vec![1, 768];
    });
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = checkpoint
        .tensor("decoder.layers.0.attention.wq.weight", &[1, 768])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `decoder.layers.0.attention.wq.weight` has shape [1, 768], expected [32, 24]"
    );
}

#[test]
fn a_head_that_is_not_the_embedding_it_is_said_to_be() {
    let dir = common::copy("realtime/hf-in-memory");
    common::edit(&dir.path().join(WEIGHTS), |tensors| {
        tensors.get_mut("lm_head.weight").unwrap().2[63 * 48] ^= 1;
    });
    assert_says(
        &failure(dir.path()),
        &[
            "tensor `lm_head.weight` differs from `model.language_model.embed_tokens.weight`",
            "tied",
        ],
    );
}

#[test]
fn indexes_that_lie() {
    let index = |change: &dyn Fn(&Path)| {
        let dir = common::copy("offline/hf-sharded");
        change(dir.path());
        failure(dir.path())
    };
    const TENSOR: &str = "audio_tower.conv1.bias";
    let place = |value: Value| {
        move |dir: &Path| {
            let mut root = common::json(&dir.join(INDEX));
            root["weight_map"][TENSOR] = value.clone();
            fs::write(dir.join(INDEX), root.to_string()).unwrap();
        }
    };
    let home =
        common::json(&fixture("offline/hf-sharded").join(INDEX))["weight_map"][TENSOR].clone();
    let home = home.as_str().unwrap();
    let other = "model-00006-of-00006.safetensors";
    assert_ne!(home, other);

    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    assert_says(
        &index(&remove("model-00003-of-00006.safetensors")),
        &[
            "`model.safetensors.index.json` places tensor `",
            "`model-00003-of-00006.safetensors`, which is missing",
        ],
    );
    assert_says(
        &index(&place(json!("gone.safetensors"))),
        &[TENSOR, "`gone.safetensors`, which is missing"],
    );
    assert_says(
        &index(&place(json!(other))),
        &[&format!(
            "`{home}` holds tensor `{TENSOR}`, which `{INDEX}` places in `{other}`"
        )],
    );
    assert_says(
        &index(&place(json!("../model.safetensors"))),
        &[TENSOR, "expected a file name"],
    );
    assert_says(
        &index(&place(json!(7))),
        &[TENSOR, "is 7, expected a string"],
    );
    assert_says(
        &index(&|dir| {
            let mut root = common::json(&dir.join(INDEX));
            root["weight_map"].as_object_mut().unwrap().remove(TENSOR);
            fs::write(dir.join(INDEX), root.to_string()).unwrap();
        }),
        &[&format!(
            "`{home}` holds tensor `{TENSOR}`, which `{INDEX}` does not name"
        )],
    );
    assert_says(
        &index(&|dir| {
            let mut root = common::json(&dir.join(INDEX));
            root["weight_map"]["ghost.weight"] = json!(other);
            fs::write(dir.join(INDEX), root.to_string()).unwrap();
        }),
        &[&format!(
            "`{INDEX}` places tensor `ghost.weight` in `{other}`, which does not hold it"
        )],
    );
    // The same tensor in two shards.
    assert_says(
        &index(&|dir| {
            let tensor = common::load(&dir.join(home))[TENSOR].clone();
            common::edit(&dir.join(other), |tensors| {
                tensors.insert(TENSOR.to_owned(), tensor);
            });
        }),
        &[&format!(
            "`{other}` holds tensor `{TENSOR}`, which `{INDEX}` places in `{home}`"
        )],
    );
    assert_says(
        &index(&|dir| set(&dir.join(INDEX), "/weight_map", Value::Null)),
        &["lacks the field `weight_map`"],
    );
    assert_says(
        &index(&|dir| set(&dir.join(INDEX), "/weight_map", json!([]))),
        &["`weight_map`", "is a list"],
    );
    assert_says(
        &index(&|dir| fs::write(dir.join(INDEX), "{").unwrap()),
        &[INDEX, "not valid JSON", "EOF"],
    );
}

#[test]
fn folders_without_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    assert_says(
        &failure(dir.path()),
        &[
            "holds no complete checkpoint: the Hugging Face form lacks `config.json`, \
             `preprocessor_config.json`, `model.safetensors`, the native form lacks `params.json`, \
             `consolidated.safetensors`",
        ],
    );
    assert_says(
        &failure(&dir.path().join("absent")),
        &["absent` is not a folder"],
    );
    assert_says(
        &failure(&fixture("offline/hf").join("config.json")),
        &["config.json` is not a folder"],
    );
    let without = |fixture: &str, file: &str| {
        let dir = common::copy(fixture);
        fs::remove_file(dir.path().join(file)).unwrap();
        failure(dir.path())
    };
    assert_says(
        &without("offline/hf", WEIGHTS),
        &["the Hugging Face form lacks `model.safetensors`"],
    );
    assert_says(
        &without("offline/hf", "config.json"),
        &["the Hugging Face form lacks `config.json`"],
    );
    assert_says(
        &without("offline/hf", "preprocessor_config.json"),
        &["preprocessor_config.json` is missing: it describes the log-mel front-end"],
    );
    assert_says(
        &without("offline/native", "params.json"),
        &["the native form lacks `params.json`"],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever bytes of the header change, reading neither panics nor accepts what the
    /// safetensors library refuses; and what is accepted can be read.
    #[test]
    fn mutated_headers(changes in prop::collection::vec((0usize..5000, any::<u8>()), 1..8)) {
        let dir = fixture("offline/hf");
        let read = |name: &str| fs::read(dir.join(name)).unwrap();
        let mut bytes = read(WEIGHTS);
        for (at, value) in changes {
            bytes[at] = value;
        }
        let opened = Checkpoint::from_bytes(
            &read("config.json"),
            &read("preprocessor_config.json"),
            bytes.clone(),
        );
        if let Ok(checkpoint) = opened {
            prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
            for name in checkpoint.names() {
                common::tensor(&checkpoint, name);
            }
        }
    }

    /// The same for digits alone, which reach the checks behind the parser.
    #[test]
    fn mutated_digits(changes in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..4)) {
        let dir = fixture("offline/native");
        let mut bytes = fs::read(dir.join("consolidated.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let digits: Vec<usize> = (8..8 + length).filter(|&at| bytes[at].is_ascii_digit()).collect();
        for (index, digit) in changes {
            bytes[*index.get(&digits)] = digit;
        }
        let dir = common::copy("offline/native");
        fs::write(dir.path().join("consolidated.safetensors"), &bytes).unwrap();
        match Checkpoint::open(dir.path()) {
            Ok(checkpoint) => {
                prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
                for name in checkpoint.names() {
                    // Renumbered layers leave shapes that the rows' order does not fit.
                    let info = checkpoint.info(name).unwrap();
                    let _ = checkpoint.tensor(name, &info.shape);
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("consolidated.safetensors")),
        }
    }
}
