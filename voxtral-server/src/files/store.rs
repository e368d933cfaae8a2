//! Files on disk, for a limited time.
//!
//! ```text
//! FOLDER/file-ID        what was sent
//! FOLDER/file-ID.json   what is known of it: written last, so that a file with it is complete
//! FOLDER/file-ID.part   what is being written
//! ```
//!
//! Ids are made here. What a client calls a file is a text in its record and never part of a path.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Config, ServerError, app::unix_time};

/// What ids begin with.
const PREFIX: &str = "file-";

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) bytes: u64,
    /// In seconds of Unix time.
    pub(super) created_at: u64,
    pub(super) expires_at: u64,
    /// As the client calls it.
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) mimetype: Option<String>,
}

/// A file that is to be kept.
#[derive(Debug)]
pub(super) struct New {
    pub(super) content: File,
    pub(super) bytes: u64,
    pub(super) filename: String,
    pub(super) purpose: String,
    pub(super) mimetype: Option<String>,
    /// How long, if not as long as others.
    pub(super) life: Option<Duration>,
}

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// Removes the folder at the end, where nobody named it.
    temporary: Mutex<Option<TempDir>>,
    life: Duration,
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By their ids.
    files: BTreeMap<String, Record>,
    /// Of all files together, those that are being written included.
    bytes: u64,
}

impl Store {
    /// Opens the folder that is configured, or a temporary one.
    pub(crate) fn open(config: &Config) -> io::Result<Self> {
        let (folder, temporary) = match &config.data_dir {
            Some(folder) => (folder.clone(), None),
            None => {
                let folder = tempfile::Builder::new().prefix("voxtral-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        fs::create_dir_all(&folder)?;
        let files = read(&folder)?;
        let bytes = files.values().map(|record| record.bytes).sum();
        Ok(Self {
            folder,
            temporary: Mutex::new(temporary),
            life: config.file_life,
            most: config.max_stored,
            state: Mutex::new(State { files, bytes }),
        })
    }

    /// Removes the folder, if it is a temporary one.
    pub(crate) fn close(&self) {
        let temporary = self.temporary.lock();
        let temporary = temporary.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = temporary.map(TempDir::close) {
            tracing::warn!(%error, "temporary files are left");
        }
    }

    /// A map and a sum cannot be left half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a file.
    pub(super) fn keep(&self, mut new: New) -> Result<Record, ServerError> {
        self.sweep();
        self.reserve(new.bytes)?;
        let now = unix_time();
        let life = new.life.map_or(self.life, |life| life.min(self.life));
        let record = Record {
            id: format!("{PREFIX}{}", Uuid::new_v4().simple()),
            bytes: new.bytes,
            created_at: now,
            expires_at: now.saturating_add(life.as_secs()),
            filename: new.filename,
            purpose: new.purpose,
            mimetype: new.mimetype,
        };
        if let Err(error) = self.write(&record, &mut new.content) {
            self.remove(&record.id);
            self.state().bytes -= record.bytes;
            return Err(ServerError::Storage(error));
        }
        let mut state = self.state();
        state.files.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    /// Takes up room, before anything is written.
    fn reserve(&self, bytes: u64) -> Result<(), ServerError> {
        let mut state = self.state();
        if state.bytes.saturating_add(bytes) > self.most {
            return Err(ServerError::TooLarge {
                subject: "sum of the files that are kept here, with this one,",
                limit: format!("{} bytes", self.most),
            });
        }
        state.bytes += bytes;
        Ok(())
    }

    fn write(&self, record: &Record, content: &mut File) -> io::Result<()> {
        let path = self.folder.join(&record.id);
        whole(&path, |file| io::copy(content, file).map(|_| ()))?;
        let text = serde_json::to_vec(record)?;
        whole(&path.with_extension("json"), |file| file.write_all(&text))
    }

    fn remove(&self, id: &str) {
        let path = self.folder.join(id);
        // The record goes first: without it, the other is no file of the store.
        for path in [path.with_extension("json"), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "cannot remove a file");
                }
                _ => {}
            }
        }
    }

    /// Removes what has had its time.
    pub(crate) fn sweep(&self) {
        let now = unix_time();
        let mut state = self.state();
        let over = |record: &&Record| record.expires_at <= now;
        let ids = state.files.values().filter(over);
        let ids: Vec<String> = ids.map(|record| record.id.clone()).collect();
        for id in ids {
            self.forget(&mut state, &id);
        }
    }

    fn forget(&self, state: &mut State, id: &str) -> bool {
        let Some(record) = state.files.remove(id) else {
            return false;
        };
        state.bytes -= record.bytes;
        self.remove(id);
        true
    }

    /// All files, the newest first.
    pub(super) fn list(&self) -> Vec<Record> {
        self.sweep();
        let mut records: Vec<Record> = self.state().files.values().cloned().collect();
        records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        records
    }

    /// What is known of a file.
    pub(super) fn record(&self, id: &str) -> Result<Record, ServerError> {
        self.sweep();
        let record = self.state().files.get(id).cloned();
        record.ok_or_else(|| unknown(id))
    }

    /// Opens a file; it can be read to its end, whatever becomes of it meanwhile.
    pub(super) fn content(&self, id: &str) -> Result<(Record, File), ServerError> {
        let record = self.record(id)?;
        let file = File::open(self.folder.join(&record.id)).map_err(ServerError::Storage)?;
        Ok((record, file))
    }

    /// Removes a file.
    pub(super) fn delete(&self, id: &str) -> Result<(), ServerError> {
        self.sweep();
        match self.forget(&mut self.state(), id) {
            true => Ok(()),
            false => Err(unknown(id)),
        }
    }
}

fn unknown(id: &str) -> ServerError {
    ServerError::NotFound {
        subject: "file",
        found: id.chars().take(64).collect(),
    }
}

/// Writes a file that has its name only once it is whole.
fn whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let part = path.with_extension("part");
    let written = File::create(&part).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// What is in a folder. Of files of ours, those without a record are removed.
fn read(folder: &Path) -> io::Result<BTreeMap<String, Record>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        names.extend(name.into_string().ok().filter(|name| is_ours(name)));
    }
    let records = names.iter().filter(|name| name.ends_with(".json"));
    let records = records.filter_map(|name| record_in(folder, name));
    let files: BTreeMap<_, _> = records.map(|record| (record.id.clone(), record)).collect();
    for name in names {
        let id = name.split('.').next().unwrap_or_default();
        if !files.contains_key(id) || name.ends_with(".part") {
            fs::remove_file(folder.join(name))?;
        }
    }
    Ok(files)
}

fn record_in(folder: &Path, name: &str) -> Option<Record> {
    let text = fs::read(folder.join(name)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let length = fs::metadata(folder.join(&record.id)).ok()?.len();
    let fits = name.strip_suffix(".json") == Some(&record.id) && length == record.bytes;
    fits.then_some(record)
}

/// Whether a name is one that is given here.
fn is_ours(name: &str) -> bool {
    let name = name.strip_prefix(PREFIX);
    let stem = name.map(|name| name.split_once('.').map_or((name, ""), |parts| parts));
    stem.is_some_and(|(id, extension)| {
        Uuid::try_parse(id).is_ok() && ["", "json", "part"].contains(&extension)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    fn config(folder: &Path) -> Config {
        Config {
            data_dir: Some(folder.to_owned()),
            max_stored: 10,
            ..Config::default()
        }
    }

    fn new(text: &str) -> New {
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(text.as_bytes()).unwrap();
        content.rewind().unwrap();
        New {
            content,
            bytes: text.len() as u64,
            filename: "../../etc/passwd".to_owned(),
            purpose: "audio".to_owned(),
            mimetype: None,
            life: None,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn files_outlive_the_store_and_half_written_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&config(folder.path())).unwrap();
        let record = store.keep(new("abcd")).unwrap();
        assert_eq!(
            names(folder.path()),
            [record.id.clone(), format!("{}.json", record.id)]
        );
        let other = format!("{PREFIX}{}", Uuid::new_v4().simple());
        for name in [&other[..], &format!("{other}.part"), "notes.txt"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let store = Store::open(&config(folder.path())).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        assert!(folder.path().join("notes.txt").exists());
        let (found, mut file) = store.content(&record.id).unwrap();
        store.delete(&record.id).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((found, &*text), (record, "abcd"));
        assert_eq!(names(folder.path()), ["notes.txt"]);
    }

    #[test]
    fn room_is_limited_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&config(folder.path())).unwrap();
        let first = store.keep(new("123456")).unwrap();
        let error = store.keep(new("12345")).unwrap_err();
        assert!(matches!(error, ServerError::TooLarge { .. }));
        store.delete(&first.id).unwrap();
        assert!(store.delete(&first.id).is_err());
        let brief = New {
            life: Some(Duration::ZERO),
            ..new("1234567890")
        };
        let brief = store.keep(brief).unwrap();
        assert!(store.record(&brief.id).is_err());
        store.keep(new("1234567890")).unwrap();
        assert_eq!(store.list().len(), 1);
    }

    #[test]
    fn ids_lead_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        let inner = folder.path().join("inner");
        let store = Store::open(&config(&inner)).unwrap();
        for id in [
            "../secret",
            "..",
            "",
            ".",
            "/etc/passwd",
            "secret",
            "file-\0",
        ] {
            assert!(store.content(id).is_err(), "{id}");
            assert!(store.delete(id).is_err(), "{id}");
        }
        assert!(folder.path().join("secret").exists());
    }
}
