//! What a conversation is made of.

use std::fmt;

use super::tool::ToolCall;

/// One message of a conversation.
///
/// `A` is whatever the caller holds a clip in: samples, features, or just their number.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<A> {
    /// What the model shall keep to. Before version v13 it goes with text only.
    System(String),
    /// Texts and clips of the user, in any order.
    User(Vec<Part<A>>),
    /// What the model answered.
    Assistant {
        /// Its text, which may be empty beside calls. Spaces at its end are not written.
        text: String,
        /// The tools that it calls; the results of all of them follow.
        calls: Vec<ToolCall>,
        /// The model continues this message, which is the last one, instead of answering it.
        prefix: bool,
    },
    /// The result of one call.
    Tool {
        /// The [`ToolCall::id`] that it answers.
        call_id: String,
        /// What the tool returned: text, often JSON. It is written as it stands.
        content: String,
    },
}

impl<A> Message<A> {
    /// A user's message of text alone.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User(vec![Part::Text(text.into())])
    }

    /// An answer of text alone.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant {
            text: text.into(),
            calls: Vec::new(),
            prefix: false,
        }
    }

    /// Who speaks.
    pub fn role(&self) -> Role {
        match self {
            Self::System(_) => Role::System,
            Self::User(_) => Role::User,
            Self::Assistant { .. } => Role::Assistant,
            Self::Tool { .. } => Role::Tool,
        }
    }
}

/// A piece of a user's message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<A> {
    /// Something written. Neighbouring texts are written with an empty line between them.
    Text(String),
    /// Something to listen to.
    Audio(A),
}

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        })
    }
}

/// The clips of a conversation in the order in which its prompt has places for them.
pub fn clips<A>(messages: &[Message<A>]) -> impl Iterator<Item = &A> {
    messages
        .iter()
        .flat_map(|message| match message {
            Message::User(parts) => parts.as_slice(),
            _ => &[],
        })
        .filter_map(|part| match part {
            Part::Audio(clip) => Some(clip),
            Part::Text(_) => None,
        })
}
