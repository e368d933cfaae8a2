//! The header of a safetensors file, believed only as far as it fits the file.
//!
//! A file is eight bytes of header length, little-endian; a JSON object from tensor names to type,
//! shape and the byte range in what follows; and the tensors, end to end. The safetensors crate
//! reads this too, but keeps the last of two tensors with one name and does not say which tensor is
//! damaged, so the entries are parsed here; `tests/it/corrupt.rs` holds the two against each other.
//!
//! A quantized matrix is a tensor of bytes, and the file's metadata says what it holds (see
//! [`crate::quantized`]); its entry has the shape and the type of the matrix that it stands for.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use voxtral_kernels::Quant;

use crate::dtype::Dtype;
use crate::error::CheckpointError;
use crate::json::Unique;
use crate::quantized::{self, Declared};

/// Bytes of the header's length.
pub(crate) const LENGTH_BYTES: usize = 8;

/// The longest header that any reader accepts.
const MAX_HEADER: usize = 100_000_000;

/// The key of what is not a tensor.
const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// The type of the elements; F32 where they are quantized.
    pub(crate) dtype: Dtype,
    pub(crate) quant: Option<Quant>,
    /// The shape of the matrix, also where it is quantized.
    pub(crate) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(crate) range: Range<usize>,
}

impl Entry {
    pub(crate) fn num_elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// Reads and checks the header of `bytes`, the contents of `file`; in the order of the data.
pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Vec<Entry>, CheckpointError> {
    let broken = |what: String| CheckpointError::BadHeader {
        file: file.to_owned(),
        what,
    };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(broken(format!(
            "it has {} bytes, less than a header's length takes",
            bytes.len()
        )));
    };
    let declared = u64::from_le_bytes(*length);
    let length = usize::try_from(declared)
        .ok()
        .filter(|&length| length <= MAX_HEADER)
        .ok_or_else(|| {
            broken(format!(
                "it declares a header of {declared} bytes, above {MAX_HEADER}"
            ))
        })?;
    let Some(header) = rest.get(..length) else {
        return Err(broken(format!(
            "it declares a header of {length} bytes and has {} after it: the file is truncated",
            rest.len()
        )));
    };
    let mut raw: RawHeader = serde_json::from_slice(header)
        .map_err(|error| broken(format!("its header does not parse: {error}")))?;
    raw.entries.sort_by_key(|entry| entry.info.data_offsets);
    let quantized = match raw.metadata.get(quantized::KEY) {
        Some(note) => quantized::parse(file, note)?,
        None => BTreeMap::new(),
    };
    let names: HashSet<&str> = raw.entries.iter().map(|entry| &*entry.name).collect();
    if let Some(absent) = quantized.keys().find(|name| !names.contains(&***name)) {
        return Err(CheckpointError::BadTensor {
            file: file.to_owned(),
            tensor: absent.clone(),
            what: format!("`{}` describes it, and the file lacks it", quantized::KEY),
        });
    }
    let start = LENGTH_BYTES + length;
    check(file, &raw.entries, &quantized, start, bytes.len())
}

/// Checks that each of the entries, sorted by offset, fits, and that together they cover the data
/// from `start` to `end` exactly.
fn check(
    file: &str,
    raw: &[RawEntry],
    quantized: &BTreeMap<String, Declared>,
    start: usize,
    end: usize,
) -> Result<Vec<Entry>, CheckpointError> {
    let entries: Vec<Entry> = raw
        .iter()
        .map(|entry| fit(file, entry, quantized.get(&entry.name), start, end))
        .collect::<Result<_, _>>()?;
    let mut at = start;
    for Entry { name, range, .. } in &entries {
        if range.start != at {
            let how = if range.start < at {
                "overlaps another tensor"
            } else {
                "leaves a gap"
            };
            let (from, expected) = (range.start - start, at - start);
            return Err(CheckpointError::BadTensor {
                file: file.to_owned(),
                tensor: name.clone(),
                what: format!("its data starts at {from} and {how}, expected {expected}"),
            });
        }
        at = range.end;
    }
    if at != end {
        return Err(CheckpointError::BadHeader {
            file: file.to_owned(),
            what: format!(
                "its tensors take {} bytes, and it holds {}",
                at - start,
                end - start
            ),
        });
    }
    Ok(entries)
}

/// Checks that one entry lies within the data and has the size that its type and shape demand.
fn fit(
    file: &str,
    RawEntry { name, info }: &RawEntry,
    quantized: Option<&Declared>,
    start: usize,
    end: usize,
) -> Result<Entry, CheckpointError> {
    let damaged = |what| CheckpointError::BadTensor {
        file: file.to_owned(),
        tensor: name.clone(),
        what,
    };
    let ((from, to), room) = (info.data_offsets, end - start);
    if to < from {
        return Err(damaged(format!(
            "its data ends at {to}, before it starts at {from}"
        )));
    }
    if to > room {
        return Err(damaged(format!(
            "its data ends at {to}, and the file holds {room} bytes of data: the file is truncated"
        )));
    }
    let range = start + from..start + to;
    match (quantized, &*info.dtype) {
        (Some(declared), _) => {
            declared
                .check(&info.dtype, &info.shape, range.len())
                .map_err(damaged)?;
            return Ok(Entry {
                name: name.clone(),
                dtype: Dtype::F32,
                quant: Some(declared.quant),
                shape: declared.shape.to_vec(),
                range,
            });
        }
        (None, quantized::STORED) => {
            return Err(damaged(format!(
                "it has type {}, and `{}` does not say what it holds, expected F32, F16 or BF16",
                quantized::STORED,
                quantized::KEY
            )));
        }
        (None, _) => {}
    }
    let dtype =
        Dtype::from_header(&info.dtype).ok_or_else(|| CheckpointError::UnsupportedDtype {
            file: file.to_owned(),
            tensor: name.clone(),
            found: info.dtype.clone(),
        })?;
    let needed = info
        .shape
        .iter()
        .try_fold(dtype.size(), |product, &n| product.checked_mul(n));
    if needed != Some(to - from) {
        return Err(damaged(format!(
            "it has {} bytes, and {dtype} of shape {:?} takes {}",
            to - from,
            info.shape,
            needed.map_or_else(
                || "more than there are".to_owned(),
                |bytes| bytes.to_string()
            )
        )));
    }
    let (name, shape) = (name.clone(), info.shape.clone());
    Ok(Entry {
        name,
        dtype,
        quant: None,
        shape,
        range,
    })
}

/// A tensor as the header describes it, nothing checked.
struct RawEntry {
    name: String,
    info: RawInfo,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

struct RawHeader {
    entries: Vec<RawEntry>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        let mut metadata = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` occurs twice")));
            }
            if name == METADATA {
                metadata = map
                    .next_value::<Unique<String>>()
                    .map_err(|error| A::Error::custom(format_args!("`{METADATA}`: {error}")))?
                    .0;
                continue;
            }
            let info = map
                .next_value()
                .map_err(|error| A::Error::custom(format_args!("tensor `{name}`: {error}")))?;
            entries.push(RawEntry { name, info });
        }
        Ok(RawHeader { entries, metadata })
    }
}
