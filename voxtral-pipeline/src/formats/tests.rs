//! The files, byte by byte where they are small, and read back where somebody else wrote a reader.

use std::time::Duration;

use super::*;
use crate::{Doubt, Finish, Gap, Segment, Timings, Warning, Word};

fn word(text: &str, start: u64, end: u64) -> Word {
    Word {
        word: text.trim().to_owned(),
        start: Duration::from_millis(start),
        end: Duration::from_millis(end),
        confidence: Some(0.5),
        attention: None,
        spaced: text.starts_with(' '),
    }
}

fn segment(start: u64, end: u64, text: &str) -> Segment {
    Segment {
        start: Duration::from_millis(start),
        end: Duration::from_millis(end),
        text: text.into(),
        confidence: None,
        words: Vec::new(),
    }
}

fn transcript(segments: Option<Vec<Segment>>) -> Transcript {
    let texts = segments.iter().flatten().map(|it| it.text.as_str());
    Transcript {
        text: texts.collect::<Vec<_>>().join(" "),
        language: None,
        language_detected: None,
        duration: Duration::from_secs(400_000),
        model: "demo".into(),
        finish: Finish::Stop,
        stop: None,
        truncated: false,
        words: None,
        segments,
        gaps: Vec::new(),
        warnings: Vec::new(),
        tokens: Vec::new(),
        timings: Timings::default(),
    }
}

fn render(format: Format, layout: &Layout, segments: Vec<Segment>) -> String {
    let transcript = transcript(Some(segments));
    format.render(&Document::new(&transcript), layout).unwrap()
}

fn two() -> Vec<Segment> {
    let mut one = segment(0, 1_500, "a < b & c");
    one.start = Duration::from_micros(80_400);
    vec![one, segment(3_661_000, 360_061_999, "one\ttwo --> three\n")]
}

#[test]
fn names_are_read_as_they_are_written() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    let error = "docx".parse::<Format>().unwrap_err().to_string();
    assert!(error.contains("`docx`"), "{error}");
    for format in Format::ALL {
        assert!(error.contains(format.name()), "{error}");
    }
}

#[test]
fn subtitles_are_written_as_their_readers_expect() {
    let layout = Layout::default();
    assert_eq!(
        render(Format::Srt, &layout, two()),
        "1\n00:00:00,080 --> 00:00:01,500\na < b & c\n\n\
         2\n01:01:01,000 --> 100:01:01,999\none two → three\n\n"
    );
    assert_eq!(
        render(Format::Vtt, &layout, two()),
        "WEBVTT\n\n00:00:00.080 --> 00:00:01.500\na &lt; b &amp; c\n\n\
         01:01:01.000 --> 100:01:01.999\none two --&gt; three\n\n"
    );
    assert_eq!(render(Format::Vtt, &layout, Vec::new()), "WEBVTT\n\n");
    assert_eq!(render(Format::Srt, &layout, Vec::new()), "");
}

#[test]
fn words_are_underlined_while_they_are_spoken() {
    let mut segment = segment(0, 900, "R&D rose");
    segment.words = vec![word(" R&D", 0, 400), word(" rose", 500, 900)];
    let layout = Layout {
        highlight_words: true,
        ..Layout::default()
    };
    assert_eq!(
        render(Format::Vtt, &layout, vec![segment.clone()]),
        "WEBVTT\n\n\
         00:00:00.000 --> 00:00:00.400\n<u>R&amp;D</u> rose\n\n\
         00:00:00.400 --> 00:00:00.500\nR&amp;D rose\n\n\
         00:00:00.500 --> 00:00:00.900\nR&amp;D <u>rose</u>\n\n"
    );
    let srt = render(Format::Srt, &layout, vec![segment]);
    assert!(srt.contains("3\n00:00:00,500 --> 00:00:00,900\nR&D <u>rose</u>\n"));
}

#[test]
fn tables_are_read_back_by_their_readers() {
    let layout = Layout::default();
    assert_eq!(
        render(Format::Tsv, &layout, two()),
        "start\tend\ttext\n80\t1500\ta < b & c\n3661000\t360061999\tone two --> three\n"
    );
    let mut rows = vec![
        segment(0, 10, "he said \"no, no\", twice"),
        segment(20, 30, "=1+1; 'x'"),
        segment(30, 40, ""),
    ];
    rows[0].confidence = Some(0.25);
    let csv = render(Format::Csv, &layout, rows.clone());
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(
        *reader.headers().unwrap(),
        vec!["start", "end", "text", "confidence"]
    );
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    assert_eq!(&records[0], &["0", "10", &*rows[0].text, "0.2500"][..]);
    assert_eq!(&records[1], &["20", "30", &*rows[1].text, ""][..]);
}

#[test]
fn json_has_whispers_shape_and_ours() {
    let mut one = segment(0, 900, "ha ha ha ha ha ha ha ha ha ha ha ha ha");
    one.confidence = Some(0.5);
    one.words = vec![word(" ha", 0, 400), word("!", 500, 900)];
    let mut transcript = transcript(Some(vec![one, segment(1000, 2000, "so")]));
    transcript.language = Some("en".into());
    let document = Document {
        name: Some("talk.wav"),
        ..Document::new(&transcript)
    };
    let read = |layout: &Layout| -> serde_json::Value {
        let text = Format::Json.render(&document, layout).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(text.matches("\"segments\"").count(), 1);
        serde_json::from_str(&text).unwrap()
    };
    let object = read(&Layout::default());
    assert_eq!(object["file"], "talk.wav");
    assert_eq!(object["task"], "transcribe");
    assert_eq!(object["language"], "en");
    assert_eq!(object["duration"], 400_000.0);
    assert_eq!(object["text"], transcript.text.as_str());
    assert_eq!(object["finish"], "stop");
    let [first, second] = &object["segments"].as_array().unwrap()[..] else {
        panic!("{object}");
    };
    assert_eq!((&first["id"], &second["id"]), (&0.into(), &1.into()));
    assert_eq!((&first["start"], &first["end"]), (&0.0.into(), &0.9.into()));
    assert!((first["avg_logprob"].as_f64().unwrap() - 0.5_f64.ln()).abs() < 1e-6);
    // `len(text) / len(zlib.compress(text))` in Python: 38 / 13.
    let ratio = first["compression_ratio"].as_f64().unwrap();
    assert!((ratio - 38.0 / 13.0).abs() < 0.25, "{ratio}");
    assert!(second["compression_ratio"].as_f64().unwrap() < 1.0);
    for unknown in ["seek", "tokens", "temperature", "no_speech_prob", "words"] {
        assert!(first.get(unknown).is_none(), "{unknown}");
    }
    assert!(second.get("avg_logprob").is_none());

    let with_words = read(&Layout {
        word_timestamps: true,
        ..Layout::default()
    });
    let words = &with_words["segments"][0]["words"];
    assert_eq!(words[0]["word"], " ha");
    assert_eq!(words[1]["word"], "!");
    assert_eq!(words[1]["start"], 0.5);
    assert_eq!(words[1]["probability"], 0.5);
}

#[test]
fn a_document_reads_well_and_says_what_is_doubtful() {
    let mut transcript = transcript(Some(vec![
        segment(0, 1_000, "First *of* all."),
        segment(1_500, 3_000, "Then."),
        segment(3_725_000, 3_727_000, "# Later"),
    ]));
    transcript.gaps.push(Gap {
        start: Duration::from_secs(61),
        end: Duration::from_secs(70),
        reason: Doubt::Empty,
    });
    transcript.warnings.push(Warning {
        start: Duration::from_secs(3725),
        end: Duration::from_secs(3727),
        reason: Doubt::LanguageFlips,
    });
    let document = Document {
        name: Some("a_b.wav"),
        task: Task::Translate("fr".parse().unwrap()),
        transcript: &transcript,
    };
    assert_eq!(
        Format::Md.render(&document, &Layout::default()).unwrap(),
        "# a\\_b.wav\n\n*111:06:40 · demo · translated to fr*\n\n\
         **[0:00]** First \\*of\\* all. Then.\n\n\
         **[1:02:05]** \\# Later\n\n\
         ## Doubtful\n\n\
         - 1:01 to 1:10: no text (empty)\n\
         - 1:02:05 to 1:02:07: doubtful (language flips)\n"
    );
}

#[test]
fn without_times_there_is_text_alone() {
    let mut transcript = transcript(None);
    transcript.text = "1. Hello".into();
    let document = Document::new(&transcript);
    for format in Format::ALL {
        let outcome = format.render(&document, &Layout::default());
        match outcome {
            Ok(text) => {
                assert!(!format.needs_times());
                assert!(text.contains("Hello"), "{text}");
            }
            Err(error) => {
                assert!(format.needs_times());
                let error = error.to_string();
                assert!(
                    error.contains(format.name()) && error.contains("demo"),
                    "{error}"
                );
            }
        }
    }
    let md = Format::Md.render(&document, &Layout::default()).unwrap();
    assert!(md.ends_with("\n1\\. Hello\n"), "{md}");
}
