//! The header of a safetensors file, believed only as far as it fits the file.
//!
//! A file is eight bytes of header length, little-endian; a JSON object from tensor names to type,
//! shape and the byte range in what follows; and the tensors, end to end. The safetensors crate
//! reads this too, but keeps the last of two tensors with one name and does not say which tensor is
//! damaged, so the entries are parsed here; `tests/it/corrupt.rs` holds the two against each other.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::dtype::Dtype;
use crate::error::CheckpointError;

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
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(crate) range: Range<usize>,
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
    let mut raw: Vec<RawEntry> = serde_json::from_slice::<RawHeader>(header)
        .map_err(|error| broken(format!("its header does not parse: {error}")))?
        .0;
    raw.sort_by_key(|entry| entry.info.data_offsets);
    check(file, &raw, LENGTH_BYTES + length, bytes.len())
}

/// Checks that each of the entries, sorted by offset, fits, and that together they cover the data
/// from `start` to `end` exactly.
fn check(
    file: &str,
    raw: &[RawEntry],
    start: usize,
    end: usize,
) -> Result<Vec<Entry>, CheckpointError> {
    let entries: Vec<Entry> = raw
        .iter()
        .map(|entry| fit(file, entry, start, end))
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
        shape,
        range: start + from..start + to,
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

struct RawHeader(Vec<RawEntry>);

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
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{name}` occurs twice")));
            }
            if name == METADATA {
                map.next_value::<HashMap<String, String>>()
                    .map_err(|error| A::Error::custom(format_args!("`{METADATA}`: {error}")))?;
                continue;
            }
            let info = map
                .next_value()
                .map_err(|error| A::Error::custom(format_args!("tensor `{name}`: {error}")))?;
            entries.push(RawEntry { name, info });
        }
        Ok(RawHeader(entries))
    }
}
