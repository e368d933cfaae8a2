//! What clients should not say: each is answered in the dialect, by name, and others go on.

use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};
use tungstenite::Message;

use super::client::{
    APPEND, COMMIT, Client, HEARD, MISTRAL, REALTIME, STREAM, base64, pcm16, samples, soon,
};
use crate::scene::Server;

fn text(message: impl Into<String>) -> Message {
    Message::Text(message.into().into())
}

fn of(value: Value) -> Message {
    text(value.to_string())
}

/// Messages that every dialect refuses, and what the error says of them.
fn unreadable() -> Vec<(Message, &'static str)> {
    vec![
        (text("{"), "message cannot be read"),
        (text("[1, 2]"), "expected an object"),
        (
            text("{\"type\":".to_owned() + &"[".repeat(1 << 20)),
            "recursion",
        ),
        (Message::Binary(vec![0; 320].into()), "binary frame"),
        (of(json!({"audio": ""})), "type is missing"),
        (of(json!({"type": 7})), "type is `7`"),
        (
            of(json!({"type": "response.create"})),
            "`response.create` is not known",
        ),
    ]
}

/// Says it, and gives the message of the error that comes back; the connection goes on.
fn refused(client: &mut Client, message: Message, at: impl Fn(&Value) -> Value) -> String {
    client.send(message);
    let error = client.next();
    assert_eq!(error["type"], "error", "{error}");
    at(&error)
        .as_str()
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
}

#[test]
fn vllm_errors_have_the_codes_of_vllm() {
    let server = Server::start();
    let mut client = Client::new(&server, REALTIME);
    client.next();
    let sound = base64(&[0; 640]);
    for (message, code, says) in [
        (
            json!({"type": COMMIT}),
            "model_not_validated",
            "`session.update`",
        ),
        (
            json!({"type": APPEND, "audio": sound}),
            "model_not_validated",
            "`model`",
        ),
        (
            json!({"type": "session.update"}),
            "invalid_event",
            "model is missing",
        ),
        (
            json!({"type": "session.update", "model": "no"}),
            "model_not_found",
            "`demo-realtime`",
        ),
        (
            json!({"type": "session.update", "model": "demo"}),
            "model_not_supported",
            "`demo`",
        ),
        (
            json!({"type": "session.update", "model": "demo-realtime", "temperature": 1}),
            "invalid_event",
            "temperature",
        ),
    ] {
        client.say(message);
        let error = client.next();
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("error"), &json!(code))
        );
        assert!(error["error"].as_str().unwrap().contains(says), "{error}");
    }
    client.say(json!({"type": "session.update", "model": "demo-realtime"}));
    for (message, says) in unreadable() {
        let error = refused(&mut client, message, |error| error["error"].clone());
        assert!(error.contains(says), "{error}");
    }
    for (message, says) in [
        (json!({"type": APPEND}), "audio is missing"),
        (json!({"type": APPEND, "audio": "no base64!"}), "not base64"),
        (
            json!({"type": APPEND, "audio": base64(&[1, 2, 3])}),
            "3 bytes",
        ),
        (json!({"type": APPEND, "audio": 5}), "audio is `5`"),
        (
            json!({"type": COMMIT, "final": "yes"}),
            "final is `\"yes\"`",
        ),
    ] {
        let error = refused(&mut client, of(message), |error| error["error"].clone());
        assert!(error.contains(says), "{error}");
    }
    let (_, done) = client.utter(&pcm16(&samples(STREAM, 16_000)));
    assert_eq!(done["text"], *HEARD, "nothing of it was taken");
}

#[test]
fn openai_errors_are_objects_that_name_the_field() {
    let server = Server::start();
    let mut client = Client::new(&server, "/v1/realtime?intent=transcription");
    client.next();
    for (message, says) in unreadable() {
        let error = refused(&mut client, message, |error| {
            error["error"]["message"].clone()
        });
        assert!(error.contains(says), "{error}");
    }
    let of_input = |input: Value| json!({"audio": {"input": input}});
    for (session, param) in [
        (json!({"type": "realtime"}), "session.type"),
        (json!({"voice": "alloy"}), "session.voice"),
        (
            json!({"turn_detection": {"type": "server_vad", "threshold": 0.9}}),
            "session.turn_detection.threshold",
        ),
        (
            json!({"input_audio_format": "mp3"}),
            "session.input_audio_format",
        ),
        (json!({"include": ["all"]}), "session.include"),
        (
            of_input(json!({"turn_detection": {"type": "semantic_vad"}})),
            "session.audio.input.turn_detection.type",
        ),
        (
            of_input(json!({"format": {"type": "audio/opus"}})),
            "session.audio.input.format.type",
        ),
        (
            of_input(json!({"noise_reduction": {"type": "near_field"}})),
            "session.audio.input.noise_reduction",
        ),
        (
            of_input(json!({"transcription": {"language": "en"}})),
            "session.audio.input.transcription.language",
        ),
        (
            of_input(json!({"transcription": {"prompt": "digits"}})),
            "session.audio.input.transcription.prompt",
        ),
        (
            of_input(json!({"transcription": {"model": "whisper-1"}})),
            "model",
        ),
        (
            of_input(json!({"transcription": {"model": "demo"}})),
            "model",
        ),
    ] {
        client.say(json!({"type": "session.update", "session": session}));
        let error = client.next();
        assert_eq!(error["error"]["param"], param, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    client.say(json!({"type": COMMIT}));
    assert_eq!(
        client.next()["error"]["code"],
        "input_audio_buffer_commit_empty"
    );
    client.say(json!({"type": APPEND, "audio": base64(&[1])}));
    assert_eq!(client.next()["error"]["code"], "invalid_audio");
}

#[test]
fn mistral_errors_have_statuses() {
    let server = Server::start();
    let mut client = Client::new(&server, MISTRAL);
    client.next();
    for (message, says) in unreadable() {
        let error = refused(&mut client, message, |error| {
            error["error"]["message"].clone()
        });
        assert!(error.contains(says), "{error}");
    }
    for (session, says) in [
        (json!({"diarize": true}), "diarize"),
        (json!({"language": "en"}), "language"),
        (json!({"turn_detection": {}}), "turn_detection"),
        (
            json!({"speaker_references": {"me": "AAAA"}}),
            "speaker_references",
        ),
        (json!({"context_bias": "one"}), "context_bias"),
        (
            json!({"audio_format": {"encoding": "opus"}}),
            "audio_format.encoding",
        ),
        (json!({"audio_format": {"sample_rate": 10}}), "10"),
        (
            json!({"audio_format": {"sample_rate": -1}}),
            "audio_format.sample_rate",
        ),
        (
            json!({"audio_format": {"sample_rate": 1_u64 << 40}}),
            "audio_format.sample_rate",
        ),
        (json!({"target_streaming_delay_ms": 1}), "80 ms"),
        (json!({"target_streaming_delay_ms": u64::MAX}), "80 ms"),
        (json!({"speed": 2}), "session.speed"),
    ] {
        client.say(json!({"type": "session.update", "session": session}));
        let error = client.next();
        let (message, code) = (&error["error"]["message"], &error["error"]["code"]);
        assert!(
            message.as_str().is_some_and(|text| text.contains(says)),
            "{error}"
        );
        assert!([400, 422].contains(&code.as_u64().unwrap()), "{error}");
    }
    for (model, code) in [("no-such-model", 404), ("demo", 422)] {
        let path = format!("/v1/audio/transcriptions/realtime?model={model}");
        let (events, frame) = Client::new(&server, &path).rest();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["error"]["code"], code);
        assert_eq!(u16::from(frame.code), 1008);
        assert!(frame.reason.contains(model));
    }
}

#[test]
fn a_message_that_is_too_large_ends_its_session_alone() {
    let server = Server::start();
    let mut other = Client::vllm(&server);
    let mut client = Client::vllm(&server);
    // A message of two fragments, each of which would do.
    let piece = "A".repeat(16 << 20);
    let head = format!("{{\"type\":\"{APPEND}\",\"audio\":\"{piece}");
    let sent = [(head, false), (piece, true)]
        .into_iter()
        .try_for_each(|(text, last)| {
            use tungstenite::protocol::frame::{
                Frame,
                coding::{Data, OpCode},
            };
            let code = if last { Data::Continue } else { Data::Text };
            let frame = Frame::message(text.into_bytes(), OpCode::Data(code), last);
            client.0.send(Message::Frame(frame))
        });
    // It is not read to its end.
    if sent.is_ok() {
        let (events, frame) = client.rest();
        assert_eq!(u16::from(frame.code), 1009);
        assert_eq!(events[0]["code"], "too_large");
    }
    let (_, done) = other.utter(&pcm16(&samples(STREAM, 16_000)));
    assert_eq!(done["text"], *HEARD);
}

#[test]
fn text_that_is_no_text_ends_the_session() {
    let server = Server::start();
    let mut client = Client::vllm(&server);
    // A text frame of one byte, masked by zeros.
    let stream = client.0.get_mut();
    stream.write_all(&[0x81, 0x81, 0, 0, 0, 0, 0xff]).unwrap();
    let (events, frame) = client.rest();
    assert_eq!(events[0]["code"], "invalid_json");
    assert_eq!(u16::from(frame.code), 1007);
}

#[test]
fn there_are_so_many_places() {
    let server = Server::with(&["--max-sessions", "2"]);
    let first = Client::vllm(&server);
    let _second = Client::new(&server, MISTRAL);
    let Err((status, body)) = Client::with(&server, REALTIME, &[]) else {
        panic!("a third");
    };
    assert_eq!(
        (status, &body["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    drop(first);
    soon("a place is free again", || {
        Client::with(&server, REALTIME, &[]).is_ok()
    });
}

#[test]
fn nobody_speaks_without_a_key() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
    let server = Server::of(command.env("VOXTRAL_API_KEYS", "secret"));
    for path in [REALTIME, MISTRAL] {
        for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
            let refused = Client::with(&server, path, headers).err();
            assert_eq!(refused.map(|(status, _)| status), Some(401));
        }
        let headers = [("authorization", "Bearer secret")];
        let created = Client::with(&server, path, &headers).unwrap().next();
        assert_eq!(created["type"], "session.created");
    }
    let protocols = "realtime, openai-insecure-api-key.secret";
    let headers = [("sec-websocket-protocol", protocols)];
    assert!(Client::with(&server, REALTIME, &headers).is_ok());
    let plain = server.request("GET", REALTIME, &[("authorization", "Bearer secret")], b"");
    assert_eq!(plain.status, 400);
    assert_eq!(plain.json()["error"]["param"], "upgrade");
}
