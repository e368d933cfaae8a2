//! `GET /v1/realtime`, where two dialects are spoken: which one, the way of connecting tells, or the
//! first message.

use axum::http::{HeaderMap, Uri};
use serde_json::{Value, json};

use super::{Protocol, message::Fields, new_id, openai::OpenAi, query, talk::Talk, vllm::Vllm};
use crate::{ServerError, app::unix_time, engine::Event};

/// What OpenAI's clients in a browser ask for.
pub(super) const PROTOCOL: &str = "realtime";

/// Either dialect.
pub(super) struct Realtime {
    openai: OpenAi,
    vllm: Vllm,
    /// Whether it is OpenAI's, once that is known.
    is_openai: Option<bool>,
}

impl Realtime {
    pub(super) fn new(uri: &Uri, headers: &HeaderMap) -> Self {
        let offered = |name: &str, value: &str| {
            let all = headers.get_all(name).iter();
            all.filter_map(|given| given.to_str().ok())
                .any(|given| given.split(',').any(|given| given.trim() == value))
        };
        let transcribes = query(uri, "intent").is_some_and(|intent| intent == "transcription");
        let is_older = offered("openai-beta", "realtime=v1")
            || offered("sec-websocket-protocol", "openai-beta.realtime-v1");
        let is_openai = transcribes || is_older || offered("sec-websocket-protocol", PROTOCOL);
        Self {
            openai: OpenAi::new(query(uri, "model"), transcribes && is_older),
            vllm: Vllm,
            is_openai: is_openai.then_some(true),
        }
    }

    /// The dialect that is spoken; vLLM's as long as nothing speaks for the other.
    fn spoken(&mut self) -> &mut dyn Protocol {
        match self.is_openai {
            Some(true) => &mut self.openai,
            _ => &mut self.vllm,
        }
    }
}

impl Protocol for Realtime {
    /// In words of both.
    fn greet(&mut self, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let mut created = self.openai.created(talk);
        created["id"] = json!(new_id("sess-"));
        created["created"] = json!(unix_time());
        Ok(vec![created])
    }

    fn follow(&mut self, message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        if self.is_openai.is_none() {
            let kind = message.clone().kind()?;
            self.is_openai = match &kind[..] {
                "session.update" => Some(message.has("session")),
                "transcription_session.update" | "input_audio_buffer.clear" => Some(true),
                _ => None,
            };
        }
        self.spoken().follow(message, talk)
    }

    fn tell(&mut self, event: Event, utterance: &str, talk: &mut Talk) -> Vec<Value> {
        self.spoken().tell(event, utterance, talk)
    }

    fn fail(&self, error: ServerError) -> Value {
        match self.is_openai {
            Some(true) => self.openai.fail(error),
            _ => self.vllm.fail(error),
        }
    }
}
