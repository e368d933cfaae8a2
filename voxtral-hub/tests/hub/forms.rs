//! Which files of a repository are fetched.

use std::fs;
use std::path::Path;

use voxtral_hub::HubError;

use crate::mock::{Mock, sha256};
use crate::scene::{
    COMMIT, INDEX, REPO, SHARD_1, SHARD_2, both_forms, fetch, is_transfer, message, names,
    native_only, open, ranges, weights,
};

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
