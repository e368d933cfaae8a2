//! What the model answered, read from its ids.
//!
//! ```text
//! v7        text [TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}, …]
//! v11, v13  text ([TOOL_CALLS] name [CALL_ID] id [ARGS] {…})…     v13 writes no id
//! ```

use serde::Deserialize;
use serde_json::Value;

use super::tool::ToolCall;
use super::validate;
use crate::decode::SpecialPolicy;
use crate::error::TokenizerError;
use crate::special;
use crate::tekken::Version;
use crate::tokenizer::Tokenizer;

/// An answer of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it says, which may be nothing beside calls.
    pub text: String,
    /// The tools that it calls, in order.
    pub calls: Vec<ToolCall>,
}

/// Reads the ids that the model wrote, up to `</s>` if it is there.
///
/// Only the special tokens of the ids tell text from calls; text that looks like them is text.
/// A call without an id, or with one that could not be answered (malformed, or another call's),
/// gets one [made](ToolCall::id_from) from `random` bits.
///
/// A call that cannot be understood is an error that says what was found. Whether there is a tool
/// of that name, and whether the arguments fit its schema, is for the caller to see.
pub fn parse_answer(
    tokenizer: &Tokenizer,
    ids: &[u32],
    random: impl FnMut() -> u64,
) -> Result<Answer, TokenizerError> {
    let eos = tokenizer.try_special(special::EOS);
    let calls = tokenizer.try_special(special::TOOL_CALLS);
    let end = ids.iter().position(|&id| Some(id) == eos);
    let mut parts = ids[..end.unwrap_or(ids.len())].split(|&id| Some(id) == calls);
    let text = tokenizer.decode(parts.next().unwrap_or_default(), SpecialPolicy::Ignore)?;
    let mut reader = Reader {
        tokenizer,
        random,
        calls: Vec::new(),
    };
    for part in parts {
        match tokenizer.version() {
            Version::V7 => reader.list(part)?,
            Version::V11 | Version::V13 => reader.call(part)?,
        }
    }
    let calls = reader.calls;
    Ok(Answer { text, calls })
}

/// An entry of the list of calls in v7.
#[derive(Deserialize)]
struct Entry {
    name: String,
    arguments: Value,
    #[serde(default)]
    id: Option<String>,
}

/// Collects calls.
struct Reader<'t, R> {
    tokenizer: &'t Tokenizer,
    random: R,
    calls: Vec<ToolCall>,
}

impl<R: FnMut() -> u64> Reader<'_, R> {
    /// What follows a `[TOOL_CALLS]` in v7.
    fn list(&mut self, ids: &[u32]) -> Result<(), TokenizerError> {
        let found = self.text(ids)?;
        let entries: Vec<Entry> = serde_json::from_str(&found)
            .map_err(|source| TokenizerError::AnswerCallList { found, source })?;
        entries
            .into_iter()
            .try_for_each(|entry| self.push(entry.id, entry.name, entry.arguments))
    }

    /// What follows a `[TOOL_CALLS]` from v11 on.
    fn call(&mut self, ids: &[u32]) -> Result<(), TokenizerError> {
        let (head, arguments) = self.split(ids, special::ARGS);
        let Some(arguments) = arguments else {
            let found = self.tokenizer.decode(ids, SpecialPolicy::Keep)?;
            return Err(TokenizerError::AnswerCallWithoutArguments { found });
        };
        let (name, id) = self.split(head, special::CALL_ID);
        let id = id.map(|id| self.text(id)).transpose()?;
        let name = self.text(name)?;
        let source = self.text(arguments)?;
        let arguments = serde_json::from_str(&source).map_err(|source| {
            let name = name.clone();
            TokenizerError::ArgumentsNotJson { name, source }
        })?;
        self.push(id, name, arguments)
    }

    fn push(
        &mut self,
        id: Option<String>,
        name: String,
        arguments: Value,
    ) -> Result<(), TokenizerError> {
        validate::function_name(&name)?;
        let version = self.tokenizer.version();
        let id = id
            .filter(|id| validate::is_call_id(id, version))
            .filter(|id| self.calls.iter().all(|call| call.id != *id))
            .unwrap_or_else(|| ToolCall::id_from((self.random)()));
        self.calls.push(ToolCall::from_value(id, name, arguments)?);
        Ok(())
    }

    /// The ids before a special token and, if it is there, those behind.
    fn split<'i>(&self, ids: &'i [u32], token: &str) -> (&'i [u32], Option<&'i [u32]>) {
        let token = self.tokenizer.try_special(token);
        match ids.iter().position(|&id| Some(id) == token) {
            Some(place) => (&ids[..place], Some(&ids[place + 1..])),
            None => (ids, None),
        }
    }

    fn text(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(ids, SpecialPolicy::Reject)
    }
}
