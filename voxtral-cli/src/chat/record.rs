//! Answers and conversations as JSON.

use std::path::{self, Path};
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};
use voxtral_pipeline::{Answer, Audio, Message, Part, ToolDefinition};

use crate::input;

/// What `--format json` writes.
#[derive(Serialize)]
struct Record<'a> {
    /// The clips of the question.
    files: Vec<String>,
    /// Whether one of them broke off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// The line of an answer to a question with these clips.
pub(super) fn answer<'a>(
    clips: impl Iterator<Item = (&'a Path, &'a Audio)>,
    answer: &Answer,
) -> Result<String> {
    let mut record = Record {
        files: Vec::new(),
        truncated: false,
        answer,
    };
    for (file, clip) in clips {
        record.files.push(file.display().to_string());
        record.truncated |= clip.is_truncated();
    }
    Ok(serde_json::to_string(&record)? + "\n")
}

/// A conversation in the shape of a request of OpenAI's interface; clips by their path, as
/// `mistral-common` reads them.
pub(super) fn conversation<'a>(
    model: &str,
    messages: &[Message],
    tools: &[ToolDefinition],
    file: impl Fn(&Arc<Audio>) -> &'a Path,
) -> Value {
    let messages: Vec<Value> = messages.iter().map(|one| message(one, &file)).collect();
    let mut request = json!({ "model": model, "messages": messages });
    if !tools.is_empty() {
        request["tools"] = json!(tools);
    }
    request
}

fn message<'a>(message: &Message, file: &impl Fn(&Arc<Audio>) -> &'a Path) -> Value {
    let mut value = Map::new();
    value.insert("role".to_owned(), message.role().to_string().into());
    match message {
        Message::System(text) => {
            value.insert("content".to_owned(), json!(text));
        }
        Message::User(parts) => {
            let parts: Vec<Value> = parts.iter().map(|one| part(one, file)).collect();
            value.insert("content".to_owned(), json!(parts));
        }
        Message::Assistant { text, calls, .. } => {
            value.insert("content".to_owned(), json!(text));
            if !calls.is_empty() {
                value.insert("tool_calls".to_owned(), json!(calls));
            }
        }
        Message::Tool { call_id, content } => {
            value.insert("tool_call_id".to_owned(), json!(call_id));
            value.insert("content".to_owned(), json!(content));
        }
    }
    value.into()
}

fn part<'a>(part: &Part, file: &impl Fn(&Arc<Audio>) -> &'a Path) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Audio(clip) => {
            let url = absolute(file(clip));
            json!({ "type": "audio_url", "audio_url": { "url": url } })
        }
    }
}

/// A path that is right from every folder.
fn absolute(file: &Path) -> String {
    match path::absolute(file) {
        Ok(path) if !input::is_stdin(file) => path.display().to_string(),
        _ => file.display().to_string(),
    }
}
