//! From one form of checkpoint to the other, from one storage type to another, from floats to
//! quantized matrices and back.

use std::path::Path;

use serde_json::{Value, json};
use voxtral_kernels::Quant;

use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::CheckpointError;
use crate::folder::Description;
use crate::form::Form;
use crate::hf::{self, Extra};
use crate::names::{Module, TensorSpec};
use crate::native;
use crate::quantized;
use crate::sinusoid::{self, sinusoid};
use crate::staging::Staging;
use crate::storage;
use crate::writer::{OnProgress, Plan, Sink, Values, Written};

/// The size of shards that the published checkpoints have, and that huggingface-hub defaults to.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Mistral's tokenizer, which both forms carry.
pub(crate) const TOKENIZER: &str = "tekken.json";

/// What [`convert`] is to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertOptions {
    /// The form to write.
    pub form: Form,
    /// The storage type of what is not quantized; each tensor's own where it is `None`.
    pub dtype: Option<Dtype>,
    /// The format to quantize matrices in, in the Hugging Face form.
    pub quant: Option<Quant>,
    /// The size that a shard of the Hugging Face form may have.
    pub max_shard_bytes: u64,
    /// Drop a position table that is not the sinusoid, which the native form has no place for.
    pub force: bool,
    /// The contents of a `tekken.json` to write for a checkpoint in memory; that of a folder goes
    /// along without.
    pub tokenizer: Option<Vec<u8>>,
}

impl ConvertOptions {
    /// To `form`, with every tensor's own storage type and shards of [`DEFAULT_SHARD_BYTES`].
    pub fn new(form: Form) -> Self {
        Self {
            form,
            dtype: None,
            quant: None,
            max_shard_bytes: DEFAULT_SHARD_BYTES,
            force: false,
            tokenizer: None,
        }
    }
}

/// Writes `source` into the folder `out`, as the tools of the target form would: names, layout,
/// order, index and configuration files.
///
/// * Tensors are read and written one by one and in pieces, so memory stays bounded.
/// * To the Hugging Face form, the position table is written in F32 as transformers' conversion
///   script does, and stays F32 whatever `dtype` says, as `from_pretrained` keeps it. A stored
///   table of another type is never converted either.
/// * To the native form, the table is left out; it must be the sinusoid, unless `force` is set.
///   Converting back then gives the table of this crate, up to 10⁻⁴ from one that PyTorch computed.
///   Everything else survives both ways bit by bit.
/// * With `quant`, matrices are quantized (see [`TensorSpec::quantized_as`]) from their stored
///   values, and in the canonical order whatever form they come from; `config.json` says so.
/// * From a quantized checkpoint, `dtype` must say what to write; it cannot be quantized again.
/// * `tekken.json` is copied where there is one, and between Hugging Face checkpoints the other
///   small files are too.
///
/// Nothing that exists is overwritten, and on an error nothing remains.
///
/// # Errors
/// `source` is not complete, or quantized where it must not be; a target file exists, the target
/// form has no place for the model, a weight cannot be quantized, or writing fails.
pub fn convert(
    source: &Checkpoint,
    out: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &mut OnProgress<'_>,
) -> Result<Written, CheckpointError> {
    source.check_complete()?;
    match (source.quantized(), options.quant, options.dtype) {
        (Some(found), Some(_), _) => return Err(CheckpointError::AlreadyQuantized { found }),
        (Some(found), None, None) => return Err(CheckpointError::Quantized { found }),
        _ => {}
    }
    if options.form == Form::Native && !options.force {
        check_sinusoid(source)?;
    }
    let config = source.config();
    let mut values = Converted {
        source,
        dtype: options.dtype,
        quant: options.quant,
    };
    let plan = Plan::new(
        options.form,
        config,
        source.specs(),
        &values,
        options.max_shard_bytes,
    )?;
    // The first tensor is the one that transformers takes a model's type from.
    let dtype = source
        .specs()
        .first()
        .map_or(Dtype::BF16, |spec| values.dtype(spec));
    let copied = copied_files(source, options.form);
    let audio_token = match options.form {
        Form::HuggingFace => copied
            .iter()
            .find_map(|(path, name)| audio_token(path, name)),
        Form::Native => None,
    };

    let present: Vec<&str> = copied.iter().map(|(_, name)| *name).collect();
    let documents = documents(
        source.description(),
        options.form,
        dtype,
        options.quant,
        audio_token,
        &present,
    )?;
    // Converting into the folder itself finds the copied files in place.
    let copied: Vec<_> = copied
        .into_iter()
        .filter(|(path, name)| !is_same(path, &out.as_ref().join(name)))
        .collect();

    let mut staging = Staging::new(out.as_ref())?;
    let tokenizer = match (&options.tokenizer, source.dir()) {
        (Some(tokenizer), None) => Some((TOKENIZER, tokenizer)),
        _ => None,
    };
    let names = copied
        .iter()
        .map(|(_, name)| name)
        .chain(tokenizer.iter().map(|(name, _)| name))
        .chain(documents.iter().map(|(name, _)| name));
    names
        .into_iter()
        .try_for_each(|name| staging.check_free(name))?;
    plan.write(&mut staging, &mut values, progress)?;
    copied
        .iter()
        .try_for_each(|(path, name)| staging.copy(path, name))?;
    tokenizer
        .iter()
        .try_for_each(|(name, bytes)| staging.bytes(name, bytes))?;
    documents
        .iter()
        .try_for_each(|(name, json)| staging.json(name, json))?;
    Ok(Written {
        files: staging.commit()?,
        num_tensors: plan.num_tensors(),
        bytes: plan.bytes(),
    })
}

/// The configuration files of `form` by name, the one that makes a folder a checkpoint last, but
/// for those that are `present`.
pub(crate) fn documents(
    source: &Description,
    form: Form,
    dtype: Dtype,
    quant: Option<Quant>,
    audio_token: Option<u32>,
    present: &[&str],
) -> Result<Vec<(&'static str, Value)>, CheckpointError> {
    let encoder_vocab = encoder_vocab(source);
    if form == Form::Native {
        let params = match source.form {
            Form::Native => source.model.clone(),
            Form::HuggingFace => native::params_json(&source.config, encoder_vocab),
        };
        return Ok(vec![(native::PARAMS, params)]);
    }
    let mut documents = Vec::new();
    if !present.contains(&hf::PREPROCESSOR) && !present.contains(&hf::PROCESSOR) {
        documents.push((hf::PREPROCESSOR, hf::preprocessor_json(&source.config)));
    }
    if !present.contains(&hf::GENERATION) {
        documents.push((hf::GENERATION, hf::generation_json()));
    }
    let mut config = match source.form {
        Form::HuggingFace => retyped(source.model.clone(), dtype),
        Form::Native => hf::config_json(
            &source.config,
            Extra {
                dtype,
                encoder_vocab,
                audio_token,
            },
        )?,
    };
    if let Value::Object(members) = &mut config {
        members.remove(hf::QUANTIZATION);
        let stated =
            quant.map(|quant| (hf::QUANTIZATION.to_owned(), quantized::config_json(quant)));
        members.extend(stated);
    }
    documents.push((hf::CONFIG, config));
    Ok(documents)
}

/// The encoder's unused vocabulary, which only the files know.
fn encoder_vocab(source: &Description) -> Option<u64> {
    let args = match source.form {
        Form::HuggingFace => source.model.get("audio_config"),
        Form::Native => source
            .model
            .pointer("/multimodal/whisper_model_args/encoder_args"),
    };
    args?.get("vocab_size")?.as_u64()
}

/// The same configuration for weights of another type, in whichever field it has.
fn retyped(mut config: Value, dtype: Dtype) -> Value {
    let key = if config.get("torch_dtype").is_some() {
        "torch_dtype"
    } else {
        "dtype"
    };
    hf::merge(&mut config, json!({ key: dtype.torch_name() }));
    config
}

/// The small files that go along unchanged.
fn copied_files(source: &Checkpoint, form: Form) -> Vec<(std::path::PathBuf, &'static str)> {
    let between_hf = [hf::PREPROCESSOR, hf::PROCESSOR, hf::GENERATION];
    let more = if form == Form::HuggingFace && source.form() == form {
        &between_hf[..]
    } else {
        &[]
    };
    let Some(dir) = source.dir() else {
        return Vec::new();
    };
    std::iter::once(&TOKENIZER)
        .chain(more)
        .map(|&name| (dir.join(name), name))
        .filter(|(path, _)| path.is_file())
        .collect()
}

/// The id of `[AUDIO]` in a `tekken.json` that lists its special tokens.
fn audio_token(path: &Path, name: &str) -> Option<u32> {
    if name != TOKENIZER {
        return None;
    }
    let value: Value = serde_json::from_slice(&storage::read(path).ok()?).ok()?;
    let token = value
        .get("special_tokens")?
        .as_array()?
        .iter()
        .find(|token| token.get("token_str").and_then(Value::as_str) == Some("[AUDIO]"))?;
    u32::try_from(token.get("rank")?.as_u64()?).ok()
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Fails if there is a position table that differs from the sinusoid by more than its storage type
/// rounds.
fn check_sinusoid(source: &Checkpoint) -> Result<(), CheckpointError> {
    let Some(spec) = source
        .specs()
        .iter()
        .find(|spec| spec.module == Module::EncoderPositions)
    else {
        return Ok(());
    };
    let view = source.tensor(&spec.name(), spec.shape())?;
    let rounding = match view.dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => half::f16::EPSILON.to_f32() / 2.0,
        Dtype::BF16 => half::bf16::EPSILON.to_f32() / 2.0,
    };
    let expected = sinusoid(spec.shape()[0], spec.shape()[1]);
    let differences = view
        .to_f32()
        .into_iter()
        .zip(expected)
        .map(|(x, y)| (x - y).abs());
    // A NaN must not pass for a small difference.
    let difference = differences.fold(
        0.0,
        |most: f32, d| if d > most || d.is_nan() { d } else { most },
    );
    if difference <= sinusoid::TOLERANCE + rounding {
        return Ok(());
    }
    Err(CheckpointError::NotSinusoid {
        tensor: spec.name(),
        difference,
    })
}

/// The tensors of a checkpoint, in another type.
struct Converted<'a> {
    source: &'a Checkpoint,
    dtype: Option<Dtype>,
    quant: Option<Quant>,
}

impl Values for Converted<'_> {
    fn dtype(&self, spec: &TensorSpec) -> Dtype {
        let own = || {
            self.source
                .info(&spec.name())
                .map_or(Dtype::F32, |info| info.dtype)
        };
        match self.dtype {
            // What is quantized must not be rounded before.
            Some(_) if self.quant(spec).is_some() => own(),
            Some(dtype) if spec.module != Module::EncoderPositions => dtype,
            _ => own(),
        }
    }

    fn quant(&self, spec: &TensorSpec) -> Option<Quant> {
        spec.quantized_as(self.quant?)
    }

    fn put(&mut self, spec: &TensorSpec, sink: &mut dyn Sink) -> Result<(), CheckpointError> {
        let view = self.source.tensor(&spec.name(), spec.shape())?;
        view.each_piece(self.dtype(spec), &mut |piece| sink.put(piece))
    }
}
