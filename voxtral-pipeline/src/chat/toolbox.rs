//! Functions that the model may call, and the loop that calls them.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};
use voxtral_nn::Backend;
use voxtral_tokenizer::chat::{ToolCall, ToolDefinition};

use super::{Answer, Chat, ChatOptions, Message};
use crate::PipelineError;

type Run = dyn FnMut(&Map<String, Value>) -> Result<String, Box<dyn Error + Send + Sync>> + Send;

/// A function with what the model needs to know of it.
pub struct Tool {
    definition: ToolDefinition,
    run: Box<Run>,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.definition, f)
    }
}

impl Tool {
    /// A tool that takes arguments by name and gives text, often JSON, for the model to read. What
    /// fails is told to the model too, which may try in another way.
    pub fn new(
        definition: ToolDefinition,
        run: impl FnMut(&Map<String, Value>) -> Result<String, Box<dyn Error + Send + Sync>>
        + Send
        + 'static,
    ) -> Self {
        Self {
            definition,
            run: Box::new(run),
        }
    }
}

/// The tools of a conversation and the bounds of their use.
#[derive(Debug)]
pub struct Toolbox {
    /// The tools.
    pub tools: Vec<Tool>,
    /// Answers with calls that are permitted in a row.
    pub max_rounds: usize,
    /// Bytes of a result that the model is given; a longer one is an error to it.
    pub max_result: usize,
}

impl Default for Toolbox {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            max_rounds: 8,
            max_result: 1 << 14,
        }
    }
}

/// What happens between a question and its last answer.
#[derive(Debug)]
pub enum ToolEvent<'a> {
    /// The model wrote something, or wants to call: the answer with these calls.
    Answer(&'a Answer),
    /// A tool was called, with this result.
    Result {
        /// The call.
        call: &'a ToolCall,
        /// What the model is told.
        content: &'a str,
    },
}

impl Toolbox {
    /// A toolbox with these tools and the usual bounds.
    pub fn new(tools: Vec<Tool>) -> Self {
        Self {
            tools,
            ..Self::default()
        }
    }

    /// Calls a tool; what goes wrong is told to the model.
    fn call(&mut self, call: &ToolCall) -> String {
        let limit = self.max_result;
        let tool = self
            .tools
            .iter_mut()
            .find(|tool| tool.definition.name == call.name);
        let Some(tool) = tool else {
            return format!("error: there is no tool `{}`", call.name);
        };
        match (tool.run)(&call.arguments) {
            Ok(content) if content.len() <= limit => content,
            Ok(content) => {
                let found = content.len();
                tracing::warn!(
                    "result of tool `{}` has {found} bytes, the limit is {limit}",
                    call.name
                );
                format!(
                    "error: the result has {found} bytes, more than the {limit} that can be read"
                )
            }
            Err(error) => {
                tracing::warn!("tool `{}` failed: {error}", call.name);
                format!("error: {error}")
            }
        }
    }
}

impl<B: Backend> Chat<'_, B> {
    /// Answers a conversation with the help of tools: calls are run and their results given to the
    /// model, in their order, until it answers without a call. All of it is added to the messages.
    ///
    /// The tools of `options` are those of the toolbox.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer); the model calls tools in more rounds than permitted. The
    /// messages then hold what was said and called until then.
    pub fn answer_with_tools(
        &mut self,
        messages: &mut Vec<Message>,
        toolbox: &mut Toolbox,
        options: &ChatOptions,
        mut on_event: impl FnMut(ToolEvent<'_>),
    ) -> Result<Answer, PipelineError> {
        let tools = toolbox.tools.iter().map(|tool| tool.definition.clone());
        let options = ChatOptions {
            tools: tools.collect(),
            ..options.clone()
        };
        for round in 0.. {
            let answer = self.answer(messages, &options)?;
            messages.push(answer.message());
            on_event(ToolEvent::Answer(&answer));
            if answer.calls.is_empty() {
                return Ok(answer);
            }
            if round == toolbox.max_rounds {
                break;
            }
            for call in &answer.calls {
                options.cancel.check()?;
                let content = toolbox.call(call);
                on_event(ToolEvent::Result {
                    call,
                    content: &content,
                });
                messages.push(Message::Tool {
                    call_id: call.id.clone(),
                    content,
                });
            }
        }
        Err(PipelineError::ToolRounds {
            limit: toolbox.max_rounds,
        })
    }
}
