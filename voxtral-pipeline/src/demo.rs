//! The embedded demo model: a tiny trained checkpoint of the 2507 architecture.
//!
//! It understands spoken digits, one to eight in a row, in English, French, German and Spanish.
//! `demo/README.md` says how it was made.

use bytes::Bytes;
use voxtral_checkpoint::Checkpoint;
use voxtral_tokenizer::Tokenizer;

use crate::PipelineError;

/// What people call it.
pub(crate) const NAME: &str = "demo";

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../demo/", $name))
    };
}

/// The embedded checkpoint and its tokenizer.
///
/// # Errors
/// None, unless the embedded files were exchanged for faulty ones.
pub fn demo() -> Result<(Checkpoint, Tokenizer), PipelineError> {
    let checkpoint = Checkpoint::from_bytes(
        file!("config.json"),
        file!("preprocessor_config.json"),
        Bytes::from_static(file!("model.safetensors")),
    )?;
    let tokenizer = Tokenizer::from_bytes(file!("tekken.json"))?;
    Ok((checkpoint, tokenizer))
}
