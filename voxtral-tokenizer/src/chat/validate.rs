//! What a conversation must be, before anything of it is written.
//!
//! The rules and their order are those of mistral-common's validators for serving. Stricter than
//! they: the first message is not the assistant's or a tool's however many follow, results answer
//! the calls by id in v7 too, no two tools share a name, arguments are objects (by their type), and
//! a turn of the user is not empty (see `turn.rs`).

use std::collections::HashSet;

use super::message::{Message, Role, clips};
use super::schema;
use super::tool::{ID_LENGTH, ToolDefinition};
use crate::error::TokenizerError;
use crate::tekken::Version;

/// Length of the longest name of a function.
const LONGEST_NAME: usize = 64;

/// Checks the messages, but for those that are empty.
pub(crate) fn conversation<A>(
    messages: &[Message<A>],
    version: Version,
) -> Result<(), TokenizerError> {
    ends(messages)?;
    order(messages)?;
    results(messages)?;
    if version < Version::V13 {
        system_or_audio(messages, version)?;
    }
    for (index, message) in messages.iter().enumerate() {
        content(index, message, version)?;
        let prefix = matches!(message, Message::Assistant { prefix: true, .. });
        if prefix && index + 1 < messages.len() {
            return Err(TokenizerError::PrefixNotLast { index });
        }
    }
    Ok(())
}

/// Checks the tools.
pub(crate) fn tools(tools: &[ToolDefinition]) -> Result<(), TokenizerError> {
    let mut names = HashSet::new();
    for tool in tools {
        function_name(&tool.name)?;
        if !names.insert(tool.name.as_str()) {
            let name = tool.name.clone();
            return Err(TokenizerError::ToolDuplicate { name });
        }
        schema::check(&tool.parameters).map_err(|fault| TokenizerError::ToolSchema {
            tool: tool.name.clone(),
            place: fault.place,
            found: fault.found,
            expected: fault.expected,
        })?;
    }
    Ok(())
}

/// The name of a function: `[a-zA-Z0-9_-]{1,64}`.
pub(crate) fn function_name(name: &str) -> Result<(), TokenizerError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(known) {
        return Ok(());
    }
    let found = name.to_owned();
    Err(TokenizerError::FunctionName { found })
}

/// Whether a version takes this id of a call.
pub(crate) fn is_call_id(id: &str, version: Version) -> bool {
    if version < Version::V13 {
        id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
    } else {
        !id.is_empty() && id != "null"
    }
}

/// The first and the last message.
fn ends<A>(messages: &[Message<A>]) -> Result<(), TokenizerError> {
    let [first, ..] = messages else {
        return Err(TokenizerError::NoMessages);
    };
    if let found @ (Role::Assistant | Role::Tool) = first.role() {
        return Err(TokenizerError::FirstMessage { found });
    }
    if let [.., Message::Assistant { prefix: false, .. }] = messages {
        return Err(TokenizerError::LastMessage);
    }
    Ok(())
}

/// Who speaks after whom.
fn order<A>(messages: &[Message<A>]) -> Result<(), TokenizerError> {
    for (index, pair) in (1..).zip(messages.windows(2)) {
        let (after, found) = (pair[0].role(), pair[1].role());
        if let (Role::System | Role::User, Role::Tool)
        | (Role::Assistant | Role::Tool, Role::System) = (after, found)
        {
            return Err(TokenizerError::MessageOrder {
                index,
                found,
                after,
            });
        }
    }
    Ok(())
}

/// Calls and their results, which stand right behind the calls and answer each one once.
fn results<A>(messages: &[Message<A>]) -> Result<(), TokenizerError> {
    let mut awaited = Awaited::default();
    for (index, message) in messages.iter().enumerate() {
        match message {
            Message::Tool { call_id, .. } => awaited.answer(index, call_id)?,
            Message::Assistant { calls, .. } => {
                awaited.settle()?;
                awaited = Awaited::default();
                awaited.index = index;
                for call in calls {
                    awaited.call(&call.id)?;
                }
            }
            // Nothing but a tool may settle them, so the fault shows at the next answer or the end.
            Message::System(_) | Message::User(_) => {}
        }
    }
    awaited.settle()
}

/// The calls of one message, and which of them have a result.
#[derive(Default)]
struct Awaited<'a> {
    index: usize,
    called: Vec<&'a str>,
    answered: HashSet<&'a str>,
}

impl<'a> Awaited<'a> {
    fn call(&mut self, id: &'a str) -> Result<(), TokenizerError> {
        if self.called.contains(&id) {
            let (index, id) = (self.index, id.to_owned());
            return Err(TokenizerError::CallDuplicate { index, id });
        }
        self.called.push(id);
        Ok(())
    }

    fn answer(&mut self, index: usize, id: &'a str) -> Result<(), TokenizerError> {
        if !self.called.contains(&id) {
            let id = id.to_owned();
            return Err(TokenizerError::ResultUnexpected { index, id });
        }
        if !self.answered.insert(id) {
            let id = id.to_owned();
            return Err(TokenizerError::ResultDuplicate { index, id });
        }
        Ok(())
    }

    fn settle(&self) -> Result<(), TokenizerError> {
        let missing: Vec<&str> = self
            .called
            .iter()
            .copied()
            .filter(|id| !self.answered.contains(id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(TokenizerError::ResultsMissing {
            index: self.index,
            ids: missing.join("`, `"),
        })
    }
}

/// Before v13, models know a system prompt or audio, not both.
fn system_or_audio<A>(messages: &[Message<A>], version: Version) -> Result<(), TokenizerError> {
    let system = messages
        .iter()
        .position(|message| message.role() == Role::System);
    match system {
        Some(index) if clips(messages).next().is_some() => {
            Err(TokenizerError::SystemWithAudio { index, version })
        }
        _ => Ok(()),
    }
}

/// Names and ids of calls and results.
fn content<A>(index: usize, message: &Message<A>, version: Version) -> Result<(), TokenizerError> {
    match message {
        Message::Assistant { calls, .. } => {
            for call in calls {
                call_id(index, &call.id, version)?;
                function_name(&call.name)?;
            }
            Ok(())
        }
        Message::Tool { call_id: id, .. } => call_id(index, id, version),
        Message::System(_) | Message::User(_) => Ok(()),
    }
}

fn call_id(index: usize, id: &str, version: Version) -> Result<(), TokenizerError> {
    if is_call_id(id, version) {
        return Ok(());
    }
    Err(TokenizerError::CallId {
        index,
        found: id.to_owned(),
        expected: if version < Version::V13 {
            "9 letters or digits"
        } else {
            "one that is not empty and not `null`"
        },
    })
}
