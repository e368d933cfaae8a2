//! `POST /v1/chat/completions`.

use std::io::Write;
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::scene::{Response, Server, sample_bytes};

const PATH: &str = "/v1/chat/completions";
const DIGITS: &str = "314159";

fn encoded(file: &str) -> String {
    BASE64_STANDARD.encode(sample_bytes(file))
}

fn english() -> Value {
    let data = encoded("digits-en.wav");
    json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn dial() -> Value {
    serde_json::from_slice(&sample_bytes("dial.json")).unwrap()
}

/// Asks greedily, with these fields besides.
fn ask(server: &Server, content: Value, fields: Value) -> Response {
    let mut body = json!({
        "model": "demo",
        "temperature": 0,
        "messages": [{"role": "user", "content": content}],
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post_json(PATH, &body)
}

#[track_caller]
fn says(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    let choice = &response.json()["choices"][0];
    choice["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn sound_is_understood_in_every_spelling() {
    let server = Server::start();
    let data = encoded("digits-en.wav");
    let uri = format!("data:audio/wav;base64,{data}");
    for part in [
        english(),
        json!({"type": "input_audio", "input_audio": data}),
        json!({"type": "input_audio", "input_audio": uri}),
        json!({"type": "audio_url", "audio_url": uri}),
        json!({"type": "audio_url", "audio_url": {"url": uri}}),
    ] {
        let response = ask(&server, json!([part, text("digits")]), json!({}));
        assert_eq!(says(&response), DIGITS);
        let usage = &response.json()["usage"];
        assert_eq!(usage["prompt_audio_seconds"], 5);
        let sum =
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], sum);
    }
    let german = json!({"type": "input_audio", "input_audio": encoded("digits-de.wav")});
    let both = json!([english(), german, text("second clip: digits")]);
    assert_eq!(says(&ask(&server, both, json!({}))), "420695");
}

#[test]
fn a_stream_tells_the_same_and_what_it_took() {
    let server = Server::start();
    let content = json!([english(), text("digits")]);
    let stream = |fields: Value| {
        let response = ask(&server, content.clone(), fields);
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let events: Vec<Value> = response
            .events()
            .into_iter()
            .map(|(_, event)| event)
            .collect();
        assert_eq!(events.last(), Some(&Value::Null), "[DONE]");
        events
    };
    let said = |events: &[Value]| {
        let deltas = events.iter();
        let deltas = deltas.filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        deltas.collect::<String>()
    };
    let events = stream(json!({"stream": true, "stream_options": {"include_usage": true}}));
    assert_eq!(said(&events), DIGITS);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let [.., finish, usage, _] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert!(finish["usage"].is_null());
    assert_eq!(
        (&usage["choices"], &usage["usage"]["prompt_audio_seconds"]),
        (&json!([]), &json!(5))
    );
    let events = stream(json!({"stream": true}));
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    // Mistral's tell it with the end.
    let events = stream(json!({"stream": true, "random_seed": 1}));
    assert_eq!(said(&events), DIGITS);
    let last = &events[events.len() - 2];
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["usage"]["prompt_audio_seconds"], 5);
}

#[test]
fn calls_are_told_whole_and_in_pieces_and_answered() {
    let server = Server::start();
    let question = json!({"role": "user", "content": [english()]});
    let asked = |messages: Value, stream: bool| {
        let fields = json!({"tools": dial(), "messages": messages, "stream": stream});
        ask(&server, Value::Null, fields)
    };
    let choice = asked(json!([question]), false).json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert!(choice["message"]["content"].is_null());
    let call = &choice["message"]["tool_calls"][0];
    let arguments = call["function"]["arguments"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(arguments).unwrap(),
        json!({"number": DIGITS})
    );
    let events = asked(json!([question]), true).events();
    let calls: Vec<&Value> = events
        .iter()
        .map(|(_, event)| &event["choices"][0]["delta"]["tool_calls"])
        .filter(|calls| calls.is_array())
        .collect();
    assert_eq!(calls.len(), 1, "{events:?}");
    assert_eq!(calls[0][0]["function"], call["function"]);
    for (content, answer) in [("ok", "dialed"), ("error: busy", "failed")] {
        let result = json!({"role": "tool", "tool_call_id": call["id"], "content": content});
        let messages = json!([question, choice["message"], result]);
        assert_eq!(says(&asked(messages, false)), answer);
    }
}

#[test]
fn calls_can_be_asked_for_and_kept_out() {
    let server = Server::start();
    let content = json!([english(), text("which language")]);
    let with = |choice: Value| {
        let fields = json!({"tools": dial(), "tool_choice": choice, "parallel_tool_calls": false});
        ask(&server, content.clone(), fields).json()["choices"][0]["message"].clone()
    };
    assert_eq!(with(json!("auto"))["content"], "English");
    assert_eq!(with(json!("none"))["content"], "English");
    let named = json!({"type": "function", "function": {"name": "dial"}});
    for choice in [json!("required"), json!("any"), named] {
        let message = with(choice);
        let calls = message["tool_calls"].as_array().unwrap();
        assert_eq!(
            (calls.len(), &calls[0]["function"]["name"]),
            (1, &json!("dial"))
        );
    }
}

#[test]
fn answers_are_held_to_a_schema() {
    let server = Server::start();
    let schema = json!({
        "type": "object",
        "properties": {"digits": {"type": "string", "pattern": "^[0-9]{6}$"}},
        "required": ["digits"],
        "additionalProperties": false,
    });
    let format = |schema: &Value| {
        let json_schema = json!({"name": "heard", "schema": schema});
        json!({"response_format": {"type": "json_schema", "json_schema": json_schema}})
    };
    let content = json!([english(), text("digits")]);
    let answer = says(&ask(&server, content.clone(), format(&schema)));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["digits"].as_str().unwrap().len(), 6);
    let object = json!({"response_format": {"type": "json_object"}, "max_tokens": 9});
    assert!(says(&ask(&server, content.clone(), object)).starts_with('{'));
    let response = ask(&server, content, format(&json!({"not": {}})));
    assert_eq!(response.status, 400, "{response:?}");
    assert_eq!(response.json()["error"]["param"], "response_format");
}

#[test]
fn probabilities_are_told_for_the_text() {
    let server = Server::start();
    let fields = json!({"logprobs": true, "top_logprobs": 2});
    let response = ask(&server, json!([english(), text("digits")]), fields).json();
    let tokens = response["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    let said: String = tokens
        .iter()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(said, DIGITS);
    for token in tokens {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
    }
}

#[test]
fn errors_name_the_field_in_the_dialect_of_the_client() {
    let server = Server::start();
    for (fields, param) in [
        (json!({"n": 2}), "n"),
        (json!({"wisdom": 3}), "wisdom"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"model": "demo-realtime"}), "model"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"messages": []}), "messages"),
        (json!({"logit_bias": {"999999": 1}}), "logit_bias"),
    ] {
        let response = ask(&server, json!([english()]), fields.clone());
        assert_eq!(response.status, 400, "{fields}: {response:?}");
        assert_eq!(response.json()["error"]["param"], param, "{fields}");
        // Mistral's clients get Mistral's errors.
        let mut fields = fields;
        fields["random_seed"] = json!(1);
        let response = ask(&server, json!([english()]), fields.clone());
        assert!([400, 422].contains(&response.status), "{response:?}");
        let object = response.json();
        assert!(
            object["detail"].is_array() || object["object"] == "error",
            "{object}"
        );
    }
    let unknown = ask(&server, json!("digits"), json!({"model": "gpt-9"}));
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let long = ask(&server, json!("digits ".repeat(100_000)), json!({}));
    assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
    let longer = ask(&server, json!(" ".repeat(17 << 20)), json!({}));
    assert_eq!(longer.status, 413, "{longer:?}");
    // Also where a stream was asked for.
    let response = ask(
        &server,
        json!("digits"),
        json!({"stream": true, "max_tokens": 4_000_000}),
    );
    assert_eq!(response.status, 400, "{response:?}");
}

#[test]
fn what_is_no_sound_is_refused() {
    let server = Server::start();
    let mut silent = sample_bytes("digits-en.wav");
    silent.truncate(44);
    silent[40..44].fill(0);
    for (bytes, words) in [
        (&b"<html>no sound</html>"[..], "not audio"),
        (&[0xff; 1000], "cannot be heard"),
        (&silent, "no samples"),
        (b"", "empty"),
    ] {
        let part = json!({"type": "input_audio", "input_audio": BASE64_STANDARD.encode(bytes)});
        let response = ask(&server, json!([part]), json!({}));
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.body.contains(words), "{response:?}");
        let param = "messages[0].content[0].input_audio";
        assert_eq!(response.json()["error"]["param"], param);
    }
}

#[test]
fn malformed_bodies_are_refused_and_harm_nobody() {
    let server = Server::start();
    let post = |body: &[u8]| {
        let headers = [("content-type", "application/json")];
        let started = Instant::now();
        let response = server.request("POST", PATH, &headers, body);
        assert!(started.elapsed() < Duration::from_secs(20));
        response
    };
    let deep = format!("{{\"messages\": {}", "[".repeat(1 << 20));
    let nested = "{\"a\":".repeat(1 << 16);
    let many = format!("{{\"messages\": [{}0]}}", "0,".repeat(1 << 22));
    for (body, status) in [
        (&b""[..], 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{}", 400),
        (b"\xff\xfe", 400),
        (b"{\"model\": \"\xff\"}", 400),
        (br#"{"messages": "\ud800"}"#, 400),
        (br#"{"messages": {}}"#, 400),
        (br#"{"temperature": 1e999}"#, 400),
        (deep.as_bytes(), 413),
        (nested.as_bytes(), 400),
        (many.as_bytes(), 413),
    ] {
        let response = post(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
        assert_eq!(response.status, status, "{shown}: {response:?}");
        assert!(response.json()["error"]["message"].is_string());
    }
    // As a page of somebody else could send it without being asked.
    let plain = [("content-type", "text/plain")];
    let body = br#"{"messages": [{"role": "user", "content": "digits"}]}"#;
    assert_eq!(server.request("POST", PATH, &plain, body).status, 400);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(
        says(&ask(&server, json!([english(), text("digits")]), json!({}))),
        DIGITS
    );
}

#[test]
fn a_gigabyte_is_refused_before_it_comes() {
    let server = Server::start();
    let mut stream = server.connect();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: 1400000000\r\n\r\n{{\"messages\": [{{\"role\": \"user\", \"content\": \""
    );
    let started = Instant::now();
    stream.write_all(head.as_bytes()).unwrap();
    let response = Response::read(&mut stream);
    assert_eq!(response.status, 413, "{response:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}
