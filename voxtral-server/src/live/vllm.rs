//! vLLM's dialect: a model is named first, a commit begins an utterance, and a final one ends it.

use std::time::Duration;

use serde_json::{Value, json};
use voxtral_pipeline::PipelineError;

use super::{
    Protocol,
    message::Fields,
    talk::{Setup, Talk},
};
use crate::{ServerError, engine::Event};

/// 16 kHz, 16 bits: all that there is.
const RATE: u32 = 16_000;

const KNOWN: [&str; 3] = [
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
];

/// A connection of a client of vLLM.
#[derive(Debug)]
pub(super) struct Vllm;

impl Vllm {
    fn update(mut message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let model = message.text("model")?;
        let model = model.ok_or(ServerError::Missing {
            field: "model",
            expected: "the name of a Realtime model",
        })?;
        // vLLM knows one delay alone.
        let delay = message.number("delay_ms")?.map(Duration::from_millis);
        message.finish()?;
        let setup = Setup {
            delay,
            ..Setup::at(RATE)
        };
        talk.choose(Some(&model), setup)?;
        Ok(Vec::new())
    }

    fn check_model(talk: &Talk, event: &'static str) -> Result<(), ServerError> {
        let expected = "a `session.update` with a `model` comes first";
        let premature = ServerError::Premature { event, expected };
        talk.model().map(|_| ()).ok_or(premature)
    }
}

impl Protocol for Vllm {
    fn greet(&mut self, _: &mut Talk) -> Result<Vec<Value>, ServerError> {
        Ok(Vec::new())
    }

    fn follow(&mut self, mut message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let kind = message.kind()?;
        message.text("event_id")?;
        match &kind[..] {
            "session.update" => return Self::update(message, talk),
            "input_audio_buffer.append" => {
                Self::check_model(talk, "input_audio_buffer.append")?;
                let audio = message.text("audio")?.ok_or(ServerError::Missing {
                    field: "audio",
                    expected: "sound in base64",
                })?;
                message.finish()?;
                talk.hear(&audio)?;
            }
            "input_audio_buffer.commit" => {
                Self::check_model(talk, "input_audio_buffer.commit")?;
                let last = message.flag("final")?.unwrap_or(false);
                message.finish()?;
                // Sound is heard as it comes, so there is nothing to begin.
                if last {
                    talk.finish()?;
                }
            }
            _ => {
                return Err(ServerError::UnknownEvent {
                    found: kind,
                    known: KNOWN.map(str::to_owned).into(),
                });
            }
        }
        Ok(Vec::new())
    }

    fn tell(&mut self, event: Event, _: &str, _: &mut Talk) -> Vec<Value> {
        match event {
            // Also where there is no text, as there.
            Event::Step(step) => vec![json!({"type": "transcription.delta", "delta": step.text})],
            Event::Transcript(transcript) => {
                let prompt = transcript.timings.prompt_tokens;
                let completion = transcript.tokens.len();
                vec![json!({
                    "type": "transcription.done",
                    "text": transcript.text,
                    "usage": {
                        "prompt_tokens": prompt,
                        "completion_tokens": completion,
                        "total_tokens": prompt + completion,
                    },
                })]
            }
            Event::Failed(error) => vec![self.fail(error.into())],
            Event::Crashed => vec![self.fail(ServerError::Crashed)],
            _ => Vec::new(),
        }
    }

    fn fail(&self, error: ServerError) -> Value {
        let code = match &error {
            ServerError::Malformed { .. } => "invalid_json",
            ServerError::Premature { event, .. } if *event != KNOWN[0] => "model_not_validated",
            ServerError::Field { .. }
            | ServerError::Missing { .. }
            | ServerError::Premature { .. } => "invalid_event",
            ServerError::Unable { field, .. } if field == "model" => "model_not_supported",
            ServerError::Unable { .. } => "invalid_event",
            ServerError::Pipeline(PipelineError::Tokenizer(_)) => "invalid_event",
            ServerError::Crashed | ServerError::Pipeline(_) => "processing_error",
            other => other.code(),
        };
        json!({"type": "error", "error": error.message(), "code": code})
    }
}
