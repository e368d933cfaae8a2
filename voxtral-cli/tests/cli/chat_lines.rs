//! Conversations line by line, from a pipe. Runs in a terminal are in `terminal.rs`.

use std::fs;

use serde_json::{Value, json};

use crate::scene::{EN, FR, Ran, Scene, assert_says};

/// Greedy and short, so that runs can be compared.
const SHORT: [&str; 4] = ["--temperature", "0", "--max-new-tokens", "6"];

/// The conversation that was saved.
fn saved(scene: &Scene) -> Value {
    serde_json::from_str(&scene.read("talk.json")).unwrap()
}

/// Who speaks in a conversation that was saved.
fn roles(talk: &Value) -> Vec<&str> {
    let messages = talk["messages"].as_array().unwrap().iter();
    messages.map(|one| one["role"].as_str().unwrap()).collect()
}

#[test]
fn nothing_said_is_nothing_answered() {
    let scene = Scene::new();
    for lines in ["", "\n \n", "/quit\nnever asked", "/reset\n/quit"] {
        let ran = scene.talk(&["-q"], lines);
        assert_eq!((ran.ok(), &*ran.stderr), ("", ""), "{lines:?}");
    }
    assert!(!scene.path("state").exists(), "a pipe has no history");
}

#[test]
fn a_conversation_is_saved_as_it_was() {
    let scene = Scene::new();
    let lines = format!("/audio {EN}\n/audio {FR}\nWhich digits?\nAgain!\n/save talk.json\n");
    let ran = scene.talk(&SHORT, &lines);
    let answers: Vec<&str> = ran.ok().lines().map(str::trim).collect();
    assert_eq!(answers.len(), 2);
    assert_says(&ran.stderr, &["4.3s of audio", "wrote `talk.json`"]);
    let absolute = |file| std::path::absolute(file).unwrap();
    let clip = |file| json!({"type": "audio_url", "audio_url": {"url": absolute(file)}});
    let text = |text| json!({"type": "text", "text": text});
    assert_eq!(
        saved(&scene),
        json!({"model": "demo", "messages": [
            {"role": "user", "content": [clip(EN), clip(FR), text("Which digits?")]},
            {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": [text("Again!")]},
            {"role": "assistant", "content": answers[1]},
        ]})
    );
}

#[test]
fn the_answers_are_those_of_single_questions_and_the_past_is_not_computed_again() {
    let scene = Scene::new();
    let arguments = [&["-f", "json"], &SHORT[..]].concat();
    let lines = format!("/audio {EN}\ndigits\nwhich language\n/reset\n/audio {EN}\n\n");
    let objects = scene.talk(&arguments, &lines).json();
    assert_eq!(objects.len(), 3);
    let single = |text: &[&str]| {
        let arguments = [&arguments[..], &["-a", EN], text].concat();
        scene.chat(&arguments).json()[0]["tokens"].clone()
    };
    assert_eq!(objects[0]["tokens"], single(&["digits"]));
    assert_eq!(objects[0]["files"], json!([EN]));
    assert_eq!(objects[1]["files"], json!([]));
    let (before, usage) = (&objects[0]["usage"], &objects[1]["usage"]);
    assert!(usage["cached_tokens"].as_u64() >= before["prompt_tokens"].as_u64());
    assert_eq!(usage["audio_tokens"], 375);
    // A new conversation knows nothing of the other; an empty line sends the audio alone.
    assert_eq!(objects[2]["tokens"], single(&[]));
    assert_eq!(objects[2]["usage"]["cached_tokens"], 0);
}

#[test]
fn clips_of_the_command_line_go_with_the_first_message() {
    let scene = Scene::new();
    let arguments = [&["-q", "-a", EN], &SHORT[..]].concat();
    let lines = "digits\nAgain!\n/save talk.json\n";
    scene.talk(&arguments, lines).ok();
    let talk = saved(&scene);
    assert_eq!(roles(&talk), ["user", "assistant"].repeat(2));
    let parts = |at: usize| talk["messages"][at]["content"].as_array().unwrap().len();
    assert_eq!((parts(0), parts(2)), (2, 1));
    assert_eq!(talk["messages"][0]["content"][0]["type"], "audio_url");
}

#[test]
fn system_and_tools_can_be_exchanged() {
    let scene = Scene::new();
    let tool = json!({"type": "function", "function": {
        "name": "dial", "description": "Dial a number.", "parameters": {"type": "object"},
    }});
    scene.write("my tools.json", json!([tool]).to_string());
    let ran = scene.talk(
        &[],
        "/system Be brief.\n/system Be long.\n/tools my tools.json\n/save talk.json\n",
    );
    ran.ok();
    assert_says(&ran.stderr, &["`dial`"]);
    let system = json!({"role": "system", "content": "Be long."});
    assert_eq!(saved(&scene)["messages"], json!([system]));
    assert_eq!(saved(&scene)["tools"], json!([tool]));
    let lines = "/reset\n/system\n/tools\n/save talk.json\n";
    let arguments = ["-q", "--system", "A", "--tools", "my tools.json"];
    scene.talk(&arguments, lines).ok();
    assert_eq!(saved(&scene), json!({"model": "demo", "messages": []}));
}

#[test]
fn what_cannot_be_done_is_told_and_the_talk_goes_on() {
    let scene = Scene::new();
    scene.write("words.txt", "These are words.");
    fs::copy(EN, scene.path("a b.wav")).unwrap();
    for (line, words) in [
        ("/play a.wav", &["no command `/play`", "`/help`"][..]),
        ("/audio", &["`/audio` is given no file", "`/audio FILE`"]),
        ("/audio absent.wav", &["`absent.wav` does not exist"]),
        ("/audio words.txt", &["cannot read `words.txt`"]),
        ("/audio -", &["stdin"]),
        ("/tools words.txt", &["cannot use `words.txt`"]),
        ("/save", &["`/save FILE`"]),
        (
            "/save absent/talk.json",
            &["cannot write `absent/talk.json`"],
        ),
        ("/reset now", &["`/reset` takes nothing", "`now`"]),
    ] {
        let lines = format!("/audio a b.wav\n{line}\ndigits\n/save talk.json\n");
        let ran = scene.talk(&[&["-q"], &SHORT[..]].concat(), &lines);
        assert_eq!(ran.stdout.lines().count(), 1, "{line}: {ran:?}");
        assert_says(&ran.error(1), words);
        assert_eq!(roles(&saved(&scene)), ["user", "assistant"]);
    }
}

#[test]
fn a_clip_is_never_overwritten() {
    let scene = Scene::new();
    let audio = fs::read(EN).unwrap();
    scene.write("a.wav", &audio);
    let ran = scene.talk(&["-q"], "/audio a.wav\n/save ./a.wav\n");
    assert_says(&ran.error(1), &["is a clip of the conversation"]);
    assert_eq!(fs::read(scene.path("a.wav")).unwrap(), audio);
}

#[test]
fn a_question_without_an_answer_is_forgotten() {
    let scene = Scene::new();
    // Of eleven clips, the context holds ten.
    let lines = format!(
        "{}too much\n/audio {EN}\ndigits\n/save talk.json\n",
        format!("/audio {EN}\n").repeat(11)
    );
    let ran = scene.talk(&[&["-q"], &SHORT[..]].concat(), &lines);
    assert_says(&ran.error(1), &["exceed the context"]);
    assert_eq!(roles(&saved(&scene)), ["user", "assistant"]);
    assert_eq!(saved(&scene)["messages"][0]["content"][1]["text"], "digits");
}

#[test]
fn help_lists_the_commands_even_for_quiet_people() {
    let ran = Scene::new().talk(&["-q"], "/help\n");
    assert_eq!(ran.ok(), "");
    let commands = ["/audio FILE", "/system", "/tools", "/save FILE", "/reset"];
    assert_says(&ran.stderr, &commands);
    assert_says(&ran.stderr, &["/help", "/quit", "Ctrl-D"]);
}

#[test]
fn a_line_that_is_no_text_is_named() {
    let scene = Scene::new();
    let mut command = scene.command(&["chat", "-q", "--interactive"]);
    let ran = Ran::fed(&mut command, b"/reset\ncaf\xe9\n");
    assert_says(&ran.error(1), &["line 2 of stdin is not UTF-8 at byte 3"]);
    let mut command = scene.command(&["chat", "-q", "--interactive"]);
    let ran = Ran::fed(&mut command, &vec![b'a'; (1 << 20) + 1]);
    assert_says(&ran.error(1), &["line 1 of stdin", "1048576 bytes"]);
}
