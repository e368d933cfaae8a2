//! The prompt of a conversation.

use serde_json::{Value, json};

use super::{Prompt, refuse_streaming};
use crate::chat::turn::{Piece, Turn, turns};
use crate::chat::{Message, ToolCall, ToolDefinition, clips, json, validate};
use crate::error::TokenizerError;
use crate::special;
use crate::tekken::Version;
use crate::tokenizer::Tokenizer;

/// The prompt that asks for the next message of a conversation.
///
/// `audio_tokens` counts the places of a clip, padding included; see
/// [`AudioSection::windows`](crate::AudioSection::windows). They have the order of
/// [`chat::clips`](clips).
///
/// ```text
/// system      [SYSTEM_PROMPT] text [/SYSTEM_PROMPT]
/// user        [INST] text and [BEGIN_AUDIO] [AUDIO]×audio_tokens, in any order [/INST]
/// assistant   text calls </s>           without the end when it is to be continued
/// tools       [AVAILABLE_TOOLS] [{"type": "function", "function": …}, …] [/AVAILABLE_TOOLS]
///             in front of the last user turn; from v13 on, of the first
/// calls       v7   [TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}, …]
///             v11  [TOOL_CALLS] name [CALL_ID] id [ARGS] {…}, each
///             v13  [TOOL_CALLS] name [ARGS] {…}, each
/// result      [TOOL_RESULTS] id [TOOL_CONTENT] text [/TOOL_RESULTS]
///             v13  [TOOL_RESULTS] text [/TOOL_RESULTS], in the order of the calls
/// ```
///
/// Neighbouring messages of the user, or of the assistant, become one turn. What anybody wrote is
/// encoded as text and never becomes a special token.
///
/// A conversation begins with the system or the user and ends with the user, the results of tools,
/// or an answer to continue. Anything else that no model was trained on is an error as well, which
/// tells the message and what is wrong with it.
pub fn chat<A>(
    tokenizer: &Tokenizer,
    messages: &[Message<A>],
    tools: &[ToolDefinition],
    audio_tokens: impl Fn(&A) -> usize,
) -> Result<Vec<u32>, TokenizerError> {
    refuse_streaming(tokenizer)?;
    let version = tokenizer.version();
    validate::conversation(messages, version)?;
    validate::tools(tools)?;
    if tokenizer.audio().is_none() && clips(messages).next().is_some() {
        return Err(TokenizerError::NoAudioSection);
    }
    let turns = turns(messages, version)?;
    let is_user = |turn: &Turn<'_, A>| matches!(turn, Turn::User(_));
    let tools_at = if version < Version::V13 {
        turns.iter().rposition(is_user)
    } else {
        turns.iter().position(is_user)
    };
    let mut prompt = Prompt::new(tokenizer)?;
    for (index, turn) in turns.iter().enumerate() {
        if Some(index) == tools_at {
            prompt.tools(tools)?;
        }
        prompt.turn(turn, &audio_tokens)?;
    }
    Ok(prompt.ids)
}

impl Prompt<'_> {
    fn turn<A>(
        &mut self,
        turn: &Turn<'_, A>,
        audio_tokens: impl Fn(&A) -> usize,
    ) -> Result<(), TokenizerError> {
        match turn {
            Turn::System(text) => {
                self.special(special::BEGIN_SYSTEM)?;
                self.text(text);
                self.special(special::END_SYSTEM)
            }
            Turn::User(pieces) => {
                self.special(special::BEGIN_INST)?;
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => self.text(text),
                        Piece::Audio(clip) => self.audio(audio_tokens(clip))?,
                    }
                }
                self.special(special::END_INST)
            }
            Turn::Assistant {
                text,
                calls,
                prefix,
            } => {
                self.text(text.trim_end_matches(' '));
                self.calls(calls)?;
                if !prefix {
                    self.special(special::EOS)?;
                }
                Ok(())
            }
            Turn::Tool { call_id, content } => self.result(call_id, content),
        }
    }

    fn tools(&mut self, tools: &[ToolDefinition]) -> Result<(), TokenizerError> {
        if tools.is_empty() {
            return Ok(());
        }
        let list = Value::Array(tools.iter().map(ToolDefinition::to_value).collect());
        self.special(special::BEGIN_TOOLS)?;
        self.text(&json::dumps(&list));
        self.special(special::END_TOOLS)
    }

    fn calls(&mut self, calls: &[&ToolCall]) -> Result<(), TokenizerError> {
        if self.tokenizer.version() == Version::V7 && !calls.is_empty() {
            let entry = |call: &&ToolCall| json!({"name": call.name, "arguments": call.arguments, "id": call.id});
            let list = Value::Array(calls.iter().map(entry).collect());
            self.special(special::TOOL_CALLS)?;
            self.text(&json::dumps(&list));
            return Ok(());
        }
        for call in calls {
            self.special(special::TOOL_CALLS)?;
            self.text(&call.name);
            if self.tokenizer.version() < Version::V13 {
                self.special(special::CALL_ID)?;
                self.text(&call.id);
            }
            self.special(special::ARGS)?;
            self.text(&json::dumps_object(&call.arguments));
        }
        Ok(())
    }

    fn result(&mut self, call_id: &str, content: &str) -> Result<(), TokenizerError> {
        self.special(special::BEGIN_TOOL_RESULTS)?;
        if self.tokenizer.version() < Version::V13 {
            self.text(call_id);
            self.special(special::TOOL_CONTENT)?;
        }
        self.text(content);
        self.special(special::END_TOOL_RESULTS)
    }
}
