//! The embedded demo models: tiny trained checkpoints of both architectures.
//!
//! They understand spoken digits in English, French, German and Spanish. `demo/README.md` and
//! `demo-realtime/README.md` say how they were made.

use bytes::Bytes;
use voxtral_checkpoint::Checkpoint;
use voxtral_tokenizer::{Language, Tokenizer};

use crate::PipelineError;

/// A model embedded in the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demo {
    /// The 2507 architecture, in the Hugging Face form: whole clips.
    Clips,
    /// The Realtime architecture, in the native form: streams.
    Realtime,
}

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../", $name))
    };
}

impl Demo {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Clips, Self::Realtime];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clips => "demo",
            Self::Realtime => "demo-realtime",
        }
    }

    /// The languages that it understands.
    pub fn languages(self) -> Vec<Language> {
        let codes = ["de", "en", "es", "fr"].into_iter();
        codes.filter_map(|code| code.parse().ok()).collect()
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|demo| demo.name() == name)
    }

    /// Its checkpoint and tokenizer.
    ///
    /// # Errors
    /// None, unless the embedded files were exchanged for faulty ones.
    pub fn load(self) -> Result<(Checkpoint, Tokenizer), PipelineError> {
        Ok(match self {
            Self::Clips => (
                Checkpoint::from_bytes(
                    file!("demo/config.json"),
                    file!("demo/preprocessor_config.json"),
                    Bytes::from_static(file!("demo/model.safetensors")),
                )?,
                Tokenizer::from_bytes(file!("demo/tekken.json"))?,
            ),
            Self::Realtime => (
                Checkpoint::from_native_bytes(
                    file!("demo-realtime/params.json"),
                    Bytes::from_static(file!("demo-realtime/consolidated.safetensors")),
                )?,
                Tokenizer::from_bytes(file!("demo-realtime/tekken.json"))?,
            ),
        })
    }
}
