//! One file from the server into the cache, in as many attempts as it takes.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use ureq::http::StatusCode;

use crate::HubError;
use crate::cache::{Shelf, settle};
use crate::http::{Client, Described, header};

/// The pause before the first further attempt; it doubles from one to the next.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const BUFFER: usize = 256 << 10;

/// How far a fetch has come: enough for one bar over all files.
///
/// Only what is really fetched counts: files that the cache holds are left out, and the part of
/// a file that an earlier run has fetched is in `done` from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download<'a> {
    /// The file that is being fetched.
    pub file: &'a str,
    /// Its place among the files to fetch, from 0.
    pub file_index: usize,
    /// How many files are to be fetched.
    pub files: usize,
    /// The bytes of all files that are there.
    pub done: u64,
    /// The bytes of all files.
    pub total: u64,
}

/// A file that the cache lacks.
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// The size by the list of files, if it says.
    pub(crate) size: Option<u64>,
}

/// Fetches files of one commit into one shelf.
pub(crate) struct Transfer<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) shelf: &'a Shelf,
    pub(crate) commit: &'a str,
    pub(crate) retries: u32,
}

impl Transfer<'_> {
    /// Fetches the files one after the other.
    pub(crate) fn all(
        &self,
        wanted: &[Wanted],
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<(), HubError> {
        let mut sizes: Vec<u64> = wanted.iter().map(|file| file.size.unwrap_or(0)).collect();
        let mut before = 0;
        for (file_index, file) in wanted.iter().enumerate() {
            self.one(file, &mut |here, size| {
                sizes[file_index] = size;
                progress(Download {
                    file: &file.name,
                    file_index,
                    files: wanted.len(),
                    done: before + here,
                    total: sizes.iter().sum(),
                });
            })?;
            before += sizes[file_index];
        }
        Ok(())
    }

    /// Fetches one file. `report` is told how many bytes are there, and of how many.
    ///
    /// An attempt that brought new bytes is no failure: a connection that breaks every gigabyte
    /// still ends with the whole file.
    fn one(&self, file: &Wanted, report: &mut dyn FnMut(u64, u64)) -> Result<(), HubError> {
        let mut failures = 0;
        let mut most = 0;
        loop {
            let error = match self.attempt(file, report) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let HubError::Interrupted { found, .. } = error
                && found > most
            {
                failures = 0;
                most = found;
            }
            if failures >= self.retries || !error.is_transient() {
                return Err(error);
            }
            tracing::warn!(
                file = file.name,
                error = &error as &dyn std::error::Error,
                "download broke off, trying again"
            );
            sleep((PAUSE * 2u32.saturating_pow(failures)).min(LONGEST_PAUSE));
            failures += 1;
        }
    }

    fn attempt(&self, file: &Wanted, report: &mut dyn FnMut(u64, u64)) -> Result<(), HubError> {
        let described = self.client.describe(self.commit, &file.name)?;
        let size = described.size.or(file.size);
        let lock = self.shelf.lock(&described.etag, &file.name)?;
        let blob = self.shelf.blob(&described.etag);
        let present = fs::metadata(&blob).ok().map(|metadata| metadata.len());
        if present.is_some_and(|present| size.is_none_or(|size| size == present)) {
            report(present.unwrap_or(0), present.unwrap_or(0));
        } else {
            if present.is_some() {
                tracing::warn!(
                    file = file.name,
                    "the cached file has a wrong size, fetching it anew"
                );
                fs::remove_file(&blob).map_err(HubError::io("remove", &blob))?;
            }
            self.fill(&file.name, &described, size, &blob, report)?;
        }
        self.shelf.link(&described.etag, self.commit, &file.name)?;
        drop(lock);
        Ok(())
    }

    /// Fetches what the part lacks and, when it is whole, gives it its final name.
    fn fill(
        &self,
        name: &str,
        described: &Described,
        size: Option<u64>,
        blob: &Path,
        report: &mut dyn FnMut(u64, u64),
    ) -> Result<(), HubError> {
        let path = self.shelf.part(&described.etag);
        let write = || HubError::io("write", &path);
        let mut part = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(HubError::io("create", &path))?;
        let mut have = part.metadata().map_err(write())?.len();
        if size.is_some_and(|size| have > size) {
            part.set_len(0).map_err(write())?;
            have = 0;
        }
        let mut hash = Hash::new(&described.etag);
        hash.update_from(&mut part)
            .map_err(HubError::io("read", &path))?;

        let size = if have > 0 && size == Some(have) {
            report(have, have);
            have
        } else {
            let response = self.client.get(&described.url, name, have)?;
            let restart = match response.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    // The server has fewer bytes than it stated, or another file.
                    remove(&path);
                    return Err(HubError::Length {
                        file: name.to_owned(),
                        found: have,
                        expected: size.unwrap_or(0),
                    });
                }
                StatusCode::PARTIAL_CONTENT => {
                    let range = header(response.headers(), "content-range").unwrap_or_default();
                    let start = range
                        .strip_prefix("bytes ")
                        .and_then(|r| r.split('-').next()?.parse().ok());
                    if start != Some(have) {
                        return Err(HubError::BadAnswer {
                            url: described
                                .url
                                .split('?')
                                .next()
                                .unwrap_or_default()
                                .to_owned(),
                            what: format!(
                                "holds the range `{range}`, expected one that starts at {have}"
                            ),
                        });
                    }
                    false
                }
                _ => have > 0,
            };
            if restart {
                part.set_len(0)
                    .and_then(|()| part.rewind())
                    .map_err(write())?;
                have = 0;
                hash = Hash::new(&described.etag);
            }
            let length =
                header(response.headers(), "content-length").and_then(|l| l.parse::<u64>().ok());
            let size = size.or(length.map(|length| have + length));
            report(have, size.unwrap_or(have));

            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; BUFFER];
            loop {
                let read = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(source) => {
                        return Err(HubError::Interrupted {
                            file: name.to_owned(),
                            found: have,
                            expected: size.unwrap_or(have),
                            source,
                        });
                    }
                };
                part.write_all(&buffer[..read]).map_err(write())?;
                hash.update(&buffer[..read]);
                have += read as u64;
                if let Some(size) = size.filter(|&size| have > size) {
                    remove(&path);
                    return Err(HubError::Length {
                        file: name.to_owned(),
                        found: have,
                        expected: size,
                    });
                }
                report(have, size.unwrap_or(have));
            }
            size.unwrap_or(have)
        };
        if have < size {
            // The part stays: what arrived may be right, and the hash will tell.
            return Err(HubError::Length {
                file: name.to_owned(),
                found: have,
                expected: size,
            });
        }
        if let Some((found, expected)) = hash.mismatch() {
            remove(&path);
            return Err(HubError::Content {
                file: name.to_owned(),
                found,
                expected,
            });
        }
        settle(part, &path, blob)
    }
}

/// Removes a part that is of no use. If that fails, the next run finds it wrong again.
fn remove(part: &Path) {
    if let Err(error) = fs::remove_file(part) {
        tracing::warn!(path = %part.display(), %error, "cannot remove a useless file");
    }
}

/// The SHA-256 of the bytes so far, where the entity tag states one.
struct Hash(Option<(Context, String)>);

impl Hash {
    fn new(etag: &str) -> Self {
        let states_one = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        Self(states_one.then(|| (Context::new(&SHA256), etag.to_ascii_lowercase())))
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some((context, _)) = &mut self.0 {
            context.update(bytes);
        }
    }

    /// Takes in the whole file and leaves it at its end.
    fn update_from(&mut self, file: &mut File) -> std::io::Result<()> {
        if self.0.is_none() {
            file.seek(SeekFrom::End(0))?;
            return Ok(());
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => self.update(&buffer[..read]),
            }
        }
    }

    /// The hash found and the one expected, if they differ.
    fn mismatch(self) -> Option<(String, String)> {
        let (context, expected) = self.0?;
        let found: String = context
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (found != expected).then_some((found, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_checked_where_one_is_stated() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut hash = Hash::new(abc);
        hash.update(b"a");
        hash.update(b"bc");
        assert_eq!(hash.mismatch(), None);
        let mut hash = Hash::new(abc);
        hash.update(b"abd");
        assert_eq!(
            hash.mismatch().map(|(_, expected)| expected).as_deref(),
            Some(abc)
        );
        let mut hash = Hash::new("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
        hash.update(b"anything");
        assert_eq!(hash.mismatch(), None);
    }
}
