//! Ctrl-C: the exit code of the shell, and no half-written output.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::scene::{RATE, Scene, spoken, write_wav};

/// Presses Ctrl-C. The shell's own `kill` is there wherever a shell is.
fn interrupt(child: &Child) {
    let kill = format!("kill -INT {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(status.success());
}

/// Starts and waits until the device was chosen: the work begins.
fn start(command: &mut Command) -> (Child, BufReader<impl Read + use<>>) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("device:") {
        line.clear();
        let bytes = messages.read_line(&mut line).unwrap();
        assert!(bytes > 0, "ended before it chose a device");
    }
    (child, messages)
}

/// Two minutes of speech, of which the model makes noise at a high temperature.
fn long_audio(path: &Path) {
    let spoken = spoken();
    let samples = spoken.iter().copied().cycle().take(120 * RATE as usize);
    write_wav(path, 1, RATE, 16, samples);
}

#[test]
fn interrupted_at_any_moment_there_is_no_half_written_output() {
    const FILES: [&str; 3] = ["a.wav", "b.wav", "c.wav"];
    let scene = Scene::new();
    for name in FILES {
        long_audio(&scene.path(name));
    }
    let mut codes = Vec::new();
    for (at, delay) in [0, 30, 300, 1000, 2500].into_iter().enumerate() {
        let out = format!("out{at}");
        let options = ["-f", "json", "--temperature", "1000", "--output-dir", &out];
        let arguments = [&["transcribe"], &FILES[..], &options].concat();
        let (mut child, mut messages) = start(&mut scene.command(&arguments));
        thread::sleep(Duration::from_millis(delay));
        interrupt(&child);
        let mut rest = String::new();
        messages.read_to_string(&mut rest).unwrap();
        let code = child.wait().unwrap().code();

        // Whatever is there is whole: every token up to the limit or the end, and the line's end.
        let written = scene.names(&out);
        for name in &written {
            assert!(
                ["a.json", "b.json", "c.json"].contains(&&**name),
                "{written:?}"
            );
            let content = scene.read(&format!("{out}/{name}"));
            let object: serde_json::Value = serde_json::from_str(&content).unwrap();
            assert!(object["timings"].is_object() && content.ends_with("}\n"));
        }
        match code {
            Some(130) => {
                let errors: Vec<&str> = rest.lines().filter(|l| l.contains("error:")).collect();
                assert_eq!(errors, ["error: interrupted before everything was done"]);
            }
            // A machine that is faster than the delay.
            Some(0) => assert_eq!(written.len(), FILES.len(), "{rest}"),
            other => panic!("exit code {other:?} after {delay} ms: {rest}"),
        }
        codes.push(code);
    }
    assert_eq!(codes[0], Some(130), "at once, nothing can be done yet");
}

#[test]
fn an_interrupted_line_is_ended() {
    let scene = Scene::new();
    long_audio(&scene.path("a.wav"));
    let arguments = ["transcribe", "a.wav", "--temperature", "1000"];
    let (mut child, mut messages) = start(&mut scene.command(&arguments));
    // Words come while others are still being made.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    interrupt(&child);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'\n'));
    let mut stderr = String::new();
    messages.read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    assert!(
        matches!(code, Some(0 | 130)) && (code == Some(0)) != stderr.contains("error: interrupted"),
        "{code:?}: {stderr}"
    );
}

#[test]
fn waiting_for_stdin_can_be_interrupted() {
    let scene = Scene::new();
    let mut command = scene.command(&["transcribe", "-", "-o", "words.txt"]);
    let (mut child, mut messages) = start(command.stdin(Stdio::piped()));
    interrupt(&child);
    let mut stderr = String::new();
    messages.read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert_eq!(stderr, "error: interrupted before everything was done\n");
    assert_eq!(scene.names("."), [""; 0]);
}

/// Nothing ends this answer but Ctrl-C and the context.
const ENDLESS: [&str; 5] = ["--temperature", "1000", "--logit-bias", "2=-100", "Talk!"];

#[test]
fn an_interrupted_answer_is_ended() {
    let scene = Scene::new();
    let mut command = scene.command(&[&["chat"], &ENDLESS[..]].concat());
    let (mut child, mut messages) = start(command.stdin(Stdio::null()));
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    interrupt(&child);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.last(), Some(&b'\n'));
    let mut stderr = String::new();
    messages.read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert_eq!(stderr, "error: interrupted before everything was done\n");
}

#[test]
fn an_interrupted_answer_of_a_conversation_is_not_its_end() {
    let scene = Scene::new();
    let (talk, options) = (&["chat", "--interactive"], &ENDLESS[..4]);
    let mut command = scene.command(&[talk, options].concat());
    let (mut child, mut messages) = start(command.stdin(Stdio::piped()));
    let mut keys = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    writeln!(keys, "Talk!").unwrap();
    let mut answer = vec![0; 1];
    stdout.read_exact(&mut answer).unwrap();
    interrupt(&child);
    writeln!(keys, "/save talk.json").unwrap();
    drop(keys);
    stdout.read_to_end(&mut answer).unwrap();
    let mut stderr = String::new();
    messages.read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert_eq!(stderr, "interrupted\nwrote `talk.json`\n");
    let talk: serde_json::Value = serde_json::from_str(&scene.read("talk.json")).unwrap();
    let said = talk["messages"][1]["content"].as_str().unwrap();
    assert_eq!(said, String::from_utf8(answer).unwrap().trim());
}
