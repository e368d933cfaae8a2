//! What answers mean: questions that the demo model has learnt to answer, and its calls of `dial`.

use serde_json::{Value, json};

use crate::scene::{DE, EN, FR, Ran, Scene, assert_says};

const GREEDY: [&str; 2] = ["--temperature", "0"];
const EN_DIGITS: &str = "314159";
const FR_DIGITS: &str = "271828";
const DE_DIGITS: &str = "420695";

#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let ran = Scene::new().chat(&[&GREEDY, arguments].concat());
    ran.ok().trim_end().to_owned()
}

#[test]
fn questions_about_a_clip_are_answered() {
    for (file, digits, language) in [
        (EN, EN_DIGITS, "English"),
        (FR, FR_DIGITS, "French"),
        (DE, DE_DIGITS, "German"),
    ] {
        assert_eq!(answer(&["-a", file, "digits"]), digits);
        assert_eq!(answer(&["-a", file, "Which language is spoken?"]), language);
    }
}

#[test]
fn questions_about_one_of_two_clips_are_answered() {
    let both = ["-a", FR, "-a", DE];
    for (text, expected) in [
        ("first clip: digits", FR_DIGITS),
        ("second clip: digits", DE_DIGITS),
        ("Which language is spoken in the first clip?", "French"),
        ("Which language is spoken in the second clip?", "German"),
    ] {
        assert_eq!(answer(&[&both[..], &[text]].concat()), expected, "{text}");
    }
}

#[test]
fn a_conversation_goes_over_several_questions_and_clips() {
    let lines = format!(
        "/audio {EN}\nwhich language\ndigits\n/audio {FR}\nWhich language?\n/reset\n/audio {DE}\ndigits\n"
    );
    let ran = Scene::new().talk(&[&["-q"], &GREEDY[..]].concat(), &lines);
    let answers: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(answers, ["English", EN_DIGITS, "French", DE_DIGITS]);
}

/// A scene with the tool that the model knows.
fn exchange() -> Scene {
    let scene = Scene::new();
    let parameters = json!({
        "type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"],
    });
    let function = json!({
        "name": "dial", "description": "Dial a number.", "parameters": parameters,
    });
    let tools = json!([{"type": "function", "function": function}]);
    scene.write("tools.json", tools.to_string());
    scene
}

const CALL: [&str; 6] = ["-a", EN, "--tools", "tools.json", "--seed", "1"];

/// The call of a line.
#[track_caller]
fn call(line: &str) -> (String, Value) {
    let call: Value = serde_json::from_str(line).unwrap();
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"]["name"], "dial");
    let arguments = call["function"]["arguments"].as_str().unwrap();
    let id = call["id"].as_str().unwrap().to_owned();
    (id, serde_json::from_str(arguments).unwrap())
}

/// A run that is given these lines for its call, with the call's id.
fn dial(scene: &Scene, options: &[&str], lines: impl Fn(&str) -> String) -> (String, Ran) {
    let arguments = [&CALL, &GREEDY[..], options].concat();
    // The same seed, the same id.
    let ran = scene.chat(&arguments[..CALL.len() + GREEDY.len()]);
    let (id, _) = call(ran.ok());
    let arguments = [&["chat", "-q"], &arguments[..]].concat();
    let ran = Ran::fed(&mut scene.command(&arguments), lines(&id).as_bytes());
    (id, ran)
}

fn result(id: &str, content: &str) -> String {
    json!({"tool_call_id": id, "content": content}).to_string() + "\n"
}

#[test]
fn without_results_the_calls_are_all_there_is() {
    let scene = exchange();
    let arguments = [&["chat"], &CALL[..], &GREEDY].concat();
    let ran = scene.run(&arguments);
    assert_eq!(call(ran.ok()).1, json!({"number": EN_DIGITS}));
    assert_says(&ran.stderr, &["stdin has no results"]);
}

#[test]
fn results_are_given_back_and_the_model_goes_on() {
    let scene = exchange();
    for (content, expected) in [("ok", "dialed"), ("error: busy", "failed")] {
        let (id, ran) = dial(&scene, &[], |id| result(id, content));
        let lines: Vec<&str> = ran.ok().lines().collect();
        let [first, last] = lines[..] else {
            panic!("{ran:?}");
        };
        assert_eq!(call(first), (id, json!({"number": EN_DIGITS})));
        assert_eq!(last, expected);
    }
}

#[test]
fn json_is_a_line_for_each_answer() {
    let scene = exchange();
    let (id, ran) = dial(&scene, &["-f", "json"], |id| result(id, "ok"));
    let answers = ran.json();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["calls"][0]["id"], id);
    assert_eq!(answers[0]["text"], "");
    assert_eq!(answers[1]["text"], "dialed");
    assert!(answers[1].get("calls").is_none());
    assert_eq!(answers[1]["files"], json!([EN]));
}

#[test]
fn wrong_results_are_errors_that_name_the_line() {
    let scene = exchange();
    let lines = |id: &str| format!("\n{}", result(&format!("not {id}"), "ok"));
    let (id, ran) = dial(&scene, &[], lines);
    assert_says(&ran.error(1), &["line 2 of stdin", "no call", &id]);
    let (_, ran) = dial(&scene, &[], |_| "ok\n".to_owned());
    assert_says(&ran.error(1), &["line 1 of stdin", "tool_call_id"]);
    let (_, ran) = dial(&scene, &[], |id| result(id, &"0 ".repeat(100_000)));
    assert_says(&ran.error(1), &["exceed the context"]);
}

#[test]
fn a_question_beside_tools_is_answered_without_a_call() {
    let scene = exchange();
    let ran = scene.chat(&[&CALL, &GREEDY[..], &["which language"]].concat());
    assert_eq!(ran.ok(), "English\n");
}

#[test]
fn calls_of_a_conversation_are_saved_with_their_results() {
    let scene = exchange();
    let (id, _) = dial(&scene, &[], |id| result(id, "ok"));
    let talk = |results: &str| {
        let lines = format!("/tools tools.json\n/audio {EN}\n\n{results}/save talk.json\n");
        scene.talk(&["-q", "--temperature", "0", "--seed", "1"], &lines)
    };
    let ran = talk(&result(&id, "ok"));
    assert_eq!(ran.ok().lines().last(), Some("dialed"));
    let saved: Value = serde_json::from_str(&scene.read("talk.json")).unwrap();
    let messages = saved["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    assert_eq!(messages[1]["tool_calls"][0]["id"], id);
    assert_eq!(messages[2]["tool_call_id"], id);

    // A wrong line is told, and the next is read.
    let ran = talk(&format!("ok\n{}", result(&id, "ok")));
    assert_eq!(ran.stdout.lines().last(), Some("dialed"));
    assert_says(&ran.error(1), &["line 4 of stdin"]);
}
