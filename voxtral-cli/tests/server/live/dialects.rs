//! Every dialect hears what `voxtral transcribe` does.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{
    APPEND, COMMIT, Client, HEARD, MISTRAL, REALTIME, STREAM, base64, counted, joined, pcm16,
    samples, soon, transcript,
};
use crate::scene::Server;

const DELTA: &str = "conversation.item.input_audio_transcription.delta";
const COMPLETED: &str = "conversation.item.input_audio_transcription.completed";

#[test]
fn vllm_utterance_after_utterance() {
    let server = Server::start();
    let mut client = Client::new(&server, REALTIME);
    let created = client.next();
    assert_eq!(created["type"], "session.created");
    assert!(created["id"].as_str().unwrap().starts_with("sess-"));
    assert!(created["created"].as_u64().unwrap() > 1_700_000_000);
    client.say(json!({"type": "session.update", "model": "demo-realtime"}));
    for name in [STREAM, "digits-en.wav", STREAM] {
        let (text, done) = client.utter(&pcm16(&samples(name, 16_000)));
        assert_eq!(done["text"], transcript(name));
        assert_eq!(text.trim_end(), done["text"]);
        let usage = &done["usage"];
        let count = |field: &str| usage[field].as_u64().unwrap();
        assert!(count("completion_tokens") > 50);
        let both = count("prompt_tokens") + count("completion_tokens");
        assert_eq!(count("total_tokens"), both);
    }
    let (text, done) = client.utter(&[]);
    assert_eq!((&text[..], &done["text"]), ("", &json!("")));
}

#[test]
fn words_come_before_the_sound_has_ended() {
    let server = Server::start();
    let mut client = Client::vllm(&server);
    let sound = pcm16(&samples(STREAM, 16_000));
    let half = sound.len() / 4 * 2;
    client.append(APPEND, &sound[..half], 640);
    let mut text = String::new();
    while !text.contains("seven two nine") {
        text.push_str(client.next()["delta"].as_str().unwrap());
    }
    client.append(APPEND, &sound[half..], 640);
    client.say(json!({"type": COMMIT, "final": true}));
    let events = client.until("transcription.done");
    let done = &events[events.len() - 1];
    assert_eq!(done["text"], *HEARD);
}

#[test]
fn sessions_side_by_side_hear_their_own() {
    let server = Server::start();
    let sounds = [STREAM, "digits-en.wav", STREAM, "digits-en.wav"];
    thread::scope(|scope| {
        for name in sounds {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::vllm(server);
                let (_, done) = client.utter(&pcm16(&samples(name, 16_000)));
                assert_eq!(done["text"], transcript(name));
            });
        }
    });
}

#[test]
fn the_delay_is_each_sessions_own() {
    let server = Server::start();
    // Of the same sound, more is written down where the text follows it sooner.
    let sound = samples(STREAM, 16_000);
    let sound = &sound[..64_000];
    let written = || counted(&server, "voxtral_tokens_total") as u64;
    for delay in [240, 960] {
        let before = written();
        let mut client = Client::new(&server, REALTIME);
        client.next();
        let update = json!({
            "type": "session.update", "model": "demo-realtime", "delay_ms": delay,
        });
        client.say(update);
        client.append(APPEND, &pcm16(sound), 6400);
        // Of 50 tokens' sound, all but the last, which takes a look ahead, less the delay.
        let expected = 49 - delay / 80;
        soon("it is written", || written() - before >= expected);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(written() - before, expected);
    }
    let mut client = Client::new(&server, REALTIME);
    client.next();
    client.say(json!({"type": "session.update", "model": "demo-realtime", "delay_ms": 77}));
    let error = client.next();
    assert!(
        error["error"].as_str().unwrap().contains("80 ms"),
        "{error}"
    );
}

/// Appends, commits, and gives the events up to the transcript.
fn openai_utterance(client: &mut Client, bytes: &[u8]) -> Vec<Value> {
    client.append(APPEND, bytes, 4800);
    client.say(json!({"type": COMMIT, "event_id": "mine"}));
    client.until(COMPLETED)
}

#[test]
fn openai_items_one_behind_another() {
    let server = Server::start();
    let mut client = Client::new(&server, REALTIME);
    let created = client.next();
    assert_eq!(created["type"], "session.created");
    assert_eq!(
        created["session"]["audio"]["input"]["format"]["rate"],
        24_000
    );
    let session = json!({
        "type": "transcription",
        "audio": {"input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": "demo-realtime"},
            "turn_detection": null,
        }},
        "include": ["item.input_audio_transcription.logprobs"],
    });
    client.say(json!({"type": "session.update", "session": session}));
    let updated = client.next();
    assert_eq!(updated["type"], "session.updated");
    let input = &updated["session"]["audio"]["input"];
    assert_eq!(input["transcription"]["model"], "demo-realtime");
    let sound = pcm16(&samples(STREAM, 24_000));
    let mut previous = Value::Null;
    for _ in 0..2 {
        let events = openai_utterance(&mut client, &sound);
        let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap();
        let completed = of(COMPLETED);
        assert_eq!(completed["transcript"], *HEARD);
        assert_eq!(completed["usage"]["type"], "duration");
        let item = &completed["item_id"];
        let committed = of("input_audio_buffer.committed");
        assert_eq!(&committed["item_id"], item);
        assert_eq!(committed["previous_item_id"], previous);
        assert_eq!(&of("conversation.item.added")["item"]["id"], item);
        let deltas: Vec<Value> = events
            .iter()
            .filter(|event| event["type"] == DELTA)
            .cloned()
            .collect();
        assert!(deltas.iter().all(|delta| delta["item_id"] == *item));
        assert_eq!(joined(&deltas, "delta").trim_end(), *HEARD);
        assert!(deltas[0]["logprobs"][0]["logprob"].as_f64().unwrap() <= 0.0);
        previous = item.clone();
    }
}

#[test]
fn openai_in_its_older_form() {
    let server = Server::start();
    let headers = [("openai-beta", "realtime=v1")];
    let path = "/v1/realtime?intent=transcription";
    let mut client = Client::with(&server, path, &headers).unwrap();
    assert_eq!(client.next()["type"], "transcription_session.created");
    let session = json!({
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "demo-realtime", "prompt": "", "language": ""},
        "input_audio_noise_reduction": null,
        "turn_detection": null,
    });
    client.say(json!({"type": "transcription_session.update", "session": session}));
    let updated = client.next();
    assert_eq!(updated["type"], "transcription_session.updated");
    assert_eq!(updated["session"]["input_audio_format"], "pcm16");
    let events = openai_utterance(&mut client, &pcm16(&samples(STREAM, 24_000)));
    assert_eq!(events[events.len() - 1]["transcript"], *HEARD);
    let created = |event: &Value| event["type"] == "conversation.item.created";
    assert!(events.iter().any(created));
}

/// Sound as it is spoken, and silence behind it; nobody commits.
#[test]
fn openai_turns_are_found() {
    let server = Server::start();
    let mut client = Client::new(&server, "/v1/realtime?intent=transcription");
    client.next();
    let detection = json!({"type": "server_vad", "silence_duration_ms": 400});
    let session = json!({"audio": {"input": {"turn_detection": detection}}});
    client.say(json!({"type": "session.update", "session": session}));
    let updated = client.next();
    let detection = &updated["session"]["audio"]["input"]["turn_detection"];
    assert_eq!(detection["silence_duration_ms"], 400);
    assert_eq!(detection["prefix_padding_ms"], 300);
    let mut sound = samples(STREAM, 24_000);
    sound.resize(sound.len() + 48_000, 0.0);
    for piece in pcm16(&sound).chunks(3840) {
        client.append(APPEND, piece, 3840);
        thread::sleep(Duration::from_millis(80));
    }
    let (mut turns, mut text, mut last) = (0, String::new(), 0);
    while text != *HEARD {
        let events = client.until(COMPLETED);
        let completed = &events[events.len() - 1];
        let item = &completed["item_id"];
        let mine = || events.iter().filter(|event| event["item_id"] == *item);
        let at = |kind: &str, field: &str| {
            let found = mine().find(|event| event["type"] == kind).unwrap();
            found[field].as_u64().unwrap()
        };
        let start = at("input_audio_buffer.speech_started", "audio_start_ms");
        let stop = at("input_audio_buffer.speech_stopped", "audio_end_ms");
        assert!(
            last <= start && start < stop && stop <= 11_200,
            "{start} {stop}"
        );
        assert!(mine().any(|event| event["type"] == "input_audio_buffer.committed"));
        let separator = if text.is_empty() { "" } else { " " };
        text = format!(
            "{text}{separator}{}",
            completed["transcript"].as_str().unwrap()
        );
        assert!(HEARD.starts_with(&text), "{text}");
        (turns, last) = (turns + 1, start);
    }
    assert!(turns >= 3, "{turns}");
}

#[test]
fn what_is_cleared_is_not_heard() {
    let server = Server::start();
    let mut client = Client::new(&server, "/v1/realtime?intent=transcription");
    client.next();
    let sound = pcm16(&samples(STREAM, 24_000));
    client.append(APPEND, &sound, 48_000);
    client.say(json!({"type": "input_audio_buffer.clear"}));
    client.until("input_audio_buffer.cleared");
    let events = openai_utterance(&mut client, &sound);
    let completed = &events[events.len() - 1];
    assert_eq!(completed["transcript"], *HEARD);
    let item = &completed["item_id"];
    let of_item = events.iter().filter(|event| event["item_id"] == *item);
    let deltas: Vec<Value> = of_item.cloned().collect();
    assert_eq!(joined(&deltas, "delta").trim_end(), *HEARD);
}

/// Bytes of samples, by ITU-T G.711: the code whose value is nearest, found among all.
fn companded(samples: &[f32], value: impl Fn(u8) -> i32) -> Vec<u8> {
    let nearest = |sample: &f32| {
        let wanted = (sample * 32_768.0) as i32;
        let codes = 0..=255_u8;
        codes
            .min_by_key(|&code| (value(code) - wanted).abs())
            .unwrap()
    };
    samples.iter().map(nearest).collect()
}

/// Segments of G.711 as they are drawn in its tables: steps double from one to the next.
fn segments(code: u8, first_is_double: bool) -> i32 {
    let (segment, step) = (i32::from(code >> 4) & 7, i32::from(code) & 15);
    match (segment, first_is_double) {
        (0, true) => 16 * step + 8,
        _ if first_is_double => (16 * step + 8 + 256) * (1 << (segment - 1)),
        _ => (8 * step + 132) * (1 << segment) - 132,
    }
}

fn signed(code: u8, magnitude: i32) -> i32 {
    if code & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

#[test]
fn mistral_in_every_encoding() {
    let server = Server::start();
    let sound = samples(STREAM, 16_000);
    let integers = sound.iter().map(|sample| (sample * 2_147_483_648.0) as i32);
    let halves = sound.iter().map(|sample| half::f16::from_f32(*sample));
    let mu_law = companded(&sound, |code| signed(!code, segments(!code & 0x7f, false)));
    let a_law = companded(&sound, |code| {
        let code = code ^ 0x55;
        -signed(code, segments(code & 0x7f, true))
    });
    let encodings = [
        ("pcm_s16le", pcm16(&sound)),
        ("pcm_s32le", integers.flat_map(i32::to_le_bytes).collect()),
        (
            "pcm_f16le",
            halves.flat_map(half::f16::to_le_bytes).collect(),
        ),
        (
            "pcm_f32le",
            sound
                .iter()
                .flat_map(|sample| sample.to_le_bytes())
                .collect(),
        ),
        ("pcm_mulaw", mu_law),
        ("pcm_alaw", a_law),
    ];
    for (encoding, bytes) in encodings {
        let mut client = Client::new(&server, MISTRAL);
        let created = client.next();
        assert_eq!(created["type"], "session.created");
        assert_eq!(created["session"]["audio_format"]["encoding"], "pcm_s16le");
        let session = json!({
            "audio_format": {"encoding": encoding, "sample_rate": 16_000},
            "target_streaming_delay_ms": 480,
            "diarize": false,
        });
        client.say(json!({"type": "session.update", "session": session}));
        let updated = client.next();
        assert_eq!(updated["type"], "session.updated", "{updated}");
        assert_eq!(updated["session"]["audio_format"]["encoding"], encoding);
        assert_eq!(updated["session"]["target_streaming_delay_ms"], 480);
        client.append("input_audio.append", &bytes, 6400);
        client.say(json!({"type": "input_audio.flush"}));
        client.say(json!({"type": "input_audio.end"}));
        let events = client.until("transcription.done");
        let done = &events[events.len() - 1];
        assert_eq!(done["text"], *HEARD, "{encoding}");
        let of = |kind: &str| -> Vec<Value> {
            let events = events.iter().filter(|event| event["type"] == kind);
            events.cloned().collect()
        };
        let deltas = of("transcription.text.delta");
        assert_eq!(joined(&deltas, "text").trim_end(), *HEARD);
        let segments = of("transcription.segment");
        let texts = segments
            .iter()
            .map(|segment| segment["text"].as_str().unwrap());
        assert_eq!(texts.collect::<Vec<_>>().join(" "), *HEARD);
        assert!(
            segments
                .iter()
                .all(|one| one["start"].as_f64() < one["end"].as_f64())
        );
        assert_eq!(done["segments"].as_array().unwrap().len(), segments.len());
        assert_eq!(
            done["usage"]["prompt_audio_seconds"],
            (sound.len() as f64 / 16e3).ceil() as u64
        );
    }
}

#[test]
fn mistral_at_another_rate_with_phrases() {
    let server = Server::start();
    let mut client = Client::new(&server, MISTRAL);
    client.next();
    let session = json!({
        "audio_format": {"encoding": "pcm_s16le", "sample_rate": 48_000},
        "context_bias": ["seven", "two nine"],
    });
    client.say(json!({"type": "session.update", "session": session}));
    assert_eq!(
        client.next()["session"]["context_bias"],
        json!(["seven", "two nine"])
    );
    for _ in 0..2 {
        client.append("input_audio.append", &pcm16(&samples(STREAM, 48_000)), 9600);
        client.say(json!({"type": "input_audio.end"}));
        let events = client.until("transcription.done");
        assert_eq!(events[events.len() - 1]["text"], *HEARD);
    }
    let too_many: Vec<String> = (0..101).map(|number| format!("word{number}")).collect();
    let session = json!({"context_bias": too_many});
    client.say(json!({"type": "session.update", "session": session}));
    let error = client.next();
    assert_eq!(error["error"]["code"], 422, "{error}");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("context_bias")
    );
}

#[test]
fn an_utterance_that_is_not_ended_is_no_place_for_changes() {
    let server = Server::start();
    let mut client = Client::new(&server, MISTRAL);
    client.next();
    client.append(
        "input_audio.append",
        &pcm16(&samples(STREAM, 16_000)[..1600]),
        3200,
    );
    let session = json!({"audio_format": {"encoding": "pcm_s16le", "sample_rate": 8_000}});
    let update = json!({"type": "session.update", "session": session});
    client.say(update.clone());
    assert_eq!(client.next()["error"]["code"], 400);
    client.say(json!({"type": "input_audio.end"}));
    client.until("transcription.done");
    client.say(update);
    assert_eq!(
        client.next()["session"]["audio_format"]["sample_rate"],
        8_000
    );
    let sound = base64(&pcm16(&samples("digits-en.wav", 8_000)));
    client.say(json!({"type": "input_audio.append", "audio": sound}));
    client.say(json!({"type": "input_audio.end"}));
    let events = client.until("transcription.done");
    assert_ne!(events[events.len() - 1]["text"], "");
}
