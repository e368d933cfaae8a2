//! A client of live sessions, and sound for it.

use std::net::TcpStream;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tungstenite::{
    Error, HandshakeError, Message, WebSocket, client::IntoClientRequest, client::client,
    protocol::CloseFrame,
};
use voxtral_audio::Audio;

use crate::scene::{Server, sample};

/// Where vLLM and OpenAI are spoken, and where Mistral is.
pub(super) const REALTIME: &str = "/v1/realtime";
pub(super) const MISTRAL: &str = "/v1/audio/transcriptions/realtime?model=demo-realtime";

pub(super) const APPEND: &str = "input_audio_buffer.append";
pub(super) const COMMIT: &str = "input_audio_buffer.commit";

/// What `voxtral transcribe` writes of a sample.
pub(super) fn transcript(name: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_voxtral"))
        .args(["-q", "transcribe", "--device", "cpu", "-m", "demo-realtime"])
        .arg(sample(name))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.trim().is_empty());
    text.trim().to_owned()
}

pub(super) const STREAM: &str = "digits-stream-en.wav";

/// What is heard in [`STREAM`].
pub(super) static HEARD: LazyLock<String> = LazyLock::new(|| transcript(STREAM));

/// Samples at this rate.
pub(super) fn samples(name: &str, rate: u32) -> Vec<f32> {
    let audio = Audio::from_file(sample(name), 16_000).unwrap();
    audio.resampled(rate).unwrap().into_samples()
}

/// Little-endian numbers of 16 bits.
pub(super) fn pcm16(samples: &[f32]) -> Vec<u8> {
    let number = |sample: &f32| ((sample * 32_768.0).round() as i16).to_le_bytes();
    samples.iter().flat_map(number).collect()
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Waits for what will be true soon.
pub(super) fn soon(what: &str, is_true: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A figure of the metrics.
pub(super) fn counted(server: &Server, name: &str) -> f64 {
    let metrics = server.get("/metrics").body;
    let value = metrics.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == name).then(|| value.parse().unwrap())
    });
    value.unwrap_or_else(|| panic!("no `{name}`: {metrics}"))
}

/// How many sessions the metrics tell of.
pub(super) fn sessions(server: &Server) -> usize {
    counted(server, "voxtral_sessions") as usize
}

/// A connection. Dropped, it is gone without a word.
pub(super) struct Client(pub(super) WebSocket<TcpStream>);

impl Client {
    pub(super) fn new(server: &Server, path: &str) -> Self {
        Self::with(server, path, &[]).unwrap()
    }

    /// Connects with these headers; a refusal gives its status and body.
    pub(super) fn with(
        server: &Server,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, Value)> {
        let mut request = format!("ws://{}{path}", server.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match client(request, server.connect()) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Err((response.status().as_u16(), body))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A client of vLLM that has named its model.
    pub(super) fn vllm(server: &Server) -> Self {
        let mut client = Self::new(server, REALTIME);
        assert_eq!(client.next()["type"], "session.created");
        client.say(json!({"type": "session.update", "model": "demo-realtime"}));
        client
    }

    pub(super) fn say(&mut self, message: Value) {
        self.send(Message::Text(message.to_string().into()));
    }

    pub(super) fn send(&mut self, message: Message) {
        self.0.send(message).unwrap();
    }

    /// Sends sound in messages of this type, so many bytes in each.
    pub(super) fn append(&mut self, kind: &str, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.say(json!({"type": kind, "audio": base64(piece)}));
        }
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Value {
        match self.read() {
            Ok(event) => event,
            Err(frame) => panic!("closed: {frame:?}"),
        }
    }

    /// The next event, or how it ends.
    pub(super) fn read(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => return Err(frame),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Err(None),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Events up to the first of this type.
    pub(super) fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            let last = &events[events.len() - 1];
            if last["type"] == kind {
                return events;
            }
            assert_ne!(last["type"], "error", "{last}");
        }
    }

    /// The rest, up to the end.
    pub(super) fn rest(&mut self) -> (Vec<Value>, CloseFrame) {
        let mut events = Vec::new();
        loop {
            match self.read() {
                Ok(event) => events.push(event),
                Err(frame) => return (events, frame.unwrap()),
            }
        }
    }

    /// Hears a whole utterance as vLLM does, and gives the text of its pieces and its end.
    pub(super) fn utter(&mut self, bytes: &[u8]) -> (String, Value) {
        self.say(json!({"type": COMMIT, "final": false}));
        self.append(APPEND, bytes, 3200);
        self.say(json!({"type": COMMIT, "final": true}));
        let mut events = self.until("transcription.done");
        let done = events.pop().unwrap();
        (joined(&events, "delta"), done)
    }
}

/// The texts of events, one behind another.
pub(super) fn joined(events: &[Value], field: &str) -> String {
    events
        .iter()
        .filter_map(|event| event[field].as_str())
        .collect()
}
