//! Fixtures, and reading and writing safetensors files by the safetensors library.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;
use voxtral_checkpoint::{
    Checkpoint, ConvertOptions, Form, Progress, Quant, TensorView as View, convert,
};

/// A folder of `testdata`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// A copy of a folder of `testdata` that a test may spoil.
pub(crate) fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    add(copy.path(), name);
    copy
}

/// Copies a folder of `testdata` into `dir`.
pub(crate) fn add(dir: &Path, name: &str) {
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
}

/// The names of the files in a folder, sorted.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| name(entry.unwrap()))
        .collect();
    names.sort();
    names
}

/// A tensor: type, shape, bytes.
pub(crate) type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// The tensors of a safetensors file.
pub(crate) fn load(path: &Path) -> BTreeMap<String, Raw> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter()
        .map(|(name, view)| (name.to_owned(), raw(view)))
        .collect()
}

/// Writes a safetensors file.
pub(crate) fn save(path: &Path, tensors: &BTreeMap<String, Raw>) {
    save_with(path, tensors, None);
}

/// Writes a safetensors file with metadata.
pub(crate) fn save_with(
    path: &Path,
    tensors: &BTreeMap<String, Raw>,
    metadata: Option<HashMap<String, String>>,
) {
    let view = |(dtype, shape, bytes)| {
        let (dtype, shape): (&Dtype, &Vec<usize>) = (dtype, shape);
        TensorView::new(*dtype, shape.clone(), bytes).unwrap()
    };
    let views = tensors
        .iter()
        .map(|(name, (d, s, b))| (name.as_str(), view((d, s, b.as_slice()))));
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

/// Changes the tensors of a safetensors file.
pub(crate) fn edit(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Raw>)) {
    let mut tensors = load(path);
    change(&mut tensors);
    save(path, &tensors);
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes the value at `pointer` of a JSON file, making it where it is absent; a null removes it.
pub(crate) fn set(path: &Path, pointer: &str, value: Value) {
    let mut root = json(path);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = root.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), value);
    }
    fs::write(path, serde_json::to_vec(&root).unwrap()).unwrap();
}

/// A tensor with the shape that it has.
pub(crate) fn tensor(checkpoint: &Checkpoint, name: &str) -> View {
    let info = checkpoint
        .info(name)
        .unwrap_or_else(|| panic!("no tensor `{name}`"));
    checkpoint.tensor(name, &info.shape).unwrap()
}

/// To the Hugging Face form, quantized.
pub(crate) fn quantizing(quant: Quant) -> ConvertOptions {
    ConvertOptions {
        quant: Some(quant),
        ..ConvertOptions::new(Form::HuggingFace)
    }
}

/// A folder with a quantized copy of the checkpoint in `from`.
pub(crate) fn quantize(from: &Path, quant: Quant) -> TempDir {
    let out = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(from).unwrap();
    convert(&source, out.path(), &quantizing(quant), &mut quiet).unwrap();
    out
}

/// The error of opening `dir`, and what caused it, in one line.
pub(crate) fn failure(dir: &Path) -> String {
    let opened = Checkpoint::open(dir).and_then(|checkpoint| checkpoint.check_complete());
    let error = opened.expect_err("a spoiled checkpoint was accepted");
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// A progress callback that lets everything happen.
pub(crate) fn quiet(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
