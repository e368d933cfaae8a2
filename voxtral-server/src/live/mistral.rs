//! Mistral's dialect: the model is named in the address, sound is appended, flushed and ended.

use std::time::Duration;

use serde_json::{Value, json};
use voxtral_pipeline::{Segmenter, Transcript};

use super::{
    Protocol,
    encoding::Encoding,
    message::Fields,
    new_id,
    talk::{Setup, Talk, bias},
};
use crate::{
    ServerError,
    engine::Event,
    error::{Dialect, Failure},
    transcription::segment,
};

const KNOWN: [&str; 4] = [
    "session.update",
    "input_audio.append",
    "input_audio.flush",
    "input_audio.end",
];

const ENCODINGS: [(&str, Encoding); 6] = [
    ("pcm_s16le", Encoding::I16),
    ("pcm_s32le", Encoding::I32),
    ("pcm_f16le", Encoding::F16),
    ("pcm_f32le", Encoding::F32),
    ("pcm_mulaw", Encoding::MuLaw),
    ("pcm_alaw", Encoding::ALaw),
];

/// A connection of Mistral's client.
#[derive(Debug)]
pub(super) struct Mistral {
    model: Option<String>,
    id: String,
    /// As they were given.
    phrases: Vec<String>,
    segmenter: Segmenter,
}

impl Mistral {
    /// For the model of this name.
    pub(super) fn new(model: Option<String>) -> Self {
        Self {
            model,
            id: new_id("req-"),
            phrases: Vec::new(),
            segmenter: Segmenter::new(),
        }
    }

    fn session(&self, talk: &Talk) -> Value {
        let setup = talk.setup();
        let encoding = ENCODINGS.iter().find(|(_, known)| *known == setup.encoding);
        json!({
            "request_id": self.id,
            "model": talk.model().map(|model| &model.names[0]),
            "audio_format": {
                "encoding": encoding.map(|(name, _)| name),
                "sample_rate": setup.rate,
            },
            "target_streaming_delay_ms": setup.delay.map(|delay| delay.as_millis() as u64),
            "context_bias": self.phrases,
        })
    }

    fn update(&mut self, mut message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let mut session = message.object("session")?.ok_or(ServerError::Missing {
            field: "session",
            expected: "an object with what is to be changed",
        })?;
        message.finish()?;
        let mut setup = talk.setup().clone();
        if let Some(mut format) = session.object("audio_format")? {
            self::format(&mut format, &mut setup)?;
            format.finish()?;
        }
        if let Some(delay) = session.number("target_streaming_delay_ms")? {
            setup.delay = Some(Duration::from_millis(delay));
        }
        let phrases = session.texts("context_bias")?;
        if let Some(phrases) = &phrases {
            setup.bias = bias("context_bias", phrases)?;
        }
        refuse(&mut session)?;
        session.finish()?;
        talk.choose(self.model.as_deref(), setup)?;
        self.phrases = phrases.unwrap_or_else(|| std::mem::take(&mut self.phrases));
        Ok(vec![
            json!({"type": "session.updated", "session": self.session(talk)}),
        ])
    }

    fn done(&mut self, transcript: &Transcript) -> Vec<Value> {
        let prompt = transcript.timings.prompt_tokens;
        let completion = transcript.tokens.len();
        let segments = transcript.segments.iter().flatten().map(segment);
        let mut events: Vec<Value> = self.segmenter.finish().iter().map(segment_event).collect();
        if let Some(language) = &transcript.language {
            events.push(json!({"type": "transcription.language", "audio_language": language}));
        }
        events.push(json!({
            "type": "transcription.done",
            "model": transcript.model,
            "text": transcript.text,
            "language": transcript.language,
            "segments": segments.collect::<Vec<_>>(),
            "usage": {
                "prompt_audio_seconds": transcript.duration.as_secs_f64().ceil() as u64,
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }));
        events
    }
}

fn segment_event(found: &voxtral_pipeline::Segment) -> Value {
    let mut event = segment(found);
    event["type"] = json!("transcription.segment");
    event
}

fn format(format: &mut Fields, setup: &mut Setup) -> Result<(), ServerError> {
    if let Some(name) = format.text("encoding")? {
        let known = ENCODINGS.iter().find(|(known, _)| *known == name);
        let expected = ENCODINGS.map(|(name, _)| format!("`{name}`")).join(", ");
        let (_, encoding) = known.ok_or_else(|| format.unlike("encoding", &name, &expected))?;
        setup.encoding = *encoding;
    }
    if let Some(rate) = format.number("sample_rate")? {
        let expected = "samples per second";
        setup.rate = rate
            .try_into()
            .map_err(|_| format.unlike("sample_rate", &rate.to_string(), expected))?;
    }
    Ok(())
}

/// What the models cannot do.
fn refuse(session: &mut Fields) -> Result<(), ServerError> {
    for (field, reason) in [
        (
            "diarize",
            "the model does not tell speakers apart: leave it out",
        ),
        (
            "speaker_references",
            "the model does not tell speakers apart: leave it out",
        ),
        (
            "language",
            "a Realtime model finds out the language by itself: leave it out",
        ),
        (
            "turn_detection",
            "turns are not detected: send `input_audio.flush` or `input_audio.end`",
        ),
    ] {
        // An empty object would turn it on.
        if field == "turn_detection" && session.has(field) {
            return Err(session.unable(field, reason));
        }
        session.refuse(field, reason)?;
    }
    Ok(())
}

impl Protocol for Mistral {
    fn greet(&mut self, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        talk.choose(self.model.as_deref(), talk.setup().clone())?;
        Ok(vec![
            json!({"type": "session.created", "session": self.session(talk)}),
        ])
    }

    fn follow(&mut self, mut message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let kind = message.kind()?;
        match &kind[..] {
            "session.update" => return self.update(message, talk),
            "input_audio.append" => {
                let audio = message.text("audio")?.ok_or(ServerError::Missing {
                    field: "audio",
                    expected: "sound in base64",
                })?;
                message.finish()?;
                talk.hear(&audio)?;
            }
            "input_audio.flush" => {
                message.finish()?;
                talk.flush()?;
            }
            "input_audio.end" => {
                message.finish()?;
                talk.finish()?;
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
            Event::Step(step) => {
                let mut events = Vec::new();
                if !step.text.is_empty() {
                    events.push(json!({"type": "transcription.text.delta", "text": step.text}));
                }
                let segments = step
                    .words
                    .iter()
                    .filter_map(|word| self.segmenter.push(word));
                events.extend(segments.map(|found| segment_event(&found)));
                events
            }
            Event::Transcript(transcript) => self.done(&transcript),
            Event::Begun => {
                self.segmenter = Segmenter::new();
                Vec::new()
            }
            Event::Failed(error) => vec![self.fail(error.into())],
            Event::Crashed => vec![self.fail(ServerError::Crashed)],
            _ => Vec::new(),
        }
    }

    fn fail(&self, error: ServerError) -> Value {
        let failure = Failure(Dialect::Mistral, error);
        json!({
            "type": "error",
            "error": {"message": failure.1.message(), "code": failure.status().as_u16()},
        })
    }
}
