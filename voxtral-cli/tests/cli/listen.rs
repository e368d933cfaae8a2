//! `voxtral listen`, and `voxtral transcribe` with a model that takes streams.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scene::{EN, RATE, Ran, Scene, assert_says, sample, write_wav};

/// A stream of words with pauses, and what is spoken in it.
const STREAM: &str = sample!("digits-stream-en.wav");
const WORDS: &str = "seven two nine four zero five eight three six";

fn samples() -> Vec<i16> {
    let reader = hound::WavReader::open(STREAM).unwrap();
    assert_eq!(reader.spec().sample_rate, RATE);
    reader.into_samples().map(Result::unwrap).collect()
}

fn raw() -> Vec<u8> {
    samples().into_iter().flat_map(i16::to_le_bytes).collect()
}

/// A WAV file as a pipe has it: no length is known when the header is written.
fn piped_wav(scene: &Scene) -> Vec<u8> {
    let path = scene.path("stream.wav");
    write_wav(&path, 1, RATE, 16, samples());
    let mut bytes = std::fs::read(path).unwrap();
    for at in [4, 40] {
        bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
    }
    bytes
}

fn listen(scene: &Scene, arguments: &[&str]) -> Command {
    scene.command(&[&["listen"], arguments].concat())
}

/// The words of a text whose lines are segments.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks words of a stream that was cut somewhere: of a word that was cut, anything may be heard.
#[track_caller]
fn assert_begins(heard: &str) {
    let mut heard: Vec<&str> = heard.split_whitespace().collect();
    assert!(!heard.is_empty());
    heard.pop();
    let spoken: Vec<&str> = WORDS.split(' ').collect();
    assert!(spoken.starts_with(&heard), "{heard:?}");
}

const S16: [&str; 5] = ["--stdin", "--raw", "s16le", "--rate", "16000"];

#[test]
fn a_file_is_transcribed_and_heard_alike() {
    let scene = Scene::new();
    let ran = scene.transcribe(&[STREAM, "-m", "demo-realtime"]);
    assert_eq!(ran.ok(), format!("{WORDS}\n"));
    assert_says(&ran.stderr, &["built-in demo model", "`--model realtime`"]);
    let ran = scene.run(&["listen", STREAM]);
    assert_eq!(words(ran.ok()), WORDS);
    assert!(ran.ok().ends_with('\n'));
    assert_says(&ran.stderr, &["listening to `", "device:"]);
}

#[test]
fn stdin_is_heard_in_every_form() {
    let scene = Scene::new();
    let wav = piped_wav(&scene);
    let ran = Ran::fed(&mut listen(&scene, &["-q", "--stdin"]), &wav);
    assert_eq!(words(ran.ok()), WORDS);
    assert_eq!(ran.stderr, "");
    let ran = Ran::fed(&mut listen(&scene, &S16), &raw());
    assert_eq!(words(ran.ok()), WORDS);
    let floats: Vec<u8> = samples()
        .into_iter()
        .flat_map(|x| [f32::from(x) / 32_768.0; 2])
        .flat_map(f32::to_le_bytes)
        .collect();
    let arguments = [
        "--stdin",
        "--raw",
        "f32le",
        "--rate",
        "16000",
        "--channels",
        "2",
    ];
    let ran = Ran::fed(&mut listen(&scene, &arguments), &floats);
    assert_eq!(words(ran.ok()), WORDS);
    let transcribe = ["transcribe", "-", "-m", "demo-realtime"];
    let ran = Ran::fed(&mut scene.command(&transcribe), &wav);
    assert_eq!(ran.ok(), format!("{WORDS}\n"));
}

fn start(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads from a pipe up to and including this text.
fn read_until(reader: &mut impl Read, text: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(text.as_bytes()) {
        let mut byte = [0];
        assert_eq!(reader.read(&mut byte).unwrap(), 1, "ended before `{text}`");
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn words_are_printed_while_the_sound_still_comes() {
    let scene = Scene::new();
    for wav in [false, true] {
        let (bytes, arguments) = if wav {
            (piped_wav(&scene), &["--stdin"][..])
        } else {
            (raw(), &S16[..])
        };
        let mut child = start(listen(&scene, arguments));
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
        stdin.flush().unwrap();
        // The writer holds the pipe open, and yet the first word is there.
        let first = WORDS.split(' ').next().unwrap();
        read_until(&mut stdout, first);
        stdin.write_all(&bytes[bytes.len() / 2..]).unwrap();
        drop(stdin);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(words(&(first.to_owned() + &rest)), WORDS);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn every_format_tells_the_same() {
    let scene = Scene::new();
    let run = |command: &str, format: &str| {
        let model = ["-m", "demo-realtime", "-q", "-f", format];
        let ran = scene.run(&[&[command, STREAM][..], &model].concat());
        ran.ok().to_owned()
    };
    let object: serde_json::Value = serde_json::from_str(&run("transcribe", "json")).unwrap();
    assert_eq!(object["text"], WORDS);
    let timed = object["words"].as_array().unwrap();
    assert_eq!(timed.len(), WORDS.split(' ').count());
    let lines = run("listen", "json");
    let listened: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // How sure the model is depends in the last digits on what was computed together.
    let sure = |word: &serde_json::Value| word["confidence"].as_f64().unwrap();
    let times = |words: &[serde_json::Value]| -> Vec<serde_json::Value> {
        let mut words = words.to_vec();
        for word in &mut words {
            word["confidence"].take();
        }
        words
    };
    assert_eq!(times(&listened), times(timed));
    for (one, other) in listened.iter().zip(timed) {
        assert!((sure(one) - sure(other)).abs() < 1e-3, "{one} {other}");
    }
    let mut last = 0.0;
    for word in timed {
        assert_eq!(word.as_object().unwrap().len(), 4);
        let (start, end) = (
            word["start"].as_f64().unwrap(),
            word["end"].as_f64().unwrap(),
        );
        assert!(last <= start && start <= end, "{timed:?}");
        last = end;
    }
    let segments = object["segments"].as_array().unwrap();
    assert!(segments.len() > 1, "the pauses part segments");
    let texts: Vec<&str> = segments
        .iter()
        .map(|s| s["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.join(" "), WORDS);
    assert_eq!(run("listen", "text").lines().collect::<Vec<_>>(), texts);
    for format in ["srt", "vtt", "tsv"] {
        let written = run("transcribe", format);
        assert_eq!(written, run("listen", format));
        for text in &texts {
            assert!(
                written.lines().any(|line| line.ends_with(text)),
                "{written}"
            );
        }
    }
    assert!(run("transcribe", "vtt").starts_with("WEBVTT\n\n00:00:"));
    assert!(run("transcribe", "srt").starts_with("1\n00:00:"));
    assert!(run("transcribe", "tsv").starts_with("start\tend\ttext\n"));
}

#[test]
fn subtitles_are_written_to_files_of_their_kind() {
    let scene = Scene::new();
    let options = ["-m", "demo-realtime", "-f", "srt", "--output-dir", "out"];
    scene.transcribe(&[&[STREAM][..], &options].concat()).ok();
    assert_eq!(scene.names("out"), ["digits-stream-en.srt"]);
    assert_says(&scene.read("out/digits-stream-en.srt"), &["1\n", " --> "]);
}

#[test]
fn silence_is_an_empty_file_of_its_kind() {
    let scene = Scene::new();
    for (format, expected) in [
        ("text", ""),
        ("json", ""),
        ("srt", ""),
        ("vtt", "WEBVTT\n\n"),
        ("tsv", "start\tend\ttext\n"),
    ] {
        let arguments = [&S16[..], &["-q", "-f", format]].concat();
        let ran = Ran::fed(&mut listen(&scene, &arguments), &[0; 64_000]);
        assert_eq!(ran.ok(), expected, "{format}");
    }
}

#[test]
fn a_delay_may_be_chosen_and_a_wrong_one_is_refused() {
    let scene = Scene::new();
    for delay in ["80", "240", "1200", "2400"] {
        let ran = scene.run(&["listen", STREAM, "-q", "--delay", delay]);
        assert!(!ran.ok().is_empty(), "{delay}");
    }
    for delay in ["85", "0", "1280"] {
        for command in [
            &["listen", STREAM, "-q", "--delay", delay][..],
            &[
                "transcribe",
                STREAM,
                "-q",
                "-m",
                "demo-realtime",
                "--delay",
                delay,
            ],
        ] {
            let ran = scene.run(command);
            assert_eq!(ran.stdout, "");
            let expected = "expected a multiple of 80 ms up to 1200 ms, or 2400 ms";
            assert_says(&ran.error(1), &[&format!("delay is {delay} ms"), expected]);
        }
    }
    let ran = scene.run(&["listen", STREAM, "--delay", "a moment"]);
    assert_says(&ran.error(2), &["'a moment'", "milliseconds"]);
}

#[test]
fn options_of_the_other_kind_of_model_are_refused() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "--delay", "480"]);
    assert_says(&error, &["demo does not take a delay", "realtime"]);
    let error = scene.refusal(&[STREAM, "-m", "demo-realtime", "--max-new-tokens", "9"]);
    assert_says(&error, &["does not take the number of new tokens", "80 ms"]);
    let ran = scene.run(&["listen", EN, "-q", "-m", "demo"]);
    assert_says(
        &ran.error(1),
        &["`demo` takes whole clips", "voxtral transcribe"],
    );
}

#[test]
fn a_language_is_ignored_and_that_is_told() {
    let scene = Scene::new();
    for command in [
        &["listen", STREAM, "-l", "fr"][..],
        &["transcribe", STREAM, "-m", "demo-realtime", "-l", "fr"],
    ] {
        let ran = scene.run(command);
        assert_eq!(words(ran.ok()), WORDS);
        assert_says(&ran.stderr, &["warning: ", "the language `fr` is ignored"]);
    }
}

#[test]
fn sound_that_breaks_off_is_heard_as_far_as_it_goes() {
    let scene = Scene::new();
    let mut odd = raw();
    odd.push(7);
    let ran = Ran::fed(&mut listen(&scene, &S16), &odd);
    assert_eq!((ran.code, &*words(&ran.stdout)), (Some(1), WORDS));
    assert_says(
        &ran.stderr,
        &["warning: stdin ended within a sample: 1 bytes are left of 2"],
    );
    // A producer that vanishes before its header's length is reached.
    let path = scene.path("whole.wav");
    write_wav(&path, 1, RATE, 16, samples());
    let bytes = std::fs::read(path).unwrap();
    let ran = Ran::fed(&mut listen(&scene, &["--stdin"]), &bytes[..bytes.len() / 2]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_begins(&ran.stdout);
    assert_says(&ran.stderr, &["warning: "]);
}

#[test]
fn samples_that_are_no_numbers_end_the_stream_with_what_was_heard() {
    let scene = Scene::new();
    let mut floats: Vec<u8> = samples()
        .into_iter()
        .flat_map(|x| (f32::from(x) / 32_768.0).to_le_bytes())
        .collect();
    let at = floats.len() / 8 * 4;
    floats[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let arguments = ["-q", "--stdin", "--raw", "f32le", "--rate", "16000"];
    let ran = Ran::fed(&mut listen(&scene, &arguments), &floats);
    assert_begins(&ran.stdout);
    assert_says(&ran.error(1), &["NaN", &(at / 4).to_string()]);
}

#[test]
fn sources_that_are_none_are_refused() {
    let scene = Scene::new();
    scene.write("notes.txt", "no sound at all, but a text of some length");
    for (arguments, input, says) in [
        (&["--stdin"][..], &b""[..], &["stdin", "empty"][..]),
        (&["--stdin"], b"no sound at all", &["stdin", "--raw"]),
        (&["missing.wav"], b"", &["`missing.wav`"]),
        (&["."], b"", &["`.` is a directory"]),
        (&["-"], b"", &["--stdin"]),
        (&["notes.txt"], b"", &["`notes.txt`"]),
    ] {
        let arguments = [&["-q"], arguments].concat();
        let ran = Ran::fed(&mut listen(&scene, &arguments), input);
        assert_eq!(ran.stdout, "");
        assert_says(&ran.error(1), says);
    }
    for (arguments, says) in [
        (&[][..], &["FILE", "--stdin"][..]),
        (&[STREAM, "--stdin"], &["--stdin"]),
        (&["--stdin", "--raw", "s16le"], &["--rate"]),
        (
            &["--stdin", "--raw", "mp3", "--rate", "8000"],
            &["'mp3'", "s16le"],
        ),
        (&["--stdin", "--rate", "8000"], &["--raw"]),
        (&["--stdin", "--pace"], &["--pace", "--stdin"]),
        (
            &[&S16[..], &["--channels", "0"]].concat(),
            &["'0'", "--channels"],
        ),
        (
            &["--stdin", "--raw", "s16le", "--rate", "0"],
            &["'0'", "--rate"],
        ),
    ] {
        let ran = Ran::of(&mut listen(&scene, arguments));
        assert_says(&ran.error(2), says);
    }
    let arguments = ["-q", "--stdin", "--raw", "s16le", "--rate", "500"];
    let ran = Ran::fed(&mut listen(&scene, &arguments), &[0; 100]);
    assert_says(&ran.error(1), &["sample rate", "500"]);
}

#[test]
fn pace_takes_as_long_as_the_sound() {
    let scene = Scene::new();
    write_wav(
        &scene.path("short.wav"),
        1,
        RATE,
        16,
        samples().into_iter().take(24_000),
    );
    let started = Instant::now();
    scene.run(&["listen", "short.wav", "--pace"]).ok();
    assert!(started.elapsed() >= Duration::from_millis(1_400));
}

#[test]
fn an_interrupted_stream_prints_what_was_heard() {
    let scene = Scene::new();
    let mut child = start(listen(&scene, &S16));
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let bytes = raw();
    stdin.write_all(&bytes).unwrap();
    stdin.flush().unwrap();
    let first = WORDS.split(' ').next().unwrap();
    read_until(&mut stdout, first);
    // The pipe stays open: only Ctrl-C can end this.
    let kill = format!("kill -INT {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let mut messages = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_to_string(&mut messages)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{messages}");
    assert!(rest.ends_with('\n'), "the line is ended: {rest:?}");
    assert_begins(&(first.to_owned() + &rest));
    let errors: Vec<&str> = messages
        .lines()
        .filter(|line| line.contains("error:"))
        .collect();
    assert_eq!(
        errors,
        ["error: interrupted; all that was heard is printed"]
    );
    drop(stdin);
}

#[test]
fn a_reader_that_has_enough_ends_the_stream() {
    let scene = Scene::new();
    let mut child = start(listen(&scene, &S16));
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(&raw()).unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    // Words come until one of them finds nobody to read it.
    let bytes = raw();
    while stdin.write_all(&bytes).is_ok() {}
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_realtime_model_takes_files_one_by_one() {
    let scene = Scene::new();
    let files = ["-q", "-m", "demo-realtime", STREAM, STREAM];
    let alone = scene.transcribe(&files);
    let together = scene.transcribe(&[&files[..], &["--batch-size", "2"]].concat());
    assert_eq!(together.ok(), alone.ok());
}
