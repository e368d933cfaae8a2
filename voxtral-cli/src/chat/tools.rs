//! Tools of a file, and the results of their calls from stdin.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use voxtral_pipeline::{Message, PipelineError, ToolCall, ToolDefinition};

use super::lines::{Line, Lines};
use crate::input;

/// What is to be typed for a call.
pub(super) const HOW: &str = "expecting for each call a line {\"tool_call_id\": …, \"content\": …}";

/// The prompt for a result.
const PROMPT: &str = "result> ";

/// Reads tools and checks them.
pub(super) fn read(file: &Path) -> Result<Vec<ToolDefinition>> {
    let name = format!("`{}`", file.display());
    let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let text = input::text(bytes, &name)?;
    let read = || -> Result<_> {
        let tools = ToolDefinition::list_from_json(&text)?;
        ToolDefinition::check_list(&tools)?;
        Ok(tools)
    };
    read().with_context(|| format!("cannot use {name}"))
}

/// A result as it is read; other keys, such as `role`, are passed over.
#[derive(Deserialize)]
struct Given {
    tool_call_id: String,
    content: Value,
}

/// Reads the results of calls, in any order. Nothing if there is none at all. `on_bad` is given
/// what is wrong with a line; if it returns, others are read.
pub(super) fn results(
    calls: &[ToolCall],
    lines: &mut Lines,
    on_bad: &mut dyn FnMut(anyhow::Error) -> Result<()>,
) -> Result<Option<Vec<Message>>> {
    let mut contents = vec![None; calls.len()];
    while contents.iter().any(Option::is_none) {
        let line = match lines.next(PROMPT)? {
            Line::Text(line) => line,
            Line::Interrupted => return Err(PipelineError::Cancelled.into()),
            Line::End if contents.iter().all(Option::is_none) => return Ok(None),
            Line::End => bail!(
                "stdin ended before the results of calls `{}`",
                missing(calls, &contents)
            ),
        };
        if line.trim().is_empty() {
            continue;
        }
        let taken = take(&line, calls, &mut contents);
        if let Err(error) = taken.with_context(|| lines.place()) {
            on_bad(error)?;
        }
    }
    let results = calls
        .iter()
        .zip(contents)
        .map(|(call, content)| Message::Tool {
            call_id: call.id.clone(),
            content: content.unwrap_or_default(),
        });
    Ok(Some(results.collect()))
}

/// Takes a result in.
fn take(line: &str, calls: &[ToolCall], contents: &mut [Option<String>]) -> Result<()> {
    let given: Given = serde_json::from_str(line)
        .context("expected a result, {\"tool_call_id\": …, \"content\": …}")?;
    let id = given.tool_call_id;
    let Some(place) = calls.iter().position(|call| call.id == id) else {
        bail!(
            "there is no call `{id}`, expected the result of `{}`",
            missing(calls, contents)
        );
    };
    if contents[place].is_some() {
        bail!(
            "call `{id}` has a result already, expected that of `{}`",
            missing(calls, contents)
        );
    }
    contents[place] = Some(match given.content {
        Value::String(text) => text,
        value => value.to_string(),
    });
    Ok(())
}

/// The ids of the calls without a result.
fn missing(calls: &[ToolCall], contents: &[Option<String>]) -> String {
    let open = calls.iter().zip(contents);
    let ids: Vec<&str> = open
        .filter(|(_, content)| content.is_none())
        .map(|(call, _)| call.id.as_str())
        .collect();
    ids.join("`, `")
}
