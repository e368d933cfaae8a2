//! `POST /v1/audio/transcriptions`.

use serde_json::json;

use crate::scene::{ENGLISH, Form, Server, sample_bytes};

fn english() -> Form {
    Form::new().file("digits.wav", &sample_bytes("digits-en.wav"))
}

#[test]
fn every_format_of_openai_tells_the_same() {
    let server = Server::start();
    let answer = |form: Form| {
        let response = server.transcribe(&form);
        assert_eq!(response.status, 200, "{response:?}");
        response
    };
    for model in ["demo", "demo-realtime"] {
        let form = || english().text("model", model);
        let object = answer(form()).json();
        assert_eq!(object["text"], ENGLISH);
        assert_eq!(object["usage"], json!({"type": "duration", "seconds": 5.0}));
        let text = answer(form().text("response_format", "text"));
        assert_eq!(text.body, format!("{ENGLISH}\n"));
        let srt = answer(form().text("response_format", "srt")).body;
        assert!(
            srt.starts_with("1\n00:00:00,2") && srt.contains(ENGLISH),
            "{srt}"
        );
        let vtt = answer(form().text("response_format", "vtt")).body;
        assert!(vtt.starts_with("WEBVTT\n\n00:00:00.2"), "{vtt}");
        let verbose = form()
            .text("response_format", "verbose_json")
            .text("timestamp_granularities[]", "word");
        let verbose = answer(verbose).json();
        let words: Vec<_> = verbose["words"].as_array().unwrap().iter().collect();
        assert_eq!(words.len(), 6);
        assert_eq!(words[2]["word"], "four");
        assert!(words[2]["start"].as_f64() < words[2]["end"].as_f64());
        assert!((verbose["duration"].as_f64().unwrap() - 4.30175).abs() < 1e-3);
    }
}
