//! Configurations, tensor names, readers and writers of Voxtral checkpoints.
//!
//! Voxtral models come in two forms: Hugging Face's (`config.json`, `model.safetensors` or shards)
//! and Mistral's own (`params.json`, `consolidated.safetensors`). They differ in names, in the order
//! of the rows that rotary embeddings turn, and in how they describe the model. [`Checkpoint`] opens
//! either, says in one [`ModelConfig`] what the model is, and gives its tensors under one set of
//! canonical names ([`tensors`] lists them, with shapes) in one layout, Hugging Face's. Weights are
//! mapped, not read, and used where they lie.
//!
//! Files are not trusted: a header that lies, an index that names the wrong shard, a tensor that is
//! missing, misshapen or of a foreign type, a configuration that lacks a number is an error that
//! says which file, which tensor or field, what was found and what was expected.
//!
//! Matrices may be quantized, in 8.25 or 4.5 bits for each weight ([`Quant`]). They are mapped and
//! used where they lie, too, in the layout of `voxtral-kernels`, which defines it; [`TensorView`]
//! gives their values to whoever needs floats.
//!
//! [`convert()`] writes one form from the other, or quantizes, and [`random_checkpoint`] makes a checkpoint of
//! genuine names and shapes with random values, as here for a model of a few kilobytes:
//!
//! ```
//! use std::ops::ControlFlow;
//! use voxtral_checkpoint::{Checkpoint, Form, RandomModel, RandomOptions, random_checkpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let root = tempfile::tempdir()?;
//! # let out = root.path().join("model");
//! # let params = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/offline/native/params.json").into();
//! let options = RandomOptions { form: Form::Native, ..RandomOptions::new(RandomModel::File(params)) };
//! random_checkpoint(&options, &out, &mut |_| ControlFlow::Continue(()))?;
//!
//! let checkpoint = Checkpoint::open(&out)?;
//! checkpoint.check_complete()?;
//! let decoder = &checkpoint.config().decoder;
//! let shape = [decoder.vocab_size, decoder.hidden_size];
//! let embedding = checkpoint.tensor("decoder.embedding.weight", &shape)?;
//! assert_eq!(embedding.to_f32().len(), shape[0] * shape[1]);
//! # Ok(())
//! # }
//! ```

pub mod config;

mod checkpoint;
mod convert;
mod dtype;
mod error;
mod folder;
mod form;
mod header;
mod hf;
mod json;
mod names;
mod native;
mod quantize;
mod quantized;
mod random;
mod recipe;
mod rope;
mod shards;
mod sinusoid;
mod staging;
mod storage;
mod validate;
mod view;
mod writer;

pub use checkpoint::Checkpoint;
pub use config::*;
pub use convert::{ConvertOptions, DEFAULT_SHARD_BYTES, convert};
pub use dtype::{Dtype, ParseDtypeError};
pub use error::{CheckpointError, MissingTensor};
pub use form::Form;
pub use names::{TensorSpec, tensors};
pub use random::{ParsePresetError, Preset, RandomModel, RandomOptions, random_checkpoint};
pub use view::{FormatShare, TensorInfo, TensorView};
pub use voxtral_kernels::{Quant, dequantize};
pub use writer::{OnProgress, Progress, Written};
