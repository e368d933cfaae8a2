//! Requests that make the thread panic that computes, over HTTP.

use std::{net::TcpListener, thread};

use burn_flex::Flex;
use serde_json::Value;
use voxtral_pipeline::{Language, OnWindow, Voxtral};

use super::{Engine, Limits, Work};
use crate::Config;

/// The language of files that make it panic.
const FATAL: &str = "es";

/// Lets work panic beside others, once its sound is heard.
pub(super) fn inject(mut work: Work) -> Work {
    if let Work::Transcribe {
        options, stream, ..
    } = &mut work
    {
        let fatal = |language: Language| language.code() == FATAL;
        if options.transcribe.language.is_some_and(fatal) {
            // Recordings have calls of their own.
            *stream = true;
            options.transcribe.on_window = OnWindow::new(|_, _| panic!("injected"));
        }
    }
    work
}

/// Sends a recording whose language is named; gives the status and the answer.
fn transcribe(url: &str, language: &str) -> (u16, Value) {
    let sound = include_bytes!("../../../samples/digits-en.wav");
    let part = |name| format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"");
    let mut body = format!("{}\r\n\r\n{language}\r\n", part("language")).into_bytes();
    body.extend(format!("{}; filename=\"a.wav\"\r\n\r\n", part("file")).as_bytes());
    body.extend(sound);
    body.extend(b"\r\n--x--\r\n");
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.build());
    let request = agent.post(format!("{url}/v1/audio/transcriptions"));
    let request = request.header("content-type", "multipart/form-data; boundary=x");
    let mut response = request.send(&body[..]).unwrap();
    let answer = response.body_mut().read_json().unwrap();
    (response.status().as_u16(), answer)
}

#[test]
fn one_panics_and_nobody_else_notices() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let (engine, _thread) = Engine::start(vec![(model, Vec::new())], Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || crate::run(listener, engine, Config::default()));
    let (status, alone) = transcribe(&url, "en");
    assert_eq!(status, 200, "{alone}");
    thread::scope(|scope| {
        let asked = ["en", FATAL, "en", FATAL, "en", "en"].map(|language| {
            let url = &url;
            (language, scope.spawn(move || transcribe(url, language)))
        });
        for (language, answer) in asked {
            let (status, answer) = answer.join().unwrap();
            if language == FATAL {
                assert_eq!(
                    (status, &answer["error"]["type"]),
                    (500, &"server_error".into())
                );
            } else {
                assert_eq!((status, &answer["text"]), (200, &alone["text"]));
            }
        }
    });
    assert_eq!(transcribe(&url, "en"), (200, alone));
}
