//! Long files: windows, doubts, journals, progress.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::scene::{EN, EN_WORDS, FR, RATE, Scene, assert_says, spoken, write_wav};

/// An utterance again and again, with a second of silence behind each.
pub(crate) fn conversation(scene: &Scene, name: &str, turns: usize) {
    let mut turn = spoken();
    turn.extend([0; RATE as usize]);
    write_wav(&scene.path(name), 1, RATE, 16, turn.repeat(turns));
}

/// Windows that have one turn each.
pub(crate) const WINDOW: [&str; 2] = ["--window", "6"];

pub(crate) fn turns(count: usize) -> String {
    format!("{}\n", vec![EN_WORDS; count].join(" "))
}

#[test]
fn a_long_file_is_the_sum_of_its_turns() {
    let scene = Scene::new();
    conversation(&scene, "talk.wav", 12);
    for more in [
        &[][..],
        &["--batch-size", "4"],
        &["--vad", "on"],
        &["--vad", "off"],
    ] {
        let ran = scene.transcribe(&[&["-q", "talk.wav"], &WINDOW[..], more].concat());
        assert_eq!(ran.ok(), turns(12), "{more:?}");
    }
    let arguments = ["talk.wav", "-f", "json", "--strict"];
    let object = &scene.transcribe(&[&arguments, &WINDOW[..]].concat()).json()[0];
    let segments = object["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 12, "{object}");
    let times = segments
        .iter()
        .map(|s| (s["start"].as_f64().unwrap(), s["end"].as_f64().unwrap()));
    let times: Vec<_> = times.collect();
    assert!(times.iter().all(|(start, end)| start < end), "{times:?}");
    assert!(
        times.is_sorted_by(|before, behind| before.1 < behind.0),
        "{times:?}"
    );
    assert!(segments.iter().all(|s| {
        s["confidence"]
            .as_f64()
            .is_some_and(|c| c > 0.0 && c <= 1.0)
    }));
    assert!(
        object["gaps"].is_null() && object["warnings"].is_null(),
        "{object}"
    );
}

#[test]
fn more_than_half_an_hour_is_taken() {
    let scene = Scene::new();
    let samples = std::iter::repeat_n(0_i8, 31 * 60 * RATE as usize);
    write_wav(&scene.path("long.wav"), 1, RATE, 8, samples);
    let ran = scene.transcribe(&["-q", "--strict", "long.wav"]);
    assert_eq!(ran.ok(), "\n");
}

/// A warble that is no silence and of which the model makes nothing.
fn warble(scene: &Scene) {
    let samples = (0..5 * RATE).map(|n| {
        let t = n as f32 / RATE as f32;
        let loudness = if ((t * 4.0) as u32).is_multiple_of(2) {
            0.3
        } else {
            0.003
        };
        (loudness * 32_767.0 * (t * 2_500.0 * std::f32::consts::TAU).sin()) as i16
    });
    write_wav(&scene.path("warble.wav"), 1, RATE, 16, samples);
}

#[test]
fn what_is_doubtful_is_told_and_strict_fails() {
    let scene = Scene::new();
    warble(&scene);
    // Nothing but the end may be written.
    let end = ["--logit-bias", "2=100"];
    let ran = scene.transcribe(&[&["warble.wav"], &end[..]].concat());
    assert_eq!(ran.ok(), "\n");
    assert_says(
        &ran.stderr,
        &["warning: warble.wav: no text from 0:00:00", "not silent"],
    );
    let strict = scene.transcribe(&[&["-q", "--strict", "warble.wav"], &end[..]].concat());
    assert_eq!(
        (strict.code, &*strict.stdout, &*strict.stderr),
        (Some(1), "\n", "")
    );
    let arguments = ["-f", "json", "warble.wav"];
    let object = &scene.transcribe(&[&arguments, &end[..]].concat()).json()[0];
    assert_eq!(object["gaps"][0]["reason"], "empty", "{object}");
    assert!(object["gaps"][0]["end"].as_f64().unwrap() > 4.0, "{object}");
    // Text that does not end.
    let endless = ["--logit-bias", "2=-100"];
    let ran = scene.transcribe(&[&[EN, "--strict"], &endless[..]].concat());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_says(
        &ran.stderr,
        &["doubtful text from 0:00:00", "does not come to an end"],
    );
}

#[test]
fn progress_is_json_for_programs_and_nothing_where_nobody_looks() {
    let scene = Scene::new();
    conversation(&scene, "talk.wav", 4);
    let arguments = ["-q", "talk.wav", "--json-progress"];
    let ran = scene.transcribe(&[&arguments, &WINDOW[..]].concat());
    assert_eq!(ran.ok(), turns(4));
    let lines: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() >= 4, "{}", ran.stderr);
    let done: Vec<f64> = lines
        .iter()
        .map(|line| line["done"].as_f64().unwrap())
        .collect();
    assert!(done.is_sorted());
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "progress");
    assert_eq!(last["file"], "talk.wav");
    assert_eq!(
        (&last["done"], &last["left"]),
        (&last["total"], &0.0.into())
    );
    assert!(last["speed"].as_f64().unwrap() > 0.0);
    let ran = scene.transcribe(&[&["-q", "talk.wav"], &WINDOW[..]].concat());
    assert_eq!(ran.stderr, "");
}

#[test]
fn files_that_are_transcribed_together_tell_programs_when_they_are_finished() {
    let scene = Scene::new();
    conversation(&scene, "talk.wav", 3);
    warble(&scene);
    let arguments = ["-q", "talk.wav", "warble.wav", "--json-progress"];
    let end = ["--batch-size", "3", "--logit-bias", "2=100"];
    let ran = scene.transcribe(&[&arguments, &WINDOW[..], &end].concat());
    ran.ok();
    let lines: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let finished = lines.iter().filter(|line| line["event"] == "progress");
    let finished = finished.map(|line| (&line["file"], line["done"] == line["total"]));
    let finished: Vec<_> = finished.collect();
    let all = ["talk.wav", "warble.wav"].map(serde_json::Value::from);
    assert_eq!(finished, [(&all[0], true), (&all[1], true)]);
    let gaps = lines.iter().filter(|line| line["event"] == "gap");
    assert!(
        gaps.clone().any(|line| line["file"] == "warble.wav"),
        "{lines:?}"
    );
}

/// Lines of a journal that are windows.
fn windows(journal: &str) -> usize {
    journal.lines().count().saturating_sub(1)
}

#[cfg(unix)]
#[test]
fn a_killed_run_is_resumed_and_no_window_is_heard_twice() {
    let scene = Scene::new();
    conversation(&scene, "talk.wav", 60);
    let arguments = [
        "transcribe",
        "talk.wav",
        "-o",
        "talk.txt",
        "--resume",
        "--json-progress",
    ];
    let arguments = [&arguments, &WINDOW[..]].concat();
    let mut child = scene
        .command(&arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let mut seen = 0;
    while seen < 5 {
        line.clear();
        assert!(messages.read_line(&mut line).unwrap() > 0, "ended before");
        seen += usize::from(line.contains("\"progress\""));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    messages.read_to_string(&mut rest).unwrap();
    assert!(
        !scene.path("talk.txt").exists(),
        "the machine is too fast for this test"
    );
    let journal = scene.read("talk.txt.journal");
    let finished = windows(&journal[..journal.rfind('\n').unwrap() + 1]);
    assert!(finished >= 5, "{journal}");

    // Other options, another model: what to do is said, and nothing is lost.
    let other = scene.transcribe(&[
        "-q", "talk.wav", "-o", "talk.txt", "--resume", "--window", "5",
    ]);
    assert_says(&other.error(1), &["talk.txt.journal", "window", "delete"]);
    let other = [&arguments[1..], &["-q", "-l", "en"]].concat();
    assert_says(
        &scene.transcribe(&other).error(1),
        &["language", "same file, model and options"],
    );
    // What has no word times yet does not go on as what needs them.
    scene.write("talk.srt.journal", &journal);
    let timed = ["-q", "talk.wav", "-f", "srt", "-o", "talk.srt", "--resume"];
    let timed = scene.transcribe(&[&timed, &WINDOW[..]].concat());
    assert_says(&timed.error(1), &["talk.srt.journal", "word times"]);
    fs::remove_file(scene.path("talk.srt.journal")).unwrap();
    assert_eq!(scene.read("talk.txt.journal"), journal);

    let ran = scene.run(&arguments);
    assert_eq!(ran.ok(), "");
    assert_eq!(scene.read("talk.txt"), turns(60));
    assert_says(
        &ran.stderr,
        &[&format!("going on behind {finished} windows")],
    );
    assert_eq!(scene.names("."), ["talk.txt", "talk.wav"]);
}

#[test]
fn a_journal_of_what_goes_to_stdout_is_kept_aside() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", EN, FR, "--resume"]);
    assert_eq!(ran.ok().lines().count(), 2);
    assert_eq!(scene.names("state/voxtral/journals"), [""; 0]);
    scene.write("talk.txt.journal", "my notes\n");
    let error = scene.refusal(&[EN, "-o", "talk.txt", "--resume"]);
    assert_says(&error, &["talk.txt.journal", "my notes", "delete"]);
    assert_eq!(scene.read("talk.txt.journal"), "my notes\n");
    assert!(!scene.path("talk.txt").exists());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let scene = Scene::new();
    fs::copy(EN, scene.path("talk.wav")).unwrap();
    for (option, value) in [("--vad", "on"), ("--window", "20")] {
        let error = scene.refusal(&["talk.wav", "-m", "demo-realtime", option, value]);
        assert_says(&error, &[option, "Realtime"]);
    }
    let error = scene.refusal(&["talk.wav", "-m", "demo-realtime", "--resume"]);
    assert_says(&error, &["--resume", "Realtime"]);
    for seconds in ["0", "-3", "1801", "many", "nan"] {
        let arguments = [
            "-q",
            "transcribe",
            "talk.wav",
            &format!("--window={seconds}"),
        ];
        assert_says(&scene.run(&arguments).error(2), &["--window", "1 to 1800"]);
    }
    let mut command = scene.command(&["transcribe", "-q", "-", "--resume"]);
    let ran = crate::scene::Ran::fed(&mut command, &fs::read(EN).unwrap());
    assert_says(&ran.error(1), &["--resume", "stdin"]);
}
