//! The grammar of what may follow `[TOOL_CALLS]`, over the tokens of a vocabulary.
//!
//! ```text
//! v7   [{"name": "…", "arguments": {…}, "id": "…"}, …]
//! v11  name [CALL_ID] id [ARGS] {…} ([TOOL_CALLS] name [CALL_ID] id [ARGS] {…})…
//! v13  name [ARGS] {…} ([TOOL_CALLS] name [ARGS] {…})…
//! ```
//!
//! An id has 9 letters or digits; `{…}` is what the schema of the tool of that name allows. All is
//! written in llguidance's Lark, where `<[9]>` is the token of id 9 and `@a` the grammar named `a`.

use std::sync::Arc;

use llguidance::{
    JsonCompileOptions, Matcher, ParserFactory,
    api::{GrammarWithLexer, TopLevelGrammar},
    earley::SlicedBiasComputer,
    panic_utils,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::Value;
use voxtral_tokenizer::{Tokenizer, TokenizerError, Version, chat::ToolDefinition, special};

use super::{failed, limits, reason};
use crate::PipelineError;

/// A tokenizer's tokens as the library wants them, made once for a model.
pub(crate) struct GrammarTokens {
    parsers: ParserFactory,
    /// Those that may end a string, or begin an escape.
    quotes: Arc<SimpleVob>,
}

impl GrammarTokens {
    /// The tokens of a tokenizer; `end` ends an answer.
    pub(super) fn new(tokenizer: &Tokenizer, end: u32) -> Result<Self, PipelineError> {
        let count = tokenizer.vocab_size() as u32;
        let bytes = |id| match tokenizer.token_bytes(id) {
            Some(bytes) => bytes.to_vec(),
            // As the library names tokens that no text has.
            None => [
                &[TokTrie::SPECIAL_TOKEN_MARKER],
                format!("[{id}]").as_bytes(),
            ]
            .concat(),
        };
        let make = || {
            let words: Vec<_> = (0..count).map(bytes).collect();
            let quotes: Vec<_> = words.iter().map(|word| limits::ends_text(word)).collect();
            let trie = TokTrie::from(&TokRxInfo::new(count, end), &words);
            let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SlicedBiasComputer::json_slices();
            let mut parsers =
                ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)?;
            parsers.quiet().limits_mut().verbose_errors = false;
            Ok(Self {
                parsers,
                quotes: Arc::new(SimpleVob::from_slice(&quotes)),
            })
        };
        panic_utils::catch_unwind(std::panic::AssertUnwindSafe(make)).map_err(failed)
    }

    pub(super) fn tokens(&self) -> TokEnv {
        self.parsers.tok_env().clone()
    }

    pub(super) fn quotes(&self) -> Arc<SimpleVob> {
        Arc::clone(&self.quotes)
    }

    pub(super) fn end(&self) -> u32 {
        self.parsers.tok_env().eos_token()
    }

    /// Follows JSON that a schema allows.
    pub(super) fn json(&self, schema: &Value) -> Result<Matcher, PipelineError> {
        let fault = |reason| PipelineError::AnswerNotHeld { reason };
        let schema = prepared(schema.clone()).map_err(fault)?;
        let parser = self
            .parsers
            .create_parser(TopLevelGrammar::from_json_schema(schema))
            .map_err(|error| fault(reason(error)))?;
        Ok(Matcher::new(Ok(parser)))
    }

    /// Follows what may stand behind `[TOOL_CALLS]`: several calls, or a single one.
    pub(super) fn calls(
        &self,
        tokenizer: &Tokenizer,
        tools: &[ToolDefinition],
        single: bool,
    ) -> Result<Matcher, PipelineError> {
        let mut grammars = vec![GrammarWithLexer::from_lark(lark(tokenizer, tools, single)?)];
        for (index, tool) in tools.iter().enumerate() {
            let fault = |reason| PipelineError::ToolNotStrict {
                tool: tool.name.clone(),
                reason,
            };
            let schema = GrammarWithLexer::from_json_schema(arguments(tool).map_err(fault)?);
            // Alone, so that what is wrong with it is told with the tool's name.
            self.parsers
                .create_parser(TopLevelGrammar::from_grammar(schema.clone()))
                .map_err(|error| fault(reason(error)))?;
            grammars.push(GrammarWithLexer {
                name: Some(format!("arguments_{index}")),
                ..schema
            });
        }
        let grammar = TopLevelGrammar {
            grammars,
            max_tokens: None,
        };
        let parser = self.parsers.create_parser(grammar).map_err(failed)?;
        Ok(Matcher::new(Ok(parser)))
    }
}

/// The rules around the arguments.
fn lark(
    tokenizer: &Tokenizer,
    tools: &[ToolDefinition],
    single: bool,
) -> Result<String, TokenizerError> {
    let token = |name| Ok::<_, TokenizerError>(format!("<[{}]>", tokenizer.special(name)?));
    let version = tokenizer.version();
    let mut rules = Vec::new();
    rules.push(match (version, single) {
        (Version::V7, true) => r#"start: "[" call "]""#.to_owned(),
        (Version::V7, false) => r#"start: "[" call (", " call)* "]""#.to_owned(),
        (_, true) => "start: call".to_owned(),
        (_, false) => format!("start: call ({} call)*", token(special::TOOL_CALLS)?),
    });
    let mut calls = Vec::new();
    for (index, ToolDefinition { name, .. }) in tools.iter().enumerate() {
        calls.push(format!("call_{index}"));
        let call = if version == Version::V7 {
            let head = format!(r#"{{\"name\": \"{name}\", \"arguments\": "#);
            format!(r#""{head}" @arguments_{index} ", \"id\": \"" ID "\"}}""#)
        } else {
            let id = match version < Version::V13 {
                true => format!("{} ID", token(special::CALL_ID)?),
                false => String::new(),
            };
            format!(
                r#""{name}" {id} {} @arguments_{index}"#,
                token(special::ARGS)?
            )
        };
        rules.push(format!("call_{index}: {call}"));
    }
    rules.push(format!("call: {}", calls.join(" | ")));
    if version < Version::V13 {
        rules.push("ID: /[a-zA-Z0-9]{9}/".to_owned());
    }
    Ok(rules.join("\n"))
}

/// The schema of a tool's arguments, which are an object.
fn arguments(tool: &ToolDefinition) -> Result<Value, String> {
    let mut schema = tool.parameters.clone();
    if schema.is_empty() {
        // A tool that takes nothing.
        schema.insert("additionalProperties".to_owned(), Value::from(false));
    }
    let object = Value::from("object");
    match schema.get("type") {
        Some(Value::Array(types)) if types.contains(&object) => {}
        Some(found) if *found != object => {
            return Err(format!("type is {found}, expected \"object\""));
        }
        _ => {}
    }
    schema.insert("type".to_owned(), object);
    prepared(Value::from(schema))
}

/// A schema with the library's settings.
fn prepared(mut schema: Value) -> Result<Value, String> {
    if let Some(number) = inexact(&schema) {
        let expected = "expected numbers below 2^53, which are exact";
        return Err(format!("{number} is in the schema, {expected}"));
    }
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// A number that the library, which reads `f64`, might take for another.
fn inexact(schema: &Value) -> Option<&Value> {
    match schema {
        Value::Array(items) => items.iter().find_map(inexact),
        Value::Object(entries) => entries.values().find_map(inexact),
        value => {
            let exact = |number: f64| number.abs() < f64::powi(2.0, 53);
            (!value.as_f64().is_none_or(exact)).then_some(value)
        }
    }
}
