//! A checkpoint, opened: its configuration and its tensors under canonical names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use voxtral_kernels::Quant;

use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::error::{CheckpointError, MissingTensor};
use crate::folder::{self, Description};
use crate::form::{Form, Rule};
use crate::header::Entry;
use crate::hf;
use crate::names::{self, Module, TensorSpec};
use crate::native;
use crate::quantize;
use crate::rope::{self, Direction};
use crate::sinusoid::sinusoid;
use crate::storage::{Located, Storage};
use crate::view::{self, FormatShare, TensorInfo, TensorView};

/// A checkpoint of either form, opened for reading.
///
/// Opening reads the configuration and the headers, and maps the weights without reading them.
/// Clones share everything.
#[derive(Clone)]
pub struct Checkpoint(Arc<Inner>);

struct Inner {
    dir: Option<PathBuf>,
    description: Description,
    storage: Storage,
    /// What the configuration demands, in the order of the computation.
    specs: Vec<TensorSpec>,
    /// What is there of it, by canonical name.
    present: BTreeMap<String, Present>,
    /// Stored names that nothing demands.
    surplus: Vec<String>,
}

/// A tensor that can be had.
struct Present {
    /// Its place among the specs.
    spec: usize,
    source: Source,
    rule: Rule,
}

enum Source {
    Stored(Located),
    /// The position table of a form that does not store it.
    Sinusoid {
        positions: usize,
        width: usize,
    },
}

impl Checkpoint {
    /// Opens the checkpoint in the folder `dir`, in whichever form it is complete; a folder with
    /// both is read as Hugging Face.
    ///
    /// # Errors
    /// A missing or unreadable file, a configuration that is incomplete or describes something
    /// else, a weights file whose header lies.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let form = folder::detect(dir.as_ref())?;
        Self::open_form(dir, form)
    }

    /// Opens the checkpoint in the folder `dir` in the given form.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_form(dir: impl AsRef<Path>, form: Form) -> Result<Self, CheckpointError> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            return Err(CheckpointError::NotAFolder {
                path: dir.to_owned(),
            });
        }
        let description = folder::describe(dir, form)?;
        let storage = folder::open_weights(dir, form)?;
        Self::new(Some(dir.to_owned()), description, storage)
    }

    /// A Hugging Face checkpoint in memory: the contents of `config.json`,
    /// `preprocessor_config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(
        config: &[u8],
        preprocessor: &[u8],
        weights: impl Into<Bytes>,
    ) -> Result<Self, CheckpointError> {
        let description = folder::describe_hugging_face(config, hf::PREPROCESSOR, preprocessor)?;
        let storage = Storage::from_bytes(hf::WEIGHTS, weights.into())?;
        Self::new(None, description, storage)
    }

    /// A native checkpoint in memory: the contents of `params.json` and
    /// `consolidated.safetensors`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_native_bytes(
        params: &[u8],
        weights: impl Into<Bytes>,
    ) -> Result<Self, CheckpointError> {
        let description = folder::describe_native(params)?;
        let storage = Storage::from_bytes(native::WEIGHTS, weights.into())?;
        Self::new(None, description, storage)
    }

    fn new(
        dir: Option<PathBuf>,
        description: Description,
        storage: Storage,
    ) -> Result<Self, CheckpointError> {
        let (form, config) = (description.form, &description.config);
        let quantized = storage.iter().find(|entry| entry.quant.is_some());
        if let (Form::Native, Some(entry)) = (form, quantized) {
            return Err(CheckpointError::QuantizedNative {
                file: native::WEIGHTS.to_owned(),
                tensor: entry.name.clone(),
            });
        }
        let specs = names::tensors(config);
        let mut present = BTreeMap::new();
        let mut known: BTreeSet<String> = form.redundant(config).into_iter().collect();
        for (at, spec) in specs.iter().enumerate() {
            let stored = form.stored(spec, config);
            let source = match (stored.rule, spec.shape()) {
                (Rule::Drop, &[positions, width]) => Some(Source::Sinusoid { positions, width }),
                _ => stored
                    .names
                    .iter()
                    .find_map(|name| storage.get(name))
                    .map(|located| {
                        known.insert(located.entry.name.clone());
                        Source::Stored(located.clone())
                    }),
            };
            let rule = stored.rule;
            present.extend(source.map(|source| {
                (
                    spec.name(),
                    Present {
                        spec: at,
                        source,
                        rule,
                    },
                )
            }));
        }
        let names = storage.iter().map(|entry| &entry.name);
        let surplus = names
            .filter(|name| !known.contains(*name))
            .cloned()
            .collect();
        Ok(Self(Arc::new(Inner {
            dir,
            description,
            storage,
            specs,
            present,
            surplus,
        })))
    }

    /// The form that was read.
    pub fn form(&self) -> Form {
        self.0.description.form
    }

    /// The folder that was opened; none for a checkpoint in memory.
    pub fn dir(&self) -> Option<&Path> {
        self.0.dir.as_deref()
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.0.description.config
    }

    /// The configuration file as it stands.
    pub(crate) fn description(&self) -> &Description {
        &self.0.description
    }

    /// What the configuration demands, in the order of the computation.
    pub(crate) fn specs(&self) -> &[TensorSpec] {
        &self.0.specs
    }

    /// The canonical names of the tensors that can be had.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.present.keys().map(String::as_str)
    }

    /// Type, shape and size of a tensor by its canonical name, without touching its data.
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(match &self.0.present.get(name)?.source {
            Source::Stored(located) => TensorInfo {
                dtype: located.entry.dtype,
                quant: located.entry.quant,
                shape: located.entry.shape.clone(),
                bytes: located.entry.range.len(),
            },
            &Source::Sinusoid { positions, width } => TensorInfo {
                dtype: Dtype::F32,
                quant: None,
                shape: vec![positions, width],
                bytes: positions * width * Dtype::F32.size(),
            },
        })
    }

    /// A tensor by its canonical name, in the canonical layout, which must have this shape.
    ///
    /// The data is a slice of the mapped file, with no copy, wherever the stored layout is the
    /// canonical one and lies aligned; a quantized matrix comes as it is stored.
    ///
    /// # Errors
    /// The tensor is unknown, missing, or of another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView, CheckpointError> {
        let info = self.info(name).ok_or_else(|| self.absent(name))?;
        if info.shape != shape {
            return Err(CheckpointError::Shape {
                tensor: name.to_owned(),
                found: info.shape,
                expected: shape.to_vec(),
            });
        }
        let data = self.data(name, &info)?;
        Ok(match info.quant {
            Some(quant) => TensorView::new_quantized(quant, info.shape, data),
            None => TensorView::new(info.dtype, info.shape, data),
        })
    }

    /// As [`Self::tensor`], but quantized in memory if a checkpoint that is quantized as `asked`
    /// has it quantized (see [`TensorSpec::quantized_as`]). What is quantized already stays as it
    /// is stored: rounding twice would lose more.
    ///
    /// All threads work on it, and beside the result there is memory for 16 rows each.
    ///
    /// # Errors
    /// As [`Self::tensor`], or a weight that cannot be quantized: it is not finite, or too large.
    pub fn quantized_tensor(
        &self,
        name: &str,
        shape: &[usize],
        asked: Quant,
    ) -> Result<TensorView, CheckpointError> {
        let view = self.tensor(name, shape)?;
        let spec = self
            .0
            .present
            .get(name)
            .map(|present| &self.0.specs[present.spec]);
        match spec.and_then(|spec| spec.quantized_as(asked)) {
            Some(quant) if spec.is_some_and(|spec| spec.shape() == shape) => view
                .into_quantized(quant)
                .map_err(|value| quantize::unquantizable(name.to_owned(), value)),
            _ => Ok(view),
        }
    }

    fn data(&self, name: &str, info: &TensorInfo) -> Result<Bytes, CheckpointError> {
        let present = self.0.present.get(name).ok_or_else(|| self.absent(name))?;
        let stored = match &present.source {
            Source::Stored(located) => self.0.storage.bytes(located),
            &Source::Sinusoid { positions, width } => {
                let table = sinusoid(positions, width);
                return Ok(table
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect::<Vec<u8>>()
                    .into());
            }
        };
        let Rule::PermuteRope { heads } = present.rule else {
            return Ok(stored);
        };
        // Rows can only be reordered where their number is the configuration's.
        let spec = &self.0.specs[present.spec];
        if spec.shape() != info.shape {
            return Err(misshapen(spec, info.shape.clone()));
        }
        Ok(rope::permute_rows(&stored, info.shape[0], heads, Direction::ToHalves).into())
    }

    fn absent(&self, name: &str) -> CheckpointError {
        match self.0.specs.iter().find(|spec| spec.name() == name) {
            Some(spec) => CheckpointError::MissingTensors {
                tensors: vec![self.missing_tensor(spec)],
            },
            None => CheckpointError::UnknownTensor {
                tensor: name.to_owned(),
            },
        }
    }

    /// Checks that every tensor that the configuration demands is there with its shape, and that
    /// nothing else is.
    ///
    /// # Errors
    /// The first of: missing tensors, a tensor of another shape, surplus tensors, a stored head
    /// that is not the embedding where the configuration says that it is.
    pub fn check_complete(&self) -> Result<(), CheckpointError> {
        let missing = self.missing();
        if !missing.is_empty() {
            return Err(CheckpointError::MissingTensors { tensors: missing });
        }
        if let Some(error) = self.misshapen().into_iter().next() {
            return Err(error);
        }
        match self.surplus() {
            [] => self.check_tied(),
            surplus => Err(CheckpointError::SurplusTensors {
                tensors: surplus.to_vec(),
            }),
        }
    }

    /// Compares a stored copy of a tied head with the embedding.
    fn check_tied(&self) -> Result<(), CheckpointError> {
        let inner = &*self.0;
        let copies = self.form().redundant(self.config());
        let embedding = inner
            .specs
            .iter()
            .position(|spec| spec.module == Module::Embedding);
        let embedding = inner
            .present
            .values()
            .find(|present| Some(present.spec) == embedding);
        let Some(Source::Stored(embedding)) = embedding.map(|present| &present.source) else {
            return Ok(());
        };
        let differs = |copy: &&Located| {
            (copy.entry.dtype, copy.entry.quant) != (embedding.entry.dtype, embedding.entry.quant)
                || !sampled_eq(&inner.storage.bytes(copy), &inner.storage.bytes(embedding))
        };
        match copies
            .iter()
            .filter_map(|name| inner.storage.get(name))
            .find(differs)
        {
            None => Ok(()),
            Some(copy) => Err(CheckpointError::NotTied {
                head: copy.entry.name.clone(),
                embedding: embedding.entry.name.clone(),
            }),
        }
    }

    /// The tensors that the configuration demands and the files lack.
    pub fn missing(&self) -> Vec<MissingTensor> {
        let absent = |spec: &&TensorSpec| !self.0.present.contains_key(&spec.name());
        self.0
            .specs
            .iter()
            .filter(absent)
            .map(|spec| self.missing_tensor(spec))
            .collect()
    }

    /// One error for each tensor that has another shape than the configuration demands.
    pub fn misshapen(&self) -> Vec<CheckpointError> {
        self.0
            .specs
            .iter()
            .filter_map(|spec| {
                let found = self.info(&spec.name())?.shape;
                (found != spec.shape()).then(|| misshapen(spec, found))
            })
            .collect()
    }

    /// The stored names of tensors that the configuration does not demand.
    pub fn surplus(&self) -> &[String] {
        &self.0.surplus
    }

    /// The number of tensors in the files.
    pub fn num_tensors(&self) -> usize {
        self.0.storage.iter().count()
    }

    /// The number of elements of all tensors in the files, quantized or not.
    pub fn num_parameters(&self) -> u64 {
        self.0.storage.iter().map(Entry::num_elements).sum()
    }

    /// The number of bytes of all tensors in the files.
    pub fn total_bytes(&self) -> u64 {
        self.0
            .storage
            .iter()
            .map(|entry| entry.range.len() as u64)
            .sum()
    }

    /// The format that the files are quantized in: the coarsest of their tensors'; `None` if all
    /// are floats.
    pub fn quantized(&self) -> Option<Quant> {
        let quantized = |quant| {
            self.0
                .storage
                .iter()
                .any(|entry| entry.quant == Some(quant))
        };
        Quant::ALL.into_iter().rev().find(|&quant| quantized(quant))
    }

    /// How the tensors in the files are stored, what takes most first.
    pub fn formats(&self) -> Vec<FormatShare> {
        let mut shares: Vec<FormatShare> = Vec::new();
        for entry in self.0.storage.iter() {
            let (name, bytes) = (
                view::format_name(entry.dtype, entry.quant),
                entry.range.len() as u64,
            );
            match shares.iter_mut().find(|share| share.name == name) {
                Some(share) => {
                    share.num_tensors += 1;
                    share.bytes += bytes;
                }
                None => shares.push(FormatShare {
                    name,
                    num_tensors: 1,
                    bytes,
                }),
            }
        }
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        shares
    }

    /// Bits that the files take for each element, scales included.
    pub fn bits_per_parameter(&self) -> f64 {
        8.0 * self.total_bytes() as f64 / self.num_parameters().max(1) as f64
    }

    fn missing_tensor(&self, spec: &TensorSpec) -> MissingTensor {
        let stored = self.form().stored(spec, self.config()).names;
        MissingTensor {
            name: spec.name(),
            stored: stored.into_iter().next().unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("form", &self.form())
            .field("dir", &self.dir())
            .field("tensors", &self.num_tensors())
            .field("bytes", &self.total_bytes())
            .finish_non_exhaustive()
    }
}

fn misshapen(spec: &TensorSpec, found: Vec<usize>) -> CheckpointError {
    CheckpointError::Shape {
        tensor: spec.name(),
        found,
        expected: spec.shape().to_vec(),
    }
}

/// Whether two matrices are the same as far as some pieces of them show, which tells a copy from
/// another matrix without reading gigabytes.
fn sampled_eq(one: &[u8], other: &[u8]) -> bool {
    const PIECES: usize = 64;
    const PIECE: usize = 64;
    let step = (one.len() / PIECES).max(PIECE);
    let mut pieces = one.chunks(step).zip(other.chunks(step));
    one.len() == other.len() && pieces.all(|(x, y)| x.iter().take(PIECE).eq(y.iter().take(PIECE)))
}
