//! The shared cache: where a repository's files lie, and how one comes to lie there.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::source::is_commit;
use crate::{HubError, files};

/// A model in the cache, whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedModel {
    /// The repository, `org/name`.
    pub repo: String,
    /// The branch or tag that stands at this commit, if any; `main` before others.
    pub revision: Option<String>,
    /// The commit.
    pub commit: String,
    /// The folder of its files.
    pub path: PathBuf,
    /// The size of its files.
    pub bytes: u64,
    /// Whether every file that a loader needs is there.
    pub complete: bool,
}

/// One repository's part of the cache.
pub(crate) struct Shelf {
    layout: CacheRepo,
    revision: String,
    /// The repository's folder.
    folder: PathBuf,
    locks: PathBuf,
}

impl Shelf {
    pub(crate) fn new(cache: &Path, repo: &str, revision: &str) -> Self {
        let repo = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
        let name = repo.folder_name();
        Self {
            layout: Cache::new(cache.to_owned()).repo(repo),
            revision: revision.to_owned(),
            folder: cache.join(&name),
            locks: cache.join(".locks").join(&name),
        }
    }

    /// The folder of the files at `commit`.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The folder of the files at the revision, as far as the cache knows.
    pub(crate) fn current(&self) -> Option<PathBuf> {
        Some(self.snapshot(&self.commit()?))
    }

    /// The commit that the revision stood at when it was last fetched.
    fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        read_reference(&self.folder.join("refs").join(&self.revision))
    }

    /// Notes that the revision stands at `commit`, whose snapshot is whole.
    pub(crate) fn set_commit(&self, commit: &str) -> Result<(), HubError> {
        if self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(&self.revision);
        self.layout
            .create_ref(commit)
            .map_err(HubError::io("write", path))
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The file that holds the blob's first bytes while it is fetched.
    pub(crate) fn part(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.part"))
    }

    /// The right to fetch the blob, for as long as the file is held. Waits while another process
    /// fetches it. The lock is the one that the Python library takes.
    pub(crate) fn lock(&self, etag: &str, file: &str) -> Result<File, HubError> {
        for folder in [&self.locks, &self.folder.join("blobs")] {
            fs::create_dir_all(folder).map_err(HubError::io("create", folder))?;
        }
        let path = self.locks.join(format!("{etag}.lock"));
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(HubError::io("create", &path))?;
        let held = lock.try_lock().or_else(|error| match error {
            TryLockError::WouldBlock => {
                tracing::warn!(file, "waiting for another process that fetches this file");
                lock.lock()
            }
            TryLockError::Error(error) => Err(error),
        });
        if let Err(error) = held {
            // Some network file systems know no locks.
            tracing::warn!(file, %error, "fetching without a lock");
        }
        Ok(lock)
    }

    /// Makes the blob appear as `file` in the snapshot of `commit`, in one step.
    pub(crate) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<(), HubError> {
        let snapshot = self.snapshot(commit);
        fs::create_dir_all(&snapshot).map_err(HubError::io("create", &snapshot))?;
        place(&self.blob(etag), etag, &snapshot, file)
            .map_err(HubError::io("create", snapshot.join(file)))
    }
}

/// A relative link, as the other libraries make it, so that the cache can be moved.
#[cfg(unix)]
fn place(_blob: &Path, etag: &str, snapshot: &Path, file: &str) -> std::io::Result<()> {
    let target = Path::new("..").join("..").join("blobs").join(etag);
    let pointer = snapshot.join(file);
    if fs::read_link(&pointer).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let temporary = snapshot.join(format!(".{file}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    std::os::unix::fs::symlink(&target, &temporary)?;
    fs::rename(&temporary, &pointer)
}

/// Links need a privilege here, so the file itself is moved, as the other libraries do.
#[cfg(not(unix))]
fn place(blob: &Path, _etag: &str, snapshot: &Path, file: &str) -> std::io::Result<()> {
    fs::rename(blob, snapshot.join(file))
}

/// Writes what is in memory to the disk before the file gets its final name.
pub(crate) fn settle(mut file: File, part: &Path, blob: &Path) -> Result<(), HubError> {
    file.flush()
        .and_then(|()| file.sync_all())
        .map_err(HubError::io("write", part))?;
    drop(file);
    fs::rename(part, blob).map_err(HubError::io("create", blob))
}

fn read_reference(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let commit = text.trim();
    let plain = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| commit.to_owned())
}

/// The models in the cache: every snapshot that holds, or lacks only, what a model has.
pub(crate) fn scan(cache: &Path) -> Vec<CachedModel> {
    let mut models = Vec::new();
    for (name, folder) in folders(cache) {
        let Some(repo) = name
            .strip_prefix("models--")
            .map(|repo| repo.replacen("--", "/", 1))
        else {
            continue;
        };
        let references = references(&folder.join("refs"));
        for (commit, path) in folders(&folder.join("snapshots")) {
            if !path.join(files::TOKENIZER).is_file() {
                continue;
            }
            let revision = references
                .iter()
                .find(|(_, at)| *at == commit)
                .map(|(name, _)| name.clone());
            models.push(CachedModel {
                repo: repo.clone(),
                revision,
                bytes: size(&path),
                complete: files::Form::in_folder(&path).is_some(),
                commit,
                path,
            });
        }
    }
    models
}

/// The folders in a folder, sorted by name; none if it cannot be read.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}

/// The branches and tags with their commits, `main` first.
fn references(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if entry.path().is_dir() {
                open.push((entry.path(), format!("{prefix}{name}/")));
            } else if let Some(commit) = read_reference(&entry.path()) {
                found.push((format!("{prefix}{name}"), commit));
            }
        }
    }
    found.sort_by_key(|(name, _)| (name != "main", name.clone()));
    found
}

/// The size of the files in a folder, links followed.
fn size(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}
