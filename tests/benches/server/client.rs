//! A client of a server.

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

/// What it got.
pub(crate) struct Reply {
    pub(crate) tokens: usize,
}

pub(crate) struct Client {
    url: String,
    pub(crate) sample_rate: u32,
}

impl Client {
    pub(crate) fn new(url: String, sample_rate: u32) -> Self {
        Self { url, sample_rate }
    }

    /// Asks a question, another one for each number.
    pub(crate) fn ask(&self, number: usize, tokens: usize) -> anyhow::Result<Reply> {
        let question = format!("Question {number}: what is said?");
        self.chat(&json!(question), tokens)
    }

    /// Asks a question on a sound.
    pub(crate) fn ask_about(&self, wav: &[u8], tokens: usize) -> anyhow::Result<Reply> {
        let sound = json!({"data": BASE64.encode(wav), "format": "wav"});
        let content = json!([
            {"type": "input_audio", "input_audio": sound},
            {"type": "text", "text": "What is said?"},
        ]);
        self.chat(&content, tokens)
    }

    fn chat(&self, content: &Value, tokens: usize) -> anyhow::Result<Reply> {
        let body = json!({
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "temperature": 0,
        });
        let url = format!("{}/v1/chat/completions", self.url);
        let response = ureq::post(url).send_json(body)?.body_mut().read_json()?;
        reply(&response, "completion_tokens")
    }

    /// Sends a file.
    pub(crate) fn transcribe(&self, file: &[u8]) -> anyhow::Result<Reply> {
        const BOUNDARY: &str = "----voxtral-bench";
        let mut body = Vec::new();
        let fields = [("diarize", None), ("file", Some("clip.wav"))];
        for (name, file_name) in fields {
            let file_name =
                file_name.map_or_else(String::new, |name| format!("; filename=\"{name}\""));
            let head = format!(
                "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n"
            );
            body.extend(head.as_bytes());
            body.extend(if file_name.is_empty() { b"false" } else { file });
            body.extend(b"\r\n");
        }
        body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let request = ureq::post(format!("{}/v1/audio/transcriptions", self.url));
        let mut response = request.content_type(content_type).send(&body[..])?;
        reply(&response.body_mut().read_json()?, "completion_tokens")
    }

    /// Requests that are computed.
    pub(crate) fn running(&self) -> anyhow::Result<usize> {
        let mut response = ureq::get(format!("{}/metrics", self.url)).call()?;
        let text = response.body_mut().read_to_string()?;
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix("voxtral_running "));
        Ok(found.context("no `voxtral_running`")?.parse()?)
    }
}

fn reply(object: &Value, field: &str) -> anyhow::Result<Reply> {
    let tokens = object["usage"][field].as_u64();
    let tokens = tokens.with_context(|| format!("no `usage.{field}` in {object}"))?;
    Ok(Reply {
        tokens: tokens as usize,
    })
}
