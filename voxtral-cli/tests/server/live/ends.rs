//! How sessions end: their clients go, hold the line, or the server does not go on.

use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::Message;

use super::client::{
    APPEND, COMMIT, Client, HEARD, MISTRAL, REALTIME, STREAM, counted, joined, pcm16, samples,
    sessions, soon,
};
use crate::scene::{ENGLISH, Form, Server, sample_bytes};

#[test]
fn who_vanishes_frees_the_session() {
    let server = Server::start();
    let sound = pcm16(&samples(STREAM, 16_000));
    let mut other = Client::vllm(&server);
    other.append(APPEND, &sound[..6400], 6400);
    for halves in [false, true] {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::vllm(&server)).collect();
        for client in &mut clients {
            client.append(APPEND, &sound[..sound.len() / 2], 6400);
        }
        soon("they are heard", || sessions(&server) == 4);
        if halves {
            for client in &clients {
                client.0.get_ref().shutdown(Shutdown::Write).unwrap();
            }
        } else {
            clients.clear();
        }
        soon("their sessions are free", || sessions(&server) == 1);
    }
    other.append(APPEND, &sound[6400..], 6400);
    other.say(json!({"type": COMMIT, "final": true}));
    let events = other.until("transcription.done");
    assert_eq!(events[events.len() - 1]["text"], *HEARD);
    other.0.close(None).unwrap();
    soon("a session that is closed is free", || {
        sessions(&server) == 0
    });
}

#[test]
fn who_does_not_read_is_left() {
    let server = Server::with(&["--patience", "1", "--ping", "0.2"]);
    let mut client = Client::vllm(&server);
    let sound = pcm16(&samples(STREAM, 16_000));
    let stream = client.0.get_ref().try_clone().unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // Neither is sound read without end from a client, nor do events wait for it without end.
    let started = Instant::now();
    loop {
        let message = json!({"type": APPEND, "audio": super::client::base64(&sound)});
        if client
            .0
            .send(Message::Text(message.to_string().into()))
            .is_err()
        {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    soon("it is left", || sessions(&server) == 0);
}

/// A connection that is shut down when this is dropped.
struct HangUp(TcpStream);

impl Drop for HangUp {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Who sends sound faster than anybody speaks has no priority.
#[test]
fn a_file_that_is_sent_live_holds_up_nobody() {
    let server = Server::start();
    let sound = pcm16(&samples(STREAM, 16_000)).repeat(20);
    let mut client = Client::vllm(&server);
    let writer = client.0.get_ref().try_clone().unwrap();
    let (mut asked, mut answered) = (0, false);
    thread::scope(|scope| {
        // Also where a check below fails, for the flood to end.
        let _hang_up = HangUp(writer);
        let flood = scope.spawn(move || {
            // Until the connection is shut down below.
            while client.0.can_write() {
                let message = json!({"type": APPEND, "audio": super::client::base64(&sound)});
                if client
                    .0
                    .send(Message::Text(message.to_string().into()))
                    .is_err()
                {
                    break;
                }
                client.0.get_ref().set_nonblocking(true).unwrap();
                while client.0.read().is_ok() {}
                client.0.get_ref().set_nonblocking(false).unwrap();
            }
        });
        soon("there is much to hear", || {
            counted(&server, "voxtral_audio_seconds_total") > 30.0
        });
        let form = Form::new()
            .file("digits.wav", &sample_bytes("digits-en.wav"))
            .text("model", "demo");
        for _ in 0..3 {
            let response = server.transcribe(&form);
            answered = response.json()["text"] == ENGLISH;
            asked += 1;
        }
        assert!(
            !flood.is_finished() && sessions(&server) == 1,
            "it still floods"
        );
    });
    assert!(asked == 3 && answered);
    soon("it is gone", || sessions(&server) == 0);
}

#[test]
fn a_session_has_its_time() {
    let server = Server::with(&["--session-length", "2"]);
    let sound = pcm16(&samples(STREAM, 16_000));
    let mut client = Client::new(&server, MISTRAL);
    let first = sound.len() / 2;
    client.append("input_audio.append", &sound[..first], 6400);
    let (events, frame) = client.rest();
    assert_eq!(u16::from(frame.code), 1008);
    assert!(frame.reason.contains("2s"), "{frame:?}");
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(kinds[kinds.len() - 2..], ["transcription.done", "error"]);
    let done = &events[events.len() - 2];
    assert!(
        done["text"].as_str().unwrap().starts_with("seven two nine"),
        "{done}"
    );
}

#[test]
fn who_is_silent_for_long_is_not_waited_for() {
    let server = Server::with(&["--session-idle", "1"]);
    let mut idle = Client::vllm(&server);
    let mut busy = Client::vllm(&server);
    let sound = pcm16(&samples(STREAM, 16_000));
    for piece in sound.chunks(6400).take(10) {
        busy.append(APPEND, piece, 6400);
        thread::sleep(Duration::from_millis(200));
    }
    let (events, frame) = idle.rest();
    assert_eq!(u16::from(frame.code), 1008);
    assert_eq!(events[0]["code"], "session_expired");
    busy.say(json!({"type": COMMIT, "final": true}));
    busy.until("transcription.done");
}

#[test]
fn pings_come_and_who_answers_stays() {
    let server = Server::with(&["--ping", "0.2", "--max-sessions", "1"]);
    let mut client = Client::vllm(&server);
    for _ in 0..10 {
        match client.0.read().unwrap() {
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    client.0.close(None).unwrap();
    let connect = || Client::with(&server, REALTIME, &[]).ok();
    // Who reads nothing answers nothing.
    let mute = std::iter::repeat_with(connect).take(1000).flatten().next();
    assert!(mute.is_some(), "the place is free");
    assert!(connect().is_none(), "it is taken");
    soon("who answers nothing is gone", || connect().is_some());
    drop(mute);
}

#[test]
fn a_server_that_stops_brings_out_what_it_heard() {
    let mut server = Server::start();
    let sound = pcm16(&samples(STREAM, 16_000));
    let mut speaks = Client::vllm(&server);
    speaks.append(APPEND, &sound, 6400);
    let mut silent = Client::new(&server, MISTRAL);
    assert_eq!(silent.next()["type"], "session.created");
    // All of it has to be heard before the server reads no more.
    let mut text = String::new();
    while !text.contains("eight") {
        text.push_str(speaks.next()["delta"].as_str().unwrap());
    }
    let kill = format!("kill -TERM {}", server.process.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let (events, frame) = speaks.rest();
    let last: &Value = &events[events.len() - 1];
    assert_eq!(last["type"], "transcription.done");
    assert!(last["text"].as_str().unwrap().starts_with(text.trim_end()));
    assert!(
        last["text"].as_str().unwrap().len() >= HEARD.len() - 6,
        "{last}"
    );
    text.push_str(&joined(&events, "delta"));
    assert_eq!(last["text"], text.trim_end());
    assert_eq!(u16::from(frame.code), 1001);
    let (_, frame) = silent.rest();
    assert_eq!(u16::from(frame.code), 1001);
    assert!(frame.reason.contains("stopping"));
    assert!(server.process.wait().unwrap().success());
}
