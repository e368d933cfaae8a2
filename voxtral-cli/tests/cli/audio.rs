//! Inputs that are no audio, damaged, or unusual.
//!
//! Whatever is wrong with one input, the others of the run are transcribed, and nothing is written
//! for it.

use std::fs;

use crate::scene::{
    EN_WORDS, FR, FR_WORDS, RATE, Ran, Scene, assert_says, repository, spoken, write_wav,
};

/// The error for an input that stands before a good one. The good one must be transcribed.
#[track_caller]
fn refused(scene: &Scene, input: &str) -> String {
    let ran = scene.transcribe(&["-q", input, FR, "--output-dir", "out"]);
    assert_eq!(scene.names("out"), ["digits-fr.txt"]);
    assert_eq!(scene.read("out/digits-fr.txt"), format!("{FR_WORDS}\n"));
    assert_eq!(ran.stdout, "");
    let error = ran.error(1);
    assert_says(&error, &[&format!("`{input}`")]);
    error
}

/// The transcript of an input that is readable, as JSON, and the messages.
#[track_caller]
fn accepted(scene: &Scene, input: &str) -> (serde_json::Value, String) {
    let ran = scene.transcribe(&["-f", "json", input]);
    let [object] = &ran.json()[..] else {
        panic!("{ran:?}");
    };
    (object.clone(), ran.stderr)
}

/// Like [`accepted`], of an input that breaks off: the text is there, but the run has failed.
#[track_caller]
fn accepted_in_part(scene: &Scene, input: &str) -> (serde_json::Value, String) {
    let ran = scene.transcribe(&["-f", "json", input]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    (serde_json::from_str(&ran.stdout).unwrap(), ran.stderr)
}

fn duration(object: &serde_json::Value) -> f64 {
    object["duration"].as_f64().unwrap()
}

/// The bytes of a WAV file of 16 bits; the header takes the first 44.
fn wav(scene: &Scene, samples: &[i16]) -> Vec<u8> {
    let path = scene.path("whole.wav");
    write_wav(&path, 1, RATE, 16, samples.iter().copied());
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[36..40], b"data");
    bytes
}

/// Where the header states the length of the file and of its samples.
const LENGTHS: [usize; 2] = [4, 40];

#[test]
fn a_missing_file() {
    let error = refused(&Scene::new(), "absent.wav");
    assert_says(&error, &["does not exist", "check the name"]);
}

#[test]
fn a_directory() {
    let scene = Scene::new();
    fs::create_dir(scene.path("folder.wav")).unwrap();
    let error = refused(&scene, "folder.wav");
    assert_says(
        &error,
        &["is a directory", "expected an audio file", "name the files"],
    );
}

#[test]
fn an_empty_file() {
    let scene = Scene::new();
    scene.write("empty.wav", "");
    assert_says(&refused(&scene, "empty.wav"), &["is empty", "no samples"]);
}

#[test]
fn nothing_on_stdin() {
    let scene = Scene::new();
    let ran = Ran::fed(&mut scene.command(&["transcribe", "-q", "-"]), b"");
    assert_says(&ran.error(1), &["`stdin`", "is empty"]);
}

#[test]
fn a_text_with_the_name_of_audio() {
    let scene = Scene::new();
    scene.write("text.wav", "These are words already.\n".repeat(100));
    let error = refused(&scene, "text.wav");
    assert_says(&error, &["not audio", "WAV", "FLAC", "MP3", "ffmpeg"]);
}

#[test]
fn a_wav_file_that_ends_in_its_header() {
    let scene = Scene::new();
    scene.write("header.wav", &wav(&scene, &spoken())[..30]);
    let error = refused(&scene, "header.wav");
    assert_says(&error, &["header", "is damaged"]);
}

#[test]
fn a_wav_file_without_samples() {
    let scene = Scene::new();
    scene.write("zero.wav", wav(&scene, &[]));
    assert_says(&refused(&scene, "zero.wav"), &["is empty", "no samples"]);
}

#[test]
fn samples_that_are_no_numbers() {
    let scene = Scene::new();
    let mut samples: Vec<f32> = vec![0.1; 16_000];
    samples[1234] = f32::NAN;
    write_wav(&scene.path("nan.wav"), 1, RATE, 32, samples);
    assert_says(
        &refused(&scene, "nan.wav"),
        &["NaN", "sample 1234", "finite"],
    );
}

#[test]
fn an_mp3_file_that_breaks_off() {
    let scene = Scene::new();
    let whole = fs::read(repository("tests/data/audio/formats/mp3.mp3")).unwrap();
    scene.write("cut.mp3", &whole[..1000]);
    let (object, messages) = accepted_in_part(&scene, "cut.mp3");
    assert!((0.01..0.2).contains(&duration(&object)), "{object}");
    assert_says(
        &messages,
        &[
            "warning: cut.mp3: audio is truncated",
            "copy the file again",
        ],
    );
    assert_eq!(messages.matches("warning:").count(), 1, "{messages}");

    // Within its first frame there is nothing to transcribe.
    scene.write("stub.mp3", &whole[..100]);
    assert_says(&refused(&scene, "stub.mp3"), &["cannot transcribe"]);
}

#[test]
fn a_wav_file_that_breaks_off() {
    let scene = Scene::new();
    let whole = wav(&scene, &spoken());
    scene.write("cut.wav", &whole[..whole.len() / 2]);
    let (object, messages) = accepted_in_part(&scene, "cut.wav");
    let words = object["text"].as_str().unwrap();
    assert!(words.len() > 5 && words.len() < EN_WORDS.len(), "{words}");
    assert!(words.starts_with("three one"), "{words}");
    assert_says(
        &messages,
        &[
            "warning: cut.wav: audio is truncated",
            "copy the file again",
        ],
    );
    // Quiet is about messages: the text is the same.
    let quiet = scene.transcribe(&["-q", "cut.wav"]);
    assert_eq!((quiet.code, quiet.stdout), (Some(1), format!("{words}\n")));
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_wav_header_that_promises_too_much() {
    let scene = Scene::new();
    let mut bytes = wav(&scene, &spoken());
    for at in LENGTHS {
        bytes[at..at + 4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    }
    scene.write("lie.wav", bytes);
    let (object, messages) = accepted_in_part(&scene, "lie.wav");
    assert_eq!(object["text"], EN_WORDS);
    assert_says(&messages, &["warning: lie.wav: ", "promises more samples"]);
}

#[test]
fn a_wav_header_that_was_never_finished() {
    let scene = Scene::new();
    for length in [0_u32, u32::MAX] {
        let mut bytes = wav(&scene, &spoken());
        for at in LENGTHS {
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        scene.write("pipe.wav", bytes);
        let (object, messages) = accepted(&scene, "pipe.wav");
        assert_eq!(object["text"], EN_WORDS, "{length}");
        assert!(!messages.contains("warning"), "{messages}");
    }
}

#[test]
fn a_low_and_a_high_sample_rate() {
    let scene = Scene::new();
    let spoken = spoken();
    let seconds = spoken.len() as f64 / f64::from(RATE);

    // Without a filter: what lies above 4 kHz folds down, so the words are not compared.
    let low = spoken.iter().copied().step_by(2);
    write_wav(&scene.path("low.wav"), 1, RATE / 2, 16, low);
    let (object, _) = accepted(&scene, "low.wav");
    assert!((duration(&object) - seconds).abs() < 1e-3, "{object}");

    let high = spoken.windows(2).flat_map(|pair| {
        let [from, to] = [pair[0], pair[1]].map(i32::from);
        (0..12).map(move |step| (from + (to - from) * step / 12) as i16)
    });
    write_wav(&scene.path("high.wav"), 1, 12 * RATE, 16, high);
    let (object, _) = accepted(&scene, "high.wav");
    assert!((duration(&object) - seconds).abs() < 1e-3, "{object}");
    assert_eq!(object["text"], EN_WORDS);
}

#[test]
fn seven_channels() {
    let scene = Scene::new();
    let spoken = spoken();
    let samples = spoken.iter().flat_map(|&sample| [sample; 7]);
    write_wav(&scene.path("seven.wav"), 7, RATE, 16, samples);
    let (object, _) = accepted(&scene, "seven.wav");
    assert_eq!(object["text"], EN_WORDS);
}

#[test]
fn nothing_but_silence() {
    let scene = Scene::new();
    write_wav(&scene.path("silence.wav"), 1, RATE, 16, vec![0_i16; 32_000]);
    let (object, _) = accepted(&scene, "silence.wav");
    assert!((duration(&object) - 2.0).abs() < 1e-6, "{object}");
}

#[test]
fn a_single_sample() {
    let scene = Scene::new();
    write_wav(&scene.path("one.wav"), 1, RATE, 16, [1000_i16]);
    let (object, _) = accepted(&scene, "one.wav");
    assert!(object["tokens"].as_array().is_some(), "{object}");
}

#[test]
fn several_bad_files_around_good_ones() {
    let scene = Scene::new();
    scene.write("text.wav", "These are words already.\n");
    scene.write("empty.wav", "");
    fs::copy(FR, scene.path("good.wav")).unwrap();
    let files = ["text.wav", FR, "absent.wav", "empty.wav", "good.wav"];
    let ran = scene.transcribe(&[&["-q", "--output-dir", "out"], &files[..]].concat());
    assert_eq!(ran.code, Some(1));
    assert_eq!(scene.names("out"), ["digits-fr.txt", "good.txt"]);
    assert_eq!(scene.read("out/good.txt"), format!("{FR_WORDS}\n"));
    let errors: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(errors.len(), 3, "{ran:?}");
    for (error, file) in errors.iter().zip(["absent.wav", "text.wav", "empty.wav"]) {
        assert!(error.starts_with("error: "), "{error}");
        assert_says(error, &[file]);
    }

    // On stdout, the good ones in their order.
    let ran = scene.transcribe(&[&["-q"], &files[..]].concat());
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, format!("{FR_WORDS}\n{FR_WORDS}\n"));
}

#[test]
fn a_run_of_bad_files_only_loads_no_model() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["absent.wav", "."]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stderr.lines().count(), 2, "{ran:?}");
    assert!(!ran.stderr.contains("device"), "{ran:?}");
}
