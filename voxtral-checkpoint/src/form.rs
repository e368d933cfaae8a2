//! The two forms of checkpoint, and how each stores a tensor.

use std::fmt;

use crate::config::{Fusion, ModelConfig};
use crate::names::TensorSpec;
use crate::{hf, native};

/// Which tools a checkpoint is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `config.json`, `preprocessor_config.json`, `model.safetensors` or shards with an index: what
    /// transformers reads and writes.
    HuggingFace,
    /// `params.json`, `consolidated.safetensors`: what Mistral's own tools read and write.
    Native,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "Hugging Face",
            Self::Native => "native",
        })
    }
}

/// How a form stores a tensor, relative to the canonical layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// As it is.
    Keep,
    /// With the rows of each of `heads` heads in the order of neighbouring pairs.
    PermuteRope { heads: usize },
    /// Not at all: it is the sinusoid.
    Drop,
}

/// Where a form stores a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The name that is written, and then the other spellings that are read.
    pub(crate) names: Vec<String>,
    pub(crate) rule: Rule,
}

impl Form {
    /// Where this form stores `spec`, a tensor of the model `config`.
    pub(crate) fn stored(self, spec: &TensorSpec, config: &ModelConfig) -> Stored {
        let realtime = is_realtime(config);
        match self {
            Self::HuggingFace => hf::stored(spec, realtime),
            Self::Native => native::stored(spec, realtime),
        }
    }

    /// Stored names that say nothing new: copies of the embedding as the head.
    pub(crate) fn redundant(self, config: &ModelConfig) -> Vec<String> {
        let head = TensorSpec::tied_head(config);
        head.map(|spec| self.stored(&spec, config).names)
            .unwrap_or_default()
    }
}

/// Whether the names are those of the streaming models.
pub(crate) fn is_realtime(config: &ModelConfig) -> bool {
    matches!(config.fusion, Fusion::Sum { .. })
}
