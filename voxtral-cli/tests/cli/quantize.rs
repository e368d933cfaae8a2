//! `voxtral quantize`: what it writes and says, and what it refuses.

use std::fs;

use serde_json::Value;

use crate::scene::{EN, EN_WORDS, Ran, Scene, assert_says, repository};

/// `voxtral quantize MODEL --quant QUANT --out small`.
fn quantize(scene: &Scene, model: &str, quant: &str) -> Ran {
    scene.run(&["quantize", model, "--quant", quant, "--out", "small"])
}

/// The error for this model, after which there is no `small/`.
#[track_caller]
fn refused(scene: &Scene, model: &str) -> String {
    let ran = quantize(scene, model, "q4");
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(!scene.path("small").exists(), "{ran:?}");
    ran.error(1)
}

/// Copies a demo model's files into `model/`, but for one.
fn copy_demo(scene: &Scene, without: &str) {
    fs::create_dir_all(scene.path("model")).unwrap();
    for entry in fs::read_dir(repository("voxtral-pipeline/demo")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != without {
            fs::copy(entry.path(), scene.path("model").join(entry.file_name())).unwrap();
        }
    }
}

/// The value of a line of output.
#[track_caller]
fn shown<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("no `{name}` in {text}"))[name.len()..].trim()
}

#[test]
fn a_quantized_model_is_smaller_and_says_so() {
    for model in ["demo", "demo-realtime"] {
        for quant in ["q8", "q4"] {
            let scene = Scene::new();
            let ran = quantize(&scene, model, quant);
            let text = ran.ok();
            assert_eq!(ran.stderr, "");
            assert_eq!(shown(text, "written"), "small");
            assert_says(shown(text, "size"), &["MiB, before "]);
            assert_says(shown(text, "precision"), &[quant, " tensors, ", "BF16 ("]);
            let bits = shown(text, "bits");
            let (now, before) = bits.split_once(" a weight, before ").unwrap();
            assert_eq!(before, "16.00");
            let now: f64 = now.parse().unwrap();
            assert!((4.5..12.0).contains(&now), "{bits}");
            assert_eq!(
                scene.names("small"),
                [
                    "config.json",
                    "generation_config.json",
                    "model.safetensors",
                    "preprocessor_config.json",
                    "tekken.json"
                ]
            );
            let config: Value = serde_json::from_str(&scene.read("small/config.json")).unwrap();
            assert_eq!(config["quantization_config"]["format"], quant);

            let ran = scene.run(&["inspect", "small"]);
            let inspected = ran.ok();
            assert_eq!(shown(inspected, "missing"), "nothing");
            assert_eq!(shown(inspected, "precision"), shown(text, "precision"));
            assert!(bits.starts_with(shown(inspected, "bits")));
            let original = scene.run(&["inspect", model]);
            assert_eq!(shown(original.ok(), "bits"), "16.00 a weight");
        }
    }
}

#[test]
fn a_folder_is_quantized_and_understands_as_before() {
    let scene = Scene::new();
    copy_demo(&scene, "");
    assert_eq!(quantize(&scene, "model", "q8").code, Some(0));
    for name in [
        "tekken.json",
        "preprocessor_config.json",
        "generation_config.json",
    ] {
        assert_eq!(
            scene.read(&format!("small/{name}")),
            scene.read(&format!("model/{name}"))
        );
    }
    let ran = scene.transcribe(&[EN, "--model", "small"]);
    assert_eq!(ran.ok(), format!("{EN_WORDS}\n"));
}

#[test]
fn an_output_that_exists_is_left_alone() {
    let scene = Scene::new();
    scene.write("small", "mine");
    let error = quantize(&scene, "demo", "q4").error(1);
    assert_says(&error, &["`small` is a file", "choose another `--out`"]);
    assert_eq!(scene.read("small"), "mine");

    fs::remove_file(scene.path("small")).unwrap();
    fs::create_dir(scene.path("small")).unwrap();
    scene.write("small/notes.txt", "mine");
    let error = quantize(&scene, "demo", "q4").error(1);
    assert_says(&error, &["`small` is not empty", "nothing is overwritten"]);
    assert_eq!(scene.names("small"), ["notes.txt"]);

    fs::remove_file(scene.path("small/notes.txt")).unwrap();
    quantize(&scene, "demo", "q4").ok();
}

#[test]
fn an_output_that_cannot_be_made() {
    let scene = Scene::new();
    scene.write("file", "mine");
    let ran = scene.run(&["quantize", "demo", "--quant", "q4", "--out", "file/small"]);
    assert_says(
        &ran.error(1),
        &["failed to quantize `demo`: cannot create `file/small`"],
    );
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_quantized_model_is_not_quantized_again() {
    let scene = Scene::new();
    quantize(&scene, "demo", "q8").ok();
    fs::rename(scene.path("small"), scene.path("model")).unwrap();
    assert_says(
        &refused(&scene, "model"),
        &[
            "failed to quantize `model`",
            "quantized already, as q8",
            "quantize the original",
        ],
    );
}

#[test]
fn models_that_cannot_be_read() {
    let scene = Scene::new();
    assert_says(
        &refused(&scene, "./absent"),
        &["`./absent` is not a folder"],
    );
    assert_says(
        &refused(&scene, "medium"),
        &["`medium` names no model", "`mini`"],
    );
    assert_says(&refused(&scene, "mini"), &["not complete in the cache"]);
    fs::create_dir(scene.path("model")).unwrap();
    assert_says(&refused(&scene, "model"), &["holds no complete checkpoint"]);
    copy_demo(&scene, "tekken.json");
    assert_says(
        &refused(&scene, "model"),
        &[
            "failed to quantize `model`",
            "no tekken.json",
            "put it beside the weights",
        ],
    );
    copy_demo(&scene, "");
    let weights = fs::read(scene.path("model/model.safetensors")).unwrap();
    scene.write("model/model.safetensors", &weights[..weights.len() / 2]);
    assert_says(
        &refused(&scene, "model"),
        &["model.safetensors`", "truncated"],
    );
}

#[test]
fn a_weight_that_is_no_number() {
    let scene = Scene::new();
    copy_demo(&scene, "");
    let mut weights = fs::read(scene.path("model/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    let matrix = &header["multi_modal_projector.linear_2.weight"];
    let at = 8 + length + matrix["data_offsets"][0].as_u64().unwrap() as usize;
    weights[at..at + 2].copy_from_slice(&[0xc0, 0x7f]);
    scene.write("model/model.safetensors", &weights);
    assert_says(
        &refused(&scene, "model"),
        &[
            "`projector.linear2.weight` has the weight NaN",
            "cannot be quantized",
        ],
    );
}

/// The description of the metadata is spoiled, as a bad copy or a newer program might leave it.
#[test]
fn a_quantized_model_of_another_version() {
    let scene = Scene::new();
    quantize(&scene, "demo", "q4").ok();
    let path = scene.path("small/model.safetensors");
    let weights = fs::read(&path).unwrap();
    let (from, to) = (br#"\"version\":1"#, br#"\"version\":7"#);
    let at = weights
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    let newer = [&weights[..at], to, &weights[at + to.len()..]].concat();
    fs::write(&path, newer).unwrap();
    for ran in [
        scene.run(&["inspect", "small"]),
        scene.transcribe(&["-q", EN, "-m", "small"]),
    ] {
        assert_says(
            &ran.error(1),
            &["model.safetensors", "version 7, expected 1"],
        );
    }
}

#[cfg(unix)]
#[test]
fn interrupted_nothing_is_left() {
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use voxtral_checkpoint::{RandomModel, RandomOptions, random_checkpoint};

    let scene = Scene::new();
    // As the demo, with a vocabulary that takes a while.
    copy_demo(&scene, "model.safetensors");
    let mut config: Value = serde_json::from_str(&scene.read("model/config.json")).unwrap();
    config["text_config"]["vocab_size"] = 300_000.into();
    scene.write("config.json", config.to_string());
    fs::rename(scene.path("model/tekken.json"), scene.path("tekken.json")).unwrap();
    let features = "preprocessor_config.json";
    fs::rename(scene.path("model").join(features), scene.path(features)).unwrap();
    let options = RandomOptions {
        tokenizer: Some(scene.path("tekken.json")),
        ..RandomOptions::new(RandomModel::File(scene.path("config.json")))
    };
    random_checkpoint(&options, scene.path("large"), &mut |_| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();

    let arguments = ["quantize", "large", "--quant", "q8", "--out", "small"];
    let mut command = scene.command(&arguments);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || fs::read_dir(scene.path("small")).is_ok_and(|mut names| names.next().is_some());
    while !begun() {
        thread::sleep(Duration::from_millis(1));
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(130), "{ran:?}");
    assert_says(
        &String::from_utf8(ran.stderr).unwrap(),
        &["interrupted: nothing was written"],
    );
    assert!(!scene.path("small").exists());
}
