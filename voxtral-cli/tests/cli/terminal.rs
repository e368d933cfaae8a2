//! `voxtral chat` in a terminal, which `script` plays.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::scene::{EN, Scene};

/// The program at the keys of a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not yet waited for.
    shown: String,
}

impl Terminal {
    fn start(scene: &Scene, arguments: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_voxtral");
        let line = format!("exec '{program}' chat -q {arguments} > answers.txt");
        let settings = scene.command(&[]);
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm");
        for (key, value) in settings.get_envs() {
            match value {
                Some(value) => script.env(key, value),
                None => script.env_remove(key),
            };
        }
        let mut child = script
            .current_dir(scene.path("."))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, screen) = channel();
        let mut output = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            screen,
            shown: String::new(),
        }
    }

    /// Waits until this is shown.
    #[track_caller]
    fn wait(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(120);
        while !self.shown.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.screen.recv_timeout(left) else {
                panic!("no `{text}` in {:?}", self.shown);
            };
            self.shown += &String::from_utf8_lossy(&bytes);
        }
        let at = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..at);
    }

    /// Presses keys, once there is a prompt.
    #[track_caller]
    fn press(&mut self, keys: &str) {
        self.wait("> ");
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, and what was shown since.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        for bytes in self.screen {
            self.shown += &String::from_utf8_lossy(&bytes);
        }
        (code, self.shown)
    }
}

const BACKSPACE: &str = "\x7f";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

#[test]
fn lines_are_edited_and_answers_alone_go_to_stdout() {
    let scene = Scene::new();
    let mut terminal = Terminal::start(&scene, "--temperature 0 --max-new-tokens 3");
    terminal.press(&format!("/audiox{BACKSPACE} {EN}\r"));
    terminal.press("digits\r");
    terminal.press("nonsense");
    terminal.wait("nonsense");
    // Clears the line and ends nothing.
    terminal.keys.write_all(CTRL_C.as_bytes()).unwrap();
    terminal.press("/nothing\r");
    terminal.wait("no command `/nothing`");
    terminal.press(CTRL_D);
    let (code, shown) = terminal.end();
    // Who typed it saw what went wrong.
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(scene.read("answers.txt").lines().count(), 1);
    let history = scene.read("state/voxtral/history");
    assert!(history.contains("/audio ") && history.contains("digits"));
    assert!(!history.contains("nonsense"), "{history}");

    // Another run remembers the lines.
    let mut terminal = Terminal::start(&scene, "");
    terminal.press(UP);
    terminal.wait("/nothing");
    terminal.keys.write_all(b"\r").unwrap();
    terminal.wait("no command `/nothing`");
    terminal.press("/quit\r");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_program() {
    let scene = Scene::new();
    // So hot that it does not come to an end.
    let mut terminal = Terminal::start(&scene, "--temperature 1000 --logit-bias 2=-100");
    terminal.press("Talk!\r");
    let begun = Instant::now();
    while scene.read("answers.txt").len() < 20 {
        assert!(begun.elapsed() < Duration::from_secs(120), "no answer");
        thread::sleep(Duration::from_millis(10));
    }
    terminal.keys.write_all(CTRL_C.as_bytes()).unwrap();
    terminal.press("/save talk.json\r");
    terminal.press("/quit\r");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    // What was written stays.
    let talk: serde_json::Value = serde_json::from_str(&scene.read("talk.json")).unwrap();
    let said = talk["messages"][1]["content"].as_str().unwrap();
    assert_eq!(said.trim(), scene.read("answers.txt").trim());
}
