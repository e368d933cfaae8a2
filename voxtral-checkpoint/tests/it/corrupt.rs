//! Every way in which weights files can lie, and that each is said and none is fatal.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use voxtral_checkpoint::{Checkpoint, Quant};

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

/// The matrix whose description is spoiled.
const QUANTIZED: &str = "multi_modal_projector.linear_1.weight";

/// The file of a quantized checkpoint, its header and what comes after.
fn quantized() -> (tempfile::TempDir, Value, Vec<u8>) {
    let dir = common::quantize(&fixture("offline/hf"), Quant::Q4);
    let bytes = fs::read(dir.path().join(WEIGHTS)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (dir, header, bytes[8 + length..].to_vec())
}

/// The error of opening a quantized checkpoint whose header was changed.
fn with_quantized(change: impl FnOnce(&mut Value)) -> String {
    let (dir, mut header, data) = quantized();
    change(&mut header);
    let mut bytes = file(&header.to_string(), 0);
    bytes.extend(data);
    fs::write(dir.path().join(WEIGHTS), bytes).unwrap();
    failure(dir.path())
}

/// The same for what the metadata says of quantized tensors.
fn with_note(change: impl FnOnce(&mut Value)) -> String {
    with_quantized(|header| {
        let text = &mut header["__metadata__"]["voxtral.quantized"];
        let mut note = serde_json::from_str(text.as_str().unwrap()).unwrap();
        change(&mut note);
        *text = note.to_string().into();
    })
}

#[test]
fn quantized_matrices_that_lie() {
    let entry =
        |key: &'static str, value: Value| with_note(|note| note["tensors"][QUANTIZED][key] = value);
    let subject = format!("tensor `{QUANTIZED}` of `model.safetensors` is damaged: ");
    // [24, 64] in q4: two panels of one unit of 512 + 64 bytes.
    for (shape, says) in [
        (json!([33, 64]), "[33, 64] takes [3, 576]"),
        (json!([24, 65]), "[24, 65] takes [2, 1152]"),
        (json!([64, 24]), "[64, 24] takes [4, 576]"),
        (json!([0, 64]), "[0, 64], which no matrix has"),
        (json!([24, 0]), "[24, 0], which no matrix has"),
        (json!([1, u64::MAX]), "which no matrix has"),
        (json!([u64::MAX, 64]), "takes [1152921504606846976, 576]"),
    ] {
        assert_says(&entry("shape", shape), &[&subject, says]);
    }
    // Rows that fill up the last panel are not those that the configuration expects.
    assert_eq!(
        entry("shape", json!([25, 64])),
        "tensor `projector.linear1.weight` has shape [25, 64], expected [24, 64]"
    );
    assert_says(
        &entry("format", json!("q8")),
        &[
            &subject,
            "it has stored shape [2, 576], and q8 of shape [24, 64] takes [2, 1056]",
        ],
    );
    for format in ["q3", "Q4", ""] {
        let says = format!("its format is {format:?}, expected q8 or q4");
        assert_says(&entry("format", json!(format)), &[&subject, &says]);
    }
    // The same number of bytes in another shape.
    assert_says(
        &with_quantized(|header| header[QUANTIZED]["shape"] = json!([4, 288])),
        &[&subject, "it has stored shape [4, 288]", "takes [2, 576]"],
    );
    assert_says(
        &with_quantized(|header| {
            header[QUANTIZED]["dtype"] = json!("BF16");
            header[QUANTIZED]["shape"] = json!([24, 24]);
        }),
        &[
            &subject,
            "quantized as q4, and it has type BF16, expected U8",
        ],
    );
}

#[test]
fn notes_of_quantized_matrices_that_lie() {
    const FILE: &str = "`model.safetensors`";
    assert_says(
        &with_note(|note| {
            note["tensors"].as_object_mut().unwrap().remove(QUANTIZED);
        }),
        &[
            QUANTIZED,
            FILE,
            "has type U8, and `voxtral.quantized` does not say what it holds",
        ],
    );
    assert_says(
        &with_quantized(|header| {
            header.as_object_mut().unwrap().remove("__metadata__");
        }),
        &[FILE, "has type U8", "expected F32, F16 or BF16"],
    );
    assert_says(
        &with_note(|note| note["tensors"]["ghost"] = note["tensors"][QUANTIZED].clone()),
        &[
            "tensor `ghost`",
            FILE,
            "`voxtral.quantized` describes it, and the file lacks it",
        ],
    );
    const PLAIN: &str = "audio_tower.layer_norm.bias";
    assert_says(
        &with_note(|note| note["tensors"][PLAIN] = note["tensors"][QUANTIZED].clone()),
        &[PLAIN, "quantized as q4, and it has type BF16, expected U8"],
    );
    for version in [0u64, 2, u64::MAX] {
        let says = format!("`voxtral.quantized` is of version {version}, expected 1");
        // Whatever else a newer version says.
        let error = with_note(|note| *note = json!({"version": version, "tensors": 7}));
        assert_says(&error, &[FILE, &says]);
    }
    for (note, says) in [
        (json!({}), "missing field `version`"),
        (json!({"version": "1"}), "invalid type"),
        (json!({"version": 1}), "missing field `tensors`"),
        (json!({"version": 1, "tensors": []}), "an object"),
        (
            json!({"version": 1, "tensors": {"a": 7}}),
            "`a`: invalid type",
        ),
        (
            json!({"version": 1, "tensors": {"a": {"format": "q4"}}}),
            "`a`: missing field `shape`",
        ),
        (
            json!({"version": 1, "tensors": {"a": {"format": "q4", "shape": [1, 2, 3]}}}),
            "`a`: trailing",
        ),
        (
            json!({"version": 1, "tensors": {"a": {"format": "q4", "shape": [1]}}}),
            "`a`: invalid length 1",
        ),
        (
            json!({"version": 1, "tensors": {"a": {"format": "q4", "shape": [-1, 2]}}}),
            "`a`: invalid value",
        ),
        (
            json!({"version": 1, "tensors": {"a": {"format": "q4", "shape": [1, 2], "x": 0}}}),
            "`a`: unknown field `x`",
        ),
    ] {
        let error = with_note(|old| *old = note);
        assert_says(
            &error,
            &[FILE, "its `voxtral.quantized` does not parse", says],
        );
    }
    let twice = r#"{"version": 1, "tensors": {"a": {"format": "q4", "shape": [1, 2]},
                                              "a": {"format": "q8", "shape": [1, 2]}}}"#;
    let note = |text: &str| {
        with_quantized(|header| header["__metadata__"]["voxtral.quantized"] = json!(text))
    };
    assert_says(&note(twice), &[FILE, "`a` occurs twice"]);
    assert_says(&note("{"), &[FILE, "does not parse", "EOF"]);
    assert_says(
        &with_quantized(|header| header["__metadata__"]["voxtral.quantized"] = json!({})),
        &[FILE, "`__metadata__`: `voxtral.quantized`: invalid type"],
    );
    let twice = r#"{"__metadata__": {"a": "1", "a": "2"}}"#;
    assert_says(
        &with_weights(&file(twice, 0)),
        &["`__metadata__`: `a` occurs twice"],
    );
}

#[test]
fn truncated_quantized_files() {
    let (dir, _, _) = quantized();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_says(&failure(dir.path()), &["`model.safetensors`"]);
    }
}

/// Rows of the native form would have to be reordered inside their panels.
#[test]
fn a_quantized_native_checkpoint() {
    let dir = common::copy("offline/native");
    let name = "layers.0.attention.wq.weight";
    let path = dir.path().join("consolidated.safetensors");
    let mut tensors = common::load(&path);
    let (dtype, shape, bytes) = tensors.get_mut(name).unwrap();
    let inputs = shape[1];
    let note = json!({"version": 1, "tensors": {name: {"format": "q4", "shape": shape}}});
    *bytes = vec![0; Quant::Q4.bytes(shape[0], inputs).unwrap()];
    *dtype = safetensors::Dtype::U8;
    *shape = vec![shape[0] / 16, Quant::Q4.panel_bytes(inputs)];
    let note = [("voxtral.quantized".to_owned(), note.to_string())].into();
    common::save_with(&path, &tensors, Some(note));
    assert_says(
        &failure(dir.path()),
        &[
            "tensor `layers.0.attention.wq.weight` of `consolidated.safetensors` is quantized",
            "quantize into the Hugging Face form",
        ],
    );
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let params = read("params.json");
    assert!(Checkpoint::from_native_bytes(&params, read("consolidated.safetensors")).is_err());
}

/// What changed bytes make of a quantized checkpoint: an error, or one that can be read whole.
fn read_whole(dir: &Path, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let (config, features) = (read("config.json"), read("preprocessor_config.json"));
    if let Ok(checkpoint) = Checkpoint::from_bytes(&config, &features, bytes.clone()) {
        prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
        let _ = (checkpoint.check_complete(), checkpoint.formats());
        for name in checkpoint.names() {
            let view = common::tensor(&checkpoint, name);
            prop_assert_eq!(view.to_f32().len(), view.num_elements());
            let _ = checkpoint.quantized_tensor(name, &view.shape, Quant::Q8);
        }
    }
    Ok(())
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

    /// The same for the header of a quantized checkpoint, most of which is the note.
    #[test]
    fn mutated_quantized_headers(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        digits in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 0..3),
    ) {
        static WHOLE: LazyLock<tempfile::TempDir> =
            LazyLock::new(|| common::quantize(&fixture("offline/hf"), Quant::Q4));
        let mut bytes = fs::read(WHOLE.path().join(WEIGHTS)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let places: Vec<usize> = (8..8 + length).filter(|&at| bytes[at].is_ascii_digit()).collect();
        for (index, digit) in &digits {
            bytes[*index.get(&places)] = *digit;
        }
        if digits.is_empty() {
            for (index, value) in changes {
                bytes[8 + index.index(length)] = value;
            }
        }
        read_whole(WHOLE.path(), bytes)?;
    }
}
