//! What is in the cache already.

use std::fs;

use voxtral_hub::{HubBuilder, HubError};

use crate::mock::sha256;
use crate::scene::{
    COMMIT, NEXT, REPO, SHARD_1, SHARD_2, blobs, both_forms, builder, closed, fetch, is_transfer,
    message, names, open, weights,
};

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
