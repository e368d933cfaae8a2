//! Downloads that break off, resume or are wrong.

use std::fs;

use voxtral_hub::HubError;

use crate::mock::sha256;
use crate::scene::{
    COMMIT, REPO, SHARD_1, SHARD_2, blobs, both_forms, builder, fetch, message, names, native_only,
    open, ranges, weights,
};

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
