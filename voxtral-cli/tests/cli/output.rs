//! Outputs that cannot be written. All is found out before any work.

use std::fs;

use crate::scene::{EN, EN_WORDS, FR, Scene, assert_says};

#[test]
fn a_folder_below_a_file() {
    let scene = Scene::new();
    scene.write("file.txt", "text");
    let error = scene.refusal(&[EN, "--output-dir", "file.txt/out"]);
    assert_says(
        &error,
        &["cannot make folder `file.txt/out`", "choose another"],
    );
    let error = scene.refusal(&[EN, "--output-dir", "file.txt"]);
    assert_says(&error, &["cannot make folder `file.txt`", "choose another"]);
    let error = scene.refusal(&[EN, "--output", "file.txt/words.txt"]);
    assert_says(&error, &["`file.txt`", "not a folder", "choose another"]);
    assert_eq!(scene.read("file.txt"), "text");
    assert_eq!(scene.names("."), ["file.txt"]);
}

#[test]
fn a_file_in_a_folder_that_is_absent() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "--output", "absent/words.txt"]);
    assert_says(&error, &["`absent`", "not a folder", "make it"]);
}

#[test]
fn a_file_where_a_folder_is() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("out/digits-en.txt")).unwrap();
    let error = scene.refusal(&[EN, "--output", "out"]);
    assert_says(&error, &["`out` is a folder", "--output-dir"]);
    let error = scene.refusal(&[EN, "--output-dir", "out"]);
    assert_says(&error, &["digits-en.txt` is a folder"]);
    assert_eq!(scene.names("out"), ["digits-en.txt"]);
}

#[test]
fn two_inputs_with_one_output() {
    let scene = Scene::new();
    fs::create_dir(scene.path("other")).unwrap();
    fs::copy(FR, scene.path("other/digits-en.mp3")).unwrap();
    let error = scene.refusal(&[EN, "other/digits-en.mp3", "--output-dir", "out"]);
    assert_says(
        &error,
        &[
            "digits-en.wav` and `other/digits-en.mp3`",
            "digits-en.txt`",
            "rename one",
        ],
    );
    assert!(!scene.path("out").exists());

    let error = scene.refusal(&[EN, FR, "--output", "words.txt"]);
    assert_says(&error, &["one input", "2 were given", "--output-dir"]);
    assert!(!scene.path("words.txt").exists());
}

#[test]
fn an_input_is_never_overwritten() {
    let scene = Scene::new();
    let audio = fs::read(EN).unwrap();
    scene.write("speech.txt", &audio);
    scene.write("other.wav", &audio);
    for output in [
        &["--output-dir", "."][..],
        &["--output", "speech.txt"],
        &["--output", "./speech.txt"],
    ] {
        let arguments = [&["speech.txt"], output].concat();
        let error = scene.refusal(&arguments);
        assert_says(
            &error,
            &["overwrite the input `speech.txt`", "choose another"],
        );
    }
    assert_eq!(fs::read(scene.path("speech.txt")).unwrap(), audio);

    // Beside it is fine.
    let ran = scene.transcribe(&["-q", "other.wav", "--output-dir", "."]);
    assert_eq!(ran.ok(), "");
    assert_eq!(scene.read("other.txt"), format!("{EN_WORDS}\n"));
}

#[test]
fn a_failed_transcript_leaves_the_earlier_one() {
    let scene = Scene::new();
    scene.write("bad.wav", "no audio");
    scene.write("words.txt", "from an earlier run");
    scene.refusal(&["bad.wav", "--output", "words.txt"]);
    assert_eq!(scene.read("words.txt"), "from an earlier run");
    assert_eq!(scene.names("."), ["bad.wav", "words.txt"]);
}
