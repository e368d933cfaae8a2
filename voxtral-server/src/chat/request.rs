//! What a body asks for, field by field. A field that is not known, or asks for what cannot be done,
//! is refused by its name.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;
use voxtral_pipeline::{AnswerForm, ChatOptions, SamplingOptions, ToolDefinition};

use super::message::{self, Draft};
use crate::{
    ServerError,
    error::Dialect,
    json::{Object, shown},
};

/// Texts that may end an answer.
const MOST_STOPS: usize = 16;

/// The longest schema of an answer, in bytes: following a larger one takes so long that others would
/// notice.
const LONGEST_SCHEMA: usize = 1 << 16;

/// A request for an answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) messages: Vec<Draft>,
    pub(super) options: ChatOptions,
    pub(super) stream: bool,
    /// Whether a stream tells, at its end, what it took.
    pub(super) usage: bool,
    pub(super) logprobs: bool,
}

/// Fields that only Mistral's API has.
const MISTRALS: [&str; 6] = [
    "random_seed",
    "safe_prompt",
    "prompt_mode",
    "guardrails",
    "prompt_logprobs",
    "top_prompt_logprobs",
];

/// Fields that are understood to mean nothing at these values of JSON; at any, where there are none.
const WITHOUT_EFFECT: [(&str, &[&str]); 20] = [
    ("user", &[]),
    ("metadata", &[]),
    ("store", &[]),
    ("service_tier", &[]),
    ("safety_identifier", &[]),
    ("prompt_cache_key", &[]),
    ("prompt_cache_options", &[]),
    ("prompt_cache_retention", &[]),
    // It makes answers faster, not different.
    ("prediction", &[]),
    ("n", &["1"]),
    ("modalities", &["[\"text\"]"]),
    ("reasoning_effort", &["\"none\""]),
    ("verbosity", &["\"medium\""]),
    ("safe_prompt", &["false"]),
    ("guardrails", &["[]"]),
    ("prompt_logprobs", &["false"]),
    ("min_tokens", &["0"]),
    ("best_of", &["1"]),
    ("use_beam_search", &["false"]),
    ("length_penalty", &["1", "1.0"]),
];

/// Whose fields a body has.
pub(super) fn dialect(body: &Object, by_headers: Dialect) -> Dialect {
    let mistrals = MISTRALS.iter().any(|name| body.has(name));
    match mistrals || body.text("tool_choice") == Some("any") {
        true => Dialect::Mistral,
        false => by_headers,
    }
}

impl Asked {
    /// Reads a body.
    pub(super) fn read(mut body: Object, dialect: Dialect) -> Result<Self, ServerError> {
        let messages = body.objects("messages")?;
        let tools = tools(&mut body)?;
        let logprobs = body.flag("logprobs")?;
        let stream = body.flag("stream")?;
        let usage = usage(&mut body, stream, dialect)?;
        let mut options = ChatOptions {
            sampling: sampling(&mut body, logprobs)?,
            max_new_tokens: max_tokens(&mut body)?,
            strict_tools: tools.iter().any(|(_, strict)| *strict),
            tools: tools.into_iter().map(|(tool, _)| tool).collect(),
            ..ChatOptions::default()
        };
        choose(&mut body, &mut options)?;
        respond(&mut body, &mut options)?;
        let model = body.parsed("model", "the name of a model")?;
        body.finish(&WITHOUT_EFFECT)?;
        Ok(Self {
            model,
            messages: message::read(messages)?,
            options,
            stream,
            usage,
            logprobs,
        })
    }
}

/// The tools, and whether each is to be strict.
fn tools(body: &mut Object) -> Result<Vec<(ToolDefinition, bool)>, ServerError> {
    let tool = |mut tool: Object| {
        let kind: String = tool.required("type", "`function`")?;
        if kind != "function" {
            let found = shown(&Value::from(kind));
            return Err(ServerError::field(tool.path("type"), found, "`function`"));
        }
        let mut function = tool.inner("function", "an object with a `name`")?;
        let definition = ToolDefinition {
            name: function.required("name", "a name")?,
            description: function
                .parsed("description", "a text")?
                .unwrap_or_default(),
            parameters: function
                .parsed::<Map<String, Value>>("parameters", "a JSON schema of an object")?
                .unwrap_or_default(),
        };
        let strict = function.flag("strict")?;
        function.finish(&[])?;
        tool.finish(&[])?;
        Ok((definition, strict))
    };
    body.objects("tools")?.into_iter().map(tool).collect()
}

/// Whether a stream tells what it took: Mistral's do.
fn usage(body: &mut Object, stream: bool, dialect: Dialect) -> Result<bool, ServerError> {
    let Some(mut options) = body.object("stream_options")? else {
        return Ok(dialect == Dialect::Mistral);
    };
    if !stream {
        let reason = "it belongs to `stream`, which is not asked for";
        return Err(ServerError::unable("stream_options", reason));
    }
    let usage = options.flag("include_usage")?;
    options.finish(&[
        ("include_obfuscation", &[]),
        ("continuous_usage_stats", &["false"]),
    ])?;
    Ok(usage)
}

fn sampling(body: &mut Object, logprobs: bool) -> Result<SamplingOptions, ServerError> {
    let mut options = SamplingOptions::chat();
    if let Some(value) = body.parsed("temperature", "a number of at least 0")? {
        options.temperature = value;
        if value == 0.0 {
            // Its own value would make no sense beside it.
            options.top_p = None;
        }
    }
    if let Some(value) = body.parsed("top_p", "a number above 0 and up to 1")? {
        options.top_p = Some(value);
    }
    options.top_k = top_k(body)?;
    options.min_p = body.parsed("min_p", "a number from 0 to 1")?;
    for (name, place, expected) in [
        (
            "repetition_penalty",
            &mut options.repetition_penalty,
            "a number above 0",
        ),
        (
            "presence_penalty",
            &mut options.presence_penalty,
            "a number from -2 to 2",
        ),
        (
            "frequency_penalty",
            &mut options.frequency_penalty,
            "a number from -2 to 2",
        ),
    ] {
        if let Some(value) = body.parsed(name, expected)? {
            *place = value;
        }
    }
    options.seed = seed(body)?;
    options.stop = stops(body)?;
    let ids = body.parsed("stop_token_ids", "a list of ids of tokens")?;
    options.stop_ids = ids.unwrap_or_default();
    let bias: Option<BTreeMap<u32, f32>> =
        body.parsed("logit_bias", "numbers from -100 to 100 by ids of tokens")?;
    options.logit_bias = bias.unwrap_or_default();
    if let Some(count) = body.parsed("top_logprobs", "a whole number from 0 to 20")? {
        if !logprobs {
            let reason = "it belongs to `logprobs`, which are not asked for";
            return Err(ServerError::unable("top_logprobs", reason));
        }
        options.top_logprobs = count;
    }
    options.check()?;
    Ok(options)
}

fn top_k(body: &mut Object) -> Result<Option<usize>, ServerError> {
    let expected = "a whole number of at least 1";
    let count: Option<i64> = body.parsed("top_k", expected)?;
    // With vLLM, -1 stands for none.
    let count = count.filter(|count| *count != -1);
    let checked = count.map(|count| match usize::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) => Err(ServerError::field("top_k", count, expected)),
    });
    checked.transpose()
}

/// Where none is given, no two answers need to be the same.
fn seed(body: &mut Object) -> Result<u64, ServerError> {
    let seed: Option<i64> = body.parsed("seed", "a whole number")?;
    let mistrals: Option<i64> = body.parsed("random_seed", "a whole number")?;
    let given = seed.or(mistrals).map(|seed| seed as u64);
    Ok(given.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0))
}

fn stops(body: &mut Object) -> Result<Vec<String>, ServerError> {
    let expected = "a text, or a list of up to 16";
    let stops = match body.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(value) => {
            let found = shown(&value);
            let list: Result<Vec<String>, _> = serde_json::from_value(value);
            list.map_err(|_| ServerError::field("stop", found, expected))?
        }
    };
    match stops.len() > MOST_STOPS {
        true => {
            let found = format!("a list of {}", stops.len());
            Err(ServerError::field("stop", found, expected))
        }
        false => Ok(stops),
    }
}

/// Two names for one number.
fn max_tokens(body: &mut Object) -> Result<Option<usize>, ServerError> {
    let mut given = None;
    for name in ["max_tokens", "max_completion_tokens"] {
        let expected = "a whole number of at least 1";
        let Some(count) = body.parsed::<u32>(name, expected)? else {
            continue;
        };
        let count = count as usize;
        if count == 0 {
            return Err(ServerError::field(name, "0", expected));
        }
        if given.is_some_and(|other| other != count) {
            let found = format!("{count}, beside another `max_tokens`");
            return Err(ServerError::field(name, found, "one of the two"));
        }
        given = Some(count);
    }
    Ok(given)
}

/// Reads `tool_choice` and `parallel_tool_calls`.
fn choose(body: &mut Object, options: &mut ChatOptions) -> Result<(), ServerError> {
    const NAME: &str = "tool_choice";
    const EXPECTED: &str = "`auto`, `none`, `any`, `required`, or an object that names a function";
    let calls = match body.take(NAME) {
        None => None,
        Some(Value::String(choice)) => match &choice[..] {
            "auto" => None,
            "none" => {
                options.tools.clear();
                None
            }
            "any" | "required" => Some(None),
            _ => return Err(ServerError::field(NAME, format!("`{choice}`"), EXPECTED)),
        },
        Some(value) => Some(Some(named(Object::new(NAME, value)?)?)),
    };
    if let Some(name) = calls {
        let known = |name: &String| options.tools.iter().any(|tool| tool.name == *name);
        if options.tools.is_empty() || name.as_ref().is_some_and(|name| !known(name)) {
            let found = name.map_or_else(|| "a call".to_owned(), |name| format!("`{name}`"));
            let expected = "a function among `tools`";
            return Err(ServerError::field(NAME, found, expected));
        }
        options.form = AnswerForm::Calls(name);
    }
    let parallel: Option<bool> = body.parsed("parallel_tool_calls", "`true` or `false`")?;
    options.single_call = parallel == Some(false) && !options.tools.is_empty();
    Ok(())
}

fn named(mut choice: Object) -> Result<String, ServerError> {
    let mut function = choice.inner("function", "an object with a `name`")?;
    let name = function.required("name", "the name of a function")?;
    function.finish(&[])?;
    choice.finish(&[("type", &["\"function\""])])?;
    Ok(name)
}

/// Reads `response_format`.
fn respond(body: &mut Object, options: &mut ChatOptions) -> Result<(), ServerError> {
    const NAME: &str = "response_format";
    const KINDS: &str = "`text`, `json_object` or `json_schema`";
    let Some(mut format) = body.object(NAME)? else {
        return Ok(());
    };
    let kind: String = format.required("type", KINDS)?;
    let schema = match &kind[..] {
        "text" => None,
        "json_object" => Some(json!({"type": "object"})),
        "json_schema" => Some(schema(&mut format)?),
        _ => {
            let found = shown(&Value::from(kind));
            return Err(ServerError::field(format.path("type"), found, KINDS));
        }
    };
    format.finish(&[])?;
    if let Some(schema) = schema {
        if !options.tools.is_empty() {
            let reason = "beside `tools`, answers are not held to a format: ask for one of the two";
            return Err(ServerError::unable(NAME, reason));
        }
        options.form = AnswerForm::Json(schema);
    }
    Ok(())
}

fn schema(format: &mut Object) -> Result<Value, ServerError> {
    let mut given = format.inner("json_schema", "an object with a `schema`")?;
    let path = given.path("schema");
    let schema = given.required::<Map<String, Value>>("schema", "a JSON schema")?;
    let schema = Value::from(schema);
    let length = schema.to_string().len();
    if length > LONGEST_SCHEMA {
        let expected = format!("at most {LONGEST_SCHEMA}");
        return Err(ServerError::field(
            path,
            format!("{length} bytes long"),
            expected,
        ));
    }
    // Its name and what it is for are not told to the model, and it is held to in any case.
    given.finish(&[("name", &[]), ("description", &[]), ("strict", &[])])?;
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut body: Value) -> Result<Asked, ServerError> {
        body["messages"] = json!([{"role": "user", "content": "a"}]);
        Asked::read(Object::new("", body).unwrap(), Dialect::OpenAi)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    #[test]
    fn what_is_asked_for_reaches_the_pipeline() {
        let asked = read(json!({
            "model": "m", "temperature": 0, "seed": -1, "stop": "x", "max_completion_tokens": 7,
            "logit_bias": {"5": -100}, "logprobs": true, "top_logprobs": 2, "stream": true,
            "stream_options": {"include_usage": true}, "user": "u", "n": 1, "top_p": null, "top_k": -1,
            "tools": [tool("a"), tool("b")], "tool_choice": "required", "parallel_tool_calls": false,
        }))
        .unwrap();
        let options = asked.options;
        assert_eq!(
            (options.sampling.temperature, options.sampling.top_p),
            (0.0, None)
        );
        assert_eq!(options.sampling.seed, u64::MAX);
        assert_eq!(options.sampling.stop, ["x"]);
        assert_eq!(options.sampling.logit_bias, [(5, -100.0)].into());
        assert_eq!(
            (options.max_new_tokens, options.sampling.top_logprobs),
            (Some(7), 2)
        );
        assert!(asked.stream && asked.usage && asked.logprobs);
        assert_eq!((options.tools.len(), options.single_call), (2, true));
        assert_eq!(options.form, AnswerForm::Calls(None));
        let other = read(json!({})).unwrap().options;
        assert_eq!(
            other.sampling.temperature,
            SamplingOptions::chat().temperature
        );
        assert_ne!(
            other.sampling.seed,
            read(json!({})).unwrap().options.sampling.seed
        );
    }

    #[test]
    fn tools_are_chosen() {
        let with = |choice: Value| read(json!({"tools": [tool("a")], "tool_choice": choice}));
        assert!(with(json!("none")).unwrap().options.tools.is_empty());
        let form = |choice| with(choice).unwrap().options.form;
        assert_eq!(form(json!("auto")), AnswerForm::Free);
        assert_eq!(form(json!("any")), AnswerForm::Calls(None));
        let named = |name| json!({"type": "function", "function": {"name": name}});
        assert_eq!(form(named("a")), AnswerForm::Calls(Some("a".to_owned())));
        assert!(with(named("b")).is_err());
        assert!(read(json!({"tool_choice": "required"})).is_err());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name() {
        for (body, field) in [
            (json!({"n": 2}), "n"),
            (json!({"wisdom": 3}), "wisdom"),
            (json!({"audio": {"voice": "x"}}), "audio"),
            (json!({"modalities": ["text", "audio"]}), "modalities"),
            (json!({"safe_prompt": true}), "safe_prompt"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"top_p": 1.5}), "top_p"),
            (json!({"top_k": 0}), "top_k"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"frequency_penalty": 3}), "frequency_penalty"),
            (json!({"logit_bias": {"a": 1}}), "logit_bias"),
            (json!({"logit_bias": {"5": 101}}), "logit_bias"),
            (json!({"top_logprobs": 2}), "top_logprobs"),
            (
                json!({"logprobs": true, "top_logprobs": 21}),
                "top_logprobs",
            ),
            (json!({"max_tokens": 0}), "max_tokens"),
            (
                json!({"max_tokens": 1, "max_completion_tokens": 2}),
                "max_completion_tokens",
            ),
            (json!({"stop": 1}), "stop"),
            (json!({"stop": [""]}), "stop"),
            (json!({"stop": vec!["a"; 17]}), "stop"),
            (
                json!({"stream_options": {"include_usage": true}}),
                "stream_options",
            ),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (
                json!({"tools": [{"type": "function"}]}),
                "tools[0].function",
            ),
            (json!({"tool_choice": "perhaps"}), "tool_choice"),
            (
                json!({"response_format": {"type": "xml"}}),
                "response_format.type",
            ),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "response_format.json_schema",
            ),
            (
                json!({"response_format": {"type": "json_object"}, "tools": [tool("a")]}),
                "response_format",
            ),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(error.param(), Some(field), "{body}: {error}");
        }
    }

    #[test]
    fn schemas_have_a_size() {
        let with = |count: usize| {
            let schema = json!({"enum": vec!["a"; count]});
            let format = json!({"type": "json_schema", "json_schema": {"schema": schema}});
            read(json!({"response_format": format}))
        };
        with(1000).unwrap();
        let error = with(1 << 15).unwrap_err();
        assert_eq!(error.param(), Some("response_format.json_schema.schema"));
    }

    #[test]
    fn dialects_are_told_apart() {
        let of = |body| dialect(&Object::new("", body).unwrap(), Dialect::OpenAi);
        assert_eq!(of(json!({"seed": 1, "random_seed": null})), Dialect::OpenAi);
        assert_eq!(of(json!({"random_seed": 1})), Dialect::Mistral);
        assert_eq!(of(json!({"tool_choice": "any"})), Dialect::Mistral);
    }
}
