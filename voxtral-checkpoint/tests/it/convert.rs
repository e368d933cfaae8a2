//! Converting gives the files that transformers and safetensors wrote.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use voxtral_checkpoint::{Checkpoint, ConvertOptions, Dtype, Form, Written, convert};

use crate::common::{self, files, fixture, json, load, quiet, tensor};

fn run(from: &Path, to: &Path, options: &ConvertOptions) -> Written {
    let source = Checkpoint::open(from).unwrap();
    let written = convert(&source, to, options, &mut quiet).unwrap();
    Checkpoint::open_form(to, options.form)
        .unwrap()
        .check_complete()
        .unwrap();
    written
}

#[test]
fn hugging_face_to_native_is_byte_for_byte_what_the_script_wrote() {
    for kind in ["offline", "realtime"] {
        for variant in ["hf", "hf-in-memory"] {
            let out = tempfile::tempdir().unwrap();
            run(
                &fixture(&format!("{kind}/{variant}")),
                out.path(),
                &ConvertOptions::new(Form::Native),
            );
            let expected = fixture(&format!("{kind}/native"));
            assert_eq!(files(out.path()), files(&expected));
            let weights = "consolidated.safetensors";
            let same = fs::read(out.path().join(weights)).unwrap()
                == fs::read(expected.join(weights)).unwrap();
            assert!(same, "{kind}/{variant}");
            assert_eq!(
                json(&out.path().join("params.json")),
                json(&expected.join("params.json")),
                "{kind}"
            );
        }
    }
}

#[test]
fn native_to_hugging_face_is_what_transformers_writes() {
    for (kind, variant, max_shard_bytes) in [
        ("offline", "hf", 1 << 20),
        ("offline", "hf-sharded", 12_000),
        ("realtime", "hf", 1 << 20),
    ] {
        let out = tempfile::tempdir().unwrap();
        let options = ConvertOptions {
            max_shard_bytes,
            ..ConvertOptions::new(Form::HuggingFace)
        };
        let written = run(&fixture(&format!("{kind}/native")), out.path(), &options);
        let expected = fixture(&format!("{kind}/{variant}"));
        assert_eq!(files(out.path()), files(&expected));
        assert_eq!(written.files.len(), files(&expected).len());
        for name in files(&expected) {
            let (found, expected) = (out.path().join(&name), expected.join(&name));
            if name.ends_with(".json") {
                assert_eq!(json(&found), json(&expected), "{kind}/{variant}/{name}");
            } else {
                assert_same_weights(&found, &expected);
            }
        }
    }
}

/// The same header and tensors; the table of positions as close as two ways of computing it are.
fn assert_same_weights(found: &Path, expected: &Path) {
    let header = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        String::from_utf8(bytes[8..8 + length].to_vec()).unwrap()
    };
    assert_eq!(header(found), header(expected));
    let (found, expected) = (load(found), load(expected));
    for (name, tensor) in &expected {
        if name.ends_with("embed_positions.weight") {
            let values = |bytes: &[u8]| -> Vec<f32> {
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&raw| f32::from_le_bytes(raw))
                    .collect()
            };
            let pairs = values(&found[name].2).into_iter().zip(values(&tensor.2));
            assert!(pairs.into_iter().all(|(x, y)| (x - y).abs() < 1e-5));
        } else {
            assert!(found[name] == *tensor, "`{name}`");
        }
    }
}

#[test]
fn there_and_back_is_bit_identical() {
    for kind in ["offline", "realtime"] {
        let (there, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let native = fixture(&format!("{kind}/native"));
        run(
            &native,
            there.path(),
            &ConvertOptions::new(Form::HuggingFace),
        );
        run(
            there.path(),
            back.path(),
            &ConvertOptions::new(Form::Native),
        );
        for name in files(&native) {
            let (found, expected) = (back.path().join(&name), native.join(&name));
            if name.ends_with(".json") {
                assert_eq!(json(&found), json(&expected), "{kind}");
            } else {
                assert!(
                    fs::read(found).unwrap() == fs::read(expected).unwrap(),
                    "{kind}"
                );
            }
        }
        // And once more: now the table is this crate's own, so the file is the same to the bit.
        let again = tempfile::tempdir().unwrap();
        run(
            back.path(),
            again.path(),
            &ConvertOptions::new(Form::HuggingFace),
        );
        let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
        assert!(weights(again.path()) == weights(there.path()), "{kind}");
    }
}

#[test]
fn another_type() {
    let out = tempfile::tempdir().unwrap();
    let options = ConvertOptions {
        dtype: Some(Dtype::F32),
        ..ConvertOptions::new(Form::HuggingFace)
    };
    let (wide, narrow) = (out.path().join("wide"), out.path().join("narrow"));
    run(&fixture("offline/hf"), &wide, &options);
    assert_eq!(json(&wide.join("config.json"))["dtype"], "float32");
    assert_eq!(
        json(&wide.join("generation_config.json"))["pad_token_id"],
        11
    );
    let (source, found) = (
        Checkpoint::open(fixture("offline/hf")).unwrap(),
        Checkpoint::open(&wide).unwrap(),
    );
    for name in source.names() {
        let view = tensor(&found, name);
        assert_eq!(view.dtype, Dtype::F32);
        assert_eq!(view.to_f32(), tensor(&source, name).to_f32(), "{name}");
    }
    // Widening loses nothing, so narrowing again gives the file that it came from.
    let options = ConvertOptions {
        dtype: Some(Dtype::BF16),
        ..options
    };
    run(&wide, &narrow, &options);
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&narrow) == weights(&fixture("offline/hf")));
}

#[test]
fn narrowing_rounds_to_nearest_even() {
    let (wide, narrow) = (
        common::copy("realtime/native"),
        tempfile::tempdir().unwrap(),
    );
    let file = wide.path().join("consolidated.safetensors");
    let values = [
        1.0 + 2f32.powi(-8),
        1.0 + 3.0 * 2f32.powi(-8),
        -1.0 - 2f32.powi(-8) * 1.001,
    ];
    common::edit(&file, |tensors| {
        let tensor = tensors.get_mut("norm.weight").unwrap();
        tensor.0 = safetensors::Dtype::F32;
        tensor.2 = values
            .iter()
            .cycle()
            .take(24)
            .flat_map(|x| x.to_le_bytes())
            .collect();
    });
    let options = ConvertOptions {
        dtype: Some(Dtype::BF16),
        ..ConvertOptions::new(Form::Native)
    };
    run(wide.path(), narrow.path(), &options);
    let found = tensor(
        &Checkpoint::open(narrow.path()).unwrap(),
        "decoder.norm.weight",
    )
    .to_f32();
    let ulp = 2f32.powi(-7);
    assert_eq!(found[..3], [1.0, 1.0 + 2.0 * ulp, -1.0 - ulp]);
}

#[test]
fn a_table_that_is_not_the_sinusoid_needs_force() {
    let source = common::copy("offline/hf");
    common::edit(&source.path().join("model.safetensors"), |tensors| {
        tensors
            .get_mut("audio_tower.embed_positions.weight")
            .unwrap()
            .2[35] ^= 1;
    });
    let (source, out) = (
        Checkpoint::open(source.path()).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let mut options = ConvertOptions::new(Form::Native);
    let error = convert(&source, out.path(), &options, &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("tensor `encoder.positions` differs from the sinusoid by up to "),
        "{error}"
    );
    assert!(files(out.path()).is_empty());
    options.force = true;
    convert(&source, out.path(), &options, &mut quiet).unwrap();
    assert_eq!(
        files(out.path()),
        ["consolidated.safetensors", "params.json"]
    );
}

#[test]
fn the_tokenizer_goes_along_and_names_the_placeholder() {
    let source = common::copy("offline/native");
    let tokenizer = r#"{"special_tokens": [{"rank": 0, "token_str": "<unk>"}, {"rank": 31, "token_str": "[AUDIO]"}]}"#;
    fs::write(source.path().join("tekken.json"), tokenizer).unwrap();
    let out = tempfile::tempdir().unwrap();
    run(
        source.path(),
        out.path(),
        &ConvertOptions::new(Form::HuggingFace),
    );
    assert_eq!(
        fs::read_to_string(out.path().join("tekken.json")).unwrap(),
        tokenizer
    );
    assert_eq!(json(&out.path().join("config.json"))["audio_token_id"], 31);
}

#[test]
fn into_the_folder_itself() {
    let dir = common::copy("offline/hf");
    fs::write(dir.path().join("tekken.json"), "{}").unwrap();
    run(dir.path(), dir.path(), &ConvertOptions::new(Form::Native));
    assert!(files(dir.path()).contains(&"params.json".to_owned()));
    let error = Checkpoint::open(dir.path()).and_then(|source| {
        convert(
            &source,
            dir.path(),
            &ConvertOptions::new(Form::Native),
            &mut quiet,
        )
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
}

#[test]
fn cancelled_or_refused_nothing_remains() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("deep/out");
    let source = Checkpoint::open(fixture("offline/hf")).unwrap();
    let options = ConvertOptions {
        max_shard_bytes: 12_000,
        ..ConvertOptions::new(Form::HuggingFace)
    };
    let mut seen = Vec::new();
    let mut stop = |progress: voxtral_checkpoint::Progress<'_>| {
        seen.push((progress.bytes, progress.total));
        if 2 * progress.bytes > progress.total {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error = convert(&source, &out, &options, &mut stop).unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
    assert!(seen.is_sorted() && seen.len() > 10);
    assert!(files(root.path()).is_empty());
    // A file in the way, the last to be written, is found before anything is.
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("config.json"), "{}").unwrap();
    let error = convert(&source, &out, &options, &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("config.json` exists already"), "{error}");
    assert_eq!(files(&out), ["config.json"]);
}

#[test]
fn an_incomplete_checkpoint_is_not_converted() {
    let source = common::copy("offline/hf");
    common::edit(&source.path().join("model.safetensors"), |tensors| {
        tensors.remove("language_model.model.norm.weight");
    });
    let (source, out) = (
        Checkpoint::open(source.path()).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let error = convert(
        &source,
        out.path(),
        &ConvertOptions::new(Form::Native),
        &mut quiet,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `decoder.norm.weight` (stored as `language_model.model.norm.weight`) is missing"
    );
}
