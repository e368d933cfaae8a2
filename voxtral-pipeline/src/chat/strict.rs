//! Calls of tools that cannot be malformed: tokens are held to a grammar while they are chosen.
//!
//! Text is free: any ordinary token, `[TOOL_CALLS]` or the end. From `[TOOL_CALLS]` on, only what
//! continues a call in the form of the tokenizer's version ([`grammar`]) can be chosen, with the
//! name of a tool and with arguments that its schema allows; then another call, or the end.
//! [llguidance](https://github.com/guidance-ai/llguidance) says which tokens continue.
//!
//! An answer with calls that came to its end can therefore always be read, and its arguments fit
//! the schemas. Of the ways to write a value, one is kept:
//!
//! * JSON is written as the models learned it: `{"city": "Paris", "days": 3}`, with no other blanks,
//!   properties in the order of the schema, and characters that stand for themselves where they can;
//! * a number has at most 19 digits and 2 of an exponent, and a value lies in at most 100 others,
//!   unless its schema asks for more ([`limits`]).
//!
//! Not held to: bounds and multiples hold for the digits of a number as they are written, of which
//! `f64` may keep fewer; where a schema permits properties that it does not name, one of these can
//! occur twice, of which the last counts. And an answer may still be cut off within a call, by its
//! limit, by a stop string or by a stop id.
//!
//! Where calls are all that is wanted, `[TOOL_CALLS]` is the only beginning; where JSON is, the answer
//! is held from its first token on in the same way as arguments are.

mod grammar;
mod limits;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use llguidance::{
    Matcher,
    toktrie::{SimpleVob, TokEnv},
};
use serde_json::Value;
use voxtral_nn::Backend;
use voxtral_tokenizer::{Tokenizer, Version, chat::ToolDefinition, special};

use super::{AnswerForm, ChatOptions};
use crate::{Constraint, PipelineError, Voxtral};

pub(crate) use grammar::GrammarTokens;
use limits::Limits;

/// The constraint.
pub(super) struct StrictTools {
    /// What may follow `[TOOL_CALLS]`, or be all of the answer.
    matcher: Matcher,
    tokens: TokEnv,
    /// Tokens that a text within JSON is not just made longer by.
    quotes: Arc<SimpleVob>,
    ordinary: Range<u32>,
    end: u32,
    call: u32,
    /// Behind which JSON stands.
    json: u32,
    /// Whether there is no answer without a call.
    must_call: bool,
    /// Whether the matcher is followed: within calls, or all the time.
    calling: bool,
    /// Where JSON stands, how far it may go.
    limits: Option<Limits>,
}

impl<B: Backend> Voxtral<B> {
    /// What an answer is held to, if it is to anything.
    pub(super) fn constraint(
        &self,
        options: &ChatOptions,
    ) -> Result<Option<StrictTools>, PipelineError> {
        let single = options.single_call;
        let strict = |tools: &[ToolDefinition]| {
            StrictTools::new(&self.tokenizer, self.grammar_tokens()?, tools, single)
        };
        match &options.form {
            AnswerForm::Free if options.tools.is_empty() => Ok(None),
            AnswerForm::Free if options.strict_tools || single => strict(&options.tools).map(Some),
            AnswerForm::Free => Ok(None),
            AnswerForm::Calls(name) => {
                let mut tools = options.tools.clone();
                tools.retain(|tool| name.as_ref().is_none_or(|name| *name == tool.name));
                if tools.is_empty() {
                    return Err(no_such_tool(name.as_deref()));
                }
                let mut held = strict(&tools)?;
                held.must_call = true;
                Ok(Some(held))
            }
            AnswerForm::Json(schema) => {
                StrictTools::json(&self.tokenizer, self.grammar_tokens()?, schema).map(Some)
            }
        }
    }

    fn grammar_tokens(&self) -> Result<&GrammarTokens, PipelineError> {
        match self.grammar_tokens.get() {
            Some(vocabulary) => Ok(vocabulary),
            None => {
                let vocabulary = GrammarTokens::new(&self.tokenizer, self.end)?;
                Ok(self.grammar_tokens.get_or_init(|| vocabulary))
            }
        }
    }
}

fn no_such_tool(name: Option<&str>) -> PipelineError {
    PipelineError::InvalidOption {
        option: "tool choice",
        found: name.map_or_else(|| "a call".to_owned(), |name| format!("a call of `{name}`")),
        expected: "a tool among those that are given",
    }
}

impl StrictTools {
    /// Free text, and calls that are held to the schemas of these tools.
    fn new(
        tokenizer: &Tokenizer,
        vocabulary: &GrammarTokens,
        tools: &[ToolDefinition],
        single: bool,
    ) -> Result<Self, PipelineError> {
        let matcher = vocabulary.calls(tokenizer, tools, single)?;
        Self::with_matcher(tokenizer, vocabulary, matcher)
    }

    /// JSON that is held to this schema.
    fn json(
        tokenizer: &Tokenizer,
        vocabulary: &GrammarTokens,
        schema: &Value,
    ) -> Result<Self, PipelineError> {
        let matcher = vocabulary.json(schema)?;
        Ok(Self {
            calling: true,
            limits: Some(Limits::default()),
            ..Self::with_matcher(tokenizer, vocabulary, matcher)?
        })
    }

    fn with_matcher(
        tokenizer: &Tokenizer,
        vocabulary: &GrammarTokens,
        matcher: Matcher,
    ) -> Result<Self, PipelineError> {
        let call = tokenizer.special(special::TOOL_CALLS)?;
        let json = match tokenizer.version() {
            Version::V7 => call,
            _ => tokenizer.special(special::ARGS)?,
        };
        Ok(Self {
            matcher,
            tokens: vocabulary.tokens(),
            quotes: vocabulary.quotes(),
            ordinary: tokenizer.num_special_tokens() as u32..tokenizer.vocab_size() as u32,
            end: vocabulary.end(),
            call,
            json,
            must_call: false,
            calling: false,
            limits: None,
        })
    }

    /// Whether a token that continues the call keeps to the limits.
    fn is_within(&self, id: u32) -> bool {
        match &self.limits {
            Some(limits) if self.ordinary.contains(&id) => {
                limits.in_text() && !self.quotes.is_allowed(id)
                    || limits.clone().take(self.tokens.tok_trie().token(id))
            }
            _ => true,
        }
    }
}

impl Constraint for StrictTools {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), PipelineError> {
        if !self.calling {
            let is_free = |id| match self.must_call {
                true => id == self.call,
                false => self.ordinary.contains(&id) || id == self.end || id == self.call,
            };
            keep(logits, is_free);
            return Ok(());
        }
        let next = self.matcher.compute_mask_or_eos().map_err(failed)?;
        let continues = |id: u32| (id as usize) < next.len() && next.is_allowed(id);
        let is_short = |id| continues(id) && self.is_within(id);
        if (0..logits.len() as u32).any(is_short) {
            keep(logits, is_short);
        } else {
            keep(logits, continues);
        }
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), PipelineError> {
        if self.calling && id != self.end {
            self.matcher.consume_token(id).map_err(failed)?;
        }
        self.calling |= id == self.call;
        if id == self.json {
            self.limits = Some(Limits::default());
        } else if !self.ordinary.contains(&id) {
            self.limits = None;
        } else if let Some(limits) = &mut self.limits {
            limits.take(self.tokens.tok_trie().token(id));
        }
        Ok(())
    }
}

/// Takes out what is not allowed.
fn keep(logits: &mut [f32], is_allowed: impl Fn(u32) -> bool) {
    for (id, logit) in (0..).zip(logits) {
        if !is_allowed(id) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn failed(error: impl Display) -> PipelineError {
    PipelineError::StrictTools {
        reason: reason(error),
    }
}

/// What the library says of a failure, in one line.
fn reason(error: impl Display) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
