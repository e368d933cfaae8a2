//! Fetching from a hub on the loopback interface. Every setting is given explicitly, so nothing
//! of the developer's environment, cache or token takes part.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]

mod mock;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use mock::{Mock, Request, sha256};
use tempfile::TempDir;
use voxtral_hub::{Hub, HubBuilder, HubError, ModelSource};

const REPO: &str = "org/voxtral";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NEXT: &str = "89abcdef0123456789abcdef0123456789abcdef";
const INDEX: &[u8] = br#"{"metadata":{"total_size":1},"weight_map":{
    "a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors",
    "c":"model-00001-of-00002.safetensors"}}"#;
const SHARD_1: &str = "model-00001-of-00002.safetensors";
const SHARD_2: &str = "model-00002-of-00002.safetensors";

/// Bytes that differ from place to place.
fn weights(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8)
        .collect()
}

/// A repository as they are published: both forms side by side, and more.
fn both_forms() -> Mock {
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

fn native_only() -> Mock {
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
fn open(mock: &Mock) -> (TempDir, Hub) {
    let folder = tempfile::tempdir().unwrap();
    let hub = builder(mock, folder.path()).build().unwrap();
    (folder, hub)
}

fn builder(mock: &Mock, cache: &Path) -> HubBuilder {
    HubBuilder::new(cache).endpoint(&mock.endpoint).retries(0)
}

fn fetch(hub: &Hub) -> Result<PathBuf, HubError> {
    hub.fetch(REPO, None, &mut |_| {})
}

/// The error's message with those of its causes, as a program prints it.
fn message(error: &HubError) -> String {
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

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn blobs(cache: &Path) -> PathBuf {
    cache.join("models--org--voxtral").join("blobs")
}

fn is_transfer(request: &Request) -> bool {
    request.method == "GET" && !request.path.starts_with("/api/models/")
}

/// The ranges of the transfers of a file.
fn ranges(requests: &[Request], file: &str) -> Vec<Option<String>> {
    let of_file =
        |r: &&Request| is_transfer(r) && r.path.split('?').next().unwrap().ends_with(file);
    requests
        .iter()
        .filter(of_file)
        .map(|r| r.range.clone())
        .collect()
}

// ---- What is fetched ----

#[test]
fn of_two_forms_only_the_hugging_face_one_is_fetched() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let mut steps = Vec::new();
    let folder = hub
        .fetch(REPO, None, &mut |d| {
            steps.push((d.file.to_owned(), d.file_index, d.files, d.done, d.total))
        })
        .unwrap();

    assert_eq!(
        names(&folder),
        [
            "config.json",
            "generation_config.json",
            SHARD_1,
            SHARD_2,
            "model.safetensors.index.json",
            "preprocessor_config.json",
            "tekken.json",
        ]
    );
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
    assert_eq!(fs::read(folder.join(SHARD_2)).unwrap(), weights(2, 200_000));
    assert_eq!(
        fs::read(folder.join("model.safetensors.index.json")).unwrap(),
        INDEX
    );
    let requests = mock.take_requests();
    assert!(
        requests
            .iter()
            .all(|r| !r.path.contains("consolidated") && !r.path.contains("params"))
    );
    assert!(requests.iter().all(|r| !r.path.contains("README")));
    // At the listed commit, even if the branch moves meanwhile.
    let resolved: Vec<_> = requests
        .iter()
        .filter(|r| r.path.contains("/resolve/"))
        .collect();
    assert!(
        resolved
            .iter()
            .all(|r| r.path.starts_with(&format!("/{REPO}/resolve/{COMMIT}/")))
    );
    assert!(!resolved.is_empty());

    // The layout that the other libraries share.
    let home = cache.path().join("models--org--voxtral");
    assert_eq!(folder, home.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(home.join("refs/main")).unwrap(), COMMIT);
    let blob = home.join("blobs").join(sha256(&weights(1, 300_000)));
    assert_eq!(fs::read(blob).unwrap(), weights(1, 300_000));
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(folder.join(SHARD_1)).unwrap(),
        Path::new("../../blobs").join(sha256(&weights(1, 300_000)))
    );

    // One bar: it grows, its length is fixed, and it ends full. The index came before.
    let total = steps[0].4;
    assert!(
        steps
            .windows(2)
            .all(|pair| pair[0].3 <= pair[1].3 && pair[0].1 <= pair[1].1)
    );
    assert!(steps.iter().all(|step| step.4 == total && step.2 == 6));
    assert_eq!(
        steps.last().map(|s| (s.0.as_str(), s.1, s.3)),
        Some((SHARD_2, 5, total))
    );
}

#[test]
fn a_native_repository_is_fetched_as_such() {
    let mock = native_only();
    let (_cache, hub) = open(&mock);
    let folder = fetch(&hub).unwrap();
    assert_eq!(
        names(&folder),
        ["consolidated.safetensors", "params.json", "tekken.json"]
    );
    assert_eq!(
        fs::read(folder.join("consolidated.safetensors")).unwrap(),
        weights(3, 50_000)
    );
}

#[test]
fn a_single_file_of_weights_needs_no_index() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[
            ("config.json", b"{}"),
            ("processor_config.json", b"{}"),
            ("tekken.json", b"{}"),
            ("model.safetensors", &weights(4, 1000)),
        ],
    );
    let (_cache, hub) = open(&mock);
    let folder = fetch(&hub).unwrap();
    assert_eq!(
        names(&folder),
        [
            "config.json",
            "model.safetensors",
            "processor_config.json",
            "tekken.json"
        ]
    );
}

#[test]
fn an_empty_file_is_a_file() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[
            ("params.json", b""),
            ("tekken.json", b"{}"),
            ("consolidated.safetensors", b"x"),
        ],
    );
    let (_cache, hub) = open(&mock);
    assert_eq!(
        fs::read(fetch(&hub).unwrap().join("params.json")).unwrap(),
        b""
    );
}

#[test]
fn a_repository_without_a_model_says_what_it_holds() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[("config.json", b"{}"), ("pytorch_model.bin", b"x")],
    );
    let (_cache, hub) = open(&mock);
    let text = message(&fetch(&hub).unwrap_err());
    for part in [
        REPO,
        "`pytorch_model.bin`",
        "model.safetensors.index.json",
        "consolidated.safetensors",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_repository_without_a_tokenizer_is_refused_before_the_weights() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[("config.json", b"{}"), ("model.safetensors", b"x")],
    );
    let (_cache, hub) = open(&mock);
    let error = fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::NoTokenizer { .. }), "{error}");
    assert!(message(&error).contains("`tekken.json`"));
    assert!(!mock.take_requests().iter().any(is_transfer));
}

#[test]
fn an_index_that_names_an_absent_shard_is_refused_before_the_weights() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[
            ("config.json", b"{}"),
            ("tekken.json", b"{}"),
            ("model.safetensors.index.json", INDEX),
            (SHARD_1, b"x"),
        ],
    );
    let (_cache, hub) = open(&mock);
    let error = fetch(&hub).unwrap_err();
    assert!(
        matches!(&error, HubError::MissingShard { shard, .. } if shard == SHARD_2),
        "{error}"
    );
    assert_eq!(ranges(&mock.take_requests(), SHARD_1), []);
}

#[test]
fn an_index_that_leaves_the_folder_is_refused() {
    for name in [
        "../evil.safetensors",
        "/evil.safetensors",
        "a/../../evil.safetensors",
    ] {
        let index = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
        let mock = Mock::new(
            REPO,
            COMMIT,
            &[
                ("config.json", b"{}"),
                ("tekken.json", b"{}"),
                ("model.safetensors.index.json", index.as_bytes()),
                (name, b"evil"),
            ],
        );
        let (cache, hub) = open(&mock);
        let error = fetch(&hub).unwrap_err();
        assert!(
            matches!(&error, HubError::BadShardName { shard, .. } if shard == name),
            "{error}"
        );
        assert!(message(&error).contains(name));
        assert!(!mock.take_requests().iter().any(|r| r.path.contains("evil")));
        assert_eq!(names(cache.path()), [".locks", "models--org--voxtral"]);
    }
}

#[test]
fn an_index_that_is_no_json_is_refused() {
    let mock = Mock::new(
        REPO,
        COMMIT,
        &[
            ("config.json", b"{}"),
            ("tekken.json", b"{}"),
            ("model.safetensors.index.json", b"<html>"),
        ],
    );
    let (_cache, hub) = open(&mock);
    assert!(
        message(&fetch(&hub).unwrap_err())
            .contains("is not a valid index of weights: expected value")
    );
}

#[test]
fn an_entity_tag_that_leaves_the_folder_is_refused() {
    let mock = native_only();
    mock.state()
        .etags
        .insert("params.json".to_owned(), "../../evil".to_owned());
    let (_cache, hub) = open(&mock);
    let error = fetch(&hub).unwrap_err();
    assert!(matches!(error, HubError::BadAnswer { .. }), "{error}");
    assert!(message(&error).contains("params.json"));
}

// ---- What is in the cache already ----

#[test]
fn the_second_run_only_asks_whether_anything_is_new() {
    let mock = both_forms();
    let (_cache, hub) = open(&mock);
    let first = fetch(&hub).unwrap();
    mock.take_requests();
    let second = hub.fetch(REPO, None, &mut |d| panic!("{d:?}")).unwrap();
    assert_eq!(first, second);
    let requests = mock.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(
        requests[0]
            .path
            .starts_with("/api/models/org/voxtral/revision/main")
    );
}

#[test]
fn a_commit_is_for_ever() {
    let mock = both_forms();
    let (_cache, hub) = open(&mock);
    let first = hub.fetch(REPO, Some(COMMIT), &mut |_| {}).unwrap();
    mock.take_requests();
    assert_eq!(hub.fetch(REPO, Some(COMMIT), &mut |_| {}).unwrap(), first);
    assert!(mock.take_requests().is_empty());
}

#[test]
fn a_new_commit_brings_only_what_changed() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let first = fetch(&hub).unwrap();
    let mut files = mock.state().repos[REPO].1.clone();
    files.insert(SHARD_2.to_owned(), weights(9, 200_000));
    let files: Vec<_> = files
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    mock.put(REPO, NEXT, &files);
    mock.take_requests();

    let second = fetch(&hub).unwrap();
    assert_ne!(first, second);
    assert_eq!(fs::read(second.join(SHARD_1)).unwrap(), weights(1, 300_000));
    assert_eq!(fs::read(second.join(SHARD_2)).unwrap(), weights(9, 200_000));
    assert_eq!(fs::read(first.join(SHARD_2)).unwrap(), weights(2, 200_000));
    let transfers: Vec<_> = mock
        .take_requests()
        .into_iter()
        .filter(is_transfer)
        .collect();
    assert_eq!(transfers.len(), 1, "{transfers:?}");
    let reference = cache.path().join("models--org--voxtral/refs/main");
    assert_eq!(fs::read_to_string(reference).unwrap(), NEXT);
}

#[test]
fn a_whole_native_form_in_the_cache_saves_the_other() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    // As another program would have left it.
    let snapshot = cache
        .path()
        .join("models--org--voxtral/snapshots")
        .join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["params.json", "tekken.json", "consolidated.safetensors"] {
        fs::write(snapshot.join(name), &mock.state().repos[REPO].1[name]).unwrap();
    }
    assert_eq!(fetch(&hub).unwrap(), snapshot);
    assert!(!mock.take_requests().iter().any(is_transfer));
}

#[test]
fn a_cached_file_of_a_wrong_size_is_fetched_anew() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let folder = fetch(&hub).unwrap();
    let blob = blobs(cache.path()).join(sha256(&weights(1, 300_000)));
    fs::write(&blob, b"cut short").unwrap();
    assert_eq!(fetch(&hub).unwrap(), folder);
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
}

#[test]
fn offline_the_cache_serves_without_a_request() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let folder = fetch(&hub).unwrap();
    mock.take_requests();
    let offline = builder(&mock, cache.path()).offline(true).build().unwrap();
    assert_eq!(fetch(&offline).unwrap(), folder);
    assert_eq!(
        offline.fetch(REPO, Some(COMMIT), &mut |_| {}).unwrap(),
        folder
    );
    assert!(mock.take_requests().is_empty());
}

#[test]
fn offline_without_the_model_names_what_is_absent() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let offline = builder(&mock, cache.path()).offline(true).build().unwrap();
    let text = message(&fetch(&offline).unwrap_err());
    for part in [REPO, "HF_HUB_OFFLINE", &cache.path().display().to_string()] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        text.contains("lacks `config.json`, `tekken.json`, `model.safetensors`,"),
        "{text}"
    );
    let folder = fetch(&hub).unwrap();
    fs::remove_file(folder.join(SHARD_2)).unwrap();
    mock.take_requests();
    let text = message(&fetch(&offline).unwrap_err());
    assert!(text.contains(&format!("lacks `{SHARD_2}`,")), "{text}");
    assert!(mock.take_requests().is_empty());
}

#[test]
fn the_cache_serves_when_the_server_cannot_be_reached_or_refuses() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let folder = fetch(&hub).unwrap();
    let gone = HubBuilder::new(cache.path())
        .endpoint(closed())
        .build()
        .unwrap();
    assert_eq!(fetch(&gone).unwrap(), folder);
    for (status, code) in [
        (503, ""),
        (429, ""),
        (401, "RepoNotFound"),
        (403, "GatedRepo"),
    ] {
        mock.state().refusals.clear();
        mock.refuse("/api/models/", status, code);
        assert_eq!(fetch(&hub).unwrap(), folder, "{status}");
    }
    mock.state().refusals.clear();
    mock.refuse("/api/models/", 404, "RepoNotFound");
    assert!(matches!(fetch(&hub), Err(HubError::NotFound { .. })));
}

#[test]
fn the_list_of_cached_models_tells_whole_from_begun() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    assert_eq!(hub.cached(), []);
    mock.put(
        "other/native",
        NEXT,
        &[
            ("params.json", b"{}"),
            ("tekken.json", b"{}"),
            ("consolidated.safetensors", &weights(3, 50_000)),
        ],
    );
    let folder = fetch(&hub).unwrap();
    mock.state()
        .cuts
        .insert("consolidated.safetensors".to_owned(), [10_000].into());
    hub.fetch("other/native", Some(NEXT), &mut |_| {})
        .unwrap_err();
    // Of no concern: a model of another kind, and what is no model at all.
    fs::create_dir_all(cache.path().join("models--gpt2/snapshots/abc")).unwrap();
    fs::write(
        cache.path().join("models--gpt2/snapshots/abc/config.json"),
        "{}",
    )
    .unwrap();
    fs::create_dir_all(cache.path().join("datasets--a--b/snapshots/abc")).unwrap();
    fs::write(cache.path().join("version.txt"), "1").unwrap();

    let found = hub.cached();
    assert_eq!(found.len(), 2, "{found:?}");
    let [whole, begun] = &found[..] else {
        unreachable!()
    };
    assert_eq!(
        (whole.repo.as_str(), whole.revision.as_deref()),
        (REPO, Some("main"))
    );
    assert_eq!(
        (whole.commit.as_str(), &whole.path, whole.complete),
        (COMMIT, &folder, true)
    );
    let sizes = names(&folder)
        .iter()
        .map(|n| fs::metadata(folder.join(n)).unwrap().len())
        .sum::<u64>();
    assert_eq!(whole.bytes, sizes);
    assert_eq!(
        (begun.repo.as_str(), begun.revision.as_deref()),
        ("other/native", None)
    );
    assert_eq!((begun.commit.as_str(), begun.complete), (NEXT, false));
}

// ---- Interruptions ----

#[test]
fn an_interrupted_download_is_continued_by_the_next_run() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    mock.state()
        .cuts
        .insert(SHARD_1.to_owned(), [123_456].into());
    let error = fetch(&hub).unwrap_err();
    assert!(
        matches!(&error, HubError::Interrupted { file, found: 123_456, expected: 300_000, .. } if file == SHARD_1),
        "{error}"
    );
    assert!(message(&error).contains("run again"));

    // No final name holds half a file, and no reference names half a snapshot.
    let hash = sha256(&weights(1, 300_000));
    let home = cache.path().join("models--org--voxtral");
    assert!(!blobs(cache.path()).join(&hash).exists());
    assert_eq!(
        fs::metadata(blobs(cache.path()).join(format!("{hash}.part")))
            .unwrap()
            .len(),
        123_456
    );
    assert!(!home.join("snapshots").join(COMMIT).join(SHARD_1).exists());
    assert!(!home.join("refs/main").exists());

    mock.take_requests();
    let mut first = None;
    let folder = hub
        .fetch(REPO, None, &mut |d| {
            first.get_or_insert((d.file.to_owned(), d.files, d.done, d.total));
        })
        .unwrap();
    assert_eq!(first, Some((SHARD_1.to_owned(), 2, 123_456, 500_000)));
    assert_eq!(
        ranges(&mock.take_requests(), SHARD_1),
        [Some("bytes=123456-".to_owned())]
    );
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
    assert!(
        names(&blobs(cache.path()))
            .iter()
            .all(|name| !name.ends_with(".part"))
    );
}

#[test]
fn a_broken_connection_is_taken_up_again_in_the_same_run() {
    let mock = both_forms();
    let cache = tempfile::tempdir().unwrap();
    let hub = builder(&mock, cache.path()).retries(1).build().unwrap();
    // More breaks than retries, but each attempt brings something new.
    mock.state()
        .cuts
        .insert(SHARD_1.to_owned(), [100_000, 50_000].into());
    let folder = fetch(&hub).unwrap();
    let asked = [
        None,
        Some("bytes=100000-".to_owned()),
        Some("bytes=150000-".to_owned()),
    ];
    assert_eq!(ranges(&mock.take_requests(), SHARD_1), asked);
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
}

#[test]
fn without_any_new_byte_the_attempts_end() {
    let mock = native_only();
    let cache = tempfile::tempdir().unwrap();
    let hub = builder(&mock, cache.path()).retries(1).build().unwrap();
    mock.state()
        .cuts
        .insert("consolidated.safetensors".to_owned(), [0; 9].into());
    assert!(matches!(
        fetch(&hub),
        Err(HubError::Interrupted { found: 0, .. })
    ));
    assert_eq!(
        ranges(&mock.take_requests(), "consolidated.safetensors").len(),
        2
    );
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_again() {
    let mock = both_forms();
    let (_cache, hub) = open(&mock);
    mock.state()
        .cuts
        .insert(SHARD_1.to_owned(), [123_456].into());
    fetch(&hub).unwrap_err();
    mock.state().ignores_ranges = true;
    let folder = fetch(&hub).unwrap();
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
}

#[test]
fn a_part_that_was_whole_only_gets_its_name() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let content = weights(1, 300_000);
    fs::create_dir_all(blobs(cache.path())).unwrap();
    fs::write(
        blobs(cache.path()).join(format!("{}.part", sha256(&content))),
        &content,
    )
    .unwrap();
    let folder = fetch(&hub).unwrap();
    assert_eq!(ranges(&mock.take_requests(), SHARD_1), []);
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), content);
}

#[test]
fn a_part_with_other_content_is_found_out_and_dropped() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let hash = sha256(&weights(1, 300_000));
    let part = blobs(cache.path()).join(format!("{hash}.part"));
    fs::create_dir_all(blobs(cache.path())).unwrap();
    fs::write(&part, weights(7, 1000)).unwrap();
    let error = fetch(&hub).unwrap_err();
    assert!(
        matches!(&error, HubError::Content { expected, .. } if *expected == hash),
        "{error}"
    );
    assert!(!part.exists() && !blobs(cache.path()).join(&hash).exists());
    let folder = fetch(&hub).unwrap();
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
}

#[test]
fn a_part_that_is_too_long_is_started_again() {
    let mock = both_forms();
    let (cache, hub) = open(&mock);
    let part = blobs(cache.path()).join(format!("{}.part", sha256(&weights(1, 300_000))));
    fs::create_dir_all(blobs(cache.path())).unwrap();
    fs::write(&part, weights(7, 400_000)).unwrap();
    let folder = fetch(&hub).unwrap();
    assert_eq!(fs::read(folder.join(SHARD_1)).unwrap(), weights(1, 300_000));
}

#[test]
fn a_file_of_another_length_than_stated_is_an_error() {
    for (stated, found) in [(60_000, 50_000), (40_000, 50_000)] {
        let mock = native_only();
        let (cache, hub) = open(&mock);
        mock.state()
            .sizes
            .insert("consolidated.safetensors".to_owned(), stated);
        for _ in 0..2 {
            let error = fetch(&hub).unwrap_err();
            assert!(
                matches!(error, HubError::Length { found: f, expected, .. } if expected == stated as u64 && f == found),
                "{error}"
            );
            let snapshot = cache
                .path()
                .join("models--org--voxtral/snapshots")
                .join(COMMIT);
            assert_eq!(names(&snapshot), ["params.json", "tekken.json"]);
            assert!(
                !blobs(cache.path())
                    .join(sha256(&weights(3, 50_000)))
                    .exists()
            );
        }
    }
}

#[test]
fn two_at_once_fetch_each_file_once() {
    let mock = both_forms();
    let (_cache, hub) = open(&mock);
    let folders: Vec<_> = std::thread::scope(|scope| {
        let both = [scope.spawn(|| fetch(&hub)), scope.spawn(|| fetch(&hub))];
        both.into_iter()
            .map(|one| one.join().unwrap().unwrap())
            .collect()
    });
    assert_eq!(folders[0], folders[1]);
    let requests = mock.take_requests();
    assert_eq!(ranges(&requests, SHARD_1), [None]);
    assert_eq!(ranges(&requests, SHARD_2), [None]);
    assert_eq!(
        fs::read(folders[0].join(SHARD_2)).unwrap(),
        weights(2, 200_000)
    );
}

// ---- Who may ----

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let mock = both_forms();
    let cache = tempfile::tempdir().unwrap();
    let hub = builder(&mock, cache.path())
        .token("hf_secret")
        .build()
        .unwrap();
    fetch(&hub).unwrap();
    let requests = mock.take_requests();
    assert!(requests.iter().any(|r| r.storage));
    for request in requests {
        let expected = if request.storage {
            None
        } else {
            Some("Bearer hf_secret")
        };
        assert_eq!(request.authorization.as_deref(), expected, "{request:?}");
    }
    let (_cache, hub) = open(&mock);
    fetch(&hub).unwrap();
    assert!(
        mock.take_requests()
            .iter()
            .all(|r| r.authorization.is_none())
    );
}

#[test]
fn refusals_say_what_to_do() {
    let page = |mock: &Mock| format!("{}/{REPO}", mock.endpoint);
    for (part, status, code, token, expected) in [
        ("/api/models/", 401, "RepoNotFound", false, "set HF_TOKEN"),
        ("/api/models/", 401, "", true, "renew HF_TOKEN"),
        ("/resolve/", 401, "GatedRepo", false, "accept its terms at"),
        ("/resolve/", 403, "GatedRepo", true, "account that accepted"),
        ("/resolve/", 403, "", true, "accept its terms at"),
        (
            "/api/models/",
            404,
            "RepoNotFound",
            true,
            "does not exist at",
        ),
        (
            "/api/models/",
            404,
            "RevisionNotFound",
            false,
            "has no revision `main`",
        ),
    ] {
        let mock = both_forms();
        mock.refuse(part, status, code);
        let cache = tempfile::tempdir().unwrap();
        let hub = builder(&mock, cache.path());
        let hub = if token { hub.token("hf_x") } else { hub }.build().unwrap();
        let text = message(&fetch(&hub).unwrap_err());
        assert!(
            text.starts_with(&format!("`{REPO}` ")),
            "{status} {code}: {text}"
        );
        assert!(
            text.contains(expected) && text.contains(&page(&mock)),
            "{status} {code}: {text}"
        );
        assert!(!text.contains("hf_x"));
    }
}

#[test]
fn a_file_that_is_listed_but_absent_is_named() {
    let mock = both_forms();
    mock.refuse(
        "/resolve/0123456789abcdef0123456789abcdef01234567/tekken.json",
        404,
        "EntryNotFound",
    );
    let (_cache, hub) = open(&mock);
    let text = message(&fetch(&hub).unwrap_err());
    assert!(text.starts_with("`tekken.json` of `org/voxtral`"), "{text}");
}

#[test]
fn a_server_error_names_status_and_address_without_the_signature() {
    let mock = both_forms();
    mock.refuse("/api/models/", 502, "");
    let (_cache, hub) = open(&mock);
    let text = message(&fetch(&hub).unwrap_err());
    assert!(
        text.contains("answered 502") && text.contains("retry later"),
        "{text}"
    );

    let mock = both_forms();
    mock.refuse("?signature", 500, "");
    let (_cache, hub) = open(&mock);
    let text = message(&fetch(&hub).unwrap_err());
    assert!(
        text.contains("answered 500") && text.contains(SHARD_1) && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn an_answer_that_is_no_list_of_files_is_named() {
    let mock = both_forms();
    mock.refuse("/api/models/", 200, "");
    let (_cache, hub) = open(&mock);
    let text = message(&fetch(&hub).unwrap_err());
    assert!(
        text.contains("is no list of files") && text.contains("HF_ENDPOINT"),
        "{text}"
    );
}

#[test]
fn a_closed_door_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let endpoint = closed();
    let hub = HubBuilder::new(cache.path())
        .endpoint(&endpoint)
        .retries(0)
        .build()
        .unwrap();
    let text = message(&fetch(&hub).unwrap_err());
    assert!(
        text.contains(&endpoint) && text.contains(REPO) && text.contains("refused"),
        "{text}"
    );
}

#[test]
fn certificates_that_are_none_are_named() {
    let mock = both_forms();
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("ca.pem");
    let hub = builder(&mock, cache.path())
        .certificates(&file)
        .build()
        .unwrap();
    assert!(matches!(
        fetch(&hub),
        Err(HubError::Io { action: "read", .. })
    ));
    fs::write(&file, "not a certificate").unwrap();
    assert!(message(&fetch(&hub).unwrap_err()).contains("holds no certificate"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let mock = both_forms();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let hub = builder(&mock, &file).build().unwrap();
    let text = message(&fetch(&hub).unwrap_err());
    assert!(
        text.starts_with(&format!("cannot create `{}", file.display())),
        "{text}"
    );
}

// ---- Sources ----

#[test]
fn sources_resolve_to_folders() {
    let mock = native_only();
    let (cache, hub) = open(&mock);
    let resolve = |text: &str| hub.resolve(&text.parse::<ModelSource>().unwrap(), &mut |_| {});
    assert_eq!(
        resolve(cache.path().to_str().unwrap()).unwrap(),
        cache.path()
    );
    let absent = cache.path().join("absent");
    let text = message(&resolve(absent.to_str().unwrap()).unwrap_err());
    assert!(text.contains("is not a folder"), "{text}");
    let expected = cache
        .path()
        .join("models--org--voxtral/snapshots")
        .join(COMMIT);
    assert_eq!(resolve(REPO).unwrap(), expected);
    assert_eq!(resolve(&format!("{REPO}@{COMMIT}")).unwrap(), expected);
    assert!(matches!(
        resolve("org/absent"),
        Err(HubError::NotFound { .. })
    ));
    let text = message(&resolve(&format!("{REPO}@v9")).unwrap_err());
    assert!(text.contains("has no revision `v9`"), "{text}");
}

#[test]
fn names_that_leave_the_cache_are_refused() {
    let mock = native_only();
    let (_cache, hub) = open(&mock);
    for (repo, revision) in [
        ("../evil", None),
        ("a/b/c", None),
        ("a", None),
        (REPO, Some("../../evil")),
    ] {
        assert!(matches!(
            hub.fetch(repo, revision, &mut |_| {}),
            Err(HubError::UnknownModel { .. })
        ));
    }
    assert!(mock.take_requests().is_empty());
}

/// The address of a port where nobody listens.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
