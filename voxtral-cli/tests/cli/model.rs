//! Models by name and by folder: what can be wrong with them, and what `inspect` and `models` say.

use std::fs;

use serde_json::{Map, Value};
use voxtral_checkpoint::{
    Checkpoint, ConvertOptions, Form, RandomModel, RandomOptions, convert, random_checkpoint,
};

use crate::scene::{EN, EN_WORDS, Scene, assert_says, repository};

/// Copies the demo model's files, or some of them.
fn copy_demo(scene: &Scene, to: &str, wanted: impl Fn(&str) -> bool) {
    fs::create_dir_all(scene.path(to)).unwrap();
    for entry in fs::read_dir(repository("voxtral-pipeline/demo")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if wanted(name.to_str().unwrap()) {
            fs::copy(entry.path(), scene.path(to).join(name)).unwrap();
        }
    }
}

/// The demo model in `model/`.
fn demo() -> Scene {
    let scene = Scene::new();
    copy_demo(&scene, "model", |_| true);
    scene
}

/// The error for the model in `model/`, which must come with no transcript.
#[track_caller]
fn refused(scene: &Scene) -> String {
    let error = scene.refusal(&[EN, "--model", "model", "--output-dir", "out"]);
    assert_eq!(scene.names("out"), [""; 0]);
    assert_says(&error, &["error: failed to load model `model`: "]);
    error
}

/// Changes the JSON of a file.
fn edit(scene: &Scene, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&scene.read(name)).unwrap();
    change(&mut value);
    scene.write(name, value.to_string());
}

/// Changes the header of the weights in `model/`; the data stays.
fn edit_header(scene: &Scene, change: impl FnOnce(&mut Map<String, Value>)) {
    const WEIGHTS: &str = "model/model.safetensors";
    let bytes = fs::read(scene.path(WEIGHTS)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let mut header = serde_json::from_slice(header).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    scene.write(WEIGHTS, [&length, &*header, data].concat());
}

/// A matrix of the demo model.
const MATRIX: &str = "multi_modal_projector.linear_1.weight";

#[test]
fn a_name_that_is_none_lists_those_there_are() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "--model", "medium"]);
    let words = ["`medium` names no model", "`mini`", "`small`", "mistralai/"];
    assert_says(&error, &words);
    assert_says(&scene.run(&["inspect", "medium"]).error(1), &words);
}

#[test]
fn a_folder_that_is_absent() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "--model", "./absent"]);
    assert_says(&error, &["`./absent` is not a folder"]);
    assert_says(
        &scene.run(&["inspect", "./absent"]).error(1),
        &["is not a folder"],
    );
}

#[test]
fn a_model_that_is_not_in_the_cache_when_offline() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "--model", "mini"]);
    assert_says(
        &error,
        &[
            "mistralai/Voxtral-Mini-3B-2507",
            "not complete in the cache",
            "HF_HUB_OFFLINE",
        ],
    );
    let error = scene.run(&["inspect", "mini"]).error(1);
    assert_says(
        &error,
        &[
            "mistralai/Voxtral-Mini-3B-2507",
            "`config.json`",
            "fetch it first",
            "--model mini",
        ],
    );
    assert!(!error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn an_empty_folder() {
    let scene = Scene::new();
    fs::create_dir(scene.path("model")).unwrap();
    assert_says(
        &refused(&scene),
        &["no complete checkpoint", "`config.json`", "`params.json`"],
    );
}

#[test]
fn no_weights() {
    let scene = Scene::new();
    copy_demo(&scene, "model", |name| name != "model.safetensors");
    assert_says(
        &refused(&scene),
        &["no complete checkpoint", "lacks `model.safetensors`"],
    );
}

#[test]
fn no_tokenizer() {
    let scene = Scene::new();
    copy_demo(&scene, "model", |name| name != "tekken.json");
    assert_says(
        &refused(&scene),
        &["`model` has no tekken.json", "beside the weights"],
    );
    let ran = scene.run(&["inspect", "model"]);
    assert_says(&ran.error(1), &["`model` cannot be used"]);
    assert_says(&ran.stdout, &["tekken.json, the tokenizer, is missing"]);
}

#[test]
fn json_that_is_none() {
    for name in ["config.json", "preprocessor_config.json"] {
        let scene = demo();
        scene.write(&format!("model/{name}"), "{\"model_type\": ");
        assert_says(
            &refused(&scene),
            &[&format!("`{name}` is not valid JSON"), "line 1"],
        );
    }
    let scene = demo();
    scene.write("model/tekken.json", "<html>\nNot found\n</html>");
    assert_says(
        &refused(&scene),
        &["tekken.json` is not a usable tokenizer", "not JSON"],
    );
}

#[test]
fn a_configuration_that_lacks_a_number() {
    let scene = demo();
    edit(&scene, "model/config.json", |config| {
        let text = config["text_config"].as_object_mut().unwrap();
        text.remove("num_key_value_heads").unwrap();
    });
    assert_says(
        &refused(&scene),
        &["`config.json`", "`text_config.num_key_value_heads`"],
    );
}

#[test]
fn another_kind_of_model() {
    let scene = demo();
    edit(&scene, "model/config.json", |config| {
        config["model_type"] = "llama".into()
    });
    assert_says(
        &refused(&scene),
        &["`model_type`", "`config.json`", "llama"],
    );
}

#[test]
fn a_type_that_no_voxtral_has() {
    for (dtype, size) in [("F64", 8), ("I8", 1)] {
        let scene = demo();
        edit_header(&scene, |header| {
            let entry = &mut header[MATRIX];
            let ends: Vec<u64> = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            entry["dtype"] = dtype.into();
            entry["shape"] = vec![(ends[1] - ends[0]) / size].into();
        });
        let found = format!("has type {dtype}");
        assert_says(
            &refused(&scene),
            &[MATRIX, &found, "expected F32, F16 or BF16"],
        );
    }
}

#[test]
fn a_shape_that_the_configuration_does_not_expect() {
    let scene = demo();
    let mut shape: Vec<u64> = Vec::new();
    edit_header(&scene, |header| {
        let stored = &mut header[MATRIX]["shape"];
        shape = serde_json::from_value(stored.clone()).unwrap();
        shape.reverse();
        *stored = shape.clone().into();
    });
    let found = format!("has shape {shape:?}");
    shape.reverse();
    let expected = format!("expected {shape:?}");
    assert_says(&refused(&scene), &["tensor `", &found, &expected]);
    let ran = scene.run(&["inspect", "model"]);
    assert_says(&ran.error(1), &["`model` cannot be used"]);
    assert_says(&ran.stdout, &[&found, &expected]);
}

#[test]
fn a_tensor_under_another_name() {
    let scene = demo();
    edit_header(&scene, |header| {
        let entry = header.remove(MATRIX).unwrap();
        header.insert("stranger".to_owned(), entry);
    });
    assert_says(&refused(&scene), &["missing", MATRIX]);
    let ran = scene.run(&["inspect", "model"]);
    assert_says(&ran.error(1), &["`model` cannot be used", "2 problems"]);
    assert_says(
        &ran.stdout,
        &["missing", MATRIX, "`stranger` belongs to no part"],
    );
}

#[test]
fn weights_that_break_off() {
    let scene = demo();
    let weights = scene.path("model/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 0] {
        fs::write(&weights, &bytes[..length]).unwrap();
        assert_says(&refused(&scene), &["model.safetensors`"]);
    }
}

#[test]
fn a_shard_that_is_absent() {
    let scene = demo();
    let (weights, shard) = (
        "model/model.safetensors",
        "model-00001-of-00001.safetensors",
    );
    fs::remove_file(scene.path(weights)).unwrap();
    scene.write(
        "model/model.safetensors.index.json",
        format!(r#"{{"metadata": {{}}, "weight_map": {{"{MATRIX}": "{shard}"}}}}"#),
    );
    assert_says(
        &refused(&scene),
        &[shard, "missing", "fetch that file again"],
    );
}

#[test]
fn the_tokenizer_of_another_model() {
    let scene = demo();
    edit(&scene, "model/tekken.json", |tekken| {
        let size = &mut tekken["config"]["default_vocab_size"];
        *size = (size.as_u64().unwrap() - 1).into();
    });
    assert_says(
        &refused(&scene),
        &["vocabulary size", "the tokenizer", "configuration"],
    );
}

#[test]
fn the_native_form_reads_alike_and_the_other_goes_before() {
    let scene = Scene::new();
    let checkpoint = Checkpoint::open(repository("voxtral-pipeline/demo")).unwrap();
    let options = ConvertOptions {
        force: true,
        ..ConvertOptions::new(Form::Native)
    };
    convert(&checkpoint, scene.path("model"), &options, &mut |_| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let native = scene.transcribe(&[EN, "--model", "model"]);
    assert_eq!(native.ok(), format!("{EN_WORDS}\n"));
    assert!(!native.stderr.contains("two forms"), "{native:?}");
    assert_says(
        scene.run(&["inspect", "model"]).ok(),
        &["native", "nothing"],
    );

    copy_demo(&scene, "model", |_| true);
    let both = scene.transcribe(&[EN, "--model", "model"]);
    assert_eq!(both.ok(), format!("{EN_WORDS}\n"));
    assert_says(&both.stderr, &["two forms", "reading the Hugging Face one"]);
}

#[test]
fn a_model_in_the_cache_is_used_offline_listed_and_inspected() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let scene = Scene::new();
    let repository = "hf/hub/models--org--digits";
    copy_demo(&scene, &format!("{repository}/snapshots/{COMMIT}"), |_| {
        true
    });
    fs::create_dir(scene.path(&format!("{repository}/refs"))).unwrap();
    scene.write(&format!("{repository}/refs/main"), COMMIT);

    let ran = scene.transcribe(&["-f", "json", EN, "--model", "org/digits"]);
    assert_eq!(ran.json()[0]["text"], EN_WORDS);
    assert_eq!(ran.json()[0]["model"], "org/digits");
    let listed = scene.run(&["models"]);
    assert_says(listed.ok(), &["org/digits", COMMIT]);
    assert!(!listed.stdout.contains("incomplete"), "{listed:?}");
    assert_says(
        scene.run(&["inspect", "org/digits"]).ok(),
        &["Hugging Face", COMMIT],
    );

    let weights = format!("{repository}/snapshots/{COMMIT}/model.safetensors");
    fs::remove_file(scene.path(&weights)).unwrap();
    assert_says(scene.run(&["models"]).ok(), &["org/digits", "incomplete"]);
    let error = scene.run(&["inspect", "org/digits"]).error(1);
    assert_says(&error, &["lacks `model.safetensors`", "fetch it first"]);
}

/// Random weights attend to nothing in order: no word's time is invented, and that is told once.
#[test]
fn a_model_of_which_no_head_aligns_gives_segments_without_words() {
    let scene = demo();
    let options = RandomOptions {
        tokenizer: Some(scene.path("model/tekken.json")),
        ..RandomOptions::new(RandomModel::File(scene.path("model/config.json")))
    };
    random_checkpoint(&options, scene.path("random"), &mut |_| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let arguments = [
        EN,
        "-m",
        "./random",
        "-f",
        "json,srt",
        "--output-dir",
        "out",
    ];
    let any = [
        "--temperature",
        "1",
        "--window",
        "2",
        "--max-new-tokens",
        "20",
    ];
    let ran = scene.transcribe(&[&arguments[..], &any].concat());
    ran.ok();
    let told = ran
        .stderr
        .matches("no head of attention goes along with the speech")
        .count();
    assert_eq!(told, 1, "{}", ran.stderr);
    assert_says(&ran.stderr, &["warning: ", "digits-en.wav"]);
    let json: Value = serde_json::from_str(&scene.read("out/digits-en.json")).unwrap();
    assert!(json.get("words").is_none_or(Value::is_null), "{json}");
    let segments = json["segments"].as_array().unwrap();
    assert!(!segments.is_empty() && segments.iter().all(|it| it.get("words").is_none()));
    let srt = scene.read("out/digits-en.srt");
    assert!(srt.matches(" --> ").count() >= segments.len(), "{srt}");
}

#[test]
fn models_lists_the_short_names() {
    let ran = Scene::new().run(&["models"]);
    assert_says(
        ran.ok(),
        &[
            "demo",
            "mini",
            "mistralai/Voxtral-Mini-3B-2507",
            "small",
            "none",
        ],
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn inspect_shows_what_the_files_say() {
    let scene = Scene::new();
    let folder = repository("voxtral-pipeline/demo");
    let folder = folder.to_str().unwrap();
    for (model, place) in [("demo", "embedded"), (folder, folder)] {
        let ran = scene.run(&["inspect", model]);
        let text = ran.ok();
        assert_says(
            text,
            &[place, "Hugging Face", "128 mel bins", "1500 positions"],
        );
        let shown = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        assert_eq!(shown("missing"), "nothing");
        assert!(shown("tensors").parse::<u32>().unwrap() > 50);
        assert!(shown("parameters").parse::<u64>().unwrap() > 1_000_000);
        assert_says(&shown("precision"), &["BF16"]);
        assert_eq!(ran.stderr, "");
    }
}

#[test]
fn inspect_shows_sharded_and_other_precisions() {
    let scene = Scene::new();
    for (model, precision) in [("odd-bf16", "BF16"), ("odd-f16", "F16"), ("odd-f32", "F32")] {
        let folder = repository("tests/data/models").join(model);
        let ran = scene.run(&["inspect", folder.to_str().unwrap()]);
        // They come without a tokenizer, and that is all.
        assert_says(&ran.error(1), &["mend the problem above"]);
        assert_says(&ran.stdout, &[precision, "tekken.json"]);
        assert_eq!(ran.stdout.matches("\nproblem ").count(), 1, "{ran:?}");
    }
}
