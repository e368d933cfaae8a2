//! Quantized checkpoints: what is written, what is read of it, and what is refused.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use voxtral_checkpoint::{
    Checkpoint, ConvertOptions, Dtype, Form, Quant, RandomModel, RandomOptions, convert,
    random_checkpoint, tensors,
};

use crate::common::{self, files, fixture, load, quantize, quantizing, quiet, tensor};

const WEIGHTS: &str = "model.safetensors";
const KEY: &str = "voxtral.quantized";

/// The demo models, which are wide enough for every matrix to be quantized.
fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../voxtral-pipeline")
        .join(name)
}

fn open(dir: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(dir).unwrap();
    checkpoint.check_complete().unwrap();
    checkpoint
}

/// Where the data starts, and the header.
fn header(path: &Path) -> (usize, Value) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (8 + length, header)
}

/// What a matrix becomes by way of the kernels' own functions.
fn rounded(quant: Quant, shape: &[usize], values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let &[rows, inputs] = shape else {
        panic!("{shape:?}")
    };
    let mut panels = vec![0; quant.bytes(rows, inputs).unwrap()];
    voxtral_kernels::quantize(quant, inputs, values, &mut panels);
    let mut back = vec![0.0; rows * inputs];
    voxtral_kernels::dequantize(quant, inputs, &panels, 0..rows, &mut back);
    (panels, back)
}

#[test]
fn matrices_are_what_the_kernels_make_of_them_and_the_rest_is_untouched() {
    for (kind, from) in [
        ("demo", demo("demo")),
        ("demo-realtime", demo("demo-realtime")),
        ("offline", fixture("offline/native")),
        ("realtime", fixture("realtime/native")),
    ] {
        for quant in Quant::ALL {
            let dir = quantize(&from, quant);
            let (source, found) = (open(&from), open(dir.path()));
            assert_eq!(found.form(), Form::HuggingFace);
            assert_eq!(found.quantized(), Some(quant), "{kind}");
            assert_eq!(found.num_parameters(), sum(&found));
            let mut quantized = 0;
            for spec in tensors(source.config()) {
                let (name, shape) = (spec.name(), spec.shape());
                let (before, after) = (tensor(&source, &name), tensor(&found, &name));
                assert_eq!(after.shape, shape, "{name}");
                assert_eq!(after.quant, spec.quantized_as(quant), "{name}");
                let Some(format) = after.quant else {
                    assert_eq!(after.dtype, before.dtype, "{name}");
                    assert!(after.data == before.data, "{kind}: {name}");
                    continue;
                };
                let (panels, back) = rounded(format, shape, &before.to_f32());
                assert!(after.data == panels, "{kind}: {name}");
                assert_eq!(after.num_elements(), back.len());
                assert!(after.to_f32() == back, "{kind}: {name}");
                let (bytes, back) = (after.into_dtype(Dtype::F32), &back);
                assert_eq!((bytes.dtype, bytes.quant), (Dtype::F32, None));
                assert!(bytes.to_f32() == *back, "{kind}: {name}");
                quantized += 1;
            }
            // The fixtures' matrices are too small for some to shrink.
            let config = source.config();
            let least = match kind {
                "demo" => 6 * config.encoder.num_layers + 7 * config.decoder.num_layers + 4,
                "demo-realtime" => 7 * (config.encoder.num_layers + config.decoder.num_layers) + 3,
                _ => 1,
            };
            assert!(quantized >= least, "{kind} {quant}: {quantized}");
        }
    }
}

/// Elements by the shapes.
fn sum(checkpoint: &Checkpoint) -> u64 {
    let specs = tensors(checkpoint.config());
    specs.iter().map(|spec| spec.num_elements() as u64).sum()
}

#[test]
fn every_source_of_a_model_gives_the_same_matrices() {
    for (kind, sources) in [
        (
            "offline",
            &["hf", "hf-in-memory", "hf-sharded", "native"][..],
        ),
        ("realtime", &["hf", "hf-in-memory", "native"]),
    ] {
        let all = sources.iter().map(|source| {
            let from = fixture(&format!("{kind}/{source}"));
            let mut tensors = load(&quantize(&from, Quant::Q4).path().join(WEIGHTS));
            // Native files have no table.
            tensors.remove("audio_tower.embed_positions.weight");
            tensors
        });
        let all: Vec<_> = all.collect();
        for (source, other) in sources.iter().zip(&all).skip(1) {
            assert!(*other == all[0], "{kind}/{source}");
        }
    }
}

#[test]
fn the_safetensors_library_reads_the_file() {
    let from = demo("demo");
    let dir = quantize(&from, Quant::Q4);
    let bytes = fs::read(dir.path().join(WEIGHTS)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let note = metadata.metadata().as_ref().unwrap();
    assert_eq!(note.keys().collect::<Vec<_>>(), [KEY]);
    let note: Value = serde_json::from_str(&note[KEY]).unwrap();
    assert_eq!(note["version"], 1);

    let plain = load(&from.join(WEIGHTS));
    let mut names = file.names();
    names.sort();
    assert_eq!(names, plain.keys().collect::<Vec<_>>());
    for (name, (dtype, shape, _)) in &plain {
        let view = file.tensor(name).unwrap();
        let Some(entry) = note["tensors"].get(name) else {
            assert_eq!((view.dtype(), view.shape()), (*dtype, &**shape));
            continue;
        };
        let quant = match entry["format"].as_str().unwrap() {
            "q8" => Quant::Q8,
            "q4" => Quant::Q4,
            other => panic!("{other}"),
        };
        assert_eq!(entry["shape"], json!(shape), "{name}");
        let panel = quant.panel_bytes(shape[1]);
        assert_eq!(view.dtype(), safetensors::Dtype::U8);
        assert_eq!(view.shape(), [shape[0].div_ceil(16), panel], "{name}");
    }
    let vocabulary = |name: &str| &note["tensors"][name]["format"];
    assert_eq!(vocabulary("language_model.lm_head.weight"), "q8");
    assert_eq!(vocabulary("language_model.model.embed_tokens.weight"), "q8");
    assert_eq!(vocabulary("multi_modal_projector.linear_1.weight"), "q4");
}

#[test]
fn panels_lie_in_the_map_at_multiples_of_64() {
    for quant in Quant::ALL {
        let dir = quantize(&demo("demo"), quant);
        let (start, mut header) = header(&dir.path().join(WEIGHTS));
        assert_eq!(start % 64, 0);
        let header = header.as_object_mut().unwrap();
        header.remove("__metadata__");
        for (name, entry) in header {
            let at = entry["data_offsets"][0].as_u64().unwrap();
            let size = entry["data_offsets"][1].as_u64().unwrap() - at;
            let own = 1 << size.trailing_zeros().min(6);
            assert_eq!(at % own, 0, "{name} of {size} bytes at {at}");
        }
        let checkpoint = open(dir.path());
        let name = "decoder.layers.0.mlp.up.weight";
        let (one, two) = (tensor(&checkpoint, name), tensor(&checkpoint, name));
        assert_eq!(one.quant, Some(quant));
        assert_eq!(one.data.as_ptr(), two.data.as_ptr());
        assert_eq!(one.data.as_ptr().align_offset(64), 0);
    }
}

/// Writers that do not pad, and bytes inside a program.
#[test]
fn panels_at_odd_addresses_are_moved() {
    let dir = quantize(&fixture("offline/hf"), Quant::Q4);
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let aligned = open(dir.path());
    for offset in 0..3 {
        let shifted = [&vec![0; offset][..], &read(WEIGHTS)].concat();
        let weights = bytes::Bytes::from(shifted).slice(offset..);
        let (config, features) = (read("config.json"), read("preprocessor_config.json"));
        let checkpoint = Checkpoint::from_bytes(&config, &features, weights).unwrap();
        for name in aligned.names() {
            let view = tensor(&checkpoint, name);
            assert!(view.data == tensor(&aligned, name).data, "{name}");
            assert_eq!(view.data.as_ptr().align_offset(2), 0, "{name}");
        }
    }
}

#[test]
fn quantizing_in_memory_gives_what_is_stored() {
    let source = open(&demo("demo-realtime"));
    for [quant, other] in [[Quant::Q8, Quant::Q4], [Quant::Q4, Quant::Q8]] {
        let dir = quantize(&demo("demo-realtime"), quant);
        let stored = open(dir.path());
        for spec in tensors(source.config()) {
            let (name, shape) = (spec.name(), spec.shape());
            let expected = tensor(&stored, &name);
            let found = source.quantized_tensor(&name, shape, quant).unwrap();
            assert_eq!((found.dtype, found.quant), (expected.dtype, expected.quant));
            assert_eq!(found.shape, shape);
            assert!(found.data == expected.data, "{name}");
            if found.quant.is_some() {
                assert_eq!(found.data.as_ptr().align_offset(64), 0, "{name}");
            }
            // What is quantized stays as it is stored.
            let kept = stored.quantized_tensor(&name, shape, other).unwrap();
            assert!(
                kept.quant == expected.quant && kept.data == expected.data,
                "{name}"
            );
        }
    }
    let error = source.quantized_tensor("decoder.norm.weight", &[1], Quant::Q4);
    assert!(error.unwrap_err().to_string().contains("expected [1]"));
    assert!(source.quantized_tensor("absent", &[1], Quant::Q4).is_err());
}

#[test]
fn what_the_files_say_of_themselves() {
    let dir = quantize(&demo("demo-realtime"), Quant::Q4);
    let config = common::json(&dir.path().join("config.json"));
    assert_eq!(
        config["quantization_config"],
        json!({"quant_method": "voxtral", "format": "q4", "version": 1})
    );
    let (checkpoint, source) = (open(dir.path()), open(&demo("demo-realtime")));
    let formats = checkpoint.formats();
    let names: Vec<_> = formats.iter().map(|share| share.name).collect();
    assert!(names.contains(&"q4") && names.contains(&"q8") && names.contains(&"BF16"));
    assert!(formats.is_sorted_by(|a, b| a.bytes >= b.bytes));
    let sum: u64 = formats.iter().map(|share| share.bytes).sum();
    assert_eq!(sum, checkpoint.total_bytes());
    let count: usize = formats.iter().map(|share| share.num_tensors).sum();
    assert_eq!(count, checkpoint.num_tensors());
    assert_eq!(source.quantized(), None);
    assert_eq!(source.bits_per_parameter(), 16.0);
    let bits = checkpoint.bits_per_parameter();
    assert!((5.0..8.0).contains(&bits), "{bits}");
    let info = checkpoint.info("decoder.embedding.weight").unwrap();
    assert_eq!((info.quant, info.format_name()), (Some(Quant::Q8), "q8"));
}

#[test]
fn shards_say_what_they_hold() {
    let source = open(&demo("demo"));
    let out = tempfile::tempdir().unwrap();
    let options = ConvertOptions {
        max_shard_bytes: 300_000,
        ..quantizing(Quant::Q4)
    };
    let written = convert(&source, out.path(), &options, &mut quiet).unwrap();
    let sharded = open(out.path());
    assert_eq!(sharded.total_bytes(), written.bytes);
    let index = common::json(&out.path().join("model.safetensors.index.json"));
    assert_eq!(
        index["metadata"]["total_parameters"],
        sharded.num_parameters()
    );
    let mut shards = 0;
    for name in files(out.path())
        .iter()
        .filter(|name| name.contains("-of-"))
    {
        let (_, header) = header(&out.path().join(name));
        let metadata = header["__metadata__"].as_object().unwrap();
        let Some(note) = metadata.get(KEY) else {
            assert_eq!(metadata["format"], "pt");
            continue;
        };
        let note: Value = serde_json::from_str(note.as_str().unwrap()).unwrap();
        for (name, entry) in header.as_object().unwrap() {
            assert_eq!(entry["dtype"] == "U8", note["tensors"].get(name).is_some());
        }
        shards += 1;
    }
    assert!(shards > 3);
    let whole = quantize(&demo("demo"), Quant::Q4);
    let whole = open(whole.path());
    for name in whole.names() {
        assert!(
            tensor(&whole, name).data == tensor(&sharded, name).data,
            "{name}"
        );
    }
}

#[test]
fn random_values_are_quantized_as_they_are_made() {
    let root = tempfile::tempdir().unwrap();
    let model = RandomModel::File(demo("demo-realtime").join("params.json"));
    let plain = RandomOptions::new(model);
    let quantized = RandomOptions {
        quant: Some(Quant::Q4),
        ..plain.clone()
    };
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    random_checkpoint(&plain, &one, &mut quiet).unwrap();
    let written = random_checkpoint(&quantized, &two, &mut quiet).unwrap();
    let converted = quantize(&one, Quant::Q4);
    let weights = |dir: &Path| fs::read(dir.join(WEIGHTS)).unwrap();
    assert!(weights(&two) == weights(converted.path()));
    let config = |dir: &Path| common::json(&dir.join("config.json"));
    assert_eq!(config(&two), config(converted.path()));
    assert_eq!(open(&two).total_bytes(), written.bytes);

    let native = RandomOptions {
        form: Form::Native,
        ..quantized
    };
    let three = root.path().join("three");
    let error = random_checkpoint(&native, &three, &mut quiet).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the native form has no place"),
        "{error}"
    );
    assert!(!three.exists());
}

#[test]
fn back_to_floats() {
    let dir = quantize(&demo("demo-realtime"), Quant::Q4);
    let source = open(dir.path());
    for form in [Form::HuggingFace, Form::Native] {
        let out = tempfile::tempdir().unwrap();
        let options = ConvertOptions {
            dtype: Some(Dtype::F32),
            ..ConvertOptions::new(form)
        };
        convert(&source, out.path(), &options, &mut quiet).unwrap();
        let wide = open(out.path());
        assert_eq!((wide.form(), wide.quantized()), (form, None));
        for name in source.names() {
            let (before, after) = (tensor(&source, name), tensor(&wide, name));
            assert_eq!((after.dtype, after.quant), (Dtype::F32, None));
            assert!(after.to_f32() == before.to_f32(), "{form}: {name}");
        }
        if form == Form::HuggingFace {
            let config = common::json(&out.path().join("config.json"));
            assert!(config.get("quantization_config").is_none());
            assert_eq!(config["dtype"], "float32");
            let (_, header) = header(&out.path().join(WEIGHTS));
            assert_eq!(header["__metadata__"], json!({"format": "pt"}));
        }
    }
}

#[test]
fn quantizing_does_not_round_before() {
    let root = tempfile::tempdir().unwrap();
    let wide = root.path().join("wide");
    let random = RandomOptions {
        dtype: Dtype::F32,
        ..RandomOptions::new(RandomModel::File(demo("demo").join("config.json")))
    };
    random_checkpoint(&random, &wide, &mut quiet).unwrap();
    let (one, two) = (quantize(&wide, Quant::Q8), root.path().join("two"));
    let options = ConvertOptions {
        dtype: Some(Dtype::BF16),
        ..quantizing(Quant::Q8)
    };
    convert(&open(&wide), &two, &options, &mut quiet).unwrap();
    let (one, two) = (open(one.path()), open(&two));
    for name in one.names().filter(|&name| name != "encoder.positions") {
        let (one, two) = (tensor(&one, name), tensor(&two, name));
        assert_eq!(one.quant, two.quant);
        match one.quant {
            Some(_) => assert!(one.data == two.data, "{name}"),
            None => assert_eq!((one.dtype, two.dtype), (Dtype::F32, Dtype::BF16), "{name}"),
        }
    }
}

#[test]
fn a_tokenizer_for_a_checkpoint_in_memory() {
    let read = |name: &str| fs::read(fixture("offline/hf").join(name)).unwrap();
    let (config, features) = (read("config.json"), read("preprocessor_config.json"));
    let source = Checkpoint::from_bytes(&config, &features, read(WEIGHTS)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let options = ConvertOptions {
        tokenizer: Some(b"{}".to_vec()),
        ..quantizing(Quant::Q4)
    };
    convert(&source, out.path(), &options, &mut quiet).unwrap();
    assert_eq!(fs::read(out.path().join("tekken.json")).unwrap(), b"{}");
    open(out.path());
}

#[test]
fn what_is_refused_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = quantize(&fixture("offline/hf"), Quant::Q4);
    let (plain, quantized) = (open(&fixture("offline/hf")), open(dir.path()));
    let out = root.path().join("out");
    let refused = |source: &Checkpoint, options: &ConvertOptions| {
        let error = convert(source, &out, options, &mut quiet).unwrap_err();
        assert!(files(root.path()).is_empty());
        error.to_string()
    };
    for quant in Quant::ALL {
        assert_eq!(
            refused(&quantized, &quantizing(quant)),
            "the checkpoint is quantized already, as q4: quantize the original, as rounding twice \
             loses more"
        );
    }
    for form in [Form::HuggingFace, Form::Native] {
        let error = refused(&quantized, &ConvertOptions::new(form));
        assert!(error.contains("choose the storage type"), "{error}");
    }
    let native = ConvertOptions {
        form: Form::Native,
        ..quantizing(Quant::Q4)
    };
    let error = refused(&plain, &native);
    assert!(
        error.contains("quantize into the Hugging Face form"),
        "{error}"
    );

    let mut half =
        |progress: voxtral_checkpoint::Progress<'_>| match 2 * progress.bytes > progress.total {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
    let error = convert(&plain, &out, &quantizing(Quant::Q4), &mut half).unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
    assert!(files(root.path()).is_empty());
}

#[test]
fn weights_that_are_no_numbers() {
    const NAME: &str = "language_model.model.layers.1.mlp.up_proj.weight";
    for (value, said) in [
        (f32::NAN, "NaN"),
        (f32::NEG_INFINITY, "-inf"),
        (3e38, "3.004055"),
    ] {
        let dir = common::copy("offline/hf");
        common::edit(&dir.path().join(WEIGHTS), |tensors| {
            let bytes = half::bf16::from_f32(value).to_le_bytes();
            tensors.get_mut(NAME).unwrap().2[500..502].copy_from_slice(&bytes);
        });
        let (source, out) = (open(dir.path()), tempfile::tempdir().unwrap());
        let name = "decoder.layers.1.mlp.up.weight";
        let stored = convert(&source, out.path(), &quantizing(Quant::Q4), &mut quiet);
        let shape = source.info(name).unwrap().shape;
        let in_memory = source.quantized_tensor(name, &shape, Quant::Q4);
        for error in [stored.unwrap_err(), in_memory.unwrap_err()] {
            let error = error.to_string();
            let expected = format!("tensor `{name}` has the weight {said}");
            assert!(error.starts_with(&expected), "{error}");
            assert!(
                error.contains("expected at most 8.319008e6: it cannot"),
                "{error}"
            );
        }
        assert!(files(out.path()).is_empty());
    }
}
