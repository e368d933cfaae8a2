//! A conversation, whose answers are printed as they are made.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use serde_json::Value;
use voxtral_pipeline::{
    Answer, Audio, Backend, Chat, ChatOptions, Message, Part, PipelineError, ToolCall, Voxtral,
};

use super::{is_cancelled, record};
use crate::{
    args::{AnswerFormat, ChatArgs},
    input, messages, output, progress,
};

/// Messages, what they are asked with, and where their clips are from.
pub(crate) struct Conversation<'m, B: Backend> {
    model: &'m Voxtral<B>,
    chat: Chat<'m, B>,
    pub(crate) options: ChatOptions,
    format: AnswerFormat,
    max_rounds: usize,
    messages: Vec<Message>,
    /// Clips of the next message.
    pending: Vec<Arc<Audio>>,
    /// The files of all clips.
    files: Vec<(Weak<Audio>, PathBuf)>,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an answer.
    Answered,
    /// With an answer of no words.
    Empty,
    /// With calls, whose results never came.
    Called,
}

/// Gives the results of calls; none where there are none to come.
pub(crate) type Results<'a> = dyn FnMut(&[ToolCall]) -> Result<Option<Vec<Message>>> + 'a;

impl<'m, B: Backend> Conversation<'m, B> {
    pub(crate) fn new(model: &'m Voxtral<B>, options: ChatOptions, args: &ChatArgs) -> Self {
        let mut talk = Self {
            model,
            chat: model.chat(),
            options,
            format: args.format,
            max_rounds: args.max_tool_rounds,
            messages: Vec::new(),
            pending: Vec::new(),
            files: Vec::new(),
        };
        talk.set_system(args.system.clone());
        talk
    }

    /// Adds a clip to the next message.
    pub(crate) fn add(&mut self, file: &Path) -> Result<Arc<Audio>> {
        let name = input::name(file);
        let _about = messages::about(&name);
        let read = || -> Result<Audio> {
            let decoder = input::open(file, false)?;
            Ok(self.model.read_decoder(decoder)?)
        };
        let clip = read().with_context(|| format!("cannot read `{name}`"))?;
        let clip = Arc::new(clip);
        self.files.push((Arc::downgrade(&clip), file.to_owned()));
        self.pending.push(Arc::clone(&clip));
        Ok(clip)
    }

    /// Whether the next message has a clip.
    pub(crate) fn has_clips(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sets what the model shall keep to, or takes it away.
    pub(crate) fn set_system(&mut self, text: Option<String>) {
        if let Some(Message::System(_)) = self.messages.first() {
            self.messages.remove(0);
        }
        if let Some(text) = text {
            self.messages.insert(0, Message::System(text));
        }
    }

    /// Forgets what was said, but not what the model shall keep to.
    pub(crate) fn reset(&mut self) {
        self.messages
            .retain(|message| matches!(message, Message::System(_)));
        self.pending.clear();
        self.chat.clear();
    }

    /// Asks a question. Without an answer, it is forgotten, so that another can be asked; an answer
    /// that is stopped is kept as far as it came.
    pub(crate) fn ask(&mut self, text: Option<String>, results: &mut Results) -> Result<Ended> {
        let before = self.messages.len();
        let clips = self.pending.drain(..).map(Part::Audio);
        let parts = clips.chain(text.map(Part::Text)).collect();
        self.messages.push(Message::User(parts));
        let ended = self.rounds(before, results);
        let answered = matches!(
            self.messages.last(),
            Some(Message::Assistant { calls, .. }) if calls.is_empty()
        );
        if !answered {
            self.messages.truncate(before);
        }
        ended
    }

    /// Answers and lets tools be called, until there is an answer to this question without a call.
    fn rounds(&mut self, question: usize, results: &mut Results) -> Result<Ended> {
        for round in 0.. {
            let answer = self.answer()?;
            let called = !answer.calls.is_empty();
            if called && round == self.max_rounds {
                break;
            }
            self.print(question, &answer)?;
            if !called && answer.text.is_empty() {
                return Ok(Ended::Empty);
            }
            self.messages.push(answer.message());
            if !called {
                return Ok(Ended::Answered);
            }
            match results(&answer.calls)? {
                Some(results) => self.messages.extend(results),
                None => return Ok(Ended::Called),
            }
        }
        let limit = self.max_rounds;
        Err(PipelineError::ToolRounds { limit }.into())
    }

    /// Makes one answer; its text is printed meanwhile.
    fn answer(&mut self) -> Result<Answer> {
        let asked = self.chat.ask(&self.messages, &self.options);
        // An error leaves the bar where it was.
        progress::clear();
        let mut run = asked?;
        let written = match self.format {
            AnswerFormat::Text => output::stream(&mut run),
            AnswerFormat::Json => run
                .try_fold(true, |_, step| step.map(|_| true))
                .map_err(Into::into),
        };
        match written {
            Ok(printed) => {
                let answer = run.finish()?;
                if !printed && answer.calls.is_empty() {
                    output::print("\n")?;
                }
                tell(&answer);
                Ok(answer)
            }
            Err(error) => {
                let early = is_cancelled(&error).then(|| run.finish_early());
                if let Some(Ok(answer)) = early
                    && answer.calls.is_empty()
                    && !answer.text.is_empty()
                {
                    self.messages.push(answer.message());
                }
                Err(error)
            }
        }
    }

    /// Prints what of an answer was not printed while it was made.
    fn print(&self, question: usize, answer: &Answer) -> Result<()> {
        match self.format {
            AnswerFormat::Text => answer
                .calls
                .iter()
                .try_for_each(|call| output::print(&(serde_json::to_string(call)? + "\n"))),
            AnswerFormat::Json => {
                let clips = match &self.messages[question] {
                    Message::User(parts) => parts.as_slice(),
                    _ => &[],
                };
                let clips = clips.iter().filter_map(|part| match part {
                    Part::Audio(clip) => Some((self.file(clip), clip.as_ref())),
                    Part::Text(_) => None,
                });
                output::print(&record::answer(clips, answer)?)
            }
        }
    }

    /// The conversation as an object in OpenAI's shape.
    pub(crate) fn to_json(&self) -> Value {
        record::conversation(
            self.model.name(),
            &self.messages,
            &self.options.tools,
            |clip| self.file(clip),
        )
    }

    /// The files that its clips are from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, file)| file.as_path())
    }

    fn file(&self, clip: &Arc<Audio>) -> &Path {
        let found = self
            .files
            .iter()
            .find(|(known, _)| known.as_ptr() == Arc::as_ptr(clip));
        found.map_or(Path::new(""), |(_, file)| file)
    }
}

/// What a person should know of an answer, on stderr.
fn tell(answer: &Answer) {
    let usage = answer.usage;
    messages::tell_work(
        answer.finish,
        usage.completion_tokens,
        usage.audio,
        &answer.timings,
    );
    tracing::info!(
        "{} tokens before the answer, {} of them audio, {} known from before",
        usage.prompt_tokens,
        usage.audio_tokens,
        usage.cached_tokens,
    );
}
