//! Answers, whole and in pieces.

use std::sync::Arc;

use axum::response::sse;
use serde_json::{Value, json};
use uuid::Uuid;
use voxtral_pipeline::{Alternative, Answer, Finish, Token};

use crate::{
    ServerError,
    app::unix_time,
    engine::{Event, Vocabulary},
    error::{Dialect, Failure},
    sse::done,
};

/// What is needed to answer.
pub(super) struct Reply {
    id: String,
    created: u64,
    pub(super) model: String,
    pub(super) vocabulary: Arc<dyn Vocabulary>,
    pub(super) dialect: Dialect,
    pub(super) usage: bool,
    pub(super) logprobs: bool,
    /// Whether something was said already.
    begun: bool,
    /// Whether the answer is at what is no text: a call, its end.
    beyond: bool,
}

impl Reply {
    pub(super) fn new(model: String, vocabulary: Arc<dyn Vocabulary>, dialect: Dialect) -> Self {
        Self {
            id: format!("chatcmpl-{}", Uuid::new_v4().simple()),
            created: unix_time(),
            model,
            vocabulary,
            dialect,
            usage: false,
            logprobs: false,
            begun: false,
            beyond: false,
        }
    }

    /// The whole answer.
    pub(super) fn object(&self, answer: &Answer) -> Value {
        let text = Some(&answer.text).filter(|text| !text.is_empty() || answer.calls.is_empty());
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !answer.calls.is_empty() {
            message["tool_calls"] = calls(answer);
        }
        let mut choice = json!({
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish(answer),
        });
        if self.logprobs {
            let spoken = answer.tokens.iter();
            let spoken = spoken.take_while(|token| self.vocabulary.bytes(token.id).is_some());
            choice["logprobs"] = self.scores(spoken);
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage(answer),
        })
    }

    /// What is told of an event; at the end, that it is.
    pub(super) fn events(&mut self, event: Event) -> Vec<sse::Event> {
        let objects = match event {
            Event::Step(step) => {
                self.beyond |= self.vocabulary.bytes(step.token.id).is_none();
                let scores = (self.logprobs && !self.beyond).then(|| self.scores([&step.token]));
                if step.text.is_empty() && scores.is_none() {
                    return Vec::new();
                }
                let delta = self.delta(json!({"content": step.text}));
                vec![self.chunk(delta, scores, None)]
            }
            Event::Answer(answer) => return self.end(&answer),
            Event::Failed(error) => vec![self.failure(error.into())],
            Event::Crashed => vec![self.failure(ServerError::Crashed)],
            _ => Vec::new(),
        };
        objects.iter().map(message).collect()
    }

    fn end(&mut self, answer: &Answer) -> Vec<sse::Event> {
        let mut objects = Vec::new();
        if !answer.calls.is_empty() {
            let delta = self.delta(json!({"tool_calls": calls(answer)}));
            objects.push(self.chunk(delta, None, None));
        }
        let delta = match self.begun {
            true => json!({}),
            false => self.delta(json!({"content": ""})),
        };
        let mut last = self.chunk(delta, None, Some(finish(answer)));
        match (self.usage, self.dialect) {
            (false, _) => objects.push(last),
            (true, Dialect::Mistral) => {
                last["usage"] = usage(answer);
                objects.push(last);
            }
            (true, Dialect::OpenAi) => {
                objects.push(last);
                let mut taken = self.chunk(json!({}), None, None);
                taken["choices"] = json!([]);
                taken["usage"] = usage(answer);
                objects.push(taken);
            }
        }
        objects.iter().map(message).chain([done()]).collect()
    }

    /// The first one says who speaks.
    fn delta(&mut self, mut delta: Value) -> Value {
        if !std::mem::replace(&mut self.begun, true) {
            delta["role"] = json!("assistant");
        }
        delta
    }

    fn chunk(&self, delta: Value, scores: Option<Value>, finish: Option<&str>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": scores, "finish_reason": finish}],
        });
        if self.usage && self.dialect == Dialect::OpenAi {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn failure(&self, error: ServerError) -> Value {
        Failure(self.dialect, error).body()
    }

    fn scores<'t>(&self, tokens: impl IntoIterator<Item = &'t Token>) -> Value {
        let score = |id: u32, text: &str, logprob: f32| {
            let bytes = self.vocabulary.bytes(id);
            let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
            json!({"token": text, "token_id": id, "bytes": bytes, "logprob": logprob})
        };
        let scores = tokens.into_iter().map(|token| {
            let mut object = score(token.id, &token.text, token.logprob);
            let top = token.top.iter();
            let top = top.map(|Alternative { id, text, logprob }| score(*id, text, *logprob));
            object["top_logprobs"] = top.collect();
            object
        });
        json!({"content": scores.collect::<Vec<_>>(), "refusal": null})
    }
}

fn message(object: &Value) -> sse::Event {
    sse::Event::default().data(object.to_string())
}

fn calls(answer: &Answer) -> Value {
    let calls = answer.calls.iter().enumerate().map(|(index, call)| {
        let mut call = json!(call);
        call["index"] = json!(index);
        call
    });
    calls.collect()
}

fn finish(answer: &Answer) -> &'static str {
    match answer.finish {
        _ if !answer.calls.is_empty() => "tool_calls",
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_audio_seconds": usage.audio.as_secs_f64().ceil() as u64,
        "prompt_tokens_details": {
            "audio_tokens": usage.audio_tokens,
            "cached_tokens": usage.cached_tokens,
        },
    })
}
