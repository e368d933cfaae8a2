//! Sound that is named by its URL.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scene::{ENGLISH, Form, Response, Server, sample_bytes};

/// A server of files, and how often it was asked.
struct Web {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                // Whoever hangs up has had enough.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Self { port, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let path = first.split(' ').nth(1).unwrap();
    let redirect =
        |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    match path {
        "/digits.wav" => {
            let body = sample_bytes("digits-en.wav");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)
        }
        "/page" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"),
        "/empty" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        "/announced" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
        "/short" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nRIFF"),
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                stream.write_all(&[0; 1 << 16])?;
            }
        }
        "/silent" => {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        "/elsewhere" => stream.write_all(redirect("/digits.wav").as_bytes()),
        "/circle" => stream.write_all(redirect("/circle").as_bytes()),
        "/to-file" => stream.write_all(redirect("file:///etc/passwd").as_bytes()),
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    }
}

fn transcribe(server: &Server, url: &str) -> Response {
    server.transcribe(&Form::new().text("file_url", url))
}

#[test]
fn a_file_at_a_url_is_transcribed() {
    let (web, server) = (Web::start(), Server::with(&["--allow-private-urls"]));
    for path in ["/digits.wav", "/elsewhere"] {
        let response = transcribe(&server, &web.url(path));
        assert_eq!(response.json()["text"], ENGLISH, "{response:?}");
    }
    // As Mistral's client sends it.
    let body = format!(
        "model=demo&stream=false&diarize=false&file_url={}",
        web.url("/digits.wav")
    );
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let response = server.request(
        "POST",
        "/v1/audio/transcriptions",
        &headers,
        body.as_bytes(),
    );
    assert_eq!(response.json()["text"], ENGLISH, "{response:?}");
    let part = json!({"type": "audio_url", "audio_url": {"url": web.url("/digits.wav")}});
    let content = json!([part, {"type": "text", "text": "digits"}]);
    let body = json!({"messages": [{"role": "user", "content": content}], "temperature": 0});
    let response = server.post_json("/v1/chat/completions", &body);
    assert_eq!(
        response.json()["choices"][0]["message"]["content"],
        "314159"
    );
}

#[test]
fn what_cannot_be_fetched_is_the_clients_error() {
    let web = Web::start();
    let arguments = [
        "--allow-private-urls",
        "--max-upload",
        "1",
        "--patience",
        "1",
    ];
    let server = Server::with(&arguments);
    for (path, status, words) in [
        ("/none.wav", 400, "status 404"),
        ("/page", 400, "not audio"),
        ("/empty", 400, "empty"),
        ("/announced", 413, "1048576 bytes"),
        ("/endless", 413, "1048576 bytes"),
        ("/short", 400, "cannot be fetched"),
        ("/silent", 400, "takes too long"),
        ("/circle", 400, "redirects more than"),
        ("/to-file", 400, "cannot be fetched"),
    ] {
        let started = Instant::now();
        let response = transcribe(&server, &web.url(path));
        assert_eq!(response.status, status, "{path}: {response:?}");
        assert!(response.body.contains(words), "{path}: {response:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{path}");
    }
    for url in [
        "file:///etc/passwd",
        "ftp://a/b",
        "gopher://a",
        "http://",
        "digits.wav",
        "data:,a",
    ] {
        let response = transcribe(&server, url);
        assert_eq!(response.status, 422, "{url}: {response:?}");
        assert_eq!(response.json()["detail"][0]["loc"][1], "file_url");
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        transcribe(&server, &format!("http://{closed}/")).status,
        400
    );
    assert_eq!(
        transcribe(&server, "http://no-such-host.invalid/").status,
        400
    );
}

#[test]
fn private_addresses_are_out_of_reach() {
    let (web, server) = (Web::start(), Server::start());
    let port = web.port;
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.0.1",
    ] {
        let url = format!("http://{host}:{port}/digits.wav");
        let started = Instant::now();
        let response = transcribe(&server, &url);
        assert_eq!(response.status, 400, "{url}: {response:?}");
        assert!(!response.body.contains(ENGLISH));
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{url}: a connection was tried"
        );
        let content = json!([{"type": "input_audio", "input_audio": url}]);
        let body = json!({"messages": [{"role": "user", "content": content}]});
        let response = server.post_json("/v1/chat/completions", &body);
        assert_eq!(response.status, 400, "{url}: {response:?}");
        assert_eq!(
            response.json()["error"]["param"],
            "messages[0].content[0].input_audio"
        );
    }
    assert_eq!(web.asked.load(Ordering::Relaxed), 0);
}
