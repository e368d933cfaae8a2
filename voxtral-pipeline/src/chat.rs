//! Conversations with a model that takes clips: questions about sound, in several turns.
//!
//! A [`Chat`] is asked with the whole conversation each time and remembers what it computed of the
//! one before: of a follow-up question, only what is new is run. Nothing else depends on that
//! memory, so a conversation can be edited, shortened or exchanged between two questions.
//!
//! ```text
//! messages, tools ──prompt::chat──▶ ids ──┬─ common with the last conversation: in the KV cache
//!                                         └─ new: clips are encoded, all is prefilled ──▶ answer
//! ```

mod answer;
mod form;
mod memory;
mod strict;
mod toolbox;

use std::sync::Arc;

use voxtral_audio::Audio;
use voxtral_nn::Backend;
use voxtral_tokenizer::{chat, chat::ToolDefinition, prompt};

use crate::{
    Cancel, OnWindow, PipelineError, PromptSize, SamplingOptions, Voxtral,
    model::LONGEST_UNDERSTOOD,
    writing::{Task, Writing},
};

pub use answer::{Answer, Answering, Usage};
pub use form::AnswerForm;
pub use toolbox::{Tool, ToolEvent, Toolbox};

pub(crate) use answer::Run;
pub(crate) use memory::Memory;
pub(crate) use strict::GrammarTokens;

use memory::Prompt;

/// A message of a conversation; clips are shared, since a conversation is sent as a whole with each
/// question.
pub type Message = chat::Message<Arc<Audio>>;

/// A piece of a user's message.
pub type Part = chat::Part<Arc<Audio>>;

/// What an answer is asked for.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// What the model may call.
    pub tools: Vec<ToolDefinition>,
    /// Whether calls are held to the tools' names and schemas while they are written, so that an
    /// answer that came to its end has no malformed one. Costs nothing where there are no tools.
    ///
    /// What a schema leaves open is narrowed to one way of writing: properties come in the order of
    /// the schema, there are no blanks but those after `,` and `:`, and numbers have at most 19
    /// digits. A schema that cannot be held to, because of a keyword such as `not` or
    /// `uniqueItems` or because nothing fits it, is [`PipelineError::ToolNotStrict`].
    pub strict_tools: bool,
    /// Whether an answer has one call at most; calls are then held to schemas as if `strict_tools`
    /// were set.
    pub single_call: bool,
    /// What the answer must be.
    pub form: AnswerForm,
    /// How tokens are chosen; by default as Mistral recommends for answers
    /// ([`SamplingOptions::chat`]).
    pub sampling: SamplingOptions,
    /// At most this many tokens; by default as many as the context has room for.
    pub max_new_tokens: Option<usize>,
    /// Stops the work from another thread.
    pub cancel: Cancel,
    /// Told how much of the new audio is encoded, in windows.
    pub on_window: OnWindow,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            strict_tools: false,
            single_call: false,
            form: AnswerForm::default(),
            sampling: SamplingOptions::chat(),
            max_new_tokens: None,
            cancel: Cancel::default(),
            on_window: OnWindow::default(),
        }
    }
}

/// Answers questions, one at a time, and remembers what it computed.
pub struct Chat<'m, B: Backend> {
    model: &'m Voxtral<B>,
    memory: Memory<B>,
}

impl<B: Backend> Voxtral<B> {
    /// A chat that remembers nothing yet.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use burn_flex::Flex;
    /// use voxtral_pipeline::{ChatOptions, Message, Part, Voxtral};
    ///
    /// # fn main() -> Result<(), voxtral_pipeline::PipelineError> {
    /// let model = Voxtral::<Flex>::builder().demo()?; // or .open("mini")?
    /// let clip = Arc::new(model.read_audio("../samples/digits-en.wav")?);
    /// let mut messages = vec![Message::User(vec![
    ///     Part::Audio(clip),
    ///     Part::Text("Which language is spoken?".to_owned()),
    /// ])];
    /// let mut chat = model.chat();
    /// let answer = chat.answer(&messages, &ChatOptions::default())?;
    /// println!("{}", answer.text);
    /// messages.push(answer.message());
    /// messages.push(Message::user("Repeat the digits."));
    /// for step in chat.ask(&messages, &ChatOptions::default())? {
    ///     print!("{}", step?.text);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn chat(&self) -> Chat<'_, B> {
        Chat {
            model: self,
            memory: Memory::default(),
        }
    }

    /// How many tokens a conversation takes, before anything of it is computed.
    ///
    /// # Errors
    /// The conversation cannot be asked, a clip is empty or too long, or the model takes no clips.
    pub fn prompt_size(
        &self,
        messages: &[Message],
        tools: &[ToolDefinition],
    ) -> Result<PromptSize, PipelineError> {
        Ok(self.chat_prompt(messages, tools)?.size())
    }

    /// Refuses what [`Chat::ask`] refuses before anything is computed, for callers that queue
    /// conversations.
    ///
    /// # Errors
    /// As for [`Chat::ask`].
    pub fn check_chat(
        &self,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<PromptSize, PipelineError> {
        let size = self.prompt_size(messages, &options.tools)?;
        self.answer_limit(size, options.max_new_tokens, usize::MAX)?;
        self.sampler(&options.sampling)?;
        self.constraint(options)?;
        Ok(size)
    }

    fn chat_prompt(
        &self,
        messages: &[Message],
        tools: &[ToolDefinition],
    ) -> Result<Prompt, PipelineError> {
        let placeholder = self.placeholder()?;
        let clips: Vec<_> = chat::clips(messages).cloned().collect();
        for clip in &clips {
            self.audio_tokens(clip, LONGEST_UNDERSTOOD)?;
        }
        // Every clip was found to have a length.
        let tokens = |clip: &Arc<Audio>| {
            self.audio_tokens(clip, LONGEST_UNDERSTOOD)
                .unwrap_or_default()
        };
        Ok(Prompt {
            ids: prompt::chat(&self.tokenizer, messages, tools, tokens)?,
            clips,
            placeholder,
        })
    }
}

impl<'m, B: Backend> Chat<'m, B> {
    /// Answers a conversation.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask); a call of a tool that cannot be understood; cancelled.
    pub fn answer(
        &mut self,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<Answer, PipelineError> {
        self.ask(messages, options)?.finish()
    }

    /// Answers a conversation step by step, for callers that print as it goes. New clips are
    /// encoded before this returns.
    ///
    /// # Errors
    /// The conversation is none that the model was trained for, a clip is empty or too long, prompt
    /// and answer exceed the context, an option is impossible, the schema of a strict tool cannot be
    /// held to, or the work was cancelled.
    pub fn ask(
        &mut self,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<Answering<'_, 'm, B>, PipelineError> {
        let (mut run, clips) = self.model.run(messages, options, &mut self.memory)?;
        let progress = (&options.cancel, &options.on_window);
        if let Err(error) = run.writing.hear(clips, progress) {
            run.give_back(&mut self.memory);
            return Err(error);
        }
        Ok(Answering::new(run, &mut self.memory))
    }

    /// Forgets what was computed, and frees the memory.
    pub fn clear(&mut self) {
        self.memory = Memory::default();
    }
}

impl<B: Backend> Voxtral<B> {
    /// Begins an answer behind what the memory holds of the conversation, whose cache it takes; with
    /// the clips that are new and still to be heard.
    pub(crate) fn run(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        memory: &mut Memory<B>,
    ) -> Result<(Run<'_, B>, Vec<Arc<Audio>>), PipelineError> {
        let prompt = self.chat_prompt(messages, &options.tools)?;
        let size = prompt.size();
        let limit = self.answer_limit(size, options.max_new_tokens, usize::MAX)?;
        let mut sampler = self.sampler(&options.sampling)?.with_prompt(&prompt.ids);
        if let Some(constraint) = self.constraint(options)? {
            sampler = sampler.with_constraint(Box::new(constraint));
        }
        let kept = memory.common(&prompt);
        let new = prompt.clips[kept.clips..].to_vec();
        let capacity = size.tokens + limit;
        let mut cache = memory.take(kept.ids, || self.decoder.new_cache(capacity))?;
        cache.extend_capacity(capacity);
        let task = Task {
            prompt: prompt.ids[kept.ids..].to_vec(),
            cache,
            limit,
            sampler,
            sampling: &options.sampling,
            cancel: &options.cancel,
        };
        let writing = Writing::start(self, task)?;
        let usage = Usage {
            prompt_tokens: size.tokens,
            audio_tokens: size.audio_tokens,
            cached_tokens: kept.ids,
            completion_tokens: 0,
            audio: prompt.clips.iter().map(|clip| clip.duration()).sum(),
        };
        let seed = options.sampling.seed;
        Ok((Run::new(self, prompt, writing, usage, seed), new))
    }
}
