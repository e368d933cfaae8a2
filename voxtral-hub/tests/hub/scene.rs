//! Repositories, caches and small helpers of the tests.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use voxtral_hub::{Hub, HubBuilder, HubError};

use crate::mock::{Mock, Request};

pub(crate) const REPO: &str = "org/voxtral";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NEXT: &str = "89abcdef0123456789abcdef0123456789abcdef";
pub(crate) const INDEX: &[u8] = br#"{"metadata":{"total_size":1},"weight_map":{
    "a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors",
    "c":"model-00001-of-00002.safetensors"}}"#;
pub(crate) const SHARD_1: &str = "model-00001-of-00002.safetensors";
pub(crate) const SHARD_2: &str = "model-00002-of-00002.safetensors";

/// Bytes that differ from place to place.
pub(crate) fn weights(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8)
        .collect()
}

/// A repository as they are published: both forms side by side, and more.
pub(crate) fn both_forms() -> Mock {
    Mock::new(
        REPO,
        COMMIT,
        &[
            (".gitattributes", b"*"),
            ("README.md", b"# model"),
            ("config.json", b"{\"model_type\":\"voxtral\"}"),
            ("generation_config.json", b"{}"),
            ("preprocessor_config.json", b"{\"feature_size\":128}"),
            ("tekken.json", b"{\"vocab\":[]}"),
            ("model.safetensors.index.json", INDEX),
            (SHARD_1, &weights(1, 300_000)),
            (SHARD_2, &weights(2, 200_000)),
            ("params.json", b"{\"dim\":3072}"),
            ("consolidated.safetensors", &weights(3, 500_000)),
        ],
    )
}

pub(crate) fn native_only() -> Mock {
    Mock::new(
        REPO,
        COMMIT,
        &[
            ("params.json", b"{}"),
            ("tekken.json", b"{}"),
            ("consolidated.safetensors", &weights(3, 50_000)),
        ],
    )
}

/// A hub for the mock, with an empty cache and no retries.
pub(crate) fn open(mock: &Mock) -> (TempDir, Hub) {
    let folder = tempfile::tempdir().unwrap();
    let hub = builder(mock, folder.path()).build().unwrap();
    (folder, hub)
}

pub(crate) fn builder(mock: &Mock, cache: &Path) -> HubBuilder {
    HubBuilder::new(cache).endpoint(&mock.endpoint).retries(0)
}

pub(crate) fn fetch(hub: &Hub) -> Result<PathBuf, HubError> {
    hub.fetch(REPO, None, &mut |_| {})
}

/// The error's message with those of its causes, as a program prints it.
pub(crate) fn message(error: &HubError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(!text.contains('\n'), "{text}");
    assert!(
        text.starts_with(|c: char| c == '`' || c.is_lowercase() || c == 'H'),
        "{text}"
    );
    text
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn blobs(cache: &Path) -> PathBuf {
    cache.join("models--org--voxtral").join("blobs")
}

pub(crate) fn is_transfer(request: &Request) -> bool {
    request.method == "GET" && !request.path.starts_with("/api/models/")
}

/// The ranges of the transfers of a file.
pub(crate) fn ranges(requests: &[Request], file: &str) -> Vec<Option<String>> {
    let of_file =
        |r: &&Request| is_transfer(r) && r.path.split('?').next().unwrap().ends_with(file);
    requests
        .iter()
        .filter(of_file)
        .map(|r| r.range.clone())
        .collect()
}

/// The address of a port where nobody listens.
pub(crate) fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
