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

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Vec<ToolCall> {
        let call = |id| ToolCall::new(id, "dial", "").unwrap();
        vec![call("aaaaaaaaa"), call("bbbbbbbbb")]
    }

    /// Ids and contents.
    type Pairs = Vec<(String, String)>;

    /// The results in these lines, and what was wrong with lines.
    fn read(lines: &'static str) -> (Result<Option<Pairs>>, Vec<String>) {
        let mut bad = Vec::new();
        let results = results(&calls(), &mut Lines::of(lines.as_bytes()), &mut |error| {
            bad.push(format!("{error:#}"));
            Ok(())
        });
        let pair = |message| match message {
            Message::Tool { call_id, content } => (call_id, content),
            other => panic!("{other:?}"),
        };
        let results = results.map(|given| given.map(|all| all.into_iter().map(pair).collect()));
        (results, bad)
    }

    fn expected() -> Pairs {
        let pair = |id: &str, content: &str| (id.to_owned(), content.to_owned());
        vec![
            pair("aaaaaaaaa", r#"{"ok":[1,null]}"#),
            pair("bbbbbbbbb", "two"),
        ]
    }

    #[test]
    fn results_are_matched_by_id_in_any_order() {
        for lines in [
            "{\"tool_call_id\": \"aaaaaaaaa\", \"content\": {\"ok\": [1, null]}}\n\
             {\"role\": \"tool\", \"tool_call_id\": \"bbbbbbbbb\", \"content\": \"two\"}\nmore",
            "\n{\"tool_call_id\": \"bbbbbbbbb\", \"content\": \"two\"}\r\n \n\
             {\"tool_call_id\": \"aaaaaaaaa\", \"content\": {\"ok\": [1, null]}}",
        ] {
            let (results, bad) = read(lines);
            assert_eq!(results.unwrap(), Some(expected()));
            assert!(bad.is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn no_result_at_all_is_none_and_some_are_too_few() {
        assert_eq!(read("").0.unwrap(), None);
        assert_eq!(read("\n\n").0.unwrap(), None);
        let (results, _) = read("{\"tool_call_id\": \"bbbbbbbbb\", \"content\": 2}\n");
        let error = results.unwrap_err().to_string();
        assert!(error.contains("`aaaaaaaaa`"), "{error}");
        assert!(!error.contains("bbbbbbbbb"), "{error}");
    }

    #[test]
    fn a_wrong_line_is_named_and_the_next_is_read() {
        let (results, bad) = read(
            "{\"tool_call_id\": \"aaaaaaaaa\"\n\
             {\"content\": 1}\n\
             {\"tool_call_id\": \"aaaaaaaaa\"}\n\
             {\"tool_call_id\": \"ccccccccc\", \"content\": 1}\n\
             {\"tool_call_id\": \"bbbbbbbbb\", \"content\": \"two\"}\n\
             {\"tool_call_id\": \"bbbbbbbbb\", \"content\": \"three\"}\n\
             {\"tool_call_id\": \"aaaaaaaaa\", \"content\": {\"ok\": [1, null]}}\n",
        );
        assert_eq!(results.unwrap(), Some(expected()));
        let wrong = [
            ("line 1 of stdin", "EOF"),
            ("line 2 of stdin", "`tool_call_id`"),
            ("line 3 of stdin", "`content`"),
            ("line 4 of stdin", "no call `ccccccccc`"),
            ("line 6 of stdin", "`bbbbbbbbb` has a result already"),
        ];
        assert_eq!(bad.len(), wrong.len(), "{bad:?}");
        for (error, (line, cause)) in bad.iter().zip(wrong) {
            assert!(error.contains(line) && error.contains(cause), "{error}");
        }
    }
}
