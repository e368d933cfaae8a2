//! Questions of one turn: what is asked, and how the answer is printed. What the answers mean is
//! tested in `chat_meaning.rs`.

use std::fs;

use serde_json::{Value, json};

use crate::scene::{EN, FR, Ran, Scene, assert_says};

/// Greedy and short, so that runs can be compared.
const SHORT: [&str; 4] = ["--temperature", "0", "--max-new-tokens", "6"];

/// The object of a run without what no two runs share.
#[track_caller]
fn object(ran: &Ran) -> Value {
    let [object] = &ran.json()[..] else {
        panic!("{ran:?}");
    };
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("timings").unwrap();
    object
}

#[track_caller]
fn asked(arguments: &[&str]) -> Value {
    let arguments = [&SHORT[..], &["-f", "json"], arguments].concat();
    object(&Scene::new().chat(&arguments))
}

#[test]
fn audio_alone_is_a_question() {
    let ran = Scene::new().run(&[&["chat", "-a", EN], &SHORT[..]].concat());
    assert_eq!(ran.ok().lines().count(), 1);
    assert_says(&ran.stderr, &["demo", "device: cpu"]);
}

#[test]
fn json_has_the_text_that_is_printed_and_what_it_took() {
    let arguments = [&SHORT, &["-a", EN, "Which digits?"][..]].concat();
    let ran = Scene::new().chat(&arguments);
    let object = asked(&["-a", EN, "Which digits?"]);
    assert_eq!(ran.ok().trim_end(), object["text"].as_str().unwrap());
    assert_eq!(ran.stderr, "");
    assert_eq!(object["files"], json!([EN]));
    assert_eq!(object["model"], "demo");
    let tokens = object["tokens"].as_array().unwrap();
    let usage = &object["usage"];
    assert_eq!(usage["completion_tokens"], tokens.len());
    assert_eq!(usage["audio_tokens"], 375);
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 375);
    let samples = hound::WavReader::open(EN).unwrap().duration();
    let seconds = usage["audio"].as_f64().unwrap();
    assert!((seconds - f64::from(samples) / 16_000.0).abs() < 1e-3);
    assert!(object.get("calls").is_none() && object.get("truncated").is_none());
}

/// The library is asked the same in the order that is promised: clips, then text.
#[cfg(feature = "flex")]
#[test]
fn clips_go_before_the_text_in_their_order() {
    use std::sync::Arc;
    use voxtral_pipeline::{ChatOptions, Message, Part, SamplingOptions, Voxtral};

    let found = asked(&["-a", EN, "Which digits?", "-a", FR]);
    let model = Voxtral::<burn_flex::Flex>::builder().demo().unwrap();
    let clip = |file| Part::Audio(Arc::new(model.read_audio(file).unwrap()));
    let messages = [Message::User(vec![
        clip(EN),
        clip(FR),
        Part::Text("Which digits?".to_owned()),
    ])];
    let options = ChatOptions {
        sampling: SamplingOptions::default(),
        max_new_tokens: Some(6),
        ..Default::default()
    };
    let expected = model.chat().answer(&messages, &options).unwrap();
    // By way of text, as the program's.
    let expected: Value = serde_json::from_str(&json!(expected).to_string()).unwrap();
    let ids = |answer: &Value| -> Vec<Value> {
        let tokens = answer["tokens"].as_array().unwrap().iter();
        tokens.map(|token| token["id"].clone()).collect()
    };
    assert_eq!(ids(&found), ids(&expected));
    assert_eq!(found["usage"], expected["usage"]);
    let turned = asked(&["-a", FR, "Which digits?", "-a", EN]);
    assert_ne!(ids(&turned), ids(&expected));
    assert_eq!(found["files"], json!([EN, FR]));
}

#[test]
fn the_text_may_come_from_stdin() {
    let text = "Quelle est la réponse ?\nEt l'autre ?";
    let expected = asked(&[text]);
    let scene = Scene::new();
    for (arguments, end) in [(&["-"][..], ""), (&[], "\n"), (&["-"], "\r\n")] {
        let arguments = [&["chat", "-q", "-f", "json"], &SHORT[..], arguments].concat();
        let input = format!("{text}{end}");
        let ran = Ran::fed(&mut scene.command(&arguments), input.as_bytes());
        assert_eq!(object(&ran), expected);
    }
    let piped = [&["chat", "-q", "-f", "json", "-a", EN, "-"], &SHORT[..]].concat();
    let ran = Ran::fed(&mut scene.command(&piped), text.as_bytes());
    assert_eq!(object(&ran), asked(&["-a", EN, text]));
}

#[test]
fn a_clip_may_come_from_stdin() {
    let arguments = [
        &["chat", "-q", "-f", "json", "-a", "-", "digits"],
        &SHORT[..],
    ]
    .concat();
    let ran = Ran::fed(
        &mut Scene::new().command(&arguments),
        &fs::read(EN).unwrap(),
    );
    let mut expected = asked(&["-a", EN, "digits"]);
    expected["files"] = json!(["-"]);
    assert_eq!(object(&ran), expected);
}

#[test]
fn a_broken_clip_is_answered_but_the_run_has_failed() {
    let scene = Scene::new();
    let bytes = fs::read(EN).unwrap();
    scene.write("cut.wav", &bytes[..bytes.len() / 2]);
    let arguments = [&["chat", "-f", "json", "-a", "cut.wav"], &SHORT[..]].concat();
    let ran = scene.run(&arguments);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(object["truncated"], true);
    assert_says(&ran.stderr, &["warning: cut.wav: "]);
}

#[test]
fn what_is_drawn_is_what_mistral_recommends() {
    let draw = |options: &[&str]| {
        let arguments = ["-f", "json", "--max-new-tokens", "24", "Hello!"];
        object(&Scene::new().chat(&[&arguments, options].concat()))
    };
    let mut different = 0;
    for seed in ["1", "2", "3", "4"] {
        let recommended = ["--temperature", "0.2", "--top-p", "0.95", "--seed", seed];
        let usual = draw(&["--seed", seed]);
        assert_eq!(usual, draw(&recommended));
        different += usize::from(usual != draw(&["--temperature", "100", "--seed", seed]));
    }
    assert!(different > 0, "no seed tells one temperature from another");
    // Top-p of the default does not stand in the way of temperature 0.
    assert_eq!(
        draw(&["--temperature", "0", "--seed", "3"]),
        draw(&["--temperature", "0", "--seed", "4"])
    );
}

#[test]
fn a_limit_of_tokens_is_told() {
    let ran = Scene::new().run(&["chat", "-a", EN, "-f", "json", "--max-new-tokens", "2"]);
    let object = &ran.json()[0];
    assert_eq!(object["tokens"].as_array().unwrap().len(), 2);
    assert_eq!(object["finish"], "length");
    assert_says(
        &ran.stderr,
        &["warning: stopped after 2 tokens", "--max-new-tokens"],
    );
}

#[test]
fn alternatives_and_stops_are_those_of_every_command() {
    let object = asked(&["-a", EN, "digits", "--logprobs", "3"]);
    for token in object["tokens"].as_array().unwrap() {
        assert_eq!(token["top"].as_array().unwrap().len(), 3);
    }
    let text = object["text"].as_str().unwrap();
    let stop = &text[text.len() / 2..];
    let stopped = asked(&["-a", EN, "digits", "--stop", stop]);
    assert_eq!(stopped["stop"], stop);
    assert_eq!(stopped["finish"], "stop");
}

#[test]
fn verbose_tells_the_time_and_the_tokens() {
    let ran = Scene::new().run(&[&["chat", "-v", "-a", EN], &SHORT[..]].concat());
    ran.ok();
    assert_says(
        &ran.stderr,
        &["4.3s of audio", "encoder", "375 of them audio"],
    );
}
