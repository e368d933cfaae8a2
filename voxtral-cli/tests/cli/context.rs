//! What is likely to be said, and the language, on the command line.

use crate::scene::{EN, EN_WORDS, Scene, assert_says};

/// So strong that it is written whatever was said.
const ALWAYS: [&str; 2] = ["--context-bias-strength", "100"];

#[test]
fn a_bias_is_taken_from_the_command_line_and_from_a_file() {
    let scene = Scene::new();
    scene.write("names.txt", "\u{FEFF}# names\r\n\r\n  two  \r\n");
    for source in [
        ["--context-bias", "two"],
        ["--context-bias-file", "names.txt"],
    ] {
        let ran = scene.transcribe(&[&["-q", EN], &source[..], &ALWAYS].concat());
        assert_says(ran.ok(), &["two"]);
    }
    // At the usual strength, what was not said is not written.
    scene.write("names.txt", "Joplin\nCharleston");
    let both = [
        "--context-bias",
        "New Orleans, three",
        "--context-bias-file",
        "names.txt",
    ];
    let ran = scene.transcribe(&[&["-q", EN], &both[..]].concat());
    assert_eq!(ran.ok(), format!("{EN_WORDS}\n"));
}

#[test]
fn a_live_stream_takes_a_bias_too() {
    let scene = Scene::new();
    let ran = scene.run(&[&["listen", "-q", EN, "--context-bias", "two"], &ALWAYS[..]].concat());
    assert_says(ran.ok(), &["two"]);
    let ran = scene.run(&["listen", "-q", EN, "--context-bias", "one,,two"]);
    assert_says(&ran.error(1), &["context phrase is empty (number 2 of 3)"]);
}

#[test]
fn phrases_that_cannot_be_are_refused_before_anything_is_loaded() {
    let scene = Scene::new();
    let names = |count| (0..count).map(|i| format!("name{i}\n")).collect::<String>();
    scene.write("101.txt", names(101));
    scene.write("60.txt", names(60));
    scene.write("latin1.txt", b"one\nMalm\xF6\n");
    scene.write("comments.txt", "# nothing\n\n");
    scene.write("large.txt", "one ".repeat(1 << 19));
    let forty_one = vec!["x"; 41].join(",");
    for (arguments, words) in [
        (
            &["--context-bias-file", "101.txt"][..],
            &["number of context phrases is 101", "1 to 100"][..],
        ),
        (
            &[
                "--context-bias-file",
                "60.txt",
                "--context-bias",
                &forty_one,
            ],
            &["number of context phrases is 101"],
        ),
        (
            &["--context-bias", "one,,two"],
            &["context phrase is empty (number 2 of 3)"],
        ),
        (
            &["--context-bias", ""],
            &["context phrase is empty (number 1 of 1)"],
        ),
        (
            &["--context-bias-file", "latin1.txt"],
            &["`latin1.txt` is not UTF-8 in line 2", "save it as UTF-8"],
        ),
        (
            &["--context-bias-file", "absent.txt"],
            &["cannot read `absent.txt`"],
        ),
        (&["--context-bias-file", "."], &["cannot read `.`"]),
        (
            &["--context-bias-file", "comments.txt"],
            &["`comments.txt` has no phrase in it"],
        ),
        (
            &["--context-bias-file", "large.txt"],
            &["`large.txt` is longer than"],
        ),
    ] {
        let arguments = [&[EN, "--model", "./absent"], arguments].concat();
        assert_says(&scene.refusal(&arguments), words);
    }
}

#[test]
fn a_strength_needs_phrases_and_is_above_0() {
    let scene = Scene::new();
    let ran = scene.transcribe(&[EN, "--context-bias-strength", "2"]);
    assert_says(
        &ran.error(2),
        &["--context-bias <PHRASES>", "--context-bias-file <FILE>"],
    );
    for strength in ["0", "-1", "NaN", "inf", "much"] {
        let bias = ["--context-bias", "one", "--context-bias-strength", strength];
        let ran = scene.transcribe(&[&[EN], &bias[..]].concat());
        assert_says(
            &ran.error(2),
            &[&format!("'{strength}'"), "a finite number above 0"],
        );
    }
}

#[test]
fn a_language_that_the_model_lacks_is_refused_with_those_it_has() {
    let message = Scene::new().refusal(&[EN, "--language", "pt"]);
    assert_says(
        &message,
        &[
            "demo does not understand the language `pt`",
            "de, en, es, fr",
        ],
    );
}

#[test]
fn verbose_tells_the_language_on_stderr() {
    let ran = Scene::new().transcribe(&["-v", EN]);
    assert_eq!(ran.ok(), format!("{EN_WORDS}\n"));
    assert_says(
        &ran.stderr,
        &["language `en` detected by the model", "% sure"],
    );
}
