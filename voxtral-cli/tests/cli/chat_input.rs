//! Questions that cannot be asked: each is told in one line, before a model is opened where that
//! tells nothing more.

use std::fs;
use std::iter;

use crate::scene::{EN, RATE, Ran, Scene, assert_says, repository, write_wav};

/// The error of a question to a model that is absent: what is found out before it is missed.
#[track_caller]
fn refused_early(scene: &Scene, arguments: &[&str], input: &[u8]) -> String {
    let arguments = [&["chat", "-q", "-m", "./absent"], arguments].concat();
    let ran = Ran::fed(&mut scene.command(&arguments), input);
    assert_eq!(ran.stdout, "");
    ran.error(1)
}

#[track_caller]
fn refused(scene: &Scene, arguments: &[&str]) -> String {
    let ran = scene.chat(arguments);
    assert_eq!(ran.stdout, "");
    ran.error(1)
}

#[test]
fn an_empty_question() {
    let scene = Scene::new();
    for arguments in [&[""][..], &[" \n\t"], &["-a", EN, ""]] {
        let error = refused_early(&scene, arguments, b"");
        assert_says(&error, &["the text is empty", "question"]);
    }
    for input in [&b""[..], b" \n\n"] {
        for arguments in [&[][..], &["-"], &["-a", EN, "-"]] {
            let error = refused_early(&scene, arguments, input);
            assert_says(&error, &["stdin is empty", "question"]);
        }
    }
}

#[test]
fn a_question_that_is_no_text() {
    let error = refused_early(&Scene::new(), &["-"], b"caf\xe9?");
    assert_says(&error, &["stdin is not UTF-8 at byte 3", "convert"]);
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let mut command = scene.command(&["chat", "-q"]);
    command.arg(std::ffi::OsStr::from_bytes(b"caf\xe9?"));
    assert_says(&Ran::of(&mut command).error(2), &["UTF-8"]);
}

#[test]
fn stdin_for_two_things() {
    let scene = Scene::new();
    for arguments in [
        &["-a", "-", "-a", "-", "text"][..],
        &["-a", "-", "-"],
        &["-a", "-", "--interactive"],
    ] {
        let error = refused_early(&scene, arguments, b"");
        assert_says(&error, &["stdin is asked for twice", "file"]);
    }
}

#[test]
fn files_that_are_no_audio() {
    let scene = Scene::new();
    scene.write("words.txt", "These are words.");
    scene.write("empty.wav", "");
    write_wav(&scene.path("silent.wav"), 1, RATE, 16, iter::empty::<i16>());
    fs::create_dir(scene.path("folder")).unwrap();
    assert_says(
        &refused_early(&scene, &["-a", EN, "-a", "absent.wav", "?"], b""),
        &["`absent.wav` does not exist"],
    );
    assert_says(
        &refused_early(&scene, &["-a", "folder"], b""),
        &["`folder` is a directory", "audio file"],
    );
    for name in ["words.txt", "empty.wav"] {
        let error = refused(&scene, &["-a", EN, "-a", name, "?"]);
        assert_says(&error, &[&format!("cannot read `{name}`: ")]);
    }
    refused(&scene, &["-a", "silent.wav", "?"]);
}

#[test]
fn more_audio_than_is_taken() {
    let scene = Scene::new();
    let seconds = 41 * 60;
    let samples = iter::repeat_n(0_i16, seconds * 8_000);
    write_wav(&scene.path("long.wav"), 1, 8_000, 16, samples);
    let error = refused(&scene, &["-a", "long.wav", "?"]);
    assert_says(
        &error,
        &["cannot read `long.wav`", "41:00", "at most 40:00"],
    );
}

#[test]
fn more_than_the_context_holds() {
    let scene = Scene::new();
    let error = refused(&scene, &["-a", EN, "?", "--max-new-tokens", "4000"]);
    assert_says(&error, &["375 of them audio", "4000", "4096"]);
    let clips = ["-a", EN].repeat(11);
    let error = refused(&scene, &[&clips[..], &["?"]].concat());
    assert_says(&error, &["4125 of them audio", "exceed", "leave out"]);
}

#[test]
fn tools_that_are_none() {
    let scene = Scene::new();
    let tool = |name: &str, parameters: &str| {
        format!(
            r#"{{"type": "function", "function": {{"name": "{name}", "parameters": {parameters}}}}}"#
        )
    };
    let (fine, two) = (tool("f", "{}"), tool("f", r#"{"type": "text"}"#));
    for (content, words) in [
        ("dial(number)".to_owned(), &["JSON list", "line 1"][..]),
        (String::new(), &["JSON list"]),
        (fine.clone(), &["JSON list"]),
        ("[{\"name\": \"f\"}]".to_owned(), &["`function`"]),
        (
            format!("[{two}]"),
            &["schema of tool `f`", "`/type`", "text"],
        ),
        (format!("[{fine}, {fine}]"), &["two tools", "`f`"]),
        (format!("[{}]", tool("call me", "{}")), &["`call me`"]),
    ] {
        scene.write("tools.json", content);
        let error = refused_early(&scene, &["-a", EN, "--tools", "tools.json"], b"");
        assert_says(&error, &["cannot use `tools.json`: "]);
        assert_says(&error, words);
    }
    scene.write("tools.json", b"[\"\xff\"]");
    let error = refused_early(&scene, &["-a", EN, "--tools", "tools.json"], b"");
    assert_says(&error, &["`tools.json` is not UTF-8"]);
    let error = refused_early(&scene, &["-a", EN, "--tools", "absent.json"], b"");
    assert_says(&error, &["cannot read `absent.json`"]);
}

#[test]
fn options_that_contradict_each_other() {
    let scene = Scene::new();
    let error = refused_early(&scene, &["?", "--temperature", "0", "--top-p", "0.5"], b"");
    assert_says(&error, &["top-p is 0.5 at temperature 0"]);
    for (arguments, words) in [
        (
            &["--interactive", "?"][..],
            &["[TEXT]", "--interactive"][..],
        ),
        (&["?", "--max-tool-rounds", "0"], &["'0'"]),
        (&["?", "--max-new-tokens", "0"], &["'0'"]),
        (&["?", "--format", "srt"], &["'srt'", "text, json"]),
        (&["?", "--system", ""], &["--system"]),
        (&["a", "question"], &["'question'"]),
    ] {
        assert_says(&scene.chat(arguments).error(2), words);
    }
}

#[test]
fn a_model_that_answers_no_questions() {
    let error = refused(&Scene::new(), &["-m", "demo-realtime", "-a", EN]);
    assert_says(&error, &["`demo-realtime`", "--model mini", "transcribe"]);
}

/// Before v13, a system prompt goes with text only.
#[test]
fn a_system_prompt_beside_audio_for_an_older_model() {
    let scene = Scene::new();
    fs::create_dir(scene.path("model")).unwrap();
    for entry in fs::read_dir(repository("voxtral-pipeline/demo")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), scene.path("model").join(entry.file_name())).unwrap();
    }
    let mut tokenizer: serde_json::Value =
        serde_json::from_str(&scene.read("model/tekken.json")).unwrap();
    tokenizer["config"]["version"] = "v11".into();
    scene.write("model/tekken.json", tokenizer.to_string());
    let error = refused(&scene, &["-m", "model", "--system", "Be brief.", "-a", EN]);
    assert_says(&error, &["version v11", "cannot have both"]);
}

/// Whatever looks like a special token is text, which takes more than one token.
#[test]
fn special_tokens_cannot_be_typed() {
    let size = |text: &str| {
        let arguments = ["-f", "json", "--max-new-tokens", "1", text];
        let object = &Scene::new().chat(&arguments).json()[0];
        object["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    for token in ["[INST]", "[/INST]", "</s>", "[BEGIN_AUDIO]", "[TOOL_CALLS]"] {
        assert!(size(&format!("a{token}")) > size("a") + 1, "{token}");
    }
}

#[test]
fn a_call_that_is_cut_off() {
    // `[TOOL_CALLS]` at every step.
    let arguments = ["-a", EN, "--logit-bias", "9=100", "--max-new-tokens", "3"];
    let error = refused(&Scene::new(), &arguments);
    assert_says(&error, &["cut off after 3 tokens", "call", "permit more"]);
}
