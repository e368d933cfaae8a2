//! Messages as they are written: neighbours of one role as one turn.
//!
//! Texts that meet are joined by an empty line, within a message and between two; empty ones are
//! left out. Results are put into the order of their calls where their ids are not written, and
//! already in v11.

use super::message::{Message, Part};
use super::tool::ToolCall;
use crate::error::TokenizerError;
use crate::tekken::Version;

/// Between texts that become one.
const JOINT: &str = "\n\n";

/// One turn of a conversation.
pub(crate) enum Turn<'a, A> {
    System(&'a str),
    User(Vec<Piece<'a, A>>),
    Assistant {
        text: String,
        calls: Vec<&'a ToolCall>,
        prefix: bool,
    },
    /// One result.
    Tool {
        call_id: &'a str,
        content: &'a str,
    },
}

/// A piece of a user's turn; no two texts are neighbours, and none is empty.
pub(crate) enum Piece<'a, A> {
    Text(String),
    Audio(&'a A),
}

/// The turns of a conversation that has been validated.
pub(crate) fn turns<A>(
    messages: &[Message<A>],
    version: Version,
) -> Result<Vec<Turn<'_, A>>, TokenizerError> {
    let mut turns = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        match message {
            Message::System(text) => turns.push(Turn::System(text)),
            Message::User(parts) => user(&mut turns, parts),
            Message::Assistant {
                text,
                calls,
                prefix,
            } => assistant(&mut turns, text, calls, *prefix),
            Message::Tool { call_id, content } => turns.push(Turn::Tool { call_id, content }),
        }
        let next = messages.get(index + 1).map(Message::role);
        let ends = next != Some(message.role());
        match turns.last() {
            Some(Turn::User(pieces)) if ends && pieces.is_empty() => {
                return Err(TokenizerError::UserEmpty { index });
            }
            Some(Turn::Assistant { text, calls, .. })
                if ends && text.is_empty() && calls.is_empty() =>
            {
                return Err(TokenizerError::AssistantEmpty { index });
            }
            _ => {}
        }
    }
    if version > Version::V7 {
        sort_results(&mut turns);
    }
    Ok(turns)
}

/// Adds a message of the user, to the turn before where that is the user's too.
fn user<'a, A>(turns: &mut Vec<Turn<'a, A>>, parts: &'a [Part<A>]) {
    if !matches!(turns.last(), Some(Turn::User(_))) {
        turns.push(Turn::User(Vec::new()));
    }
    let Some(Turn::User(pieces)) = turns.last_mut() else {
        return;
    };
    for part in parts {
        match part {
            Part::Audio(clip) => pieces.push(Piece::Audio(clip)),
            Part::Text(text) => match pieces.last_mut() {
                Some(Piece::Text(before)) => join(before, text),
                _ if text.is_empty() => {}
                _ => pieces.push(Piece::Text(text.clone())),
            },
        }
    }
}

/// Adds a message of the assistant, to the turn before where that is the assistant's too.
fn assistant<'a, A>(
    turns: &mut Vec<Turn<'a, A>>,
    new_text: &str,
    new_calls: &'a [ToolCall],
    new_prefix: bool,
) {
    if !matches!(turns.last(), Some(Turn::Assistant { .. })) {
        turns.push(Turn::Assistant {
            text: String::new(),
            calls: Vec::new(),
            prefix: false,
        });
    }
    if let Some(Turn::Assistant {
        text,
        calls,
        prefix,
    }) = turns.last_mut()
    {
        join(text, new_text);
        calls.extend(new_calls);
        *prefix |= new_prefix;
    }
}

/// Appends a text to another.
fn join(before: &mut String, text: &str) {
    if !before.is_empty() && !text.is_empty() {
        before.push_str(JOINT);
    }
    before.push_str(text);
}

/// Puts results that follow each other into the order of the calls before them.
fn sort_results<A>(turns: &mut [Turn<'_, A>]) {
    let mut order: Vec<&str> = Vec::new();
    for group in turns.chunk_by_mut(|a, b| matches!((a, b), (Turn::Tool { .. }, Turn::Tool { .. })))
    {
        if let [Turn::Assistant { calls, .. }] = group {
            order = calls.iter().map(|call| call.id.as_str()).collect();
        }
        group.sort_by_key(|turn| match turn {
            Turn::Tool { call_id, .. } => order.iter().position(|id| id == call_id),
            _ => None,
        });
    }
}
