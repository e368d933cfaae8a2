//! Finding a checkpoint in a folder: which form it has, and which files belong to it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::ModelConfig;
use crate::error::CheckpointError;
use crate::form::Form;
use crate::json::{self, Field};
use crate::storage::{self, Storage};
use crate::validate::validate;
use crate::{hf, native};

/// The configuration files of a checkpoint as they stand, and what they say.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) form: Form,
    /// `config.json` or `params.json`.
    pub(crate) model: Value,
    pub(crate) config: ModelConfig,
}

/// The form of the checkpoint in `dir`: Hugging Face where both are complete.
pub(crate) fn detect(dir: &Path) -> Result<Form, CheckpointError> {
    if !dir.is_dir() {
        return Err(CheckpointError::NotAFolder {
            path: dir.to_owned(),
        });
    }
    let hugging_face = lacking(dir, Form::HuggingFace)?;
    if hugging_face.is_empty() {
        return Ok(Form::HuggingFace);
    }
    let native = lacking(dir, Form::Native)?;
    if native.is_empty() {
        return Ok(Form::Native);
    }
    // With only one form begun, its own error says more: the shard that the index names, say.
    match (begun(dir, Form::HuggingFace), begun(dir, Form::Native)) {
        (true, false) => Ok(Form::HuggingFace),
        (false, true) => Ok(Form::Native),
        _ => Err(CheckpointError::NoCheckpoint {
            dir: dir.to_owned(),
            hugging_face,
            native,
        }),
    }
}

/// Whether both a form's configuration and some of its weights are there.
fn begun(dir: &Path, form: Form) -> bool {
    let here = |name: &str| dir.join(name).is_file();
    match form {
        Form::HuggingFace => here(hf::CONFIG) && (here(hf::WEIGHTS) || here(hf::INDEX)),
        Form::Native => here(native::PARAMS) && here(native::WEIGHTS),
    }
}

/// The files that `form` needs and `dir` lacks.
fn lacking(dir: &Path, form: Form) -> Result<Vec<String>, CheckpointError> {
    let here = |name: &str| dir.join(name).is_file();
    let mut lacking = Vec::new();
    let mut need = |names: &[&str]| {
        if !names.iter().any(|name| here(name)) {
            lacking.push(names[0].to_owned());
        }
    };
    match form {
        Form::Native => {
            need(&[native::PARAMS]);
            need(&[native::WEIGHTS]);
        }
        Form::HuggingFace => {
            need(&[hf::CONFIG]);
            need(&[hf::PREPROCESSOR, hf::PROCESSOR]);
            need(&[hf::WEIGHTS, hf::INDEX]);
            if !here(hf::WEIGHTS) && here(hf::INDEX) {
                let shards = storage::listed_shards(&dir.join(hf::INDEX))?;
                lacking.extend(shards.into_iter().filter(|shard| !here(shard)));
            }
        }
    }
    Ok(lacking)
}

/// Opens the weights of `form`. As in transformers, the single file comes before the index.
pub(crate) fn open_weights(dir: &Path, form: Form) -> Result<Storage, CheckpointError> {
    let need = "it holds the weights";
    match form {
        Form::Native => Storage::open(&present(dir, native::WEIGHTS, need)?),
        Form::HuggingFace if dir.join(hf::WEIGHTS).is_file() => {
            Storage::open(&dir.join(hf::WEIGHTS))
        }
        Form::HuggingFace if dir.join(hf::INDEX).is_file() => {
            Storage::open_index(&dir.join(hf::INDEX))
        }
        Form::HuggingFace => present(dir, hf::WEIGHTS, need).and_then(|path| Storage::open(&path)),
    }
}

/// Reads the configuration files of `form`.
pub(crate) fn describe(dir: &Path, form: Form) -> Result<Description, CheckpointError> {
    match form {
        Form::Native => {
            let path = present(dir, native::PARAMS, "it describes the model")?;
            describe_native(&storage::read(&path)?)
        }
        Form::HuggingFace => {
            let path = present(dir, hf::CONFIG, "it describes the model")?;
            let (name, features) = front_end(dir)?;
            describe_hugging_face(&storage::read(&path)?, name, &features)
        }
    }
}

/// The front-end's configuration: a file of its own, or a member of the processor's.
fn front_end(dir: &Path) -> Result<(&'static str, Vec<u8>), CheckpointError> {
    let need = "it describes the log-mel front-end";
    let name = if dir.join(hf::PREPROCESSOR).is_file() || !dir.join(hf::PROCESSOR).is_file() {
        hf::PREPROCESSOR
    } else {
        hf::PROCESSOR
    };
    Ok((name, storage::read(&present(dir, name, need)?)?))
}

/// What a `params.json` says.
pub(crate) fn describe_native(params: &[u8]) -> Result<Description, CheckpointError> {
    let model = json::parse(native::PARAMS, params)?;
    let config = native::read(&Field::root(native::PARAMS, &model))?;
    validate(native::PARAMS, &config)?;
    Ok(Description {
        form: Form::Native,
        model,
        config,
    })
}

/// What a `config.json` says, with the front-end's `features`, the contents of `name`.
pub(crate) fn describe_hugging_face(
    config: &[u8],
    name: &str,
    features: &[u8],
) -> Result<Description, CheckpointError> {
    let model = json::parse(hf::CONFIG, config)?;
    let features = json::parse(name, features)?;
    let features = Field::root(name, &features);
    let features = features.get("feature_extractor").unwrap_or(features);
    let config = hf::read(&Field::root(hf::CONFIG, &model), &features)?;
    validate(hf::CONFIG, &config)?;
    Ok(Description {
        form: Form::HuggingFace,
        model,
        config,
    })
}

fn present(dir: &Path, name: &str, need: &'static str) -> Result<PathBuf, CheckpointError> {
    let path = dir.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(CheckpointError::MissingFile { path, need })
    }
}
