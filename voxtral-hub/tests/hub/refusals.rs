//! The token, and what is refused and why.

use std::fs;

use voxtral_hub::{HubBuilder, HubError, ModelSource};

use crate::mock::Mock;
use crate::scene::{
    COMMIT, REPO, SHARD_1, both_forms, builder, closed, fetch, message, native_only, open,
};

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
