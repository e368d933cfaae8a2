//! Conversations: messages with text and audio, tools, and the calls that a model answers with.
//!
//! ```text
//! messages, tools --prompt::chat--> ids --model--> ids --parse_answer--> text, calls
//! ```
//!
//! [`prompt::chat`](crate::prompt::chat) writes a conversation down as `mistral-common` does for
//! the tokenizer's version, and refuses what it refuses. [`parse_answer`] reads the model's answer
//! by its ids: text that only looks like a special token is never taken for one, on either way.

mod answer;
pub(crate) mod json;
mod message;
mod schema;
mod tool;
pub(crate) mod turn;
pub(crate) mod validate;

pub use answer::{Answer, parse_answer};
pub use message::{Message, Part, Role, clips};
pub use tool::{ToolCall, ToolDefinition};
