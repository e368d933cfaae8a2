use std::io::Read;
use std::path::Path;
use std::time::Instant;

use burn_flex::Flex;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Map, Value, json};
use voxtral_tokenizer::chat::{Answer, parse_answer};

use super::*;
use crate::{Message, OnWindow, Part, Sampler, SamplingOptions};

const VERSIONS: [&str; 3] = ["v7", "v11", "v13"];

/// A tokenizer file, read as another version.
fn tokenizer(mut file: Value, version: &str) -> Tokenizer {
    file["config"]["version"] = json!(version);
    Tokenizer::from_bytes(&serde_json::to_vec(&file).unwrap()).unwrap()
}

/// 2300 tokens, most of them digits' names and bytes.
fn demo(version: &str) -> Tokenizer {
    let file = include_bytes!("../../../demo/tekken.json");
    tokenizer(serde_json::from_slice(file).unwrap(), version)
}

/// The vocabulary of the published models.
fn genuine(version: &str) -> Tokenizer {
    let path = "../voxtral-tokenizer/testdata/tekken_240911.json.gz";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut file)
        .unwrap();
    tokenizer(serde_json::from_slice(&file).unwrap(), version)
}

fn tool(name: &str, parameters: Value) -> ToolDefinition {
    let wire = json!({"function": {"name": name, "parameters": parameters}});
    serde_json::from_value(wire).unwrap()
}

/// A schema and what it means, said once more by hand.
type Fits = fn(&Map<String, Value>) -> bool;

fn only(arguments: &Map<String, Value>, required: &[&str], optional: &[&str]) -> bool {
    let known = |key: &String| required.contains(&&**key) || optional.contains(&&**key);
    arguments.keys().all(known) && required.iter().all(|key| arguments.contains_key(*key))
}

fn all(array: &Value, sizes: Range<usize>, fits: impl Fn(&Value) -> bool) -> bool {
    array
        .as_array()
        .is_some_and(|items| sizes.contains(&items.len()) && items.iter().all(fits))
}

fn is_integer(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn is_node(value: &Value) -> bool {
    let node = value.as_object().unwrap();
    let next = node.get("next").is_none_or(|next| all(next, 0..3, is_node));
    only(node, &["value"], &["next"]) && node["value"].as_u64().unwrap() < 10 && next
}

fn tools() -> Vec<(ToolDefinition, Fits)> {
    let weather = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": -3, "maximum": 14},
        },
        "required": ["city"],
        "additionalProperties": false,
    });
    let convert = json!({
        "properties": {
            "größe": {"enum": ["°C", "Å", "\"\\", 3, null, true]},
            "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1.5},
            "name": {"type": "string", "minLength": 2, "maxLength": 4},
        },
        "required": ["share", "größe"],
        "additionalProperties": false,
    });
    let matrix = json!({
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
            },
            "even": {"type": "integer", "multipleOf": 2},
        },
        "required": ["rows"],
        "additionalProperties": false,
    });
    let book = json!({
        "type": "object",
        "properties": {
            "flight": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,4}$"},
            "day": {"type": "string", "format": "date"},
            "seat": {"anyOf": [{"type": "string", "pattern": "^(äußen|[0-9])$"}, {"type": "null"}]},
        },
        "required": ["flight", "day", "seat"],
        "additionalProperties": false,
    });
    let tree = json!({
        "$ref": "#/definitions/node",
        "definitions": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer", "minimum": 0, "maximum": 9},
                    "next": {"type": "array", "maxItems": 2, "items": {"$ref": "#/definitions/node"}},
                },
                "required": ["value"],
                "additionalProperties": false,
            },
        },
    });
    let open = json!({"type": "object", "properties": {"n": {"type": "integer"}, "any": {}}});
    vec![
        (tool("get_weather", weather), |arguments| {
            let days = arguments.get("days").is_none_or(|days| {
                is_integer(days) && (-3.0..=14.0).contains(&days.as_f64().unwrap())
            });
            only(arguments, &["city"], &["days"]) && arguments["city"].is_string() && days
        }),
        (tool("get", convert), |arguments| {
            let sizes = json!(["°C", "Å", "\"\\", 3, null, true]);
            let share = arguments["share"].as_f64().unwrap();
            let name = arguments.get("name").is_none_or(|name| {
                let length = name.as_str().unwrap().chars().count();
                (2..=4).contains(&length)
            });
            only(arguments, &["größe", "share"], &["name"])
                && sizes.as_array().unwrap().contains(&arguments["größe"])
                && (0.0..1.5).contains(&share)
                && name
        }),
        (tool("matrix", matrix), |arguments| {
            let even = arguments.get("even").is_none_or(is_integer);
            let row = |row: &Value| all(row, 2..3, Value::is_number);
            only(arguments, &["rows"], &["even"]) && all(&arguments["rows"], 1..4, row) && even
        }),
        (tool("book-flight", book), |arguments| {
            let text = |key| arguments[key].as_str().unwrap();
            let (line, number) = text("flight").split_once('-').unwrap();
            let seat = &arguments["seat"];
            only(arguments, &["flight", "day", "seat"], &[])
                && line.len() == 2
                && line.bytes().all(|byte| byte.is_ascii_uppercase())
                && number.len() <= 4
                && number.parse::<u16>().is_ok()
                && text("day").split('-').map(str::len).eq([4, 2, 2])
                && (seat.is_null()
                    || seat == "äußen"
                    || seat.as_str().unwrap().parse::<u8>().unwrap() < 10)
        }),
        (tool("tree", tree), |arguments| {
            is_node(&Value::from(arguments.clone()))
        }),
        (tool("open", open), |arguments| {
            arguments.get("n").is_none_or(is_integer)
        }),
        (tool("now", json!({})), Map::is_empty),
    ]
}

fn definitions() -> Vec<ToolDefinition> {
    tools().into_iter().map(|(tool, _)| tool).collect()
}

fn strict(tokenizer: &Tokenizer, tools: &[ToolDefinition]) -> Result<StrictTools, PipelineError> {
    let vocabulary = GrammarTokens::new(tokenizer, tokenizer.eos().unwrap())?;
    StrictTools::new(tokenizer, &vocabulary, tools, false)
}

fn parse(tokenizer: &Tokenizer, ids: &[u32]) -> Answer {
    let mut made = 0;
    let id = || {
        made += 1;
        made
    };
    parse_answer(tokenizer, ids, id).unwrap_or_else(|error| {
        let text: String = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
        panic!("{error}: {text}")
    })
}

/// Writes an answer from noise, which is all that a bad model has to say; `None` if it has no end.
fn noise(tokenizer: &Tokenizer, strict: StrictTools, seed: u64) -> Option<Vec<u32>> {
    let options = SamplingOptions {
        temperature: 1.0,
        seed,
        ..SamplingOptions::default()
    };
    let mut sampler = Sampler::new(&options, tokenizer.vocab_size())
        .unwrap()
        .with_constraint(Box::new(strict));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (end, call) = (
        tokenizer.eos().unwrap(),
        tokenizer.special(special::TOOL_CALLS).unwrap(),
    );
    // Long strings are no more of a test than short ones.
    let closes = |id| {
        let first = tokenizer.token_bytes(id).map(|bytes| bytes[0]);
        matches!(first, Some(b'"' | b']' | b'}'))
    };
    let bias: Vec<f32> = (0..tokenizer.vocab_size() as u32)
        .map(|id| if closes(id) { 2.5 } else { 0.0 })
        .collect();
    let mut ids = Vec::new();
    while ids.len() < 300 {
        let noise = bias
            .iter()
            .map(|bias| bias + random.next_u32() as f32 / 2e9);
        let mut logits: Vec<f32> = noise.collect();
        if ids.is_empty() {
            logits[call as usize] += 50.0;
        }
        let id = sampler.choose(&logits).unwrap().id;
        ids.push(id);
        if id == end {
            return Some(ids);
        }
    }
    None
}

/// Draws answers and checks them; as many as that must have come to their end.
fn check_noise(tokenizer: &Tokenizer, seeds: Range<u64>, least: usize) {
    let definitions = definitions();
    let vocabulary = GrammarTokens::new(tokenizer, tokenizer.eos().unwrap()).unwrap();
    let tools = tools();
    let mut called = vec![0; tools.len()];
    for seed in seeds {
        let strict = StrictTools::new(tokenizer, &vocabulary, &definitions, false).unwrap();
        let Some(ids) = noise(tokenizer, strict, seed) else {
            continue;
        };
        let answer = parse(tokenizer, &ids);
        assert!(answer.text.is_empty() && !answer.calls.is_empty());
        for call in &answer.calls {
            let tool = tools
                .iter()
                .position(|(tool, _)| tool.name == call.name)
                .unwrap();
            assert!(tools[tool].1(&call.arguments), "{call:?}");
            called[tool] += 1;
        }
    }
    assert!(called.iter().all(|&count| count >= least), "{called:?}");
}

#[test]
fn noise_becomes_calls_that_fit() {
    for version in VERSIONS {
        check_noise(&demo(version), 0..150, 1);
    }
}

#[test]
fn noise_becomes_calls_that_fit_with_the_published_vocabulary() {
    for version in VERSIONS {
        check_noise(&genuine(version), 0..6, 0);
    }
}

/// The ids of a text in which special tokens stand by name.
fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let names = [
        special::TOOL_CALLS,
        special::CALL_ID,
        special::ARGS,
        special::EOS,
        special::AUDIO,
    ];
    let next = names
        .iter()
        .filter_map(|name| Some((text.find(name)?, *name)))
        .min();
    let Some((place, name)) = next else {
        return tokenizer.encode(text);
    };
    let mut all = tokenizer.encode(&text[..place]);
    all.push(tokenizer.special(name).unwrap());
    all.extend(ids(tokenizer, &text[place + name.len()..]));
    all
}

/// The text before the first token that is not allowed; `None` if all are.
fn refused(tokenizer: &Tokenizer, mut strict: StrictTools, ids: &[u32]) -> Option<String> {
    for (place, id) in ids.iter().enumerate() {
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        strict.mask(&mut logits).unwrap();
        if logits[*id as usize] == f32::NEG_INFINITY {
            let before = ids[..place].iter();
            return Some(before.map(|id| tokenizer.token_text(*id)).collect());
        }
        strict.accept(*id).unwrap();
    }
    None
}

/// A call with a placeholder for its arguments, as a version writes it.
fn call(version: &str, name: &str, arguments: &str) -> String {
    match version {
        "v7" => format!(
            r#"[TOOL_CALLS][{{"name": "{name}", "arguments": {arguments}, "id": "aB3456789"}}]"#
        ),
        "v11" => format!("[TOOL_CALLS]{name}[CALL_ID]aB3456789[ARGS]{arguments}"),
        _ => format!("[TOOL_CALLS]{name}[ARGS]{arguments}"),
    }
}

#[test]
fn every_well_formed_call_can_be_written() {
    for (version, make) in VERSIONS
        .iter()
        .flat_map(|v| [(v, demo as fn(_) -> _), (v, genuine)])
    {
        let tokenizer: Tokenizer = make(version);
        let vocabulary = GrammarTokens::new(&tokenizer, tokenizer.eos().unwrap()).unwrap();
        for (name, arguments) in [
            ("get_weather", r#"{"city": "Paris"}"#),
            (
                "get_weather",
                r#"{"city": "東京 \"\n\\ 😀 नमस्ते", "days": -3}"#,
            ),
            ("get", r#"{"größe": "°C", "share": 1.4999, "name": "日本"}"#),
            (
                "matrix",
                r#"{"rows": [[1, 2.5], [-0.1e-07, 6.02e23]], "even": 1000000000000000000}"#,
            ),
            (
                "book-flight",
                r#"{"flight": "LH-1", "day": "2024-02-29", "seat": null}"#,
            ),
            (
                "tree",
                r#"{"value": 1, "next": [{"value": 2}, {"value": 3, "next": []}]}"#,
            ),
            (
                "open",
                r#"{"n": 3, "any": [[], {}, {"a": [null, true]}], "m": {"n": "x"}}"#,
            ),
            ("now", "{}"),
        ] {
            let one = call(version, name, arguments);
            let two = match *version {
                "v7" => {
                    let list = one.strip_suffix(']').unwrap();
                    format!(r#"{list}, {{"name": "now", "arguments": {{}}, "id": "123456789"}}]"#)
                }
                _ => format!("{one}{}", call(version, "now", "{}")),
            };
            for text in [format!("{one}</s>"), format!("Let me see.{two}</s>")] {
                let ids = ids(&tokenizer, &text);
                let strict =
                    StrictTools::new(&tokenizer, &vocabulary, &definitions(), false).unwrap();
                assert_eq!(refused(&tokenizer, strict, &ids), None, "{text}");
                let (_, fits) = tools()
                    .into_iter()
                    .find(|(tool, _)| tool.name == name)
                    .unwrap();
                assert!(fits(&parse(&tokenizer, &ids).calls[0].arguments), "{text}");
            }
        }
    }
}

#[test]
fn a_malformed_call_is_stopped_where_it_goes_wrong() {
    for version in VERSIONS {
        let tokenizer = genuine(version);
        let vocabulary = GrammarTokens::new(&tokenizer, tokenizer.eos().unwrap()).unwrap();
        let digits = "1".repeat(20);
        let deep = "[".repeat(101);
        for (name, right, wrong) in [
            ("get_", "", "time"),
            ("get_weather", "{\"", "country\": 3}"),
            ("get_weather", "", "[]"),
            ("get_weather", "{", "}"),
            ("get_weather", "{\"city\":", "\"Paris\"}"),
            (
                "get_weather",
                "{\"city\": \"Paris\", \"",
                "city\": \"Rome\"}",
            ),
            ("get_weather", "{\"city\": \"Paris\", \"days\": 1", "5}"),
            ("get_weather", "{\"city\": \"Paris\", \"days\": ", "\"1\"}"),
            ("get_weather", "{\"city\": \"Paris", "[TOOL_CALLS]"),
            ("get_weather", "{\"city\": \"Paris", "</s>"),
            ("get_weather", "{\"city\": ", "[AUDIO]"),
            ("get_weather", "{\"city\": \"\\", "u0041\"}"),
            ("get", "{\"größe\": \"°", "D\"}"),
            ("book-flight", "{\"flight\": \"LH", "1\"}"),
            ("open", "{\"n\": 1, \"", "n\": \"twice\"}"),
            ("open", "{\"any\": 1e99", "9}"),
            ("open", &format!("{{\"any\": {}", &digits[1..]), "1}"),
            ("open", &format!("{{\"any\": {}", &deep[2..]), "[[["),
            ("now", "{", "\"zone\": 1}"),
        ] {
            let text = |arguments: &str| call(version, name, &format!("{arguments}%"));
            let head = |arguments| text(arguments).split('%').next().unwrap().to_owned();
            let (right, all) = (head(right), head(&format!("{right}{wrong}")));
            let before = ids(&tokenizer, &right);
            let wrong = ids(&tokenizer, all.strip_prefix(&right).unwrap());
            let strict = StrictTools::new(&tokenizer, &vocabulary, &definitions(), false).unwrap();
            let stopped = refused(&tokenizer, strict, &[before, wrong].concat());
            let stopped = stopped.unwrap_or_else(|| panic!("{all} was not stopped"));
            assert!(all.starts_with(&stopped), "{stopped}");
        }
    }
}

#[test]
fn text_is_free_and_special_tokens_are_not() {
    let tokenizer = genuine("v13");
    let (end, call) = (
        tokenizer.eos().unwrap(),
        tokenizer.special(special::TOOL_CALLS).unwrap(),
    );
    let mut strict = strict(&tokenizer, &definitions()).unwrap();
    // Half a character, then what looks like a call.
    for id in [1240]
        .into_iter()
        .chain(tokenizer.encode("[TOOL_CALLS]get[ARGS]nothing"))
    {
        // More scores than tokens, as a padded vocabulary has.
        let mut logits = vec![0.0; tokenizer.vocab_size() + 3];
        strict.mask(&mut logits).unwrap();
        for (other, logit) in (0..).zip(&logits) {
            let free = tokenizer.token_bytes(other).is_some() || other == end || other == call;
            assert_eq!(*logit == 0.0, free, "{other}");
        }
        strict.accept(id).unwrap();
    }
}

#[test]
fn a_schema_that_cannot_be_held_to_is_an_error_that_names_the_tool() {
    let tokenizer = demo("v11");
    let nested = |schema| json!({"properties": {"deep": {"items": schema}}});
    for (parameters, reason) in [
        (json!({"type": "string"}), "type is \"string\""),
        (
            nested(json!({"type": "array", "uniqueItems": true})),
            "uniqueItems",
        ),
        (nested(json!({"not": {"type": "string"}})), "not"),
        (
            nested(json!({"if": {"type": "string"}, "then": false})),
            "if",
        ),
        (nested(json!({"type": "string", "format": "moon"})), "moon"),
        (
            nested(json!({"type": "string", "pattern": "(?=a)b"})),
            "look-around",
        ),
        (
            nested(json!({"oneOf": [{"minimum": 3}, {"maximum": 5}]})),
            "oneOf",
        ),
        (nested(json!({"$ref": "#/nowhere"})), "nowhere"),
        (
            nested(json!({"$ref": "https://example.com/schema"})),
            "example.com",
        ),
        (
            json!({"properties": {"a": {"type": "number", "minimum": 3, "maximum": 2}}, "required": ["a"]}),
            "nsatisfiable",
        ),
        (
            nested(json!({"const": 9007199254740993_u64})),
            "9007199254740993",
        ),
        // A schema cannot loosen the settings that it is read with.
        (
            json!({"x-guidance": {"lenient": true}, "properties": {"a": {"uniqueItems": true}}}),
            "uniqueItems",
        ),
    ] {
        let tools = [tool("fine", json!({})), tool("faulty", parameters)];
        match strict(&tokenizer, &tools) {
            Err(PipelineError::ToolNotStrict {
                tool,
                reason: found,
            }) => {
                assert_eq!(tool, "faulty");
                assert!(found.contains(reason), "{found}");
                assert!(!found.contains('\n'), "{found}");
            }
            Err(error) => panic!("{reason}: {error}"),
            Ok(_) => panic!("{reason}: no error"),
        }
    }
}

/// Prints what the constraint costs with the published vocabulary.
#[test]
#[ignore = "measures, to be watched on a quiet machine"]
fn what_strict_tools_cost() {
    let tokenizer = genuine("v13");
    let clock = Instant::now();
    let vocabulary = GrammarTokens::new(&tokenizer, tokenizer.eos().unwrap()).unwrap();
    println!("vocabulary, once for a model: {:?}", clock.elapsed());
    let clock = Instant::now();
    let mut strict = StrictTools::new(&tokenizer, &vocabulary, &definitions(), false).unwrap();
    println!(
        "grammar of 7 tools, once for an answer: {:?}",
        clock.elapsed()
    );
    let city = "and so on, a long string of words, ".repeat(10);
    let arguments = format!(r#"{{"city": "{city}", "days": 12}}"#);
    let text = format!("Let me see.{}</s>", call("v13", "get_weather", &arguments));
    for id in ids(&tokenizer, &text) {
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        let clock = Instant::now();
        strict.mask(&mut logits).unwrap();
        let mask = clock.elapsed();
        strict.accept(id).unwrap();
        println!("{:16} {mask:?}", tokenizer.token_text(id));
    }
}

/// What the demo says of a clip, greedily, with a bias of beginning calls that wears off.
fn answer(
    strict_tools: bool,
    tools: Vec<ToolDefinition>,
    bias: f32,
) -> Result<crate::Answer, PipelineError> {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let clip = Arc::new(model.read_audio("../samples/digits-en.wav").unwrap());
    let messages = [Message::User(vec![
        Part::Audio(clip),
        Part::Text("What is the time?".to_owned()),
    ])];
    let begin = model.tokenizer().special(special::TOOL_CALLS).unwrap();
    let options = ChatOptions {
        tools,
        strict_tools,
        sampling: SamplingOptions {
            logit_bias: [(begin, bias)].into(),
            frequency_penalty: 2.0,
            ..SamplingOptions::default()
        },
        max_new_tokens: Some(300),
        ..ChatOptions::default()
    };
    model.chat().answer(&messages, &options)
}

#[test]
fn the_demo_calls_tools_as_it_is_held_to() {
    let now = || vec![tool("now", json!({}))];
    let held = answer(true, now(), 60.0).unwrap();
    assert!(!held.calls.is_empty());
    for call in &held.calls {
        assert_eq!((&*call.name, call.arguments.len()), ("now", 0));
    }
    // It does not know how to, otherwise.
    assert!(answer(false, now(), 60.0).is_err());
}

#[test]
fn an_answer_without_calls_is_the_same() {
    let now = || vec![tool("now", json!({}))];
    let [held, free] = [true, false].map(|strict| answer(strict, now(), 0.0).unwrap());
    assert!(held.calls.is_empty() && held.tokens.len() > 1);
    assert_eq!(held.tokens, free.tokens);
}

#[test]
fn a_faulty_schema_is_refused_before_anything_is_computed() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let clip = Arc::new(model.read_audio("../samples/digits-en.wav").unwrap());
    let options = ChatOptions {
        tools: vec![tool("faulty", json!({"not": {}}))],
        strict_tools: true,
        on_window: OnWindow::new(|_, _| panic!("a window was encoded")),
        ..ChatOptions::default()
    };
    let messages = [Message::User(vec![Part::Audio(clip)])];
    let error = model.chat().answer(&messages, &options).unwrap_err();
    assert!(
        matches!(error, PipelineError::ToolNotStrict { .. }),
        "{error}"
    );
}

/// Asks the demo, which would answer with text, for something else.
fn answer_in(form: AnswerForm, single_call: bool) -> Result<crate::Answer, PipelineError> {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let clip = Arc::new(model.read_audio("../samples/digits-en.wav").unwrap());
    let question = Part::Text("Which language is spoken?".to_owned());
    let options = ChatOptions {
        tools: vec![tool("now", json!({})), tool("then", json!({}))],
        sampling: SamplingOptions::default(),
        max_new_tokens: Some(120),
        form,
        single_call,
        ..ChatOptions::default()
    };
    let messages = [Message::User(vec![Part::Audio(clip), question])];
    model.chat().answer(&messages, &options)
}

#[test]
fn calls_can_be_asked_for_and_one_alone() {
    assert!(answer_in(AnswerForm::Free, false).unwrap().calls.is_empty());
    for name in [None, Some("now"), Some("then")] {
        let form = AnswerForm::Calls(name.map(str::to_owned));
        let answer = answer_in(form, true).unwrap();
        assert_eq!((answer.calls.len(), &*answer.text), (1, ""), "{answer:?}");
        assert!(name.is_none_or(|name| answer.calls[0].name == name));
    }
    let error = answer_in(AnswerForm::Calls(Some("never".to_owned())), true).unwrap_err();
    assert!(error.to_string().contains("a call of `never`"), "{error}");
}

#[test]
fn an_answer_can_be_held_to_a_schema() {
    let schema = json!({
        "type": "object",
        "properties": {"digits": {"type": "string", "pattern": "^[0-9]{6}$"}, "sure": {"type": "boolean"}},
        "required": ["digits", "sure"],
        "additionalProperties": false,
    });
    let answer = answer_in(AnswerForm::Json(schema), false).unwrap();
    assert_eq!(answer.finish, crate::Finish::Stop);
    let value: Value = serde_json::from_str(&answer.text).unwrap();
    let digits = value["digits"].as_str().unwrap();
    assert!(digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    assert!(value["sure"].is_boolean() && value.as_object().unwrap().len() == 2);
    let error = answer_in(AnswerForm::Json(json!({"not": {}})), false).unwrap_err();
    assert!(
        matches!(error, PipelineError::AnswerNotHeld { .. }),
        "{error}"
    );
}
