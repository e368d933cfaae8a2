//! The Hub with its cache: which files a model needs, which are there, and what to do without a
//! server.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::builder::expand;
use crate::cache::{self, Shelf};
use crate::files::{self, Form};
use crate::http::{Client, Listing};
use crate::source::{is_commit, is_repo, is_revision};
use crate::transfer::{Transfer, Wanted};
use crate::{CachedModel, Download, HubBuilder, HubError, ModelSource};

/// The revision that is meant if none is given.
const MAIN: &str = "main";

/// A model hub, with the cache that this machine's programs share.
#[derive(Clone)]
pub struct Hub {
    pub(crate) cache: PathBuf,
    pub(crate) endpoint: String,
    pub(crate) token: Option<String>,
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) offline: bool,
    pub(crate) retries: u32,
}

impl Hub {
    /// The hub that the process's environment describes.
    pub fn from_env() -> Result<Self, HubError> {
        HubBuilder::from_env().build()
    }

    /// The folder of the cache.
    pub fn cache_folder(&self) -> &Path {
        &self.cache
    }

    /// The server's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The folder of the model: the given one, or the one that [`fetch`](Self::fetch) returns.
    pub fn resolve(
        &self,
        source: &ModelSource,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<PathBuf, HubError> {
        match source {
            ModelSource::Folder(path) => {
                let path = expand(path.clone(), env::home_dir().as_deref());
                if path.is_dir() {
                    Ok(path)
                } else {
                    Err(HubError::NotAFolder { path })
                }
            }
            ModelSource::Hub { repo, revision } => self.fetch(repo, revision.as_deref(), progress),
        }
    }

    /// The folder that holds the files of `repo` (`org/name`) at `revision` (`main` if absent),
    /// after fetching those that the cache lacks.
    ///
    /// The server is asked which commit the revision stands at, except offline and where the
    /// revision is a commit. If it cannot be reached, or refuses, what the cache holds is used,
    /// with a warning.
    pub fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<PathBuf, HubError> {
        let name = || match revision {
            Some(revision) => format!("{repo}@{revision}"),
            None => repo.to_owned(),
        };
        let wanted = revision.unwrap_or(MAIN);
        if !is_repo(repo) || !is_revision(wanted) {
            return Err(HubError::UnknownModel { name: name() });
        }
        let shelf = Shelf::new(&self.cache, repo, wanted);
        let current = shelf.current();
        let cached = || {
            current
                .clone()
                .filter(|folder| Form::in_folder(folder).is_some())
        };
        if (self.offline || is_commit(wanted))
            && let Some(folder) = cached()
        {
            return Ok(folder);
        }
        if self.offline {
            let lacks = files::lacks(&current.unwrap_or_else(|| shelf.snapshot(wanted)));
            return Err(HubError::Offline {
                repo: name(),
                cache: self.cache.clone(),
                lacks,
            });
        }

        let client = Client::new(self, repo)?;
        let listing = match client.list(wanted) {
            Ok(listing) => listing,
            Err(error) => match cached().filter(|_| error.may_use_cache()) {
                Some(folder) => {
                    tracing::warn!(
                        model = name(),
                        error = &error as &dyn std::error::Error,
                        "using the copy in the cache, which may be out of date"
                    );
                    return Ok(folder);
                }
                None => return Err(error),
            },
        };
        let folder = shelf.snapshot(&listing.commit);
        let transfer = Transfer {
            client: &client,
            shelf: &shelf,
            commit: &listing.commit,
            retries: self.retries,
        };
        let wanted = self.missing(repo, &listing, &folder, &transfer)?;
        transfer.all(&wanted, progress)?;
        shelf.set_commit(&listing.commit)?;
        Ok(folder)
    }

    /// Every snapshot in the cache that holds a tokenizer of this family's kind, by name. Other
    /// models with such a tokenizer are among them: the configuration tells.
    pub fn cached(&self) -> Vec<CachedModel> {
        cache::scan(&self.cache)
    }

    /// The needed files that the snapshot lacks. The index is fetched on the way, as it says
    /// which they are.
    fn missing(
        &self,
        repo: &str,
        listing: &Listing,
        folder: &Path,
        transfer: &Transfer<'_>,
    ) -> Result<Vec<Wanted>, HubError> {
        let has = |name: &str| listing.has(name);
        let form = Form::in_folder(folder)
            .or_else(|| Form::choose(has))
            .ok_or_else(|| HubError::NoModel {
                repo: repo.to_owned(),
                found: listing.names(),
            })?;
        if !has(files::TOKENIZER) {
            return Err(HubError::NoTokenizer {
                repo: repo.to_owned(),
            });
        }
        let lacks = |name: &str| {
            let size = listing.size(name);
            let found = fs::metadata(folder.join(name))
                .ok()
                .filter(fs::Metadata::is_file);
            let there = found.is_some_and(|found| size.is_none_or(|size| size == found.len()));
            (!there).then(|| Wanted {
                name: name.to_owned(),
                size,
            })
        };

        let (needed, optional) = form.small();
        let mut names: Vec<String> = needed
            .iter()
            .chain(optional.iter().filter(|name| has(name)))
            .map(|&name| name.to_owned())
            .collect();
        if form.is_indexed(has) {
            if let Some(index) = lacks(files::INDEX) {
                transfer.all(&[index], &mut |_| {})?;
            }
            let path = folder.join(files::INDEX);
            let bytes = fs::read(&path).map_err(HubError::io("read", &path))?;
            let label = format!("{repo}/{}", files::INDEX);
            let shards = files::shards(&bytes, &label)?;
            if let Some(shard) = shards.iter().find(|shard| !has(shard)) {
                return Err(HubError::MissingShard {
                    index: label,
                    shard: shard.clone(),
                });
            }
            names.extend(shards);
        } else {
            names.push(form.single().to_owned());
        }
        Ok(names.iter().filter_map(|name| lacks(name)).collect())
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("certificates", &self.certificates)
            .field("offline", &self.offline)
            .field("retries", &self.retries)
            .finish()
    }
}
