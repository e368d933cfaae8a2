//! The weights files of a checkpoint, mapped: one file, or shards that an index lists.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::error::CheckpointError;
use crate::header::{self, Entry};
use crate::json::{self, Field};

/// A stored tensor: its header entry and the file that it lies in.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) entry: Entry,
    file: usize,
}

/// All tensors of all weights files, by stored name.
#[derive(Default)]
pub(crate) struct Storage {
    files: Vec<Bytes>,
    tensors: BTreeMap<String, Located>,
}

impl Storage {
    /// One weights file, in memory.
    pub(crate) fn from_bytes(name: &str, bytes: Bytes) -> Result<Self, CheckpointError> {
        let mut storage = Self::default();
        storage.add(name, bytes)?;
        Ok(storage)
    }

    /// One weights file on disk.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_bytes(&file_name(path), map(path)?)
    }

    /// The shards that the index `path` lists, which must agree with it to the letter.
    pub(crate) fn open_index(path: &Path) -> Result<Self, CheckpointError> {
        let index = file_name(path);
        let placed = read_index(path)?;
        // Any one tensor of each shard, for the message should the shard be missing.
        let shards: BTreeMap<&str, &str> = placed
            .iter()
            .map(|(tensor, shard)| (shard.as_str(), tensor.as_str()))
            .collect();
        let mut storage = Self::default();
        for (shard, tensor) in shards {
            let shard_path = path.with_file_name(shard);
            if !shard_path.is_file() {
                let (shard, tensor) = (shard.to_owned(), tensor.to_owned());
                return Err(CheckpointError::MissingShard {
                    index,
                    shard,
                    tensor,
                });
            }
            for tensor in storage.add(shard, map(&shard_path)?)? {
                let elsewhere = placed.get(&tensor);
                if elsewhere.is_none_or(|place| place != shard) {
                    let (shard, elsewhere) = (shard.to_owned(), elsewhere.cloned());
                    return Err(CheckpointError::NotInIndex {
                        index,
                        shard,
                        tensor,
                        elsewhere,
                    });
                }
            }
        }
        match placed
            .into_iter()
            .find(|(tensor, _)| !storage.tensors.contains_key(tensor))
        {
            None => Ok(storage),
            Some((tensor, shard)) => Err(CheckpointError::NotInShard {
                index,
                shard,
                tensor,
            }),
        }
    }

    /// Adds the tensors of one file and gives their names.
    fn add(&mut self, name: &str, bytes: Bytes) -> Result<Vec<String>, CheckpointError> {
        let entries = header::read(name, &bytes)?;
        let file = self.files.len();
        self.files.push(bytes);
        let names = entries.iter().map(|entry| entry.name.clone()).collect();
        for entry in entries {
            self.tensors
                .insert(entry.name.clone(), Located { entry, file });
        }
        Ok(names)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Located> {
        self.tensors.get(name)
    }

    /// Every stored tensor, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tensors.values().map(|located| &located.entry)
    }

    /// The bytes of a tensor, without a copy.
    pub(crate) fn bytes(&self, located: &Located) -> Bytes {
        self.files[located.file].slice(located.entry.range.clone())
    }
}

/// The index's `weight_map`: tensor to shard.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let file = file_name(path);
    let value = json::parse(&file, &read(path)?)?;
    let map = Field::root(&file, &value).need("weight_map")?;
    let members = map
        .value()
        .as_object()
        .ok_or_else(|| map.bad("an object from tensors to files"))?;
    members
        .keys()
        .map(|tensor| {
            let shard = map.need(tensor)?;
            let name = shard.text()?;
            // The index must not make us read outside its folder.
            let plain = Path::new(name)
                .file_name()
                .is_some_and(|plain| plain == name);
            if plain {
                Ok((tensor.clone(), name.to_owned()))
            } else {
                Err(shard.bad("a file name"))
            }
        })
        .collect()
}

/// The shards that the index `path` lists, for finding out which are there.
pub(crate) fn listed_shards(path: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut shards: Vec<String> = read_index(path)?.into_values().collect();
    shards.sort();
    shards.dedup();
    Ok(shards)
}

/// The whole of a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    std::fs::read(path).map_err(io("read", path))
}

/// Maps a file into memory. Nothing is read until it is looked at, and pages that are not used are
/// the system's to drop.
fn map(path: &Path) -> Result<Bytes, CheckpointError> {
    let file = File::open(path).map_err(io("open", path))?;
    if file.metadata().map_err(io("read", path))?.len() == 0 {
        // Systems refuse to map nothing; the header's check says what is wrong.
        return Ok(Bytes::new());
    }
    #[allow(unsafe_code, reason = "mapping a file has no safe form")]
    // SAFETY: the mapping is read-only and private to this process. Its bytes are only ever read
    // as plain bytes, for which every value is valid. What remains is that another process might
    // change or truncate the file meanwhile; no reader of weights in use guards against that, and
    // our own writer never does: it writes to a new file and renames it.
    let mapping = unsafe { memmap2::Mmap::map(&file) }.map_err(io("map", path))?;
    Ok(Bytes::from_owner(mapping))
}

/// The error of an operation on `path`.
pub(crate) fn io(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io {
        action,
        path,
        source,
    }
}

/// A file's name, as errors give it.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
