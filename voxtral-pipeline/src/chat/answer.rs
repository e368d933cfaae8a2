//! An answer, and how it grows.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::Serialize;
use voxtral_nn::Backend;
use voxtral_tokenizer::{
    chat::{ToolCall, parse_answer},
    special,
};

use super::{
    Message,
    memory::{Memory, Prompt},
};
use crate::{
    Finish, PipelineError, Step, Timings, Token, Voxtral, transcript::seconds, writing::Writing,
};

/// What the model answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What it says; often nothing beside calls.
    pub text: String,
    /// The tools that it calls. Their results belong behind its [`message`](Self::message).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// The model that wrote it.
    pub model: String,
    /// What it took.
    pub usage: Usage,
    /// Every generated token, special ones and the end token included.
    pub tokens: Vec<Token>,
    /// Where the time went.
    pub timings: Timings,
}

/// What a conversation and its answer take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the conversation, the audio's included.
    pub prompt_tokens: usize,
    /// Those of them that audio takes.
    pub audio_tokens: usize,
    /// Those that were computed for an earlier question.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Length of the audio in seconds.
    #[serde(serialize_with = "seconds")]
    pub audio: Duration,
}

impl Answer {
    /// The answer as a message of the conversation.
    pub fn message(&self) -> Message {
        Message::Assistant {
            text: self.text.clone(),
            calls: self.calls.clone(),
            prefix: false,
        }
    }
}

/// An answer that is being written, and the conversation that it answers.
pub(crate) struct Run<'m, B: Backend> {
    model: &'m Voxtral<B>,
    prompt: Prompt,
    pub(crate) writing: Writing<'m, B>,
    usage: Usage,
    /// Where the ids of calls come from that the model gives none.
    random: ChaCha8Rng,
    /// Begins a call, which is no text.
    call: Option<u32>,
    calling: bool,
}

impl<'m, B: Backend> Run<'m, B> {
    pub(super) fn new(
        model: &'m Voxtral<B>,
        prompt: Prompt,
        writing: Writing<'m, B>,
        usage: Usage,
        seed: u64,
    ) -> Self {
        // Another stream than that of the draws, and other ids in every turn.
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(prompt.ids.len() as u64);
        Self {
            model,
            prompt,
            writing,
            usage,
            random,
            call: model.tokenizer.special(special::TOOL_CALLS).ok(),
            calling: false,
        }
    }

    pub(super) fn step(&mut self) -> Result<Option<Step>, PipelineError> {
        let step = self.writing.step()?;
        Ok(step.map(|step| self.hush(step)))
    }

    /// A step that was made, or the error that ended it.
    pub(crate) fn take(&mut self) -> Option<Result<Step, PipelineError>> {
        let step = self.writing.take()?;
        Some(step.map(|step| self.hush(step)))
    }

    /// Takes the text of calls away.
    fn hush(&mut self, mut step: Step) -> Step {
        self.calling |= Some(step.token.id) == self.call;
        if self.calling {
            step.text.clear();
        }
        step
    }

    /// Gives up; the memory is given what was computed.
    pub(super) fn give_back(self, memory: &mut Memory<B>) {
        let written = self.writing.finish();
        let ids: Vec<u32> = written.tokens.iter().map(|token| token.id).collect();
        memory.hold(self.prompt, ids.into_iter(), written.cache);
    }

    /// The answer; the memory is given what was computed.
    pub(crate) fn finish(
        mut self,
        memory: Option<&mut Memory<B>>,
    ) -> Result<Answer, PipelineError> {
        let written = self.writing.finish();
        let ids: Vec<u32> = written.tokens.iter().map(|token| token.id).collect();
        self.usage.completion_tokens = ids.len();
        if let Some(memory) = memory {
            memory.hold(self.prompt, ids.iter().copied(), written.cache);
        }
        let mut text = written.text;
        let mut calls = Vec::new();
        if self.calling {
            if written.finish == Finish::Length {
                return Err(PipelineError::CallCutOff { tokens: ids.len() });
            }
            let answer = parse_answer(&self.model.tokenizer, &ids, || self.random.next_u64())?;
            (text, calls) = (answer.text, answer.calls);
        }
        Ok(Answer {
            text: text.trim().to_owned(),
            calls,
            finish: written.finish,
            stop: written.stop,
            model: written.model,
            usage: self.usage,
            tokens: written.tokens,
            timings: written.timings,
        })
    }
}

/// A running answer: an iterator of [`Step`]s, then [`finish`](Self::finish). Dropped before its
/// end, it is remembered as far as it came, so that the conversation goes on at no cost.
pub struct Answering<'c, 'm, B: Backend> {
    /// Taken out at the end.
    run: Option<Run<'m, B>>,
    memory: &'c mut Memory<B>,
    failed: bool,
}

impl<'c, 'm, B: Backend> Answering<'c, 'm, B> {
    pub(super) fn new(run: Run<'m, B>, memory: &'c mut Memory<B>) -> Self {
        Self {
            run: Some(run),
            memory,
            failed: false,
        }
    }

    /// Runs the remaining steps and gives the answer.
    ///
    /// # Errors
    /// A step fails, failed before or is cancelled; the model calls a tool in a way that cannot be
    /// understood, or was cut off in the middle of a call.
    pub fn finish(mut self) -> Result<Answer, PipelineError> {
        for step in self.by_ref() {
            step?;
        }
        match self.run.take() {
            Some(run) if !self.failed => run.finish(Some(self.memory)),
            _ => Err(PipelineError::Unfinished),
        }
    }

    /// The answer as far as it was written, for callers that were interrupted.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn finish_early(mut self) -> Result<Answer, PipelineError> {
        match self.run.take() {
            Some(run) => run.finish(Some(self.memory)),
            None => Err(PipelineError::Unfinished),
        }
    }
}

impl<B: Backend> Iterator for Answering<'_, '_, B> {
    type Item = Result<Step, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.run.as_mut()?.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}

impl<B: Backend> Drop for Answering<'_, '_, B> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            // What it says was not asked for; its cache is kept.
            drop(run.finish(Some(self.memory)));
        }
    }
}
