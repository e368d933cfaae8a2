//! Writing a folder of files so that it appears whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::CheckpointError;
use crate::storage::io;

/// What is written at once.
const BUFFER: usize = 1 << 20;

/// Files on their way into a folder: each is written under a temporary name, and [`Staging::commit`]
/// renames them all. Dropped without that, nothing remains.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    files: Vec<(NamedTempFile, PathBuf)>,
    /// What must go again if nothing comes of it, the outermost folder first, then files.
    created: Vec<PathBuf>,
}

/// A file being written.
pub(crate) type Writer = BufWriter<File>;

impl Staging {
    /// Makes the folder `dir` where it is absent.
    pub(crate) fn new(dir: &Path) -> Result<Self, CheckpointError> {
        let mut created: Vec<PathBuf> = dir
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_owned)
            .collect();
        created.reverse();
        let staging = Self {
            dir: dir.to_owned(),
            files: Vec::new(),
            created,
        };
        fs::create_dir_all(dir).map_err(io("create", dir))?;
        Ok(staging)
    }

    /// Fails if a file of this name is there already.
    pub(crate) fn check_free(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.dir.join(name);
        if path.exists() {
            Err(CheckpointError::Exists { path })
        } else {
            Ok(())
        }
    }

    /// Starts the file `name`.
    pub(crate) fn create(&mut self, name: &str) -> Result<Writer, CheckpointError> {
        self.check_free(name)?;
        let path = self.dir.join(name);
        let file = new_file(&self.dir).map_err(io("create", &path))?;
        let handle = file.reopen().map_err(io("create", &path))?;
        self.files.push((file, path));
        Ok(BufWriter::with_capacity(BUFFER, handle))
    }

    /// Writes the file `name` as transformers writes JSON: indented, keys sorted.
    pub(crate) fn json(&mut self, name: &str, value: &Value) -> Result<(), CheckpointError> {
        let mut text =
            serde_json::to_vec_pretty(&sorted(value)).map_err(|source| CheckpointError::Json {
                file: name.to_owned(),
                source,
            })?;
        text.push(b'\n');
        self.bytes(name, &text)
    }

    /// Writes the file `name` with these contents.
    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let mut writer = self.create(name)?;
        writer
            .write_all(bytes)
            .and_then(|()| writer.flush())
            .map_err(io("write", &self.dir.join(name)))
    }

    /// Copies the file `from` to `name`.
    pub(crate) fn copy(&mut self, from: &Path, name: &str) -> Result<(), CheckpointError> {
        let mut reader = File::open(from).map_err(io("read", from))?;
        let mut writer = self.create(name)?;
        std::io::copy(&mut reader, &mut writer)
            .and_then(|_| writer.flush())
            .map_err(io("write", &self.dir.join(name)))
    }

    /// Gives every file its name, in the order in which they were started.
    pub(crate) fn commit(mut self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut paths = Vec::with_capacity(self.files.len());
        for (file, path) in std::mem::take(&mut self.files) {
            file.persist_noclobber(&path)
                .map_err(|error| io("write", &path)(error.error))?;
            self.created.push(path.clone());
            paths.push(path);
        }
        self.created.clear();
        Ok(paths)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Temporary files first, or the folder would not be empty.
        self.files.clear();
        for path in self.created.iter().rev() {
            // Best effort: the error that brought us here is the one to report.
            let _ = if path.is_dir() {
                fs::remove_dir(path)
            } else {
                fs::remove_file(path)
            };
        }
    }
}

/// A temporary file beside its later place, readable by whom the user's mask allows.
fn new_file(dir: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".voxtral-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(dir)
}

/// The same value with sorted keys, whatever map serde_json is built with.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members: BTreeMap<_, _> = map
                .iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dropped_without_commit_nothing_remains() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        let mut staging = Staging::new(&dir).unwrap();
        staging
            .json("x.json", &json!({"b": 1, "a": [{"d": 2, "c": 3}]}))
            .unwrap();
        assert!(dir.is_dir());
        drop(staging);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn committed_files_have_their_names_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("y.json"), "mine").unwrap();
        let mut staging = Staging::new(root.path()).unwrap();
        staging.json("x.json", &json!({"b": 1, "a": {}})).unwrap();
        let error = staging.json("y.json", &json!(1)).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("y.json` exists already: choose another folder or remove it")
        );
        staging.commit().unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join("x.json")).unwrap(),
            "{\n  \"a\": {},\n  \"b\": 1\n}\n"
        );
        assert_eq!(
            fs::read_to_string(root.path().join("y.json")).unwrap(),
            "mine"
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
