//! The published models' sizes, and checkpoints of random values.

use std::fs;
use std::path::Path;

use voxtral_checkpoint::{
    Checkpoint, Dtype, Form, Preset, RandomModel, RandomOptions, TensorSpec, random_checkpoint,
    tensors,
};

use crate::common::{files, fixture, json, quiet, tensor};

/// Counts and sums of models.md §1.4, which were had by building the models on torch's meta device.
#[test]
fn the_published_models_have_their_sizes() {
    for (preset, hugging_face, native, parameters, native_bytes) in [
        (Preset::Mini, 762, 761, 4_676_271_104u64, 9_348_702_208u64),
        (Preset::Small, 852, 851, 24_261_800_960, 48_519_761_920),
        (Preset::Realtime, 711, 711, 4_429_679_360, 8_859_358_720),
    ] {
        let specs = tensors(&preset.config().unwrap());
        let stored: Vec<_> = specs
            .iter()
            .filter(|spec| spec.name() != "encoder.positions")
            .collect();
        let sum = |specs: &mut dyn Iterator<Item = &TensorSpec>| -> u64 {
            specs.map(|spec| spec.num_elements() as u64).sum()
        };
        assert_eq!(
            (specs.len(), stored.len()),
            (hugging_face, native),
            "{preset:?}"
        );
        assert_eq!(sum(&mut specs.iter()), parameters, "{preset:?}");
        assert_eq!(2 * sum(&mut stored.into_iter()), native_bytes, "{preset:?}");
        let part =
            |prefix: &str| sum(&mut specs.iter().filter(|spec| spec.name().starts_with(prefix)));
        let expected = match preset {
            Preset::Mini => (636_968_960, 25_165_824),
            Preset::Small => (636_968_960, 52_428_800),
            Preset::Realtime => (970_395_392, 25_165_824),
        };
        assert_eq!(
            (part("encoder."), part("projector.")),
            expected,
            "{preset:?}"
        );
    }
}

#[test]
fn names_are_unique() {
    for preset in [Preset::Mini, Preset::Small, Preset::Realtime] {
        let mut names: Vec<_> = tensors(&preset.config().unwrap())
            .iter()
            .map(TensorSpec::name)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

fn write(file: &str, form: Form, seed: u64, out: &Path) -> Checkpoint {
    let model = RandomModel::File(fixture(file));
    let options = RandomOptions {
        form,
        seed,
        ..RandomOptions::new(model)
    };
    let written = random_checkpoint(&options, out, &mut quiet).unwrap();
    let checkpoint = Checkpoint::open(out).unwrap();
    checkpoint.check_complete().unwrap();
    assert_eq!(checkpoint.form(), form);
    assert_eq!(
        (checkpoint.num_tensors(), checkpoint.total_bytes()),
        (written.num_tensors, written.bytes)
    );
    checkpoint
}

#[test]
fn a_seed_is_one_model_in_either_form() {
    for kind in ["offline", "realtime"] {
        let out = tempfile::tempdir().unwrap();
        let file = |form| format!("{kind}/{form}");
        let (params, config) = (file("native/params.json"), file("hf/config.json"));
        let one = write(&params, Form::HuggingFace, 7, &out.path().join("one"));
        let same = [
            write(&params, Form::Native, 7, &out.path().join("two")),
            write(&config, Form::HuggingFace, 7, &out.path().join("three")),
            write(&config, Form::Native, 7, &out.path().join("four")),
        ];
        let other = write(&params, Form::HuggingFace, 8, &out.path().join("five"));
        for name in one.names() {
            let view = tensor(&one, name);
            for same in &same {
                assert_eq!(view.data, tensor(same, name).data, "{name}");
            }
            let fixed =
                name == "encoder.positions" || (name.contains("norm") && !name.contains("ada"));
            let fixed = fixed && !name.ends_with("bias");
            assert_eq!(view.data == tensor(&other, name).data, fixed, "{name}");
        }
    }
}

#[test]
fn values_are_small_and_normal() {
    let out = tempfile::tempdir().unwrap();
    let checkpoint = write(
        "offline/native/params.json",
        Form::HuggingFace,
        0,
        out.path(),
    );
    let values = tensor(&checkpoint, "decoder.embedding.weight").to_f32();
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt();
    assert!(mean.abs() < 2e-3, "mean {mean}");
    assert!((deviation - 0.02).abs() < 2e-3, "deviation {deviation}");
    assert!(
        tensor(&checkpoint, "decoder.norm.weight")
            .to_f32()
            .iter()
            .all(|&x| x == 1.0)
    );
    assert_eq!(
        checkpoint.info("encoder.positions").unwrap().dtype,
        Dtype::F32
    );
    assert_eq!(
        checkpoint.info("decoder.norm.weight").unwrap().dtype,
        Dtype::BF16
    );
}

#[test]
fn every_storage_type() {
    for (dtype, name) in [(Dtype::F32, "float32"), (Dtype::F16, "float16")] {
        let out = tempfile::tempdir().unwrap();
        let model = RandomModel::File(fixture("realtime/native/params.json"));
        let options = RandomOptions {
            dtype,
            ..RandomOptions::new(model)
        };
        random_checkpoint(&options, out.path(), &mut quiet).unwrap();
        let checkpoint = Checkpoint::open(out.path()).unwrap();
        assert!(
            checkpoint
                .names()
                .all(|name| checkpoint.info(name).unwrap().dtype == dtype)
        );
        assert_eq!(json(&out.path().join("config.json"))["dtype"], name);
    }
}

#[test]
fn the_files_are_those_of_a_genuine_checkpoint() {
    let out = tempfile::tempdir().unwrap();
    let tokenizer = out.path().join("any.json");
    fs::write(&tokenizer, "{}").unwrap();
    let model = RandomModel::File(fixture("offline/native/params.json"));
    let tokenizer = Some(tokenizer);
    let options = RandomOptions {
        max_shard_bytes: 12_000,
        tokenizer,
        ..RandomOptions::new(model)
    };
    let dir = out.path().join("model");
    random_checkpoint(&options, &dir, &mut quiet).unwrap();
    let mut expected = files(&fixture("offline/hf-sharded"));
    expected.push("tekken.json".to_owned());
    expected.sort();
    assert_eq!(files(&dir), expected);
    // Only the headers' places differ from what transformers wrote, not one name or size.
    for name in expected
        .iter()
        .filter(|name| name.ends_with("safetensors.index.json"))
    {
        assert_eq!(
            json(&dir.join(name)),
            json(&fixture("offline/hf-sharded").join(name))
        );
    }
}

#[test]
fn a_configuration_without_its_front_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::copy(fixture("offline/hf/config.json"), &path).unwrap();
    let options = RandomOptions::new(RandomModel::File(path));
    let error = random_checkpoint(&options, dir.path().join("out"), &mut quiet).unwrap_err();
    assert!(
        error.to_string().contains("preprocessor_config.json"),
        "{error}"
    );
    assert_eq!(files(dir.path()), ["config.json"]);
}
