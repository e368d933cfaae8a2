//! What is written of a transcript: every format, its layout, translations.

use serde_json::Value;

use crate::scene::{EN, FR, Scene, assert_says, sample};

const STREAM: &str = sample!("digits-stream-en.wav");
const REALTIME: [&str; 3] = ["-q", "-m", "demo-realtime"];

fn realtime(scene: &Scene, arguments: &[&str]) -> String {
    let ran = scene.transcribe(&[&REALTIME, arguments].concat());
    ran.ok().to_owned()
}

/// Milliseconds of `hh:mm:ss,mmm` or `hh:mm:ss.mmm`.
fn millis(clock: &str) -> u64 {
    let clock = clock.replace([',', '.'], ":");
    let parts: Vec<u64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
    let [hours, minutes, seconds, millis] = parts[..] else {
        panic!("{clock}");
    };
    ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
}

/// Start, end and text of the cues of an SRT or WebVTT file, read as their specifications say.
fn cues(file: &str) -> Vec<(u64, u64, String)> {
    let blocks = file.split("\n\n").filter(|block| block.contains("-->"));
    blocks
        .map(|block| {
            let mut lines = block.lines().skip_while(|line| !line.contains("-->"));
            let (start, end) = lines.next().unwrap().split_once(" --> ").unwrap();
            let text: Vec<_> = lines.collect();
            (millis(start), millis(end), text.join("\n"))
        })
        .collect()
}

#[test]
fn several_formats_are_written_at_once() {
    let scene = Scene::new();
    let all = "text,json,srt,vtt,tsv,csv,md";
    let arguments = [STREAM, "-f", all, "--output-dir", "out"];
    assert_eq!(realtime(&scene, &arguments), "");
    let extensions = ["csv", "json", "md", "srt", "tsv", "txt", "vtt"];
    let names = extensions.map(|ext| format!("digits-stream-en.{ext}"));
    assert_eq!(scene.names("out"), names);
    let read = |ext: &str| scene.read(&format!("out/digits-stream-en.{ext}"));

    let object: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(object["task"], "transcribe");
    assert_eq!(
        format!("{}\n", object["text"].as_str().unwrap()),
        read("txt")
    );
    let segments = object["segments"].as_array().unwrap();
    assert!(segments.len() > 1);
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(segment["id"], index);
        assert!(segment["compression_ratio"].is_f64(), "{segment}");
        assert!(segment.get("words").is_none());
    }

    // Subtitles say what the text says.
    let (srt, vtt) = (cues(&read("srt")), cues(&read("vtt")));
    assert_eq!(srt, vtt);
    let texts: Vec<&str> = srt.iter().map(|cue| cue.2.as_str()).collect();
    assert_eq!(texts.join(" "), object["text"]);
    assert!(read("vtt").starts_with("WEBVTT\n\n"));

    // Tables have the segments as they are.
    let csv = read("csv");
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let tsv = read("tsv");
    let lines: Vec<Vec<&str>> = tsv
        .lines()
        .skip(1)
        .map(|l| l.split('\t').collect())
        .collect();
    assert_eq!((rows.len(), lines.len()), (segments.len(), segments.len()));
    for ((row, line), segment) in rows.iter().zip(&lines).zip(segments) {
        let start = (segment["start"].as_f64().unwrap() * 1000.0).round();
        assert_eq!(
            (&row[0], line[0]),
            (&*start.to_string(), &*start.to_string())
        );
        assert_eq!(row[2], *segment["text"].as_str().unwrap());
        assert_eq!(line[2], segment["text"]);
    }
    let md = read("md");
    assert_says(&md, &["# ", "digits-stream-en.wav", "**[0:0", "seven two"]);
}

#[test]
fn subtitles_keep_to_the_layout_and_can_be_read() {
    let scene = Scene::new();
    let layout = ["--max-line-width", "12", "--max-line-count", "2"];
    let srt = realtime(&scene, &[&[STREAM, "-f", "srt"][..], &layout].concat());
    let cues = cues(&srt);
    let all: Vec<&str> = cues
        .iter()
        .flat_map(|cue| cue.2.split_whitespace())
        .collect();
    assert_eq!(
        all.join(" "),
        "seven two nine four zero five eight three six"
    );
    for pair in cues.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{cues:?}");
    }
    for (start, end, text) in &cues {
        assert!(text.lines().count() <= 2, "{cues:?}");
        assert!(text.lines().all(|line| line.len() <= 12), "{cues:?}");
        assert!(end - start >= 800, "{cues:?}");
    }
    let numbers = srt.split("\n\n").filter(|block| !block.is_empty());
    for (index, block) in numbers.enumerate() {
        assert_eq!(block.lines().next(), Some(&*(index + 1).to_string()));
    }
}

#[test]
fn words_are_highlighted_and_listed_where_asked() {
    let scene = Scene::new();
    let vtt = realtime(&scene, &[STREAM, "-f", "vtt", "--highlight-words"]);
    let steps = cues(&vtt);
    let marked = |text: &str| {
        let (_, rest) = text.split_once("<u>")?;
        Some(rest.split_once("</u>").unwrap().0.to_owned())
    };
    let words: Vec<String> = steps.iter().filter_map(|step| marked(&step.2)).collect();
    assert_eq!(
        words.join(" "),
        "seven two nine four zero five eight three six"
    );
    assert!(steps.windows(2).all(|two| two[0].1 <= two[1].0));

    let json = realtime(&scene, &[STREAM, "-f", "json", "--word-timestamps"]);
    let object: Value = serde_json::from_str(&json).unwrap();
    let segments = object["segments"].as_array().unwrap();
    let listed: Vec<&Value> = segments
        .iter()
        .flat_map(|segment| segment["words"].as_array().unwrap())
        .collect();
    let words = object["words"].as_array().unwrap();
    assert_eq!(listed.len(), words.len());
    for (one, other) in listed.iter().zip(words) {
        assert_eq!(one["word"].as_str().unwrap().trim(), other["word"]);
        assert_eq!(
            (&one["start"], &one["end"]),
            (&other["start"], &other["end"])
        );
    }
}

#[test]
fn live_subtitles_are_those_of_the_file() {
    let scene = Scene::new();
    for format in ["srt", "vtt", "tsv", "csv"] {
        let file = realtime(&scene, &[STREAM, "-f", format]);
        let live = scene.run(&["listen", "-q", STREAM, "-f", format]);
        assert_eq!(live.ok(), file, "{format}");
    }
    let layout = ["--max-line-width", "12", "--max-line-count", "1"];
    let file = realtime(&scene, &[&[STREAM, "-f", "srt"][..], &layout].concat());
    let live = scene.run(&[&["listen", "-q", STREAM, "-f", "srt"][..], &layout].concat());
    assert_eq!(live.ok(), file);
}

#[test]
fn a_translation_says_what_it_is() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", EN, FR, "--translate", "de", "-f", "json"]);
    for object in ran.json() {
        assert_eq!(object["task"], "translate");
        assert_eq!(object["target_language"], "de");
        assert!(object["language"].is_null());
        assert!(object.get("segments").is_none() && object.get("words").is_none());
        assert!(object["duration"].as_f64().unwrap() > 3.0);
        assert!(!object["tokens"].as_array().unwrap().is_empty());
    }
    let ran = scene.transcribe(&["-q", EN, "--translate", "de", "-f", "md"]);
    assert_says(ran.ok(), &["translated to de"]);
}

#[test]
fn what_cannot_go_together_is_refused_before_anything_is_loaded() {
    let scene = Scene::new();
    for (arguments, words) in [
        (
            &["--highlight-words"][..],
            &["`--highlight-words`", "`text`", "--format srt"][..],
        ),
        (
            &["-f", "json,tsv", "--highlight-words", "--output-dir", "out"],
            &["`--highlight-words`", "`json,tsv`"],
        ),
        (
            &["--max-line-width", "42", "-f", "csv"],
            &["`--max-line-width`", "`csv`"],
        ),
        (
            &["--word-timestamps", "-f", "md"],
            &["`--word-timestamps`", "`md`", "--format json"],
        ),
        (
            &["--translate", "fr", "-f", "srt"],
            &["`--translate fr`", "no times", "`--format srt`"],
        ),
        (
            &["--translate", "fr", "-f", "text,csv", "--output-dir", "out"],
            &["no times", "`--format csv`"],
        ),
    ] {
        let arguments = [&[EN, "--model", "./absent"], arguments].concat();
        assert_says(&scene.refusal(&arguments), words);
    }
    let error = scene.refusal(&[EN, "--translate", "fr", "-m", "demo-realtime"]);
    assert_says(
        &error,
        &["does not take a translation", "Realtime", "model of 2507"],
    );
    let ran = scene.run(&["listen", "-q", EN, "--max-line-width", "42"]);
    assert_says(&ran.error(1), &["`--max-line-width`", "`text`"]);
    assert_eq!(scene.names("."), [""; 0]);
}
