//! A server, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// The binary, serving on a free port until this is dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Server {
    /// Serves both demo models.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Serves with these arguments.
    pub(crate) fn with(args: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_voxtral")).args(args))
    }

    /// Serves by this command, to which `serve` and the port are added.
    pub(crate) fn of(command: &mut Command) -> Self {
        let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut process = Command::new(command.get_program())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .args(["serve", "--device", "cpu", "--port", "0"])
            .args(given)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut told = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("it did not start: {told}");
            };
            if let Some(address) = line.strip_prefix("listening on http://") {
                break address.to_owned();
            }
            told.push_str(&line);
        };
        // Nobody is kept waiting by a full pipe; what is told helps where a test fails.
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        Self { process, address }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// Sends a form to the transcriptions.
    pub(crate) fn transcribe(&self, form: &Form) -> Response {
        self.post_form("/v1/audio/transcriptions", form, &[])
    }

    pub(crate) fn post_form(&self, path: &str, form: &Form, headers: &[(&str, &str)]) -> Response {
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut all = vec![("content-type", &content_type[..])];
        all.extend(headers);
        self.request("POST", path, &all, &form.body())
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Response {
        let headers = [("content-type", "application/json")];
        self.request("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Sends a request on a connection of its own.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        ));
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a large body does not read it.
        let _ = stream.write_all(body);
        Response::read(&mut stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const BOUNDARY: &str = "----voxtral-test";

/// A multipart form.
#[derive(Default, Clone)]
pub(crate) struct Form(Vec<u8>);

impl Form {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    pub(crate) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.part(&format!("name=\"file\"; filename=\"{name}\""), bytes)
    }

    /// A part with this disposition.
    pub(crate) fn part(mut self, disposition: &str, bytes: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Sends it to the transcriptions, on a connection that is closed behind the answer.
    pub(crate) fn send(&self, stream: &mut TcpStream) {
        let body = self.body();
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: multipart/form-data; boundary={BOUNDARY}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    }

    fn body(&self) -> Vec<u8> {
        [&self.0[..], format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Lower case, as they come.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Reads all there is.
    pub(crate) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection may be reset behind an answer to a body that was not read.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.to_ascii_lowercase();
        let body = match head.contains("transfer-encoding: chunked") {
            true => unchunked(body),
            false => body.to_owned(),
        };
        Self { status, head, body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .next()
    }

    /// The names and objects of server-sent events; of `[DONE]` null.
    pub(crate) fn events(&self) -> Vec<(Option<String>, Value)> {
        let blocks = self
            .body
            .split("\n\n")
            .filter(|block| !block.trim().is_empty());
        let field = |block: &str, name: &str| {
            let mut lines = block.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let events = blocks.filter_map(|block| {
            let data = field(block, "data:")?;
            Some((
                field(block, "event:"),
                serde_json::from_str(&data).unwrap_or(Value::Null),
            ))
        });
        events.collect()
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// A file of the workspace's samples.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../samples")
        .join(name)
}

/// Its bytes.
pub(crate) fn sample_bytes(name: &str) -> Vec<u8> {
    std::fs::read(sample(name)).unwrap()
}

/// What the demo hears in `digits-en.wav`.
pub(crate) const ENGLISH: &str = "three one four one five nine";
