//! What can be wrong with a checkpoint.

use std::fmt;
use std::path::PathBuf;

use voxtral_kernels::Quant;

use crate::form::Form;

/// The error of every operation of this crate: what is wrong, where, what was found and what was
/// expected. Messages are fragments without a final stop, made to follow `failed to load model: `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read, mapped or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted: `read`, `map`, `write`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },

    /// The folder does not exist, or is a file.
    #[error("`{}` is not a folder: give the folder that holds the checkpoint's files", path.display())]
    NotAFolder {
        /// The path that was given.
        path: PathBuf,
    },

    /// The folder holds no complete checkpoint of any form.
    #[error(
        "`{}` holds no complete checkpoint: the Hugging Face form lacks {}, the native form lacks {}",
        dir.display(), Listed("", hugging_face), Listed("", native)
    )]
    NoCheckpoint {
        /// The folder.
        dir: PathBuf,
        /// What the Hugging Face form lacks.
        hugging_face: Vec<String>,
        /// What the native form lacks.
        native: Vec<String>,
    },

    /// A file that this form of checkpoint needs is absent.
    #[error("`{}` is missing: {need}", path.display())]
    MissingFile {
        /// The absent file.
        path: PathBuf,
        /// What it is needed for.
        need: &'static str,
    },

    /// A file is not JSON, or not the JSON that is expected.
    #[error("`{file}` is not valid JSON")]
    Json {
        /// The file.
        file: String,
        /// Where and why it does not parse.
        #[source]
        source: serde_json::Error,
    },

    /// A configuration lacks a field.
    #[error("`{file}` lacks the field `{field}`")]
    MissingField {
        /// The configuration file.
        file: String,
        /// The field's path, parts joined by dots.
        field: String,
    },

    /// A field of a configuration has a value of the wrong type or range.
    #[error("field `{field}` of `{file}` is {found}, expected {expected}")]
    BadField {
        /// The configuration file.
        file: String,
        /// The field's path, parts joined by dots.
        field: String,
        /// The value found.
        found: String,
        /// What it should be.
        expected: String,
    },

    /// A field of a configuration asks for something that no Voxtral model uses.
    #[error(
        "field `{field}` of `{file}` is {found}, which is not supported (supported: {supported})"
    )]
    Unsupported {
        /// The configuration file.
        file: String,
        /// The field's path, parts joined by dots.
        field: String,
        /// The value found.
        found: String,
        /// What is supported.
        supported: String,
    },

    /// Two values of a configuration contradict each other.
    #[error("`{file}` contradicts itself: {what}")]
    Inconsistent {
        /// The configuration file.
        file: String,
        /// Which values, and how.
        what: String,
    },

    /// The header of a safetensors file lies about the file.
    #[error("`{file}` is not a sound safetensors file: {what}")]
    BadHeader {
        /// The weights file.
        file: String,
        /// What is wrong.
        what: String,
    },

    /// A tensor's entry in the header of a safetensors file lies about the file.
    #[error("tensor `{tensor}` of `{file}` is damaged: {what}")]
    BadTensor {
        /// The weights file.
        file: String,
        /// The tensor, by its stored name.
        tensor: String,
        /// What is wrong.
        what: String,
    },

    /// A tensor is stored in a type that is not F32, F16 or BF16.
    #[error("tensor `{tensor}` of `{file}` has type {found}, expected F32, F16 or BF16")]
    UnsupportedDtype {
        /// The weights file.
        file: String,
        /// The tensor, by its stored name.
        tensor: String,
        /// The type found.
        found: String,
    },

    /// The index names a shard that is absent.
    #[error(
        "`{index}` places tensor `{tensor}` in `{shard}`, which is missing: fetch that file again"
    )]
    MissingShard {
        /// The index file.
        index: String,
        /// The absent shard.
        shard: String,
        /// One of the shard's tensors.
        tensor: String,
    },

    /// The index places a tensor in a shard that does not hold it.
    #[error("`{index}` places tensor `{tensor}` in `{shard}`, which does not hold it")]
    NotInShard {
        /// The index file.
        index: String,
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },

    /// A shard holds a tensor that the index does not place there.
    #[error("`{shard}` holds tensor `{tensor}`, which `{index}` {}", match elsewhere {
        Some(other) => format!("places in `{other}`"),
        None => "does not name".to_owned(),
    })]
    NotInIndex {
        /// The index file.
        index: String,
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
        /// Where the index places it, if anywhere.
        elsewhere: Option<String>,
    },

    /// The model has no tensor of this name.
    #[error("tensor `{tensor}` is not a part of this model")]
    UnknownTensor {
        /// The canonical name that was asked for.
        tensor: String,
    },

    /// Tensors that the configuration demands are absent.
    #[error("{} missing", Listed("tensor", tensors))]
    MissingTensors {
        /// The absent tensors.
        tensors: Vec<MissingTensor>,
    },

    /// Tensors are stored that the configuration does not know.
    #[error(
        "{} not a part of the model that the configuration describes",
        Listed("tensor", tensors)
    )]
    SurplusTensors {
        /// The stored names.
        tensors: Vec<String>,
    },

    /// A tensor has another shape than expected.
    #[error("tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The canonical name.
        tensor: String,
        /// The stored shape.
        found: Vec<usize>,
        /// The expected shape.
        expected: Vec<usize>,
    },

    /// A head is stored that is not the embedding, and the configuration says that they are one.
    #[error(
        "tensor `{head}` differs from `{embedding}`, and the configuration says that they are tied: \
         set `tie_word_embeddings` (or `tied_embeddings`) to what the model was trained with"
    )]
    NotTied {
        /// The head, by its stored name.
        head: String,
        /// The embedding, by its stored name.
        embedding: String,
    },

    /// The position table is not the sinusoid, so the native form cannot hold it.
    #[error(
        "tensor `{tensor}` differs from the sinusoid by up to {difference}, and the native form has no \
         place for it: converting would change the model (force the conversion to drop the table)"
    )]
    NotSinusoid {
        /// The canonical name.
        tensor: String,
        /// The largest difference.
        difference: f32,
    },

    /// The model cannot be said in the other form's configuration.
    #[error("the {form} form has no place for this model: {why}")]
    NotExpressible {
        /// The form that was to be written.
        form: Form,
        /// What it has no place for.
        why: String,
    },

    /// A native checkpoint is quantized.
    #[error(
        "tensor `{tensor}` of `{file}` is quantized, which the native form cannot be, as its rows \
         stand in another order: quantize into the Hugging Face form"
    )]
    QuantizedNative {
        /// The weights file.
        file: String,
        /// A quantized tensor, by its stored name.
        tensor: String,
    },

    /// What is to be quantized is quantized.
    #[error(
        "the checkpoint is quantized already, as {found}: quantize the original, as rounding twice \
         loses more"
    )]
    AlreadyQuantized {
        /// The format found.
        found: Quant,
    },

    /// What is to be converted is quantized, and no storage type was chosen.
    #[error(
        "the checkpoint is quantized as {found}: choose the storage type to convert it to (f32, f16 \
         or bf16), or copy its files"
    )]
    Quantized {
        /// The format found.
        found: Quant,
    },

    /// A weight is too large to be quantized, or not a number.
    #[error(
        "tensor `{tensor}` has the weight {value:e}, expected at most {largest:e}: it cannot be quantized"
    )]
    Unquantizable {
        /// The canonical name.
        tensor: String,
        /// The weight.
        value: f32,
        /// The largest absolute value that there may be.
        largest: f32,
    },

    /// A file that would be written exists already.
    #[error("`{}` exists already: choose another folder or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// The progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A tensor that the configuration demands and the files lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// The canonical name.
    pub name: String,
    /// The name that was looked for in the files.
    pub stored: String,
}

impl fmt::Display for MissingTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (stored as `{}`)", self.name, self.stored)
    }
}

/// What a list of an error is made of.
trait Item {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Item for String {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl Item for MissingTensor {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first few items of a list and how many more there are; after a noun, with the verb that
/// suits their number.
struct Listed<'a, T>(&'static str, &'a [T]);

impl<T: Item> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        let Self(noun, items) = *self;
        if !noun.is_empty() {
            write!(f, "{noun}{} ", if items.len() == 1 { "" } else { "s" })?;
        }
        for (at, item) in items.iter().take(SHOWN).enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            item.show(f)?;
        }
        if items.len() > SHOWN {
            write!(f, " and {} more", items.len() - SHOWN)?;
        }
        if !noun.is_empty() {
            f.write_str(if items.len() == 1 { " is" } else { " are" })?;
        }
        Ok(())
    }
}
