//! OpenAI's dialect of transcription sessions: sound is appended and committed, each commit makes an
//! item, and the item's transcript comes as it is heard.
//!
//! The older form of the API has a flat session and `transcription_session.update`; both are
//! understood, and each message is answered in its own form.

mod turns;

use std::time::Duration;

use serde_json::{Value, json};
use voxtral_pipeline::{Step, Token};

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
    transcription::logprobs,
};
use turns::{Turn, TurnOptions, Turns};

const KNOWN: [&str; 5] = [
    "session.update",
    "transcription_session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
];

/// The rate of PCM, where none is said, and of G.711.
const PCM_RATE: u32 = 24_000;
const G711_RATE: u32 = 8_000;

/// The threshold of OpenAI's detection, which hears how loud it is. Words have none.
const THRESHOLD: f64 = 0.5;

const LOGPROBS: &str = "item.input_audio_transcription.logprobs";

/// A connection of OpenAI's client.
#[derive(Debug)]
pub(super) struct OpenAi {
    id: String,
    /// Whether it speaks the older form.
    is_older: bool,
    model: Option<String>,
    setup: Setup,
    keywords: Vec<String>,
    logprobs: bool,
    /// The item before the next.
    previous: Option<String>,
    /// Whether turns are detected.
    turn_options: Option<TurnOptions>,
    /// Those of the item of this id.
    turns: (String, Turns),
}

impl OpenAi {
    /// For the model of this name, where one is named.
    pub(super) fn new(model: Option<String>, is_older: bool) -> Self {
        Self {
            id: new_id("sess_"),
            is_older,
            model,
            setup: Setup::at(PCM_RATE),
            keywords: Vec::new(),
            logprobs: false,
            previous: None,
            turn_options: None,
            turns: Default::default(),
        }
    }

    /// What is said first.
    pub(super) fn created(&self, talk: &Talk) -> Value {
        let kind = match self.is_older {
            true => "transcription_session.created",
            false => "session.created",
        };
        self.event(kind, json!({"session": self.session(talk)}))
    }

    /// An event of this type, with what it tells.
    fn event(&self, kind: &str, mut told: Value) -> Value {
        told["type"] = json!(kind);
        told["event_id"] = json!(new_id("event_"));
        told
    }

    fn session(&self, talk: &Talk) -> Value {
        let name = talk
            .model()
            .map(|model| &model.names[0])
            .or(self.model.as_ref());
        let transcription = name.map(|name| {
            let mut object = json!({"model": name, "language": null, "prompt": ""});
            if !self.keywords.is_empty() {
                object["keywords"] = json!(self.keywords);
            }
            object
        });
        let include: &[&str] = if self.logprobs { &[LOGPROBS] } else { &[] };
        let mut session = json!({
            "id": self.id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "include": include,
            "delay_ms": self.setup.delay.map(|delay| delay.as_millis() as u64),
        });
        let (older, newer) = match self.setup.encoding {
            Encoding::MuLaw => ("g711_ulaw", json!({"type": "audio/pcmu"})),
            Encoding::ALaw => ("g711_alaw", json!({"type": "audio/pcma"})),
            _ => (
                "pcm16",
                json!({"type": "audio/pcm", "rate": self.setup.rate}),
            ),
        };
        let turn_detection = self.turn_options.map(|options| {
            json!({
                "type": "server_vad",
                "threshold": THRESHOLD,
                "prefix_padding_ms": options.padding.as_millis() as u64,
                "silence_duration_ms": options.silence.as_millis() as u64,
            })
        });
        if self.is_older {
            session["input_audio_format"] = json!(older);
            session["input_audio_transcription"] = json!(transcription);
            session["turn_detection"] = json!(turn_detection);
            session["input_audio_noise_reduction"] = Value::Null;
        } else {
            session["audio"] = json!({"input": {
                "format": newer,
                "transcription": transcription,
                "turn_detection": turn_detection,
                "noise_reduction": null,
            }});
        }
        session
    }

    fn update(&mut self, mut message: Fields, talk: &mut Talk) -> Result<Value, ServerError> {
        let mut session = message.object("session")?.ok_or(ServerError::Missing {
            field: "session",
            expected: "an object with what is to be changed",
        })?;
        message.finish()?;
        let mut asked = Asked {
            setup: self.setup.clone(),
            model: None,
            keywords: None,
            turn_options: self.turn_options,
        };
        asked.read(&mut session)?;
        let include = session.texts("include")?;
        if let Some(other) = include.iter().flatten().find(|name| *name != LOGPROBS) {
            return Err(session.unlike("include", other, &format!("`{LOGPROBS}`")));
        }
        session.finish()?;
        if asked.turn_options != self.turn_options && talk.is_heard() {
            return Err(ServerError::Premature {
                event: "session.update",
                expected: "commit or clear the sound before turn detection changes",
            });
        }
        let model = asked.model.or_else(|| self.model.clone());
        talk.choose(model.as_deref(), asked.setup.clone())?;
        self.model = model;
        self.setup = asked.setup;
        self.turn_options = asked.turn_options;
        talk.keep(self.turn_options.is_some());
        if let Some(keywords) = asked.keywords {
            self.keywords = keywords;
        }
        if let Some(include) = include {
            self.logprobs = !include.is_empty();
        }
        let kind = match self.is_older {
            true => "transcription_session.updated",
            false => "session.updated",
        };
        Ok(self.event(kind, json!({"session": self.session(talk)})))
    }

    fn append(&mut self, mut message: Fields, talk: &mut Talk) -> Result<(), ServerError> {
        let audio = message.text("audio")?.ok_or(ServerError::Missing {
            field: "audio",
            expected: "sound in base64",
        })?;
        message.finish()?;
        if talk.model().is_none() {
            talk.choose(self.model.as_deref(), self.setup.clone())?;
        }
        talk.hear(&audio)
    }

    fn commit(&mut self, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        if !talk.is_heard() {
            return Err(ServerError::Premature {
                event: "input_audio_buffer.commit",
                expected: "there is no sound to commit: append some first",
            });
        }
        let id = talk.finish()?;
        Ok(self.committed(&id))
    }

    /// Tells that an item is committed.
    fn committed(&mut self, id: &str) -> Vec<Value> {
        let previous = self.previous.replace(id.to_owned());
        let committed = json!({"item_id": id, "previous_item_id": previous});
        let item = |status: &str| {
            json!({
                "previous_item_id": previous,
                "item": {
                    "id": id,
                    "object": "realtime.item",
                    "type": "message",
                    "status": status,
                    "role": "user",
                    "content": [{"type": "input_audio", "transcript": null}],
                },
            })
        };
        let mut events = vec![self.event("input_audio_buffer.committed", committed)];
        match self.is_older {
            true => events.push(self.event("conversation.item.created", item("completed"))),
            false => {
                events.push(self.event("conversation.item.added", item("completed")));
                events.push(self.event("conversation.item.done", item("completed")));
            }
        }
        events
    }

    /// What a step says of turns. A turn that ends is committed and complete.
    fn turn(&mut self, step: &Step, item: &str, talk: &mut Talk) -> Vec<Value> {
        let token = talk.model().and_then(|model| model.token);
        let (Some(options), Some(token)) = (self.turn_options, token) else {
            return Vec::new();
        };
        // An item that is committed has all its turns.
        if item != talk.id() {
            return Vec::new();
        }
        if self.turns.0 != item {
            self.turns = (item.to_owned(), Turns::default());
        }
        let passed = talk.passed();
        let at = |time: Duration| (passed + time).as_millis() as u64;
        match self.turns.1.step(step, token, options) {
            None => {}
            Some(Turn::Started(time)) => {
                let told = json!({"item_id": item, "audio_start_ms": at(time)});
                return vec![self.event("input_audio_buffer.speech_started", told)];
            }
            Some(Turn::Paused { written, now }) => {
                if let Some(cut) = talk.pause(written, now, options.silence) {
                    let told = json!({"item_id": item, "audio_end_ms": at(cut)});
                    let mut events = vec![self.event("input_audio_buffer.speech_stopped", told)];
                    events.extend(self.committed(item));
                    talk.cut(cut);
                    let turns = std::mem::take(&mut self.turns.1);
                    let text = turns.text.trim();
                    events.push(self.completed(text, cut, &turns.tokens, item, talk));
                    return events;
                }
            }
        }
        talk.drop_before(self.turns.1.over(options));
        Vec::new()
    }

    /// An event of the transcription of an item.
    fn transcription(&self, kind: &str, item: &str, mut told: Value) -> Value {
        told["item_id"] = json!(item);
        told["content_index"] = json!(0);
        self.event(
            &format!("conversation.item.input_audio_transcription.{kind}"),
            told,
        )
    }

    fn with_logprobs(&self, told: &mut Value, tokens: &[Token], talk: &Talk) {
        if let Some(model) = talk.model().filter(|_| self.logprobs) {
            told["logprobs"] = logprobs(tokens, &*model.vocabulary);
        }
    }

    fn completed(
        &self,
        text: &str,
        length: Duration,
        tokens: &[Token],
        item: &str,
        talk: &Talk,
    ) -> Value {
        let mut told = json!({
            "transcript": text,
            "usage": {"type": "duration", "seconds": length.as_secs_f64()},
        });
        self.with_logprobs(&mut told, tokens, talk);
        self.transcription("completed", item, told)
    }

    fn failed(&self, error: ServerError, item: &str) -> Value {
        let told = Failure(Dialect::OpenAi, error).body();
        self.transcription("failed", item, told)
    }
}

impl Protocol for OpenAi {
    fn greet(&mut self, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        Ok(vec![self.created(talk)])
    }

    fn follow(&mut self, mut message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError> {
        let kind = message.kind()?;
        message.text("event_id")?;
        match &kind[..] {
            "session.update" | "transcription_session.update" => {
                self.is_older = kind == "transcription_session.update";
                return Ok(vec![self.update(message, talk)?]);
            }
            "input_audio_buffer.append" => self.append(message, talk)?,
            "input_audio_buffer.commit" => {
                message.finish()?;
                return self.commit(talk);
            }
            "input_audio_buffer.clear" => {
                message.finish()?;
                talk.clear();
                return Ok(vec![self.event("input_audio_buffer.cleared", json!({}))]);
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

    fn tell(&mut self, event: Event, item: &str, talk: &mut Talk) -> Vec<Value> {
        match event {
            Event::Step(step) => {
                let mut events = self.turn(&step, item, talk);
                if !step.text.is_empty() {
                    let mut told = json!({"delta": step.text});
                    self.with_logprobs(&mut told, &[step.token], talk);
                    events.push(self.transcription("delta", item, told));
                }
                events
            }
            Event::Transcript(found) => {
                vec![self.completed(&found.text, found.duration, &found.tokens, item, talk)]
            }
            Event::Failed(error) => vec![self.failed(error.into(), item)],
            Event::Crashed => vec![self.failed(ServerError::Crashed, item)],
            _ => Vec::new(),
        }
    }

    fn fail(&self, error: ServerError) -> Value {
        let empty = matches!(error, ServerError::Premature { event, .. } if event == KNOWN[3]);
        let mut told = Failure(Dialect::OpenAi, error).body();
        if empty {
            told["error"]["code"] = json!("input_audio_buffer_commit_empty");
        }
        told["error"]["event_id"] = Value::Null;
        self.event("error", told)
    }
}

/// What an update asks for.
struct Asked {
    setup: Setup,
    model: Option<String>,
    keywords: Option<Vec<String>>,
    turn_options: Option<TurnOptions>,
}

impl Asked {
    fn read(&mut self, session: &mut Fields) -> Result<(), ServerError> {
        if let Some(kind) = session.text("type")?
            && kind != "transcription"
        {
            let reason = "the server writes down and does not answer: ask for `transcription`";
            return Err(session.unable("type", reason));
        }
        if let Some(mut audio) = session.object("audio")? {
            if let Some(mut input) = audio.object("input")? {
                if let Some(mut format) = input.object("format")? {
                    self.format(&mut format)?;
                    format.finish()?;
                }
                self.input(&mut input, "transcription", "noise_reduction")?;
                input.finish()?;
            }
            audio.finish()?;
        }
        self.older_format(session)?;
        self.input(
            session,
            "input_audio_transcription",
            "input_audio_noise_reduction",
        )?;
        if let Some(delay) = session.number("delay_ms")? {
            self.setup.delay = Some(Duration::from_millis(delay));
        }
        Ok(())
    }

    fn format(&mut self, format: &mut Fields) -> Result<(), ServerError> {
        let (encoding, usual) = match format.text("type")?.as_deref() {
            None | Some("audio/pcm") => (Encoding::I16, PCM_RATE),
            Some("audio/pcmu") => (Encoding::MuLaw, G711_RATE),
            Some("audio/pcma") => (Encoding::ALaw, G711_RATE),
            Some(other) => {
                let expected = "`audio/pcm`, `audio/pcmu` or `audio/pcma`";
                return Err(format.unlike("type", other, expected));
            }
        };
        self.setup.encoding = encoding;
        self.setup.rate = match format.number("rate")? {
            None => usual,
            Some(rate) => rate
                .try_into()
                .map_err(|_| format.unlike("rate", &rate.to_string(), "samples per second"))?,
        };
        Ok(())
    }

    fn older_format(&mut self, session: &mut Fields) -> Result<(), ServerError> {
        const FIELD: &str = "input_audio_format";
        (self.setup.encoding, self.setup.rate) = match session.text(FIELD)?.as_deref() {
            None => return Ok(()),
            Some("pcm16") => (Encoding::I16, PCM_RATE),
            Some("g711_ulaw") => (Encoding::MuLaw, G711_RATE),
            Some("g711_alaw") => (Encoding::ALaw, G711_RATE),
            Some(other) => {
                let expected = "`pcm16`, `g711_ulaw` or `g711_alaw`";
                return Err(session.unlike(FIELD, other, expected));
            }
        };
        Ok(())
    }

    /// What both forms have, one of them under longer names.
    fn input(
        &mut self,
        input: &mut Fields,
        transcription: &str,
        noise_reduction: &str,
    ) -> Result<(), ServerError> {
        if let Some(mut transcription) = input.object(transcription)? {
            self.model = transcription.text("model")?;
            self.keywords = transcription.texts("keywords")?;
            if let Some(keywords) = &self.keywords {
                self.setup.bias = bias("keywords", keywords)?;
            }
            let language = "a Realtime model finds out the language by itself: leave it out";
            transcription.refuse("language", language)?;
            transcription.refuse("languages", language)?;
            let prompt = "the model takes no prompt: give words that are likely as `keywords`";
            transcription.refuse("prompt", prompt)?;
            transcription.refuse("delay", "say `delay_ms`, in the session")?;
            transcription.finish()?;
        }
        input.refuse(noise_reduction, "sound is heard as it is: leave it out")?;
        self.turn_detection(input)
    }

    fn turn_detection(&mut self, input: &mut Fields) -> Result<(), ServerError> {
        const FIELD: &str = "turn_detection";
        if input.is_null(FIELD) {
            self.turn_options = None;
        }
        let Some(mut asked) = input.object(FIELD)? else {
            return Ok(());
        };
        let kind = asked.text("type")?;
        if kind.as_deref() != Some("server_vad") {
            let found = kind.unwrap_or_default();
            return Err(asked.unlike("type", &found, "`server_vad`, or null for none"));
        }
        if asked
            .decimal("threshold")?
            .is_some_and(|found| found != THRESHOLD)
        {
            let reason = "turns are found by their words, which have none: leave it out";
            return Err(asked.unable("threshold", reason));
        }
        let mut options = TurnOptions::default();
        if let Some(silence) = asked.number("silence_duration_ms")? {
            options.silence = Duration::from_millis(silence);
        }
        if let Some(padding) = asked.number("prefix_padding_ms")? {
            options.padding = Duration::from_millis(padding);
        }
        let answers = "the server writes down and does not answer: leave it out";
        asked.refuse("create_response", answers)?;
        asked.refuse("interrupt_response", answers)?;
        asked.refuse("idle_timeout_ms", answers)?;
        asked.finish()?;
        self.turn_options = Some(options);
        Ok(())
    }
}
