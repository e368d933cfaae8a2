//! `voxtral inspect` of audio files.

use std::collections::BTreeSet;
use std::fs;
#[cfg(target_os = "linux")]
use std::process::Stdio;

use crate::png;
use crate::scene::{EN, RATE, Scene, assert_says, sample, spoken, write_wav};

const STREAM: &str = sample!("digits-stream-en.wav");

/// Width and height of a PNG.
fn size(scene: &Scene, name: &str) -> (u32, u32) {
    let (width, height, _) = png::decode(&fs::read(scene.path(name)).unwrap());
    (width, height)
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

/// The words of a model that takes clips lie on what it attended to: many colours between black and
/// the brightest.
#[test]
fn a_picture_of_attention_is_a_heat_map() {
    let scene = Scene::new();
    let colours = |model: &str| {
        let arguments = ["inspect", "-q", EN, "--plot", "a.png", "--alignment", "-m"];
        scene.run(&[&arguments[..], &[model]].concat()).ok();
        let (width, height, pixels) = png::decode(&fs::read(scene.path("a.png")).unwrap());
        // Above the axis and the legend.
        let (first, last) = (height as usize - 400, height as usize - 100);
        let pixels = &pixels[first * width as usize * 3..last * width as usize * 3];
        pixels.chunks_exact(3).collect::<BTreeSet<_>>().len()
    };
    let (clips, streams) = (colours("demo"), colours("demo-realtime"));
    assert!(clips > 2 * streams, "{clips} beside {streams}");
}

#[test]
fn silence_and_very_short_sound_are_drawn_too() {
    let scene = Scene::new();
    write_wav(&scene.path("zeros.wav"), 1, RATE, 16, vec![0_i16; 32_000]);
    write_wav(&scene.path("click.wav"), 1, RATE, 16, vec![5000_i16; 3]);
    for name in ["zeros.wav", "click.wav"] {
        let ran = scene.run(&["inspect", "-q", name, "--plot", "a.png"]);
        assert!(
            ran.code == Some(0) || ran.stderr.contains("cannot transcribe"),
            "{ran:?}"
        );
        assert_eq!(size(&scene, "a.png").0, 1200);
    }
}

/// Writes digits, a minute of zeros, and so on: so many minutes of it, 8 kHz.
fn sparse(scene: &Scene, name: &str, minutes: usize) {
    let digits: Vec<i16> = spoken().into_iter().step_by(2).collect();
    let minute = 60 * RATE as usize / 2;
    let minute = digits
        .iter()
        .copied()
        .chain(std::iter::repeat(0))
        .take(minute);
    let samples = std::iter::repeat_n(minute, minutes).flatten();
    write_wav(&scene.path(name), 1, RATE / 2, 16, samples);
}

/// Runs, and gives the most memory that the program had, in bytes, as Linux counts it.
#[cfg(target_os = "linux")]
fn peak(scene: &Scene, arguments: &[&str]) -> u64 {
    let mut child = scene
        .command(arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let found = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(found.unwrap_or(0_u64) * 1024);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn an_hour_is_drawn_in_the_memory_of_minutes() {
    let scene = Scene::new();
    sparse(&scene, "minutes.wav", 3);
    sparse(&scene, "hour.wav", 60);
    let draw = |name: &str, picture: &str| {
        let arguments = ["inspect", "-q", name, "--alignment", "--plot", picture];
        peak(&scene, &arguments)
    };
    let (minutes, hour) = (
        draw("minutes.wav", "minutes.png"),
        draw("hour.wav", "hour.png"),
    );
    // As samples of the model, an hour is 230 MB.
    println!("{} MiB and {} MiB", minutes >> 20, hour >> 20);
    assert!(hour < minutes + (48 << 20), "{minutes} and {hour} bytes");
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
        (
            &["empty.wav", "--plot", "a.png"][..],
            &["`empty.wav`", "empty"][..],
        ),
        (&["text.wav", "--plot", "a.png"], &["`text.wav`"]),
        (&["text.wav"], &["`text.wav`"]),
        (
            &["demo", "--plot", "a.png"],
            &["`demo` is no file", "audio"],
        ),
        (&[EN, "--plot", "a.jpg"], &["`a.jpg`", "`.png`"]),
        (&[EN, "--plot", "folder.png"], &["`folder.png` is a folder"]),
        (
            &[EN, "--plot", "absent/a.png"],
            &["`absent`", "not a folder"],
        ),
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
