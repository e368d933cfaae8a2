//! How quantized matrices stand in a safetensors file.
//!
//! A matrix `[rows, inputs]` is a tensor of type U8 and shape `[panels, bytes of a panel]`: 16 rows
//! make a panel, the last one filled up, in the layout that the kernels read (see
//! [`voxtral_kernels::Quant`]). Any reader of safetensors can list and copy it. What it stands for
//! says the file's metadata, under [`KEY`]:
//!
//! ```json
//! {"version": 1, "tensors": {"NAME": {"format": "q4", "shape": [rows, inputs]}}}
//! ```
//!
//! So the format is chosen for each tensor, by whoever writes the file. The version counts changes
//! of the panels' layout and of this note; a file of a newer one is refused.
//!
//! Rows are in the canonical order. The native form's are not, and rows of a panel cannot be
//! reordered without taking it apart: only the Hugging Face form is quantized.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use voxtral_kernels::{PANEL, Quant};

use crate::error::CheckpointError;
use crate::json::Unique;

/// The key of the file's metadata.
pub(crate) const KEY: &str = "voxtral.quantized";

/// The type of the tensors that hold panels, as headers name it.
pub(crate) const STORED: &str = "U8";

/// Where the data of files with quantized matrices starts, and the tensors if their sizes allow
/// it: a multiple of a line of cache, and of the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

/// The version that is written, and the newest that is read.
const VERSION: u64 = 1;

/// What the metadata says of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) quant: Quant,
    /// Rows and inputs.
    pub(crate) shape: [usize; 2],
}

impl Declared {
    /// The shape of the tensor that holds the panels; `None` if it cannot be counted.
    pub(crate) fn stored_shape(self) -> Option<[usize; 2]> {
        let [rows, inputs] = self.shape;
        Some([rows.div_ceil(PANEL), self.quant.bytes(PANEL, inputs)?])
    }

    /// Checks that a tensor of this type and shape, which takes `bytes`, is the one that is meant.
    pub(crate) fn check(self, dtype: &str, shape: &[usize], bytes: usize) -> Result<(), String> {
        let Self {
            quant,
            shape: logical,
        } = self;
        if dtype != STORED {
            return Err(format!(
                "`{KEY}` says that it is quantized as {quant}, and it has type {dtype}, expected \
                 {STORED}"
            ));
        }
        let needed = logical
            .iter()
            .all(|&n| n > 0)
            .then(|| self.stored_shape())
            .flatten();
        match needed {
            None => Err(format!(
                "`{KEY}` says that it has shape {logical:?}, which no matrix has"
            )),
            Some(needed) if needed != shape => Err(format!(
                "it has stored shape {shape:?}, and {quant} of shape {logical:?} takes {needed:?}"
            )),
            Some([panels, panel]) if panels.checked_mul(panel) != Some(bytes) => Err(format!(
                "it has {bytes} bytes, and its stored shape is [{panels}, {panel}]"
            )),
            Some(_) => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Note {
    tensors: Unique<RawDeclared>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeclared {
    format: String,
    shape: [usize; 2],
}

/// Reads `note`, what the metadata of `file` has under [`KEY`].
pub(crate) fn parse(file: &str, note: &str) -> Result<BTreeMap<String, Declared>, CheckpointError> {
    let broken = |what: String| CheckpointError::BadHeader {
        file: file.to_owned(),
        what,
    };
    let unread = |error| broken(format!("its `{KEY}` does not parse: {error}"));
    // The version first: what a newer one holds is not ours to judge.
    let Version { version } = serde_json::from_str(note).map_err(unread)?;
    if version != VERSION {
        return Err(broken(format!(
            "its `{KEY}` is of version {version}, expected {VERSION}: a newer voxtral may read it"
        )));
    }
    let Note { tensors } = serde_json::from_str(note).map_err(unread)?;
    let declared = tensors.0.into_iter().map(|(name, raw)| {
        let quant = Quant::ALL
            .into_iter()
            .find(|quant| quant.name() == raw.format)
            .ok_or_else(|| CheckpointError::BadTensor {
                file: file.to_owned(),
                tensor: name.clone(),
                what: format!(
                    "`{KEY}` says that its format is {:?}, expected {}",
                    raw.format,
                    Quant::ALL.map(Quant::name).join(" or ")
                ),
            })?;
        let shape = raw.shape;
        Ok((name, Declared { quant, shape }))
    });
    declared.collect()
}

/// What [`parse`] reads.
pub(crate) fn note<'a>(tensors: impl Iterator<Item = (&'a str, Declared)>) -> String {
    let tensors: serde_json::Map<_, _> = tensors
        .map(|(name, Declared { quant, shape })| {
            let entry = json!({ "format": quant.name(), "shape": shape });
            (name.to_owned(), entry)
        })
        .collect();
    json!({ "version": VERSION, "tensors": tensors }).to_string()
}

/// What `config.json` says under `quantization_config`. It is there for others: transformers
/// refuses a method that it does not know, and would otherwise complain about shapes.
pub(crate) fn config_json(quant: Quant) -> serde_json::Value {
    json!({ "quant_method": "voxtral", "format": quant.name(), "version": VERSION })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let declared = |quant, shape| Declared { quant, shape };
        let tensors = [
            ("a", declared(Quant::Q4, [17, 64])),
            ("b \"\\", declared(Quant::Q8, [1, 1])),
        ];
        let read = parse("file", &note(tensors.into_iter())).unwrap();
        let read: Vec<_> = read.iter().map(|(name, &d)| (&**name, d)).collect();
        assert_eq!(read, tensors);
    }

    #[test]
    fn the_stored_shape_is_what_the_kernels_fill() {
        for quant in Quant::ALL {
            for shape @ [rows, inputs] in [[1, 1], [16, 64], [17, 65], [100, 3000]] {
                let [panels, panel] = Declared { quant, shape }.stored_shape().unwrap();
                assert_eq!(panel, quant.panel_bytes(inputs));
                assert_eq!(Some(panels * panel), quant.bytes(rows, inputs));
            }
            let shape = [1, usize::MAX];
            assert_eq!(Declared { quant, shape }.stored_shape(), None);
        }
    }
}
