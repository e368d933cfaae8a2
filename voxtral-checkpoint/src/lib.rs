//! Configurations, tensor names, readers and writers of Voxtral checkpoints.

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
mod random;
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
pub use view::{TensorInfo, TensorView};
pub use writer::{OnProgress, Progress, Written};
