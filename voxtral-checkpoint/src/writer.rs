//! Writing the weights of a model, tensor by tensor, as the tools of either form would.
//!
//! A safetensors file starts with a header that says where every tensor lies, so all names, types
//! and shapes are known before the first byte. Inside a file tensors stand as the safetensors
//! library puts them: wider types first, then by name. The Hugging Face form is split into shards
//! (see [`crate::shards`]) with an index; the native form is one file.
//!
//! A file with quantized matrices has what no other tool reads in place, so it is laid out for
//! mapping: its data starts at a multiple of 64 bytes, and tensors come by the power of two that
//! divides their sizes, the highest first (from 64 on all are alike). Each then starts at a multiple
//! of its own, and the panels of every matrix of a published model at one of 64.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;
use voxtral_kernels::Quant;

use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::error::CheckpointError;
use crate::form::{Form, Rule};
use crate::header::LENGTH_BYTES;
use crate::names::TensorSpec;
use crate::quantize::Quantizer;
use crate::quantized::{self, ALIGNMENT, Declared};
use crate::rope::{self, Direction};
use crate::staging::{Staging, Writer};
use crate::{hf, native, shards};

/// How far writing has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The stored name of the tensor being written.
    pub tensor: &'a str,
    /// Bytes of tensors written.
    pub bytes: u64,
    /// Bytes of tensors there are to write.
    pub total: u64,
}

/// Hears of progress, and may end the work, whereupon nothing of it remains.
pub type OnProgress<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Every file, in the order in which they appeared.
    pub files: Vec<PathBuf>,
    /// The number of tensors.
    pub num_tensors: usize,
    /// The bytes of tensors.
    pub bytes: u64,
}

/// Where the values come from.
pub(crate) trait Values {
    /// The type in which `spec` is to be written, or from which it is to be quantized.
    fn dtype(&self, spec: &TensorSpec) -> Dtype;

    /// The format in which `spec` is to be written, if it is to be quantized.
    fn quant(&self, spec: &TensorSpec) -> Option<Quant>;

    /// Puts the elements of `spec`, in the canonical layout and in that type, into `sink`.
    fn put(&mut self, spec: &TensorSpec, sink: &mut dyn Sink) -> Result<(), CheckpointError>;
}

/// Takes the bytes of a tensor, piece by piece.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError>;
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A tensor that a form stores.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    spec: TensorSpec,
    name: String,
    rule: Rule,
    dtype: Dtype,
    quantized: Option<Declared>,
    /// Type and shape in the header.
    stored: (safetensors::Dtype, Vec<usize>),
    bytes: usize,
}

impl Planned {
    fn new(
        form: Form,
        config: &ModelConfig,
        spec: &TensorSpec,
        values: &dyn Values,
    ) -> Option<Self> {
        let stored = form.stored(spec, config);
        let dtype = values.dtype(spec);
        let quantized = match (values.quant(spec), spec.shape()) {
            (Some(quant), &[rows, inputs]) => {
                let shape = [rows, inputs];
                Some(Declared { quant, shape })
            }
            _ => None,
        };
        let panels = quantized.and_then(Declared::stored_shape);
        let (shown, bytes) = match panels {
            Some(panels) => {
                let bytes = panels.iter().product();
                ((safetensors::Dtype::U8, panels.to_vec()), bytes)
            }
            None => {
                let bytes = spec.num_elements() * dtype.size();
                ((dtype.into(), spec.shape().to_vec()), bytes)
            }
        };
        Some(Self {
            spec: spec.clone(),
            name: stored.names.into_iter().next()?,
            rule: stored.rule,
            dtype,
            quantized,
            stored: shown,
            bytes,
        })
    }
}

/// The weights files of a model, before they are written.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    form: Form,
    /// Name and tensors of each file.
    files: Vec<(String, Vec<Planned>)>,
}

impl Plan {
    /// Lays out the tensors of `config` in `form`, with shards of at most `max_shard_bytes`.
    pub(crate) fn new(
        form: Form,
        config: &ModelConfig,
        specs: &[TensorSpec],
        values: &dyn Values,
        max_shard_bytes: u64,
    ) -> Result<Self, CheckpointError> {
        let planned: Vec<Planned> = specs
            .iter()
            .filter_map(|spec| Planned::new(form, config, spec, values))
            .collect();
        if form == Form::Native && is_quantized(&planned) {
            return Err(CheckpointError::NotExpressible {
                form,
                why: "its rows stand in another order than those of quantized matrices, so \
                      quantize into the Hugging Face form"
                    .to_owned(),
            });
        }
        let files = match form {
            Form::Native => vec![(native::WEIGHTS.to_owned(), planned)],
            Form::HuggingFace => sharded(&planned, max_shard_bytes),
        };
        let files = files.into_iter().map(|(name, mut tensors)| {
            let quantized = is_quantized(&tensors);
            let alignment = |tensor: &Planned| match quantized {
                true => tensor
                    .bytes
                    .trailing_zeros()
                    .min(ALIGNMENT.trailing_zeros()),
                false => 0,
            };
            tensors.sort_by(|a, b| {
                let by_alignment = alignment(b).cmp(&alignment(a));
                by_alignment
                    .then_with(|| b.stored.0.cmp(&a.stored.0))
                    .then_with(|| a.name.cmp(&b.name))
            });
            (name, tensors)
        });
        Ok(Self {
            form,
            files: files.collect(),
        })
    }

    pub(crate) fn num_tensors(&self) -> usize {
        self.tensors().count()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.bytes as u64).sum()
    }

    fn tensors(&self) -> impl Iterator<Item = &Planned> {
        self.files.iter().flat_map(|(_, tensors)| tensors)
    }

    /// Whether none of the files is there yet.
    pub(crate) fn check_free(&self, staging: &Staging) -> Result<(), CheckpointError> {
        self.files
            .iter()
            .try_for_each(|(name, _)| staging.check_free(name))
    }

    /// Writes all files, and the index where there are shards.
    pub(crate) fn write(
        &self,
        staging: &mut Staging,
        values: &mut dyn Values,
        progress: &mut OnProgress<'_>,
    ) -> Result<(), CheckpointError> {
        self.check_free(staging)?;
        let (total, mut bytes) = (self.bytes(), 0);
        for (file, tensors) in &self.files {
            let mut sink = FileSink {
                file,
                writer: staging.create(file)?,
                tensor: "",
                bytes,
                total,
                progress,
            };
            sink.write(&self.header(file, tensors)?)?;
            for tensor in tensors {
                sink.tensor = &tensor.name;
                tensor.write(values, &mut sink)?;
            }
            bytes = sink.finish()?;
        }
        if self.files.len() > 1 {
            staging.json(hf::INDEX, &self.index())?;
        }
        Ok(())
    }

    /// The header's length and the header, as the safetensors library writes them. transformers
    /// adds a note of the framework, which is not for files that it cannot read; Mistral's tools
    /// add nothing.
    fn header(&self, file: &str, tensors: &[Planned]) -> Result<Vec<u8>, CheckpointError> {
        let broken = |what: String| CheckpointError::BadHeader {
            file: file.to_owned(),
            what,
        };
        let note = |key: &str, value| Some(HashMap::from([(key.to_owned(), value)]));
        let quantized = is_quantized(tensors);
        let note = match self.form {
            _ if quantized => {
                let tensors = tensors.iter();
                let tensors = tensors.filter_map(|t| Some((t.name.as_str(), t.quantized?)));
                note(quantized::KEY, quantized::note(tensors))
            }
            Form::HuggingFace => note("format", "pt".to_owned()),
            Form::Native => None,
        };
        let mut at = 0;
        let entries = tensors.iter().map(|tensor| {
            let from = at;
            at += tensor.bytes;
            let (dtype, shape) = tensor.stored.clone();
            let info = TensorInfo {
                dtype,
                shape,
                data_offsets: (from, at),
            };
            (tensor.name.clone(), info)
        });
        let metadata =
            Metadata::new(note, entries.collect()).map_err(|error| broken(error.to_string()))?;
        let mut json = serde_json::to_vec(&metadata).map_err(|error| broken(error.to_string()))?;
        let multiple = if quantized { ALIGNMENT } else { LENGTH_BYTES };
        let length = (LENGTH_BYTES + json.len()).next_multiple_of(multiple) - LENGTH_BYTES;
        json.resize(length, b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(header)
    }

    /// The contents of `model.safetensors.index.json`.
    fn index(&self) -> serde_json::Value {
        let places: BTreeMap<&str, &str> = self
            .files
            .iter()
            .flat_map(|(file, tensors)| {
                tensors
                    .iter()
                    .map(move |t| (t.name.as_str(), file.as_str()))
            })
            .collect();
        let parameters: usize = self
            .tensors()
            .map(|tensor| tensor.spec.num_elements())
            .sum();
        json!({
            "metadata": { "total_parameters": parameters, "total_size": self.bytes() },
            "weight_map": places,
        })
    }
}

fn is_quantized(tensors: &[Planned]) -> bool {
    tensors.iter().any(|tensor| tensor.quantized.is_some())
}

/// Names the files of the Hugging Face form.
fn sharded(planned: &[Planned], limit: u64) -> Vec<(String, Vec<Planned>)> {
    let sizes: Vec<_> = planned
        .iter()
        .map(|t| (hf::in_memory(&t.name), t.bytes as u64))
        .collect();
    let shards = shards::split(&sizes, limit);
    let count = shards.len();
    let name = |at| {
        if count == 1 {
            hf::WEIGHTS.to_owned()
        } else {
            hf::shard(at + 1, count)
        }
    };
    shards
        .iter()
        .enumerate()
        .map(|(at, shard)| {
            (
                name(at),
                shard
                    .iter()
                    .map(|&tensor| planned[tensor].clone())
                    .collect(),
            )
        })
        .collect()
}

impl Planned {
    fn write(&self, values: &mut dyn Values, sink: &mut dyn Sink) -> Result<(), CheckpointError> {
        if let Some(Declared { quant, .. }) = self.quantized {
            let mut quantizer = Quantizer::new(&self.spec, quant, self.dtype, sink);
            values.put(&self.spec, &mut quantizer)?;
            return quantizer.flush();
        }
        let Rule::PermuteRope { heads } = self.rule else {
            return values.put(&self.spec, sink);
        };
        // Queries and keys are the small matrices: one fits in memory many times over.
        let mut canonical = Vec::with_capacity(self.bytes);
        values.put(&self.spec, &mut canonical)?;
        let rows = self.spec.shape()[0];
        sink.put(&rope::permute_rows(
            &canonical,
            rows,
            heads,
            Direction::ToNeighbours,
        ))
    }
}

/// The file being written, which tells how far it has come.
struct FileSink<'a, 'p> {
    file: &'a str,
    writer: Writer,
    tensor: &'a str,
    bytes: u64,
    total: u64,
    progress: &'a mut OnProgress<'p>,
}

impl FileSink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.writer
            .write_all(bytes)
            .map_err(|source| self.failed(source))
    }

    /// Gives the bytes of tensors written so far, in this file and the ones before.
    fn finish(mut self) -> Result<u64, CheckpointError> {
        self.writer.flush().map_err(|source| self.failed(source))?;
        Ok(self.bytes)
    }

    fn failed(&self, source: std::io::Error) -> CheckpointError {
        CheckpointError::Io {
            action: "write",
            path: self.file.into(),
            source,
        }
    }
}

impl Sink for FileSink<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.write(bytes)?;
        self.bytes += bytes.len() as u64;
        let (tensor, bytes, total) = (self.tensor, self.bytes, self.total);
        match (self.progress)(Progress {
            tensor,
            bytes,
            total,
        }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CheckpointError::Cancelled),
        }
    }
}
