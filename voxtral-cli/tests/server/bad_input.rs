//! What clients send that they should not: each is refused by name, and nobody else notices.

use std::io::Write;
use std::net::Shutdown;
use std::process::Command;

use crate::scene::{ENGLISH, Form, Response, Server, sample_bytes};

fn english() -> Form {
    Form::new().file("digits.wav", &sample_bytes("digits-en.wav"))
}

/// The server still does what it is for.
fn goes_on(server: &Server) {
    let response = server.transcribe(&english());
    assert_eq!(response.json()["text"], ENGLISH, "{response:?}");
}

/// A refusal of OpenAI's shape that names this field.
fn refused(response: &Response, status: u16, param: Option<&str>) -> String {
    assert_eq!(response.status, status, "{response:?}");
    let error = &response.json()["error"];
    assert_eq!(error["param"].as_str(), param, "{error}");
    assert!(
        error["type"].is_string() && error["code"].is_string(),
        "{error}"
    );
    assert!(response.header("x-request-id").is_some());
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn fields_that_cannot_be_are_named() {
    let server = Server::start();
    for (name, value, says) in [
        ("model", "gpt-9", "`demo` or `demo-realtime`"),
        ("language", "klingon", "two-letter"),
        ("language", "zh", "does not understand"),
        ("temperature", "warm", "a number"),
        ("temperature", "-1", "temperature is -1"),
        ("response_format", "xml", "`verbose_json`"),
        ("response_format", "diarized_json", "speakers"),
        ("timestamp_granularities[]", "word", "verbose_json"),
        ("include[]", "everything", "`logprobs`"),
        ("stream", "perhaps", "`true` or `false`"),
        ("stream_include_usage", "true", "not asked for"),
        ("prompt", "a talk about tea", "leave it out"),
        ("top_k", "0", "top-k"),
        ("seed", "-3", "whole number"),
        ("max_completion_tokens", "0", "number of new tokens"),
        (
            "chunking_strategy",
            "{\"type\":\"server_vad\"}",
            "leave it out",
        ),
        ("colour", "blue", "no such field"),
    ] {
        let response = server.transcribe(&english().text(name, value));
        let status = if name == "model" { 404 } else { 400 };
        assert_eq!(response.status, status, "{name}: {response:?}");
        let message = response.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(says), "{name}={value}: {message}");
    }
    let twice = english().text("model", "demo").text("model", "demo");
    refused(&server.transcribe(&twice), 400, Some("model"));
    let both = english()
        .text("stream", "true")
        .text("response_format", "srt");
    refused(&server.transcribe(&both), 400, Some("response_format"));
    let realtime = english()
        .text("model", "demo-realtime")
        .text("language", "en");
    refused(&server.transcribe(&realtime), 400, Some("language"));
    goes_on(&server);
}

#[test]
fn mistral_is_told_in_its_own_words() {
    let server = Server::start();
    let diarize = english().text("model", "demo").text("diarize", "true");
    let response = server.transcribe(&diarize);
    assert_eq!(response.status, 422, "{response:?}");
    let detail = &response.json()["detail"][0];
    assert_eq!(detail["loc"][1], "diarize");
    assert!(detail["msg"].is_string() && detail["type"].is_string());
    let unknown = english().text("model", "x").text("diarize", "false");
    let response = server.transcribe(&unknown);
    assert_eq!(
        (response.status, &response.json()["object"]),
        (404, &"error".into())
    );
    goes_on(&server);
}

#[test]
fn a_hundred_phrases_are_a_context_and_one_more_is_not() {
    let server = Server::start();
    let phrases = |count: usize| {
        (0..count).fold(english(), |form, i| {
            form.text("context_bias", &format!("four {i}"))
        })
    };
    let response = server.transcribe(&phrases(100));
    assert_eq!(response.status, 200, "{response:?}");
    let response = server.transcribe(&phrases(101));
    assert_eq!(response.status, 422, "{response:?}");
    assert!(
        response.body.contains("context_bias") && response.body.contains("100"),
        "{response:?}"
    );
    goes_on(&server);
}

#[test]
fn files_that_are_none() {
    let server = Server::start();
    refused(
        &server.transcribe(&Form::new().text("model", "demo")),
        400,
        Some("file"),
    );
    refused(
        &server.transcribe(&Form::new().file("a.wav", b"")),
        400,
        Some("file"),
    );
    let text = Form::new().file(
        "a.wav",
        b"no sound at all, and more of it".repeat(99).as_slice(),
    );
    refused(&server.transcribe(&text), 400, Some("file"));
    // A header alone: no samples.
    let empty = Form::new().file("a.wav", &sample_bytes("digits-en.wav")[..44]);
    refused(&server.transcribe(&empty), 400, Some("file"));
    let two = english().file("b.wav", &sample_bytes("digits-en.wav"));
    refused(&server.transcribe(&two), 400, Some("file"));
    let other = english().part("name=\"voice\"; filename=\"b.wav\"", b"RIFF");
    refused(&server.transcribe(&other), 400, Some("voice"));
    // Names of files are names, not paths.
    for name in [
        "../../etc/passwd",
        "/dev/null",
        "a\u{0}b.wav",
        "CON",
        "..",
        "ü/%2e%2e/x.wav",
    ] {
        let form = Form::new().file(name, &sample_bytes("digits-en.wav"));
        let response = server.transcribe(&form);
        assert!(
            [200, 400].contains(&response.status),
            "{name:?}: {response:?}"
        );
    }
    goes_on(&server);
}

#[test]
fn bodies_that_are_no_forms() {
    let server = Server::with(&["--max-upload", "1"]);
    let path = "/v1/audio/transcriptions";
    let post = |content_type: &str, body: &[u8]| {
        server.request("POST", path, &[("content-type", content_type)], body)
    };
    refused(&post("application/json", b"{}"), 400, Some("content-type"));
    refused(
        &server.request("POST", path, &[], b"x"),
        400,
        Some("content-type"),
    );
    refused(&post("multipart/form-data", b"x"), 400, None);
    refused(
        &post("multipart/form-data; boundary=x", b"nothing of the kind"),
        400,
        None,
    );
    refused(
        &post("multipart/form-data; boundary=x", b"--x\r\ncontent-disp"),
        400,
        None,
    );
    refused(
        &post("application/x-www-form-urlencoded", b"\xff\xfe=1"),
        400,
        None,
    );
    let invalid = english().part("name=\"model\"", b"\xff\xfe");
    refused(&server.transcribe(&invalid), 400, Some("model"));
    let many = (0..10_000).fold(Form::new(), |form, _| form.text("context_bias", "a"));
    refused(&server.transcribe(&many), 413, None);
    let long = english().text("model", &"m".repeat(2 << 20));
    refused(&server.transcribe(&long), 413, None);
    let large = Form::new().file("a.wav", &vec![0; 3 << 20]);
    refused(&server.transcribe(&large), 413, None);
    goes_on(&server);
}

#[test]
fn senders_that_stop_in_the_middle() {
    let server = Server::with(&["--patience", "0.7"]);
    let head = |length: usize| {
        format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: multipart/form-data; boundary=x\r\ncontent-length: {length}\r\n\r\n\
             --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF"
        )
    };
    // Announces a gigabyte, sends a few bytes and waits.
    let mut slow = server.connect();
    slow.write_all(head(1 << 29).as_bytes()).unwrap();
    // Sends a few bytes and closes its side.
    let mut half = server.connect();
    half.write_all(head(4096).as_bytes()).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    // Sends a few bytes and vanishes.
    let mut gone = server.connect();
    gone.write_all(head(4096).as_bytes()).unwrap();
    drop(gone);
    goes_on(&server);
    refused(&Response::read(&mut slow), 408, None);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut half, &mut rest);
    let answer = String::from_utf8_lossy(&rest);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    // No HTTP at all.
    let mut noise = server.connect();
    noise
        .write_all(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        .unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut noise, &mut rest);
    goes_on(&server);
}

#[test]
fn paths_and_methods_that_are_not_there() {
    let server = Server::start();
    refused(&server.get("/v1/nothing"), 404, None);
    refused(&server.get("/v1/audio/transcriptions"), 405, None);
    refused(&server.get("/v1/models/..%2f..%2fetc"), 404, Some("model"));
    goes_on(&server);
}

#[test]
fn keys_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "# ours\nsecret\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
    command.args(["--api-key-file", file.to_str().unwrap()]);
    command.env("VOXTRAL_API_KEYS", "other, third");
    let server = Server::of(&mut command);
    for path in ["/v1/models", "/metrics"] {
        refused(&server.get(path), 401, None);
        for (key, status) in [
            ("Bearer secret", 200),
            ("Bearer third", 200),
            ("Bearer wrong", 401),
            ("Basic secret", 401),
            ("Bearer ", 401),
        ] {
            let response = server.request("GET", path, &[("authorization", key)], b"");
            assert_eq!(response.status, status, "{key}: {response:?}");
        }
    }
    assert_eq!(server.transcribe(&english()).status, 401);
    let path = "/v1/audio/transcriptions";
    let response = server.post_form(path, &english(), &[("authorization", "Bearer secret")]);
    assert_eq!(response.status, 200);
    // Whoever watches over the process has no key.
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/ready").status, 200);
}

#[test]
fn others_are_let_in_on_purpose_only() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
        let output = command.arg("serve").args(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, told) = run(&["--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("--api-key-file") && told.contains("--insecure"),
        "{told}"
    );
    let (code, told) = run(&["--api-key-file", "/absent"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("`/absent`"), "{told}");
    assert_eq!(run(&["--max-batch-size", "0"]).0, Some(2));
    assert_eq!(run(&["--port", "70000"]).0, Some(2));
    let taken = Server::start();
    let port = taken.address.rsplit(':').next().unwrap();
    let (code, told) = run(&["--port", port]);
    assert_eq!(code, Some(1));
    assert!(told.contains("cannot listen"), "{told}");
}
