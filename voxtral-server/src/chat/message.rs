//! Messages of a conversation, as OpenAI's clients, Mistral's and vLLM's write them.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;
use voxtral_pipeline::{Message, ToolCall};

use crate::{
    ServerError,
    fetch::is_url,
    json::{Object, shown},
};

/// Clips of one conversation.
const MOST_CLIPS: usize = 64;

/// Base64, whether it is padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message, whose sound is not heard yet.
#[derive(Debug)]
pub(super) enum Draft {
    User(Vec<Piece>),
    Other(Message),
}

/// A piece of a user's message.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Sound {
        /// The field that has it.
        field: String,
        source: Source,
    },
}

/// Where sound is.
#[derive(Debug)]
pub(super) enum Source {
    Bytes(Vec<u8>),
    Url(String),
}

/// Reads the messages.
pub(super) fn read(messages: Vec<Object>) -> Result<Vec<Draft>, ServerError> {
    if messages.is_empty() {
        return Err(ServerError::Missing {
            field: "messages",
            expected: "a list of at least one message",
        });
    }
    let drafts: Vec<Draft> = messages
        .into_iter()
        .map(message)
        .collect::<Result<_, _>>()?;
    let pieces = drafts.iter().flat_map(|draft| match draft {
        Draft::User(pieces) => &pieces[..],
        Draft::Other(_) => &[],
    });
    let clips = pieces.filter(|piece| matches!(piece, Piece::Sound { .. }));
    let count = clips.count();
    if count > MOST_CLIPS {
        let found = format!("with {count} clips");
        let expected = format!("at most {MOST_CLIPS}");
        return Err(ServerError::field("messages", found, expected));
    }
    Ok(drafts)
}

fn message(mut object: Object) -> Result<Draft, ServerError> {
    const ROLES: &str = "`system`, `user`, `assistant` or `tool`";
    let role: String = object.required("role", ROLES)?;
    let draft = match &role[..] {
        "system" | "developer" => Draft::Other(Message::System(texts(&mut object)?)),
        "user" => Draft::User(pieces(&mut object)?),
        "assistant" => Draft::Other(assistant(&mut object)?),
        "tool" => Draft::Other(Message::Tool {
            call_id: object.required("tool_call_id", "the id of a call")?,
            content: texts(&mut object)?,
        }),
        _ => {
            let found = shown(&Value::from(role));
            return Err(ServerError::field(object.path("role"), found, ROLES));
        }
    };
    // Names of speakers are no part of the model's prompts.
    object.finish(&[("name", &[]), ("annotations", &[]), ("object", &[])])?;
    Ok(draft)
}

fn assistant(object: &mut Object) -> Result<Message, ServerError> {
    let text = match object.has("content") {
        true => texts(object)?,
        false => String::new(),
    };
    let mut calls = Vec::new();
    for call in object.objects("tool_calls")? {
        let path = call.path("function");
        let call: Result<ToolCall, _> = serde_json::from_value(call.into_value());
        calls.push(call.map_err(|error| {
            let expected = "a call with its `id`, and a `function` of `name` and `arguments`";
            ServerError::field(path, format!("not readable ({error})"), expected)
        })?);
    }
    let prefix = object.flag("prefix")?;
    Ok(Message::Assistant {
        text,
        calls,
        prefix,
    })
}

/// The parts of a message's content.
fn parts(object: &mut Object) -> Result<Vec<Part>, ServerError> {
    let path = object.path("content");
    match object.take("content") {
        Some(Value::String(text)) => Ok(vec![Part::Text(text)]),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            parts
                .map(|(at, part)| Part::read(Object::new(format!("{path}[{at}]"), part)?))
                .collect()
        }
        found => {
            let found = found.as_ref().map_or_else(|| "missing".to_owned(), shown);
            Err(ServerError::field(path, found, "a text or a list of parts"))
        }
    }
}

/// Content of text alone; parts are joined as they stand.
fn texts(object: &mut Object) -> Result<String, ServerError> {
    let mut whole = String::new();
    for part in parts(object)? {
        match part {
            Part::Text(text) => whole.push_str(&text),
            Part::Sound { field, .. } => {
                let reason = "sound can be a part of a user's message alone";
                return Err(ServerError::unable(field, reason));
            }
        }
    }
    Ok(whole)
}

fn pieces(object: &mut Object) -> Result<Vec<Piece>, ServerError> {
    let piece = |part| {
        Ok(match part {
            Part::Text(text) => Piece::Text(text),
            Part::Sound { field, value } => {
                let source = source(&field, value)?;
                Piece::Sound { field, source }
            }
        })
    };
    parts(object)?.into_iter().map(piece).collect()
}

/// A part of a content.
enum Part {
    Text(String),
    Sound { field: String, value: Value },
}

impl Part {
    fn read(mut object: Object) -> Result<Self, ServerError> {
        const KINDS: &str = "`text`, `input_audio` or `audio_url`";
        let kind: String = object.required("type", KINDS)?;
        let part = match &kind[..] {
            "text" => Self::Text(object.required("text", "a text")?),
            "input_audio" | "audio_url" => Self::Sound {
                field: object.path(&kind),
                value: object.take(&kind).unwrap_or_default(),
            },
            _ => {
                let found = shown(&Value::from(kind));
                return Err(ServerError::field(object.path("type"), found, KINDS));
            }
        };
        object.finish(&[])?;
        Ok(part)
    }
}

/// Sound as the object of OpenAI (`data`) or vLLM (`url`), or as a text of its own.
fn source(field: &str, value: Value) -> Result<Source, ServerError> {
    let text = match value {
        Value::String(text) => text,
        value => {
            let mut object = Object::new(field, value)?;
            let name = if object.has("url") { "url" } else { "data" };
            let text = object.required(name, "base64, a data URI or a URL")?;
            // Content tells the format.
            object.finish(&[("format", &[])])?;
            text
        }
    };
    let data = match text.strip_prefix("data:") {
        Some(uri) => after_head(field, uri)?,
        None if is_url(&text) => return Ok(Source::Url(text)),
        None => &text[..],
    };
    let bytes = match data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => BASE64.decode(data.split_ascii_whitespace().collect::<String>()),
        false => BASE64.decode(data),
    };
    match bytes {
        Ok(bytes) if bytes.is_empty() => Err(ServerError::field(field, "empty", "an audio file")),
        Ok(bytes) => Ok(Source::Bytes(bytes)),
        Err(error) => Err(ServerError::field(
            field,
            format!("not base64 ({error})"),
            "base64, a data URI or a URL",
        )),
    }
}

/// What stands behind `data:TYPE;base64,`.
fn after_head<'a>(field: &str, uri: &'a str) -> Result<&'a str, ServerError> {
    match uri.split_once(',') {
        Some((head, data)) if head.to_ascii_lowercase().ends_with(";base64") => Ok(data),
        _ => Err(ServerError::field(
            field,
            "a data URI without base64",
            "`data:audio/wav;base64,…`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drafts(messages: Value) -> Result<Vec<Draft>, ServerError> {
        let mut object = Object::new("", json!({"messages": messages})).unwrap();
        read(object.objects("messages")?)
    }

    fn fault(messages: Value) -> String {
        drafts(messages).unwrap_err().param().unwrap().to_owned()
    }

    #[test]
    fn sound_comes_in_every_spelling() {
        let parts = [
            json!({"type": "input_audio", "input_audio": {"data": "AQID", "format": "wav"}}),
            json!({"type": "input_audio", "input_audio": "AQID"}),
            json!({"type": "input_audio", "input_audio": "data:audio/wav;base64,AQID"}),
            json!({"type": "audio_url", "audio_url": {"url": "data:;base64,AQ\nID"}}),
            json!({"type": "audio_url", "audio_url": "data:audio/mp3;codec=x;BASE64,AQID"}),
            json!({"type": "input_audio", "input_audio": "AQIDBA"}),
        ];
        for part in parts {
            let content = json!([{"role": "user", "content": [part]}]);
            let drafts = drafts(content).unwrap();
            let [Draft::User(pieces)] = &drafts[..] else {
                panic!("{drafts:?}");
            };
            let [
                Piece::Sound {
                    source: Source::Bytes(bytes),
                    ..
                },
            ] = &pieces[..]
            else {
                panic!("{pieces:?}");
            };
            assert_eq!(bytes[..3], [1, 2, 3]);
        }
        let url = json!({"type": "input_audio", "input_audio": "https://example.com/a.mp3"});
        let drafts = drafts(json!([{"role": "user", "content": [url]}])).unwrap();
        let Draft::User(pieces) = &drafts[0] else {
            panic!("{drafts:?}");
        };
        assert!(matches!(
            &pieces[0],
            Piece::Sound {
                source: Source::Url(_),
                ..
            }
        ));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let user = |part: Value| json!([{"role": "user", "content": "a"}, {"role": "user", "content": [part]}]);
        for (messages, path) in [
            (json!([]), "messages"),
            (json!(["a"]), "messages[0]"),
            (json!([{"content": "a"}]), "messages[0].role"),
            (
                json!([{"role": "function", "content": "a"}]),
                "messages[0].role",
            ),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": 1}]),
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": "a", "mood": "b"}]),
                "messages[0].mood",
            ),
            (
                json!([{"role": "tool", "content": "a"}]),
                "messages[0].tool_call_id",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "123456789"}]}]),
                "messages[0].tool_calls[0].function",
            ),
            (
                json!([{"role": "system", "content": [{"type": "input_audio", "input_audio": "AQID"}]}]),
                "messages[0].content[0].input_audio",
            ),
            (
                user(json!({"type": "image_url", "image_url": ""})),
                "messages[1].content[0].type",
            ),
            (user(json!({"type": "text"})), "messages[1].content[0].text"),
            (
                user(json!({"type": "input_audio"})),
                "messages[1].content[0].input_audio",
            ),
            (
                user(json!({"type": "input_audio", "input_audio": {"data": "?"}})),
                "messages[1].content[0].input_audio",
            ),
            (
                user(json!({"type": "input_audio", "input_audio": ""})),
                "messages[1].content[0].input_audio",
            ),
            (
                user(json!({"type": "audio_url", "audio_url": "data:audio/wav,abc"})),
                "messages[1].content[0].audio_url",
            ),
            (
                user(
                    json!({"type": "audio_url", "audio_url": {"url": "data:;base64,AQID", "a": 1}}),
                ),
                "messages[1].content[0].audio_url.a",
            ),
        ] {
            assert_eq!(fault(messages.clone()), path, "{messages}");
        }
        let clips = vec![json!({"type": "input_audio", "input_audio": "AQID"}); 65];
        assert_eq!(
            fault(json!([{"role": "user", "content": clips}])),
            "messages"
        );
    }
}
