//! Checkpoints of random values, with the names, shapes and files of genuine ones.
//!
//! For trying loaders, memory and speed without the published weights. Matrices and biases are
//! normal with a small deviation, the gains of norms are 1, the position table is the sinusoid: the
//! activations stay finite. The values of a tensor depend on the seed and its canonical name alone,
//! so both forms of one seed are the same model.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use voxtral_kernels::Quant;

use crate::config::ModelConfig;
use crate::convert::{self, DEFAULT_SHARD_BYTES, TOKENIZER};
use crate::dtype::{self, Dtype};
use crate::error::CheckpointError;
use crate::folder::{self, Description};
use crate::form::Form;
use crate::names::{self, Module, Part, TensorSpec};
use crate::sinusoid::sinusoid;
use crate::staging::Staging;
use crate::storage;
use crate::writer::{OnProgress, Plan, Sink, Values, Written};
use crate::{hf, json};

/// Deviation of matrices, as `initializer_range` of every Voxtral configuration.
const DEVIATION: f64 = 0.02;

/// Bytes that are made at once.
const CHUNK: usize = 1 << 20;

/// The published models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Voxtral-Mini-3B-2507.
    Mini,
    /// Voxtral-Small-24B-2507.
    Small,
    /// Voxtral-Mini-4B-Realtime-2602.
    Realtime,
}

impl Preset {
    /// The name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mini => "mini",
            Self::Small => "small",
            Self::Realtime => "realtime",
        }
    }

    /// The contents of the model's `params.json`.
    pub const fn params(self) -> &'static str {
        match self {
            Self::Mini => include_str!("presets/mini.json"),
            Self::Small => include_str!("presets/small.json"),
            Self::Realtime => include_str!("presets/realtime.json"),
        }
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// None in practice: the file is part of this crate and read by its tests.
    pub fn config(self) -> Result<ModelConfig, CheckpointError> {
        Ok(folder::describe_native(self.params().as_bytes())?.config)
    }
}

/// The error of parsing a [`Preset`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known model: expected mini, small or realtime")]
pub struct ParsePresetError(String);

impl FromStr for Preset {
    type Err = ParsePresetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Mini, Self::Small, Self::Realtime]
            .into_iter()
            .find(|preset| preset.name() == text)
            .ok_or_else(|| ParsePresetError(text.to_owned()))
    }
}

/// Which model to fill with random values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RandomModel {
    /// A published one.
    Preset(Preset),
    /// The one that a `params.json`, or a `config.json` beside its `preprocessor_config.json`,
    /// describes.
    File(PathBuf),
}

/// What [`random_checkpoint`] is to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RandomOptions {
    /// The model.
    pub model: RandomModel,
    /// The form to write.
    pub form: Form,
    /// The storage type of what is not quantized.
    pub dtype: Dtype,
    /// The format to quantize matrices in, in the Hugging Face form.
    pub quant: Option<Quant>,
    /// The values' seed.
    pub seed: u64,
    /// The size that a shard of the Hugging Face form may have.
    pub max_shard_bytes: u64,
    /// A `tekken.json` to copy, without which the checkpoint cannot make text.
    pub tokenizer: Option<PathBuf>,
}

impl RandomOptions {
    /// `model` as it is published: in BF16, in the Hugging Face form, in shards of 5 GB.
    pub fn new(model: RandomModel) -> Self {
        let (form, dtype, max_shard_bytes) = (Form::HuggingFace, Dtype::BF16, DEFAULT_SHARD_BYTES);
        Self {
            model,
            form,
            dtype,
            quant: None,
            seed: 0,
            max_shard_bytes,
            tokenizer: None,
        }
    }
}

/// Writes a checkpoint of random values into the folder `out`.
///
/// Nothing that exists is overwritten, and on an error nothing remains.
///
/// # Errors
/// The configuration file is not sound, a target file exists, or writing fails.
pub fn random_checkpoint(
    options: &RandomOptions,
    out: impl AsRef<Path>,
    progress: &mut OnProgress<'_>,
) -> Result<Written, CheckpointError> {
    let description = description(&options.model)?;
    let config = &description.config;
    let specs = names::tensors(config);
    let mut values = RandomValues::new(options.seed, options.dtype, options.quant);
    let plan = Plan::new(
        options.form,
        config,
        &specs,
        &values,
        options.max_shard_bytes,
    )?;
    let documents = convert::documents(
        &description,
        options.form,
        options.dtype,
        options.quant,
        None,
        &[],
    )?;
    let mut staging = Staging::new(out.as_ref())?;
    documents
        .iter()
        .try_for_each(|(name, _)| staging.check_free(name))?;
    if let Some(tokenizer) = &options.tokenizer {
        staging.copy(tokenizer, TOKENIZER)?;
    }
    plan.write(&mut staging, &mut values, progress)?;
    documents
        .iter()
        .try_for_each(|(name, json)| staging.json(name, json))?;
    Ok(Written {
        files: staging.commit()?,
        num_tensors: plan.num_tensors(),
        bytes: plan.bytes(),
    })
}

fn description(model: &RandomModel) -> Result<Description, CheckpointError> {
    let path = match model {
        RandomModel::Preset(preset) => return folder::describe_native(preset.params().as_bytes()),
        RandomModel::File(path) => path,
    };
    let bytes = storage::read(path)?;
    let is_hugging_face = json::parse(&storage::file_name(path), &bytes)?
        .get("model_type")
        .is_some();
    if !is_hugging_face {
        return folder::describe_native(&bytes);
    }
    let features = path.with_file_name(hf::PREPROCESSOR);
    folder::describe_hugging_face(&bytes, hf::PREPROCESSOR, &storage::read(&features)?)
}

/// A source of random tensors.
struct RandomValues {
    seed: u64,
    dtype: Dtype,
    quant: Option<Quant>,
    /// Normal values, as they are stored.
    table: Vec<u8>,
}

/// Entries of the table of normal values: a power of two below 2¹⁶.
const TABLE: usize = 1 << 14;

impl RandomValues {
    fn new(seed: u64, dtype: Dtype, quant: Option<Quant>) -> Self {
        // Box and Muller's method: two uniform values make a normal one.
        let mut bits = SplitMix(0);
        let mut uniform = move || (bits.next() >> 11) as f64 / (1u64 << 53) as f64;
        let mut table = Vec::with_capacity(TABLE * dtype.size());
        for _ in 0..TABLE {
            let (radius, turn) = ((-2.0 * (1.0 - uniform()).ln()).sqrt(), uniform());
            let value = DEVIATION * radius * (std::f64::consts::TAU * turn).cos();
            dtype::convert(&(value as f32).to_le_bytes(), Dtype::F32, dtype, &mut table);
        }
        Self {
            seed,
            dtype,
            quant,
            table,
        }
    }

    /// Puts `count` entries of the table, chosen at random, `N` bytes each.
    fn put_random<const N: usize>(
        &self,
        mut bits: SplitMix,
        count: usize,
        sink: &mut dyn Sink,
    ) -> Result<(), CheckpointError> {
        let table = self.table.as_chunks::<N>().0;
        let per_chunk = CHUNK / N;
        let mut chunk = vec![[0; N]; per_chunk.min(count.next_multiple_of(4))];
        let mut left = count;
        while left > 0 {
            for four in chunk.as_chunks_mut::<4>().0 {
                let word = bits.next();
                for (at, element) in four.iter_mut().enumerate() {
                    *element = table[(word >> (16 * at)) as usize % TABLE];
                }
            }
            let taken = left.min(chunk.len());
            sink.put(chunk[..taken].as_flattened())?;
            left -= taken;
        }
        Ok(())
    }
}

impl Values for RandomValues {
    fn dtype(&self, spec: &TensorSpec) -> Dtype {
        // As transformers' conversion script leaves it.
        if spec.module == Module::EncoderPositions {
            Dtype::F32
        } else {
            self.dtype
        }
    }

    fn quant(&self, spec: &TensorSpec) -> Option<Quant> {
        spec.quantized_as(self.quant?)
    }

    fn put(&mut self, spec: &TensorSpec, sink: &mut dyn Sink) -> Result<(), CheckpointError> {
        if spec.module == Module::EncoderPositions {
            let table = sinusoid(spec.shape()[0], spec.shape()[1]);
            return sink.put(
                &table
                    .iter()
                    .flat_map(|x| x.to_le_bytes())
                    .collect::<Vec<_>>(),
            );
        }
        if spec.module.is_norm() && spec.part == Part::Weight {
            let ones = 1f32.to_le_bytes().repeat(spec.num_elements());
            let mut stored = Vec::new();
            dtype::convert(&ones, Dtype::F32, self.dtype, &mut stored);
            return sink.put(&stored);
        }
        let bits = SplitMix(self.seed ^ hash(&spec.name()));
        match self.dtype.size() {
            4 => self.put_random::<4>(bits, spec.num_elements(), sink),
            _ => self.put_random::<2>(bits, spec.num_elements(), sink),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// FNV-1a, 64 bits.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
