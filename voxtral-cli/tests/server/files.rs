//! `/v1/files`, and transcriptions of what is there.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::scene::{ENGLISH, Form, Response, Server, sample_bytes};

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn upload(server: &Server, name: &str, bytes: &[u8]) -> Response {
    server.post_form("/v1/files", &Form::new().file(name, bytes), &[])
}

fn stored(server: &Server, name: &str, bytes: &[u8]) -> String {
    let response = upload(server, name, bytes);
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["id"].as_str().unwrap().to_owned()
}

fn by_id(server: &Server, id: &str) -> Response {
    server.transcribe(&Form::new().text("file_id", id))
}

#[test]
fn a_file_is_kept_transcribed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = ["--data-dir", data.to_str().unwrap()];
    let server = Server::with(&arguments);
    let bytes = sample_bytes("digits-en.wav");
    let form = Form::new()
        .text("purpose", "audio")
        .file("talk.wav", &bytes);
    let object = server.post_form("/v1/files", &form, &[]).json();
    let id = object["id"].as_str().unwrap();
    assert_eq!(object["bytes"], bytes.len());
    assert_eq!(
        (&object["filename"], &object["purpose"]),
        (&"talk.wav".into(), &"audio".into())
    );
    let life = object["expires_at"].as_u64().unwrap() - object["created_at"].as_u64().unwrap();
    assert_eq!(life, 24 * 3600);
    assert_eq!(by_id(&server, id).json()["text"], ENGLISH);
    drop(server);
    // Another process finds it again.
    let server = Server::with(&arguments);
    let path = format!("/v1/files/{id}");
    assert_eq!(server.get(&path).json(), object);
    assert_eq!(server.get("/v1/files").json()["data"][0], object);
    let content = server.get(&format!("{path}/content"));
    assert_eq!(
        content.header("content-length"),
        Some(&bytes.len().to_string()[..])
    );
    assert_eq!(content.header("x-content-type-options"), Some("nosniff"));
    assert!(content.body.starts_with("RIFF"));
    let deleted = server.request("DELETE", &path, &[], b"");
    assert_eq!(deleted.json()["deleted"], true);
    for response in [server.get(&path), by_id(&server, id)] {
        assert_eq!(response.status, 404, "{response:?}");
    }
    assert!(names(&data).is_empty());
}

#[test]
fn a_signed_address_needs_no_key_and_expires() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
    let server = Server::of(command.env("VOXTRAL_API_KEYS", "secret"));
    let key = [("authorization", "Bearer secret")];
    let with_key = |path: &str| server.request("GET", path, &key, b"");
    let bytes = sample_bytes("digits-en.wav");
    let form = Form::new().file("talk.wav", &bytes);
    let object = server.post_form("/v1/files", &form, &key).json();
    let id = object["id"].as_str().unwrap();

    let path = format!("/v1/files/{id}/url");
    assert_eq!(server.get(&path).status, 401);
    let url = with_key(&path).json()["url"].as_str().unwrap().to_owned();
    let link = url.strip_prefix(&format!("http://{}", server.address));
    let link = link.unwrap().to_owned();
    assert_eq!(server.get(&link).body, with_key(&link).body);
    assert!(server.get(&link).body.starts_with("RIFF"));
    // It opens nothing else, and does nothing else.
    assert_eq!(server.get(&format!("/v1/files/{id}/content")).status, 401);
    assert_eq!(server.get(&link.replace("/content", "")).status, 401);
    assert_eq!(
        server.get(&link.replace("expires=", "expires=1")).status,
        401
    );
    assert_eq!(server.request("DELETE", &link, &[], b"").status, 405);

    // This machine's addresses are fetched by no request, and yet this one is known.
    let form = Form::new().text("file_url", &url);
    let heard = server.post_form("/v1/audio/transcriptions", &form, &key);
    assert_eq!(heard.json()["text"], ENGLISH);
    let plain = format!("http://{}/v1/files/{id}/content", server.address);
    let form = Form::new().text("file_url", &plain);
    let refused = server.post_form("/v1/audio/transcriptions", &form, &key);
    assert!(refused.body.contains("not public"), "{refused:?}");

    for (query, status) in [
        ("?expiry=1", 200),
        ("?expiry=99999999999999999999", 400),
        ("?expiry=0", 400),
        ("?expiry=soon", 400),
        ("?size=1", 400),
    ] {
        let response = with_key(&format!("{path}{query}"));
        assert_eq!(response.status, status, "{query}: {response:?}");
    }
    // No longer than the file.
    let expires = object["expires_at"].as_u64().unwrap();
    let url = with_key(&format!("{path}?expiry=1000")).json()["url"].to_string();
    assert!(url.contains(&format!("expires={expires}&")), "{url}");
    assert_eq!(with_key("/v1/files/file-none/url").status, 404);
    let deleted = server.request("DELETE", &format!("/v1/files/{id}"), &key, b"");
    assert_eq!(deleted.status, 200);
    assert_eq!(server.get(&link).status, 404);
}

#[test]
fn paths_in_names_and_ids_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let server = Server::with(&["--data-dir", data.to_str().unwrap()]);
    for name in [
        "../secret",
        "/etc/passwd",
        "..\\..\\a",
        ".",
        "a\u{0}b",
        "%2e%2e%2fsecret",
    ] {
        let response = upload(&server, name, b"data");
        if response.status == 200 {
            let id = response.json()["id"].as_str().unwrap().to_owned();
            assert!(id.starts_with("file-") && id.len() == 37, "{id}");
        }
    }
    let kept = names(&data);
    assert!(
        kept.len() >= 8 && kept.iter().all(|name| name.starts_with("file-")),
        "{kept:?}"
    );
    assert_eq!(names(folder.path()).len(), 2);
    for id in [
        "..%2Fsecret",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        ".",
        "file-",
        "%00",
        "%ff",
    ] {
        for (method, end) in [("GET", ""), ("GET", "/content"), ("DELETE", "")] {
            let response = server.request(method, &format!("/v1/files/{id}{end}"), &[], b"");
            assert!([400, 404].contains(&response.status), "{id}: {response:?}");
        }
    }
    for id in ["../secret", "/etc/passwd", "\u{0}"] {
        assert_eq!(by_id(&server, id).status, 404, "{id}");
    }
    assert!(secret.exists());
}

#[test]
fn room_and_time_are_limited() {
    let server = Server::with(&[
        "--max-stored",
        "1",
        "--max-upload",
        "2",
        "--file-expiry",
        "2",
    ]);
    let large = vec![0; 900 << 10];
    let first = stored(&server, "a", &large);
    let response = upload(&server, "b", &large);
    assert_eq!(response.status, 413, "{response:?}");
    assert!(response.body.contains("1048576 bytes"), "{response:?}");
    assert_eq!(upload(&server, "c", &vec![0; 3 << 20]).status, 413);
    assert_eq!(server.get(&format!("/v1/files/{first}")).status, 200);
    sleep(Duration::from_secs(3));
    assert_eq!(server.get(&format!("/v1/files/{first}")).status, 404);
    // There is room again.
    stored(&server, "b", &large);
}

#[test]
fn large_files_are_taken() {
    let server = Server::start();
    stored(&server, "large", &vec![0; 40 << 20]);
}

#[test]
fn a_temporary_folder_is_gone_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
    let mut server = Server::of(command.env("TMPDIR", folder.path()));
    stored(&server, "a", b"data");
    assert_eq!(names(folder.path()).len(), 1);
    let id = server.process.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert!(server.process.wait().unwrap().success());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn lists_are_cut_and_filtered() {
    let server = Server::start();
    for (at, purpose) in ["audio", "batch", "audio"].iter().enumerate() {
        let form = Form::new()
            .text("purpose", purpose)
            .file(&format!("{at}.wav"), b"data");
        assert_eq!(server.post_form("/v1/files", &form, &[]).status, 200);
    }
    let list = |query: &str| {
        let list = server.get(&format!("/v1/files?{query}")).json();
        let names = list["data"].as_array().unwrap().iter();
        let mut names: Vec<String> = names
            .map(|file| file["filename"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        (names, list)
    };
    assert_eq!(list("purpose=audio").0, ["0.wav", "2.wav"]);
    assert_eq!(list("search=1.w&include_total=true").0, ["1.wav"]);
    let (first, object) = list("limit=2");
    assert_eq!(
        (first.len(), &object["has_more"], &object["total"]),
        (2, &true.into(), &3.into())
    );
    let after = object["last_id"].as_str().unwrap();
    let (rest, object) = list(&format!("after={after}"));
    assert_eq!((rest.len(), &object["has_more"]), (1, &false.into()));
    assert_eq!(list("page=1&page_size=2").0, rest);
    for query in ["wisdom=1", "limit=x"] {
        assert_eq!(
            server.get(&format!("/v1/files?{query}")).status,
            400,
            "{query}"
        );
    }
}

#[test]
fn wrong_forms_are_refused_by_name() {
    let server = Server::start();
    let file = || Form::new().file("a.wav", b"data");
    for (form, named) in [
        (Form::new().text("purpose", "audio"), "file"),
        (file().text("wisdom", "1"), "wisdom"),
        (
            file().text("expires_after[seconds]", "soon"),
            "expires_after[seconds]",
        ),
        (file().text("expiry", "5"), "expiry"),
    ] {
        let response = server.post_form("/v1/files", &form, &[]);
        assert_eq!(response.status, 400, "{response:?}");
        assert_eq!(response.json()["error"]["param"], named);
    }
    let one = server.transcribe(&file().text("file_id", "file-x"));
    assert_eq!(one.status, 422, "{one:?}");
    assert_eq!(one.json()["detail"][0]["loc"][1], "file_id");
}
