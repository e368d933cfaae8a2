use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use voxtral_tokenizer::chat::{Message, Part, ToolCall, ToolDefinition, clips};
use voxtral_tokenizer::{Tokenizer, TokenizerError, prompt, special};

use crate::support::{INSTRUCT, REALTIME, bytes, chain, genuine, golden, instruct, small};

/// A row of `chat.json.gz`.
#[derive(Deserialize)]
struct Row {
    version: String,
    fault: String,
    messages: Vec<GoldenMessage>,
    tools: Value,
    #[serde(default)]
    ids: Vec<Run>,
    refused: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum GoldenMessage {
    System(String),
    User(Vec<GoldenPart>),
    Assistant {
        text: String,
        calls: Vec<GoldenCall>,
        prefix: bool,
    },
    Tool {
        id: String,
        content: String,
    },
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum GoldenPart {
    Samples(usize),
    Text(String),
}

#[derive(Deserialize, Debug)]
struct GoldenCall {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Run {
    One(u32),
    Many(u32, usize),
}

impl Row {
    fn messages(&self) -> Result<Vec<Message<usize>>, TokenizerError> {
        self.messages.iter().map(GoldenMessage::message).collect()
    }

    fn expected(&self) -> Vec<u32> {
        let many = |run: &Run| match *run {
            Run::One(id) => (id, 1),
            Run::Many(id, count) => (id, count),
        };
        self.ids
            .iter()
            .map(many)
            .flat_map(|(id, count)| std::iter::repeat_n(id, count))
            .collect()
    }
}

impl GoldenMessage {
    /// The message, with clips as numbers of samples.
    fn message(&self) -> Result<Message<usize>, TokenizerError> {
        Ok(match self {
            Self::System(text) => Message::System(text.clone()),
            Self::User(parts) => Message::User(parts.iter().map(GoldenPart::part).collect()),
            Self::Assistant {
                text,
                calls,
                prefix,
            } => Message::Assistant {
                text: text.clone(),
                calls: calls
                    .iter()
                    .map(|call| ToolCall::new(&call.id, &call.name, &call.arguments))
                    .collect::<Result<_, _>>()?,
                prefix: *prefix,
            },
            Self::Tool { id, content } => Message::Tool {
                call_id: id.clone(),
                content: content.clone(),
            },
        })
    }
}

impl GoldenPart {
    fn part(&self) -> Part<usize> {
        match self {
            Self::Samples(samples) => Part::Audio(*samples),
            Self::Text(text) => Part::Text(text.clone()),
        }
    }
}

/// The prompt of messages whose clips are numbers of samples.
fn encode(
    tokenizer: &Tokenizer,
    messages: &[Message<usize>],
    tools: &[ToolDefinition],
) -> Result<Vec<u32>, TokenizerError> {
    let audio = tokenizer.audio().unwrap();
    let tokens = |samples: &usize| audio.windows(*samples).unwrap().tokens;
    prompt::chat(tokenizer, messages, tools, tokens)
}

/// What a refusal is about, as the fixture names it.
fn refusal(error: &TokenizerError) -> &'static str {
    match error {
        TokenizerError::NoMessages => "empty",
        TokenizerError::FirstMessage { .. } => "first",
        TokenizerError::LastMessage => "last",
        TokenizerError::MessageOrder { .. } => "order",
        TokenizerError::ResultsMissing { .. } => "results",
        TokenizerError::ResultDuplicate { .. } => "result twice",
        TokenizerError::ResultUnexpected { .. } => "result unexpected",
        TokenizerError::CallDuplicate { .. } => "call twice",
        TokenizerError::SystemWithAudio { .. } => "system and audio",
        TokenizerError::CallId { .. } => "call id",
        TokenizerError::FunctionName { .. } => "function name",
        TokenizerError::PrefixNotLast { .. } => "prefix",
        TokenizerError::AssistantEmpty { .. } => "assistant empty",
        TokenizerError::UserEmpty { .. } => "user empty",
        TokenizerError::ToolSchema { .. } => "schema",
        TokenizerError::ToolDuplicate { .. } => "tool twice",
        TokenizerError::ArgumentsNotJson { .. } | TokenizerError::ArgumentsNotObject { .. } => {
            "arguments"
        }
        other => panic!("no refusal of a conversation: {other}"),
    }
}

/// Versions, the fault, what mistral-common says (nothing where it encodes), what we say, and why.
type Exception = (
    &'static [&'static str],
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static str,
);

/// Where we say something else than mistral-common.
#[rustfmt::skip]
const EXCEPTIONS: &[Exception] = &[
    (ALL, "first is the assistant's", None, "first", "it looks at the first message only where there is no other"),
    (ALL, "first is a tool's", None, "first", "likewise"),
    (ALL, "user empty", None, "user empty", "there is nothing to answer"),
    (ALL, "tool twice", None, "tool twice", "a call would be ambiguous"),
    (ALL, "arguments are no JSON", None, "arguments", "it writes them as a JSON string, which no model was shown"),
    (ALL, "arguments are no object", None, "arguments", "no function takes them"),
    (ALL, "arguments of Python", None, "arguments", "NaN and infinity are not JSON"),
    (ALL, "function name with line feed", None, "function name", "`$` of Python's regular expressions lets it pass"),
    (&["v7", "v11"], "call id with line feed", None, "call id", "likewise"),
    (&["v7"], "call twice", None, "call twice", "it only counts calls and results in v7; the ids are in the prompt"),
    (&["v7"], "result unexpected", None, "result unexpected", "likewise"),
    (&["v7"], "result twice", Some("results"), "result twice", "likewise"),
    (&["v7"], "result twice", None, "result twice", "likewise"),
    (&["v7"], "result without call", Some("results"), "result unexpected", "likewise"),
];
const ALL: &[&str] = &["v7", "v11", "v13"];

#[test]
fn prompts_and_refusals_are_those_of_mistral_common() {
    let rows: Vec<Row> = golden("chat.json.gz");
    let mut used = BTreeSet::new();
    let mut equal = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let tools = ToolDefinition::list_from_json(&row.tools.to_string()).unwrap();
        let found = row
            .messages()
            .and_then(|messages| encode(instruct(&row.version), &messages, &tools));
        let found = found.map_err(|error| refusal(&error));
        let expected = row.refused.as_deref();
        let context = || {
            let (version, fault, messages) = (&row.version, &row.fault, &row.messages);
            format!("row {index}, {version}, fault {fault:?}, {messages:#?}")
        };
        let exception = EXCEPTIONS
            .iter()
            .position(|(versions, fault, theirs, ours, _)| {
                versions.contains(&row.version.as_str())
                    && *fault == row.fault
                    && *theirs == expected
                    && found.as_ref().err() == Some(ours)
            });
        if let Some(exception) = exception {
            used.insert(exception);
            continue;
        }
        match (found, expected) {
            (Ok(ids), None) => assert_eq!(ids, row.expected(), "{}", context()),
            (Err(ours), Some(theirs)) => assert_eq!(ours, theirs, "{}", context()),
            (Ok(_), Some(theirs)) => panic!("not refused, though {theirs}: {}", context()),
            (Err(ours), None) => panic!("refused, {ours}: {}", context()),
        }
        *equal.entry(&row.version).or_insert(0) += 1;
    }
    assert!(equal.values().all(|&rows| rows >= 200), "{equal:?}");
    let unused: Vec<_> = (0..EXCEPTIONS.len())
        .filter(|exception| !used.contains(exception))
        .map(|exception| EXCEPTIONS[exception])
        .collect();
    assert!(unused.is_empty(), "no row needs {unused:?}");
}

#[test]
fn known_conversations_have_their_known_ids() {
    let clip = |tokens| Part::Audio(tokens);
    let text = |text: &str| Part::Text(text.to_owned());
    let question = text("What's in this file?");
    let audio = |tokens: usize| [vec![25], vec![24; tokens]].concat();
    let asked = vec![7493, 1681, 1294, 1593, 3323, 1063];
    for version in ALL {
        let tokenizer = instruct(version);
        let user = |parts| vec![Message::User(parts)];
        for (messages, expected) in [
            (
                user(vec![clip(375), question.clone()]),
                [vec![1, 3], audio(375), asked.clone(), vec![4]].concat(),
            ),
            (
                user(vec![question.clone(), clip(375)]),
                [vec![1, 3], asked.clone(), audio(375), vec![4]].concat(),
            ),
            (
                user(vec![clip(375), clip(750), text("Compare.")]),
                [vec![1, 3], audio(375), audio(750), vec![49272, 1046, 4]].concat(),
            ),
            (
                vec![Message::user("a"), Message::user("b")],
                vec![1, 3, 1097, 1267, 1098, 4],
            ),
            (
                vec![
                    Message::user("Hi"),
                    Message::Assistant {
                        text: "Well".to_owned(),
                        calls: Vec::new(),
                        prefix: true,
                    },
                ],
                vec![1, 3, 37133, 4, 26300],
            ),
        ] {
            let ids = prompt::chat(tokenizer, &messages, &[], |&tokens| tokens).unwrap();
            assert_eq!(ids, expected, "{version}, {messages:?}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let call = |id: &str| ToolCall::new(id, "f", "{}").unwrap();
    let calling = |ids: &[&str]| Message::Assistant {
        text: String::new(),
        calls: ids.iter().map(|id| call(id)).collect(),
        prefix: false,
    };
    let result = |id: &str| Message::Tool {
        call_id: id.to_owned(),
        content: String::new(),
    };
    let hi = || Message::<usize>::user("Hi");
    for (messages, expected) in [
        (vec![], "the conversation is empty"),
        (
            vec![Message::assistant("a"), hi()],
            "the first message is of the assistant",
        ),
        (
            vec![hi(), Message::assistant("a")],
            "the last message is an answer of the assistant",
        ),
        (
            vec![hi(), result("abcdefghi")],
            "`messages[1]` is of the tool right after the user",
        ),
        (
            vec![hi(), calling(&["abcdefghi"]), result("123456789")],
            "`messages[2]` is the result of call `123456789`, expected the id of a call",
        ),
        (
            vec![
                hi(),
                calling(&["abcdefghi"]),
                result("abcdefghi"),
                result("abcdefghi"),
            ],
            "`messages[3]` is another result of call `abcdefghi`",
        ),
        (
            vec![
                hi(),
                calling(&["abcdefghi", "123456789"]),
                result("abcdefghi"),
                hi(),
            ],
            "the calls `123456789` of `messages[1]` have no result",
        ),
        (
            vec![hi(), calling(&["a", "a"]), result("a")],
            "`messages[1]` has two calls `a`",
        ),
        (
            vec![hi(), calling(&["short"]), result("short")],
            "`messages[1]` has the call id `short`, expected 9 letters or digits",
        ),
        (
            vec![
                Message::System("s".to_owned()),
                Message::User(vec![Part::Audio(1)]),
            ],
            "`messages[0]` is of the system and the conversation has audio, which a tokenizer of version v11",
        ),
        (
            vec![hi(), Message::assistant(""), hi()],
            "`messages[1]` of the assistant has neither",
        ),
        (
            vec![Message::user("")],
            "`messages[0]` of the user has neither text nor audio",
        ),
    ] {
        let error = encode(&INSTRUCT, &messages, &[]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{messages:?}: {error}");
    }
}

#[test]
fn a_streaming_model_takes_no_conversation() {
    let error = encode(&REALTIME, &[Message::user("Hi")], &[]).unwrap_err();
    assert!(matches!(error, TokenizerError::Streaming), "{error}");
}

#[test]
fn audio_needs_places_and_a_model_that_hears() {
    let messages = [Message::User(vec![Part::Audio(0)])];
    let error = prompt::chat(&INSTRUCT, &messages, &[], |&tokens| tokens).unwrap_err();
    assert!(matches!(error, TokenizerError::NoAudio), "{error}");

    let mut file = genuine();
    file.as_object_mut().unwrap().remove("audio");
    let deaf = Tokenizer::from_bytes(&bytes(&file)).unwrap();
    let error = prompt::chat(&deaf, &messages, &[], |_| 375).unwrap_err();
    assert!(matches!(error, TokenizerError::NoAudioSection), "{error}");
    let text = [Message::<usize>::user("Hi")];
    let ids = prompt::chat(&deaf, &text, &[], |_| 375).unwrap();
    assert_eq!(ids, [1, 3, 37133, 4]);
}

#[test]
fn a_tokenizer_without_a_token_is_an_error_that_names_it() {
    let tokenizer = Tokenizer::from_bytes(&bytes(&small())).unwrap();
    let messages = [Message::<usize>::user("a")];
    let error = prompt::chat(&tokenizer, &messages, &[], |_| 1).unwrap_err();
    assert!(error.to_string().contains("`[INST]`"), "{error}");
}

#[test]
fn clips_come_in_the_order_of_their_places() {
    let messages = [
        Message::System("s".to_owned()),
        Message::User(vec![
            Part::Audio(3),
            Part::Text("a".to_owned()),
            Part::Audio(1),
        ]),
        Message::assistant("b"),
        Message::User(vec![Part::Audio(2)]),
    ];
    let order: Vec<usize> = clips(&messages).copied().collect();
    assert_eq!(order, [3, 1, 2]);
    let ids = prompt::chat(instruct("v13"), &messages, &[], |&tokens| tokens).unwrap();
    let place = INSTRUCT.special(special::AUDIO).unwrap();
    let runs: Vec<usize> = ids
        .chunk_by(|a, b| a == b)
        .filter(|run| run[0] == place)
        .map(<[u32]>::len)
        .collect();
    assert_eq!(runs, order);
}

#[test]
fn tools_and_calls_have_the_shape_of_openai() {
    let tool = json!({
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does it.",
            "parameters": {"type": "object", "properties": {"z": {}, "a": {}}},
        },
    });
    let definition: ToolDefinition = serde_json::from_value(tool.clone()).unwrap();
    assert_eq!(definition.name, "f");
    assert_eq!(
        serde_json::to_string(&definition).unwrap(),
        tool.to_string()
    );

    let call = json!({
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": \"é\"}"},
    });
    let parsed: ToolCall = serde_json::from_value(call.clone()).unwrap();
    assert_eq!(
        parsed,
        ToolCall::new("abcdefghi", "f", r#"{"b":1,"a":"\u00e9"}"#).unwrap()
    );
    assert_eq!(serde_json::to_string(&parsed).unwrap(), call.to_string());
}

#[test]
fn what_is_no_list_of_tools_is_refused() {
    for (json, cause) in [
        ("", "EOF"),
        ("{}", "expected a sequence"),
        (r#"[{"type": "function"}]"#, "missing field `function`"),
        (
            r#"[{"type": "code", "function": {"name": "f"}}]"#,
            "unknown variant `code`",
        ),
        (
            r#"[{"function": {"parameters": {}}}]"#,
            "missing field `name`",
        ),
        (
            r#"[{"function": {"name": "f", "parameters": "x"}}]"#,
            "expected a map",
        ),
        (
            r#"[{"function": {"name": "f", "parameters": true}}]"#,
            "expected a map",
        ),
    ] {
        let error = chain(&ToolDefinition::list_from_json(json).unwrap_err());
        assert!(error.contains(cause), "{json}: {error}");
        assert!(error.starts_with("the tools cannot be read"), "{error}");
    }
    let lean = ToolDefinition::list_from_json(r#"[{"function": {"name": "f", "strict": null}}]"#);
    assert!(lean.unwrap()[0].parameters.is_empty());
}

#[test]
fn a_schema_that_is_none_is_told_with_its_place() {
    let parameters = json!({"properties": {"a/b": {"items": [{}, {"type": "text"}]}}});
    let tool = ToolDefinition {
        name: "f".to_owned(),
        description: String::new(),
        parameters: parameters.as_object().unwrap().clone(),
    };
    let error = encode(&INSTRUCT, &[Message::user("Hi")], &[tool]).unwrap_err();
    let place =
        "the schema of tool `f` is \"text\" at `/properties/a~1b/items/1/type`, expected array,";
    assert!(error.to_string().starts_with(place), "{error}");
}
