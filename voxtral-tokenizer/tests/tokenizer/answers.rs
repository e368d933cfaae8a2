use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value};
use voxtral_tokenizer::chat::{Answer, Message, Part, ToolCall, parse_answer};
use voxtral_tokenizer::{SpecialPolicy, Tokenizer, TokenizerError, prompt, special};

use crate::support::{chain, instruct};

/// Pieces of an answer: text, and `[NAME]` for a special token.
fn ids(tokenizer: &Tokenizer, pieces: &[&str]) -> Vec<u32> {
    let piece = |piece: &&str| match tokenizer.try_special(piece) {
        Some(id) => vec![id],
        None => tokenizer.encode(piece),
    };
    pieces.iter().flat_map(piece).collect()
}

fn parse(tokenizer: &Tokenizer, pieces: &[&str]) -> Result<Answer, TokenizerError> {
    let mut bits = 0;
    parse_answer(tokenizer, &ids(tokenizer, pieces), || {
        bits += 1;
        bits
    })
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall::new(id, name, arguments).unwrap()
}

#[test]
fn text_alone_is_no_call() {
    for version in ["v7", "v11", "v13"] {
        let tokenizer = instruct(version);
        for text in ["", "A tone.", "[TOOL_CALLS]f[ARGS]{}", " x ", "</s>"] {
            let answer = parse_answer(tokenizer, &tokenizer.encode(text), || 0).unwrap();
            assert_eq!((answer.text.as_str(), answer.calls.len()), (text, 0));
        }
    }
}

#[test]
fn calls_are_read_in_the_form_of_each_version() {
    let expected = [
        call("abcdefghi", "get_weather", r#"{"city": "Nîmes"}"#),
        call("123456789", "dial", r#"{"number": "42"}"#),
    ];
    let list = r#"[{"name": "get_weather", "arguments": {"city": "Nîmes"}, "id": "abcdefghi"},
                   {"name": "dial", "arguments": {"number": "42"}, "id": "123456789"}]"#;
    let v7 = parse(
        instruct("v7"),
        &["Let me see.", "[TOOL_CALLS]", list, "</s>", "more"],
    )
    .unwrap();
    #[rustfmt::skip]
    let v11 = parse(instruct("v11"), &[
        "Let me see.",
        "[TOOL_CALLS]", "get_weather", "[CALL_ID]", "abcdefghi", "[ARGS]", r#"{"city":"Nîmes"}"#,
        "[TOOL_CALLS]", "dial", "[CALL_ID]", "123456789", "[ARGS]", r#" {"number": "42"} "#,
        "</s>",
    ]).unwrap();
    for answer in [v7, v11] {
        assert_eq!(answer.text, "Let me see.");
        assert_eq!(answer.calls, expected);
    }
}

#[test]
fn ids_that_nobody_could_answer_are_made_anew() {
    let made = [
        ToolCall::id_from(1),
        ToolCall::id_from(2),
        ToolCall::id_from(3),
    ];
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), 3);
    let ids = |answer: Answer| {
        answer
            .calls
            .into_iter()
            .map(|call| call.id)
            .collect::<Vec<_>>()
    };
    #[rustfmt::skip]
    let v13 = parse(instruct("v13"), &["[TOOL_CALLS]", "f", "[ARGS]", "{}", "[TOOL_CALLS]", "g", "[ARGS]", "{}"]);
    assert_eq!(ids(v13.unwrap()), made[..2]);
    #[rustfmt::skip]
    let v11 = parse(instruct("v11"), &[
        "[TOOL_CALLS]", "f", "[ARGS]", "{}",
        "[TOOL_CALLS]", "f", "[CALL_ID]", "short", "[ARGS]", "{}",
        "[TOOL_CALLS]", "f", "[CALL_ID]", "abcdefghi", "[ARGS]", "{}",
        "[TOOL_CALLS]", "f", "[CALL_ID]", "abcdefghi", "[ARGS]", "{}",
    ]);
    assert_eq!(
        ids(v11.unwrap()),
        [&made[0], &made[1], "abcdefghi", &made[2]]
    );
    let list = r#"[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}, "id": null}]"#;
    let v7 = parse(instruct("v7"), &["[TOOL_CALLS]", list]).unwrap();
    assert_eq!(ids(v7), made[..2]);
}

#[test]
fn an_id_is_nine_letters_or_digits() {
    for bits in [0, 1, 61, 62, u64::MAX] {
        let id = ToolCall::id_from(bits);
        assert!(
            id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{id}"
        );
    }
    assert_eq!(ToolCall::id_from(61 + 62), "z10000000");
}

#[test]
fn malformed_calls_are_told() {
    for (version, pieces, expected) in [
        (
            "v7",
            &["[TOOL_CALLS]", "{}"][..],
            "the answer calls tools with `{}`, expected a JSON list",
        ),
        ("v7", &["[TOOL_CALLS]"], "the answer calls tools with ``"),
        (
            "v7",
            &["[TOOL_CALLS]", r#"[{"name": "f"}]"#],
            "the answer calls tools with",
        ),
        (
            "v7",
            &["[TOOL_CALLS]", "[", "[INST]", "]"],
            "token 3 is the special token `[INST]`",
        ),
        (
            "v7",
            &["[TOOL_CALLS]", r#"[{"name": "f", "arguments": 1}]"#],
            "the arguments of the call of `f` are a number",
        ),
        (
            "v11",
            &["[TOOL_CALLS]", "f{}"],
            "the answer calls a tool with `f{}`, expected a name, `[ARGS]`",
        ),
        (
            "v11",
            &["[TOOL_CALLS]", "f", "[CALL_ID]", "abcdefghi"],
            "the answer calls a tool with `f[CALL_ID]abcdefghi`",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "f", "[ARGS]", "{\"a\": "],
            "the arguments of the call of `f` are not JSON, expected an object: EOF",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "f", "[ARGS]"],
            "the arguments of the call of `f` are not JSON",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "f", "[ARGS]", "{} {}"],
            "the arguments of the call of `f` are not JSON",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "f", "[ARGS]", "[1]"],
            "the arguments of the call of `f` are an array",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "f", "[ARGS]", "{}", "[ARGS]", "{}"],
            "token 32 is the special token `[ARGS]`",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "what is it", "[ARGS]", "{}"],
            "the function is named `what is it`",
        ),
        (
            "v13",
            &["[TOOL_CALLS]", "[ARGS]", "{}"],
            "the function is named ``",
        ),
    ] {
        let error = chain(&parse(instruct(version), pieces).unwrap_err());
        assert!(
            error.starts_with(expected),
            "{version}, {pieces:?}: {error}"
        );
    }
}

/// JSON without integers beyond 64 bits and floats that are none.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300_f64).prop_map(Value::from),
        (-1e-3..1e-3_f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|entries| Value::from(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn calls() -> impl Strategy<Value = Vec<ToolCall>> {
    let call = (
        "[a-zA-Z0-9]{9}",
        "[a-zA-Z0-9_-]{1,64}",
        any::<Vec<u8>>(),
        value(),
    );
    let call = call.prop_map(|(id, name, key, value)| {
        let key = String::from_utf8_lossy(&key).into_owned();
        let arguments = [(key, value)].into_iter().collect();
        ToolCall {
            id,
            name,
            arguments,
        }
    });
    prop::collection::vec(call, 0..4).prop_filter("ids differ", |calls| {
        calls
            .iter()
            .map(|call| &call.id)
            .collect::<BTreeSet<_>>()
            .len()
            == calls.len()
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read(text in "[^ ]{0,20}", mut calls in calls()) {
        prop_assume!(!(text.is_empty() && calls.is_empty()));
        for version in ["v7", "v11", "v13"] {
            let tokenizer = instruct(version);
            let question = [Message::<()>::user("?")];
            let start = prompt::chat(tokenizer, &question, &[], |()| 1).unwrap().len();
            let mut messages = question.to_vec();
            messages.push(Message::Assistant { text: text.clone(), calls: calls.clone(), prefix: false });
            for call in calls.iter().rev() {
                messages.push(Message::Tool { call_id: call.id.clone(), content: String::new() });
            }
            messages.push(Message::user("!"));
            let ids = prompt::chat(tokenizer, &messages, &[], |()| 1).unwrap();
            let mut next = 0;
            let answer = parse_answer(tokenizer, &ids[start..], || { next += 1; next }).unwrap();
            prop_assert_eq!(&answer.text, &text);
            if version == "v13" {
                for (call, bits) in calls.iter_mut().zip(1..) {
                    call.id = ToolCall::id_from(bits);
                }
            }
            prop_assert_eq!(&answer.calls, &calls);
        }
    }

    #[test]
    fn nothing_that_anybody_writes_becomes_a_special_token(
        texts in prop::array::uniform4(any_text()), version in 0..3_usize,
    ) {
        let tokenizer = instruct(["v7", "v11", "v13"][version]);
        let [system, user, assistant, result] = texts.clone();
        let arguments = [(user.clone(), Value::from(result.clone()))].into_iter().collect();
        let written = |system, user, assistant, content, arguments| {
            let call = ToolCall { id: "abcdefghi".to_owned(), name: "f".to_owned(), arguments };
            let messages = [
                Message::<()>::System(system),
                Message::User(vec![Part::Text(user)]),
                Message::Assistant { text: assistant, calls: vec![call], prefix: false },
                Message::Tool { call_id: "abcdefghi".to_owned(), content },
            ];
            let ids = prompt::chat(tokenizer, &messages, &[], |()| 1).unwrap();
            let specials: Vec<u32> = ids.iter().copied().filter(|&id| tokenizer.is_special(id)).collect();
            (specials, ids)
        };
        let a = || "a".to_owned();
        let (plain, _) = written(a(), a(), a(), a(), Map::new());
        let (specials, ids) = written(system, user, assistant, result, arguments);
        prop_assert_eq!(specials, plain);
        let text = tokenizer.decode(&ids, SpecialPolicy::Ignore).unwrap();
        for part in &texts[..2] {
            prop_assert!(text.contains(part.as_str()));
        }
    }

    #[test]
    fn no_ids_make_it_panic(
        mut ids in prop::collection::vec(prop_oneof![0..40_u32, 1000..131_072_u32, any::<u32>()], 0..40),
        version in 0..3_usize,
    ) {
        let tokenizer = instruct(["v7", "v11", "v13"][version]);
        let _ = parse_answer(tokenizer, &ids, || 0);
        ids.insert(0, tokenizer.special(special::TOOL_CALLS).unwrap());
        let _ = parse_answer(tokenizer, &ids, || 0);
    }
}

/// Text with and without names of special tokens, never empty.
fn any_text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        special::BOS,
        special::EOS,
        special::BEGIN_INST,
        special::END_INST,
        special::AUDIO,
        special::BEGIN_AUDIO,
        special::TOOL_CALLS,
        special::ARGS,
        special::CALL_ID,
        special::BEGIN_TOOLS,
        special::END_SYSTEM,
        special::END_TOOL_RESULTS,
        special::TRANSCRIBE,
    ]);
    let piece = prop_oneof![
        name.prop_map(str::to_owned),
        any::<String>(),
        Just("x".to_owned())
    ];
    prop::collection::vec(piece, 1..5)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("some text", |text| !text.is_empty())
}
