//! What an answer must be.

use serde_json::Value;

/// What an answer must be. Other than [`Free`](Self::Free), it is held to it while it is written, so
/// that an answer that came to its end is of this form.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum AnswerForm {
    /// Text or calls of tools, as the model decides.
    #[default]
    Free,
    /// Calls of tools; of the tool of this name, where there is one. They are held to the tools'
    /// schemas, see [`strict_tools`](super::ChatOptions::strict_tools).
    Calls(Option<String>),
    /// A text that is JSON and fits this JSON schema; no tool is called. What the schema leaves open
    /// is narrowed as for strict tools.
    Json(Value),
}
