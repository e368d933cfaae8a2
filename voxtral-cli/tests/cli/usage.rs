//! Help and wrong command lines.

use crate::scene::{EN, FR, Scene, assert_says};

#[test]
fn help_has_examples() {
    let scene = Scene::new();
    let ran = scene.run(&["--help"]);
    assert_says(
        ran.ok(),
        &[
            "Examples:",
            "voxtral transcribe",
            "--model mini",
            "inspect",
            "models",
        ],
    );
    assert_eq!(ran.stderr, "");
    let ran = scene.run(&["transcribe", "--help"]);
    assert_says(
        ran.ok(),
        &[
            "Examples:",
            "--output-dir",
            "VOXTRAL_MODEL",
            "HF_HOME",
            "ffmpeg",
        ],
    );
    let ran = scene.run(&["chat", "--help"]);
    assert_says(
        ran.ok(),
        &[
            "Examples:",
            "-a a.mp3 -a b.wav",
            "tool_call_id",
            "0.95",
            "/help",
        ],
    );
    let ran = scene.run(&["quantize", "--help"]);
    assert_says(
        ran.ok(),
        &[
            "Examples:",
            "--quant q4 --out",
            "8.25 bits",
            "4.5 bits",
            "--model ./mini-q4",
        ],
    );
    let ran = scene.run(&["--version"]);
    assert_eq!(ran.ok(), format!("voxtral {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_command_shows_the_help() {
    let ran = Scene::new().run(&[]);
    assert_eq!((ran.code, &*ran.stdout), (Some(2), ""));
    assert_says(&ran.stderr, &["Usage:", "Examples:"]);
}

#[test]
fn wrong_command_lines_are_one_line_each() {
    let scene = Scene::new();
    for (arguments, words) in [
        (
            &["transcribe", EN, "--language", "xx"][..],
            &["`xx`", "ISO 639-1", "`fr`"][..],
        ),
        (
            &["transcribe", EN, "-l", "english"],
            &["`english`", "two-letter", "`en`"],
        ),
        (&["transcribe"], &["FILE", "--help"]),
        (
            &["transcribe", EN, "--temperature", "-1"],
            &["'-1'", "at least 0"],
        ),
        (
            &["transcribe", EN, "--temperature", "NaN"],
            &["'NaN'", "finite"],
        ),
        (
            &["transcribe", EN, "--temperature", "inf"],
            &["'inf'", "finite"],
        ),
        (
            &["transcribe", EN, "--temperature", "warm"],
            &["'warm'", "finite"],
        ),
        (&["transcribe", EN, "--top-p", "0"], &["'0'", "above 0"]),
        (&["transcribe", EN, "--top-p", "1.5"], &["'1.5'", "up to 1"]),
        (&["transcribe", EN, "--top-k", "0"], &["'0'", "1.."]),
        (
            &["transcribe", EN, "--min-p", "-0.1"],
            &["'-0.1'", "0 to 1"],
        ),
        (
            &["transcribe", EN, "--repetition-penalty", "0"],
            &["'0'", "above 0"],
        ),
        (
            &["transcribe", EN, "--presence-penalty", "-2.5"],
            &["'-2.5'", "-2 to 2"],
        ),
        (
            &["transcribe", EN, "--frequency-penalty", "NaN"],
            &["'NaN'", "-2 to 2"],
        ),
        (&["transcribe", EN, "--seed", "-1"], &["'-1'"]),
        (&["transcribe", EN, "--stop", ""], &["--stop", "value"]),
        (
            &["transcribe", EN, "--logit-bias", "12"],
            &["'12'", "`1046=-5`"],
        ),
        (
            &["transcribe", EN, "--logit-bias", "12=300"],
            &["'12=300'", "-100 to 100"],
        ),
        (
            &["transcribe", EN, "--logprobs", "21"],
            &["'21'", "at most 20"],
        ),
        (
            &["transcribe", EN, "--logprobs", "3"],
            &["`--logprobs`", "--format json"],
        ),
        (
            &["transcribe", EN, "--logprobs", "3", "-f", "srt,text"],
            &["`--logprobs`", "--format json"],
        ),
        (
            &["chat", "-a", EN, "--logprobs", "3"],
            &["`--logprobs`", "--format json"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--resume"],
            &["--translate", "--resume"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--window", "20"],
            &["--translate", "--window"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--vad", "on"],
            &["--translate", "--vad"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--json-progress"],
            &["--translate", "--json-progress"],
        ),
        (
            &[
                "transcribe",
                EN,
                "--translate",
                "fr",
                "-f",
                "json",
                "--word-timestamps",
            ],
            &["--translate", "--word-timestamps"],
        ),
        (
            &["transcribe", EN, "--max-new-tokens", "0"],
            &["'0'", "1.."],
        ),
        (&["transcribe", EN, "--threads", "0"], &["'0'", "1.."]),
        (&["transcribe", EN, "--batch-size", "0"], &["'0'", "1.."]),
        (
            &["transcribe", EN, "--threads", "many"],
            &["'many'", "--threads"],
        ),
        (
            &["transcribe", EN, "--format", "docx"],
            &["'docx'", "text, json, srt, vtt, tsv, csv, md"],
        ),
        (
            &["transcribe", EN, "--device", "tpu"],
            &["'tpu'", "auto, cpu"],
        ),
        (&["transcribe", EN, "--dtype", "int8"], &["'int8'", "bf16"]),
        (&["transcribe", EN, "--quant", "q5"], &["'q5'", "q8, q4"]),
        (
            &["listen", EN, "--quant", "q4", "--dtype", "f32"],
            &["--quant <FORMAT>", "--dtype <DTYPE>"],
        ),
        (
            &["transcribe", EN, "--modle", "mini"],
            &["'--modle'", "'--model'"],
        ),
        (
            &["transcribe", EN, FR, "-o", "a.txt", "--output-dir", "out"],
            &["--output <FILE>", "--output-dir"],
        ),
        (&["-q", "-v", "models"], &["--quiet", "--verbose"]),
        (&["transcirbe", EN], &["'transcirbe'", "'transcribe'"]),
        (&["inspect"], &["MODEL"]),
        (&["inspect", EN, "--alignment"], &["--plot"]),
        (
            &["transcribe", EN, "--format", "srt,docx"],
            &["'docx'", "text, json, srt, vtt, tsv, csv, md"],
        ),
        (
            &["transcribe", EN, "-f", "srt", "--max-line-width", "0"],
            &["'0'", "--max-line-width", "at least 1"],
        ),
        (
            &["transcribe", EN, "-f", "srt", "--max-line-width=-42"],
            &["'-42'", "at least 1"],
        ),
        (
            &[
                "transcribe",
                EN,
                "-f",
                "srt",
                "--max-line-width",
                "42",
                "--max-line-count",
                "0",
            ],
            &["'0'", "--max-line-count", "at least 1"],
        ),
        (
            &["transcribe", EN, "-f", "srt", "--max-line-count", "2"],
            &["--max-line-width"],
        ),
        (
            &["transcribe", EN, "--output-template", "{stem}.{lang}"],
            &["{lang}", "{stem}, {ext}, {format}, {model}, {date}"],
        ),
        (
            &["transcribe", EN, "--output-template", "../{stem}.{ext}"],
            &["out of the folder", "--output-dir"],
        ),
        (
            &["transcribe", EN, "--output-template", "/tmp/{stem}.{ext}"],
            &["out of the folder", "--output-dir"],
        ),
        (
            &["transcribe", EN, "--output-template", "out/"],
            &["name of a file"],
        ),
        (
            &["transcribe", EN, "-o", "a", "--output-template", "{stem}"],
            &["--output <FILE>", "--output-template"],
        ),
        (
            &["transcribe", EN, "--translate", "xx"],
            &["`xx`", "ISO 639-1"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--language", "en"],
            &["--translate", "--language"],
        ),
        (
            &["transcribe", EN, "--translate", "fr", "--delay", "480"],
            &["--translate", "--delay"],
        ),
        (&["listen", EN, "-f", "md"], &["'md'", "tsv, csv"]),
        (
            &["quantize", "demo", "--quant", "q3", "--out", "small"],
            &["'q3'", "q8, q4"],
        ),
        (&["quantize", "demo", "--out", "small"], &["--quant"]),
        (&["quantize", "demo", "--quant", "q4"], &["--out"]),
        (&["quantize", "--quant", "q4", "--out", "small"], &["MODEL"]),
    ] {
        let ran = scene.run(arguments);
        assert_eq!(ran.stdout, "", "{arguments:?}");
        assert_says(&ran.error(2), words);
    }
    assert_eq!(scene.names("."), [""; 0]);
}
