//! `voxtral inspect` of audio files.

use std::fs;

use crate::scene::{EN, RATE, Scene, assert_says, sample, write_wav};

const STREAM: &str = sample!("digits-stream-en.wav");

/// Width and height of a PNG.
fn size(scene: &Scene, name: &str) -> (u32, u32) {
    let bytes = fs::read(scene.path(name)).unwrap();
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn an_audio_file_is_described() {
    let scene = Scene::new();
    let ran = scene.run(&["inspect", EN]);
    assert_says(
        ran.ok(),
        &[
            "digits-en.wav",
            "16000 Hz, 1 channel",
            "4.3",
            "peak -",
            "speech ",
            " %",
        ],
    );
    write_wav(&scene.path("zeros.wav"), 2, 8000, 16, vec![0_i16; 16_000]);
    let ran = scene.run(&["inspect", "zeros.wav"]);
    assert_says(
        ran.ok(),
        &["8000 Hz, 2 channels", "1.00 s", "digital silence", "0 %"],
    );
}

#[test]
fn a_picture_has_the_words_and_what_lies_between() {
    let scene = Scene::new();
    let arguments = ["inspect", STREAM, "-m", "demo-realtime", "--plot"];
    let ran = scene.run(&[&arguments[..], &["words.png"]].concat());
    assert_says(ran.ok(), &["speech"]);
    assert_says(&ran.stderr, &["wrote `words.png`"]);
    let (width, height) = size(&scene, "words.png");
    assert!(width >= 1200 && height >= 600, "{width} × {height}");
    let ran = scene.run(&[&arguments[..], &["path.png", "--alignment"]].concat());
    ran.ok();
    assert!(size(&scene, "path.png").1 > height);
}

#[test]
fn silence_and_very_short_sound_are_drawn_too() {
    let scene = Scene::new();
    write_wav(&scene.path("zeros.wav"), 1, RATE, 16, vec![0_i16; 32_000]);
    write_wav(&scene.path("click.wav"), 1, RATE, 16, vec![5000_i16; 3]);
    for name in ["zeros.wav", "click.wav"] {
        let ran = scene.run(&["inspect", "-q", name, "--plot", "a.png"]);
        assert!(ran.code == Some(0) || ran.stderr.contains("cannot transcribe"), "{ran:?}");
        assert_eq!(size(&scene, "a.png").0, 1200);
    }
}

#[test]
fn an_hour_is_drawn_in_a_picture_that_can_be_looked_at() {
    let scene = Scene::new();
    let hour = std::iter::repeat_n(0_i16, 3600 * 8000);
    write_wav(&scene.path("hour.wav"), 1, 8000, 16, hour);
    let ran = scene.run(&["inspect", "-q", "hour.wav", "--plot", "hour.png"]);
    assert!(ran.code == Some(0) || ran.stderr.contains("cannot transcribe"), "{ran:?}");
    assert_says(&ran.stdout, &["1:00:00"]);
    assert!(size(&scene, "hour.png").0 <= 3600);
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let scene = Scene::new();
    scene.write("empty.wav", "");
    scene.write("text.wav", "no audio");
    fs::create_dir(scene.path("folder.png")).unwrap();
    fs::copy(EN, scene.path("sound.png")).unwrap();
    for (arguments, words) in [
        (&["empty.wav", "--plot", "a.png"][..], &["`empty.wav`", "empty"][..]),
        (&["text.wav", "--plot", "a.png"], &["`text.wav`"]),
        (&["text.wav"], &["`text.wav`"]),
        (&["demo", "--plot", "a.png"], &["`demo` is no file", "audio"]),
        (&[EN, "--plot", "a.jpg"], &["`a.jpg`", "`.png`"]),
        (&[EN, "--plot", "folder.png"], &["`folder.png` is a folder"]),
        (&[EN, "--plot", "absent/a.png"], &["`absent`", "not a folder"]),
        (
            &["sound.png", "--plot", "sound.png"],
            &["overwrite the input `sound.png`"],
        ),
    ] {
        let ran = scene.run(&[&["inspect", "-q"], arguments].concat());
        assert_eq!(ran.stdout, "", "{arguments:?}");
        assert_says(&ran.error(1), words);
    }
    assert!(!scene.path("a.png").exists());
}
