//! Runs that go well.

use std::fs;
use std::process::Stdio;

use crate::scene::{
    DE, DE_WORDS, EN, EN_WORDS, ES, ES_WORDS, FR, FR_WORDS, RATE, Ran, Scene, assert_says,
    repository, spoken, write_wav,
};

/// Words of a transcript on stdout.
fn line(words: &str) -> String {
    format!("{words}\n")
}

#[test]
fn words_go_to_stdout_and_notices_to_stderr() {
    let ran = Scene::new().transcribe(&[EN]);
    assert_eq!(ran.ok(), line(EN_WORDS));
    assert_says(
        &ran.stderr,
        &["demo", "digits", "German", "--model mini", "device: cpu"],
    );
}

#[test]
fn quiet_leaves_only_the_words() {
    let ran = Scene::new().transcribe(&["--quiet", EN]);
    assert_eq!(ran.ok(), line(EN_WORDS));
    assert_eq!(ran.stderr, "");
}

#[test]
fn several_files_give_a_line_each_in_their_order() {
    let ran = Scene::new().transcribe(&["-q", ES, FR, EN, DE]);
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(lines, [ES_WORDS, FR_WORDS, EN_WORDS, DE_WORDS]);
}

#[test]
fn files_together_are_written_as_one_by_one() {
    let scene = Scene::new();
    scene.write("text.wav", "These are words already.\n");
    // The first is the longest, so the others end before it; ends of rows and of the list too.
    let whole: Vec<i16> = spoken();
    let twice: Vec<i16> = whole.iter().chain(&whole).copied().collect();
    write_wav(&scene.path("long.wav"), 1, RATE, 16, twice);
    let files = ["long.wav", ES, "text.wav", FR, "absent.wav", EN, DE];
    for arguments in [&["-q"][..], &["-q", "--max-new-tokens", "4"]] {
        let alone = scene.transcribe(&[arguments, &files].concat());
        assert_eq!(alone.code, Some(1));
        assert_eq!(alone.stdout.lines().count(), 5);
        for size in ["2", "3", "8"] {
            let batch = ["--batch-size", size];
            let together = scene.transcribe(&[arguments, &batch, &files].concat());
            assert_eq!(together.stdout, alone.stdout, "{size} at a time");
            assert_eq!(together.stderr, alone.stderr, "{size} at a time");
            assert_eq!(together.code, Some(1));
        }
    }
    let json = |size: &str| {
        let arguments = ["-f", "json", "--batch-size", size, ES, FR, EN];
        let mut objects = scene.transcribe(&arguments).json();
        for object in &mut objects {
            object["timings"] = serde_json::Value::Null;
            let probability = object["language_detected"]["probability"].take();
            assert!(probability.as_f64().unwrap() <= 1.0);
            for token in object["tokens"].as_array_mut().unwrap() {
                // A sum of another order may differ in its last digits.
                assert!(token["logprob"].take().as_f64().unwrap() <= 0.0);
            }
            for timed in ["words", "segments"] {
                for one in object[timed].as_array_mut().unwrap() {
                    assert!(one["confidence"].take().as_f64().unwrap() <= 1.0);
                    one["avg_logprob"].take();
                }
            }
        }
        objects
    };
    assert_eq!(json("1"), json("3"));
}

#[test]
fn files_together_are_written_to_a_folder_too() {
    let scene = Scene::new();
    let arguments = ["--batch-size", "2", "--output-dir", "out", EN, FR, DE];
    let ran = scene.transcribe(&arguments);
    assert_eq!(ran.ok(), "");
    assert_eq!(
        scene.names("out"),
        ["digits-de.txt", "digits-en.txt", "digits-fr.txt"]
    );
    assert_eq!(scene.read("out/digits-de.txt"), line(DE_WORDS));
    assert_eq!(ran.stderr.matches("wrote `").count(), 3, "{ran:?}");
}

#[test]
fn json_is_an_object_per_line_with_every_token() {
    let ran = Scene::new().transcribe(&["--format", "json", FR, EN]);
    let objects = ran.json();
    let texts: Vec<&str> = objects.iter().filter_map(|o| o["text"].as_str()).collect();
    assert_eq!(texts, [FR_WORDS, EN_WORDS]);
    for (object, (file, language)) in objects.iter().zip([(FR, "fr"), (EN, "en")]) {
        let samples = hound::WavReader::open(file).unwrap().duration();
        let seconds = f64::from(samples) / 16_000.0;
        assert_eq!(object["file"], file);
        assert_eq!(object["model"], "demo");
        assert_eq!(object["language"], language);
        assert_eq!(object["language_detected"]["language"], language);
        assert_eq!(object["language_detected"]["source"], "model");
        let probability = object["language_detected"]["probability"].as_f64();
        assert!(probability.is_some_and(|p| p > 0.5 && p <= 1.0), "{object}");
        assert!((object["duration"].as_f64().unwrap() - seconds).abs() < 1e-3);
        assert_eq!(object["finish"], "stop");
        for stage in ["features", "encoder", "prefill", "decode"] {
            assert!(object["timings"][stage].as_f64().unwrap() > 0.0, "{stage}");
        }
        let tokens = object["tokens"].as_array().unwrap();
        let (end, words) = tokens.split_last().unwrap();
        assert_eq!(end["text"], "</s>");
        assert_eq!(end["id"], 2);
        let text: String = words.iter().filter_map(|t| t["text"].as_str()).collect();
        assert_eq!(text.trim(), object["text"]);
        for token in tokens {
            assert!(token["id"].is_u64(), "{token}");
            assert!(token["logprob"].as_f64().unwrap() <= 0.0, "{token}");
        }
    }
}

#[test]
fn a_given_language_is_used_and_stated() {
    let ran = Scene::new().transcribe(&["-q", "--language", "fr", "-f", "json", FR]);
    let object = &ran.json()[0];
    assert_eq!(object["language"], "fr");
    assert!(object.get("language_detected").is_none(), "{object}");
    assert_eq!(object["text"], FR_WORDS);
}

#[test]
fn output_goes_to_a_file_instead_of_stdout() {
    let scene = Scene::new();
    scene.write(
        "words.txt",
        "what was there before, and is longer than the words",
    );
    let ran = scene.transcribe(&[EN, "-o", "words.txt"]);
    assert_eq!(ran.ok(), "");
    assert_says(&ran.stderr, &["wrote `words.txt`"]);
    assert_eq!(scene.read("words.txt"), line(EN_WORDS));
    assert_eq!(scene.names("."), ["words.txt"]);
}

#[cfg(unix)]
#[test]
fn output_through_a_link_or_to_a_device_keeps_them() {
    let scene = Scene::new();
    scene.write("target.txt", "");
    std::os::unix::fs::symlink("target.txt", scene.path("link.txt")).unwrap();
    let ran = scene.transcribe(&["-q", EN, "-o", "link.txt"]);
    assert_eq!(ran.ok(), "");
    assert!(scene.path("link.txt").is_symlink());
    assert_eq!(scene.read("target.txt"), line(EN_WORDS));

    let ran = scene.transcribe(&["-q", EN, "-o", "/dev/stdout"]);
    assert_eq!(ran.ok(), line(EN_WORDS));
}

#[test]
fn a_dash_as_output_is_stdout() {
    let ran = Scene::new().transcribe(&["-q", EN, DE, "-o", "-"]);
    assert_eq!(ran.ok(), line(EN_WORDS) + &line(DE_WORDS));
}

#[test]
fn an_output_folder_is_made_and_gets_a_file_for_each_input() {
    let scene = Scene::new();
    let ran = scene.transcribe(&[EN, FR, "--output-dir", "a/b"]);
    assert_eq!(ran.ok(), "");
    assert_eq!(scene.names("a/b"), ["digits-en.txt", "digits-fr.txt"]);
    assert_eq!(scene.read("a/b/digits-en.txt"), line(EN_WORDS));
    assert_eq!(scene.read("a/b/digits-fr.txt"), line(FR_WORDS));

    // The folder is there now, and other formats lie beside.
    let ran = scene.transcribe(&["-q", EN, "--output-dir", "a/b", "-f", "json"]);
    assert_eq!(ran.ok(), "");
    assert_eq!(
        scene.names("a/b"),
        ["digits-en.json", "digits-en.txt", "digits-fr.txt"]
    );
    let object: serde_json::Value =
        serde_json::from_str(&scene.read("a/b/digits-en.json")).unwrap();
    assert_eq!(object["text"], EN_WORDS);
}

#[test]
fn stdin_is_an_input_too() {
    let scene = Scene::new();
    let audio = fs::read(EN).unwrap();
    let ran = Ran::fed(&mut scene.command(&["transcribe", "-q", "-"]), &audio);
    assert_eq!(ran.ok(), line(EN_WORDS));

    let arguments = ["transcribe", "-q", FR, "-", "--output-dir", "out"];
    let ran = Ran::fed(&mut scene.command(&arguments), &audio);
    assert_eq!(ran.ok(), "");
    assert_eq!(scene.names("out"), ["digits-fr.txt", "stdin.txt"]);
    assert_eq!(scene.read("out/stdin.txt"), line(EN_WORDS));
}

#[test]
fn the_content_counts_and_not_the_name() {
    let scene = Scene::new();
    for name in ["digits.mp3", "digits", "dig its.txt", "ñ.wav"] {
        fs::copy(EN, scene.path(name)).unwrap();
    }
    let ran = scene.transcribe(&["-q", "digits.mp3", "digits", "dig its.txt", "ñ.wav"]);
    assert_eq!(ran.ok(), line(EN_WORDS).repeat(4));
}

#[test]
fn any_container_and_codec_is_read() {
    let folder = repository("tests/data/audio/formats");
    let file = |name| folder.join(name).to_str().unwrap().to_owned();
    let files = ["mp3.mp3", "m4a-aac.m4a", "flac.flac", "webm-opus.webm"].map(file);
    let [mp3, m4a, flac, webm] = &files;
    let ran = Scene::new().transcribe(&["-q", "-f", "json", mp3, m4a, flac, webm]);
    let objects = ran.json();
    assert_eq!(objects.len(), files.len());
    for object in objects {
        let duration = object["duration"].as_f64().unwrap();
        assert!((duration - 0.3).abs() < 0.1, "{object}");
    }
}

#[test]
fn a_model_folder_is_opened_by_its_path_or_by_the_environment() {
    let scene = Scene::new();
    let demo = repository("voxtral-pipeline/demo");
    let demo = demo.to_str().unwrap();
    let by_path = scene.transcribe(&["-f", "json", EN, "--model", demo]);
    assert_eq!(by_path.json()[0]["text"], EN_WORDS);
    assert_eq!(by_path.json()[0]["model"], demo);
    assert!(!by_path.stderr.contains("demo model"), "{by_path:?}");

    let arguments = ["transcribe", "-q", "-f", "json", EN];
    let by_environment = Ran::of(scene.command(&arguments).env("VOXTRAL_MODEL", demo));
    assert_eq!(by_environment.json()[0]["model"], demo);

    // A flag comes before the variable, and an emptied variable is none.
    let arguments = ["transcribe", "-q", "-f", "json", EN, "-m", "demo"];
    let by_flag = Ran::of(scene.command(&arguments).env("VOXTRAL_MODEL", "nonsense"));
    assert_eq!(by_flag.json()[0]["model"], "demo");
    let by_default = Ran::of(scene.command(&arguments[..5]).env("VOXTRAL_MODEL", ""));
    assert_eq!(by_default.json()[0]["model"], "demo");
}

#[test]
fn a_limit_of_tokens_cuts_the_text_off_with_a_warning() {
    let arguments = ["--max-new-tokens", "2", "-f", "json", EN];
    let ran = Scene::new().transcribe(&arguments);
    let object = &ran.json()[0];
    assert_eq!(object["tokens"].as_array().unwrap().len(), 2);
    assert_eq!(object["finish"], "length");
    assert!(EN_WORDS.starts_with(object["text"].as_str().unwrap()));
    assert_says(
        &ran.stderr,
        &[
            "warning: ",
            "digits-en.wav: stopped after 2 tokens",
            "--max-new-tokens",
        ],
    );
}

#[test]
fn a_seed_repeats_its_draws() {
    let scene = Scene::new();
    let draw = |temperature, seed| {
        let arguments = ["-q", EN, "--temperature", temperature, "--seed", seed];
        scene.transcribe(&arguments).ok().to_owned()
    };
    assert_eq!(draw("0.8", "1"), draw("0.8", "1"));
    // So hot that every token is about as likely as any other.
    assert_ne!(draw("1000", "1"), draw("1000", "2"));
}

#[test]
fn a_stop_ends_the_text_before_it() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", EN, "--stop", "zero", "--stop", "r one"]);
    assert_eq!(ran.ok(), "three one fou\n");
    let ran = scene.transcribe(&["-q", EN, "--stop", "r one", "-f", "json"]);
    let object = &ran.json()[0];
    assert_eq!(object["text"], "three one fou");
    assert_eq!(
        (&object["finish"], &object["stop"]),
        (&"stop".into(), &"r one".into())
    );
}

#[test]
fn json_tells_alternatives_where_asked() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", EN, "-f", "json", "--logprobs", "3"]);
    for token in ran.json()[0]["tokens"].as_array().unwrap() {
        let top = token["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        for part in ["id", "text", "logprob"] {
            assert_eq!(top[0][part], token[part], "{token}");
        }
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
    }
    let ran = scene.transcribe(&["-q", EN, "-f", "json"]);
    assert!(ran.json()[0]["tokens"][0].get("top").is_none());
}

#[test]
fn a_bias_bans_a_token() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", EN, "-f", "json"]);
    let tokens = ran.json()[0]["tokens"].clone();
    let first = tokens[0]["id"].as_u64().unwrap();
    let bias = format!("{first}=-100");
    let ran = scene.transcribe(&["-q", EN, "-f", "json", "--logit-bias", &bias]);
    let biased = ran.json()[0]["tokens"].clone();
    assert!(
        biased
            .as_array()
            .unwrap()
            .iter()
            .all(|token| token["id"] != first)
    );
}

#[test]
fn contradictory_options_are_refused_before_anything_is_loaded() {
    let scene = Scene::new();
    for (arguments, words) in [
        (
            &["--top-p", "0.9"][..],
            &["top-p is 0.9 at temperature 0", "above 0"][..],
        ),
        (&["--top-k", "5"], &["top-k is 5 at temperature 0"]),
        (
            &["--logit-bias", "5=1", "--logit-bias", "5=2"],
            &["`--logit-bias`", "token 5", "both 1 and 2"],
        ),
    ] {
        let arguments = [&[EN, "--model", "./absent"], arguments].concat();
        assert_says(&scene.refusal(&arguments), words);
    }
    let arguments = [EN, "--logit-bias", "9999999=1"];
    assert_says(&scene.refusal(&arguments), &["token 9999999", "vocabulary"]);
    let arguments = [EN, "--model", "demo-realtime", "--stop", "one"];
    assert_says(
        &scene.refusal(&arguments),
        &["does not take a stop string", "stream"],
    );
}

#[test]
fn every_precision_gives_the_same_words() {
    let scene = Scene::new();
    for dtype in ["f32", "bf16", "f16"] {
        let ran = scene.transcribe(&["-q", EN, "--dtype", dtype]);
        assert_eq!(ran.ok(), line(EN_WORDS), "{dtype}");
    }
    // ndarray computes with floats alone.
    #[cfg(not(feature = "ndarray"))]
    for quant in ["q8", "q4"] {
        let ran = scene.transcribe(&["-q", EN, "--quant", quant]);
        assert_eq!(ran.ok(), line(EN_WORDS), "{quant}");
    }
}

#[test]
fn one_thread_suffices() {
    let ran = Scene::new().transcribe(&["-q", DE, "--threads", "1", "--device", "cpu"]);
    assert_eq!(ran.ok(), line(DE_WORDS));
}

#[cfg(not(feature = "ndarray"))]
#[test]
fn a_backend_that_was_not_compiled_in_is_an_error() {
    let error = Scene::new().refusal(&[EN, "--device", "ndarray"]);
    assert_says(
        &error,
        &["`--device ndarray`", "--features ndarray", "`auto`, `cpu`"],
    );
}

#[cfg(feature = "ndarray")]
#[test]
fn another_backend_gives_the_same_words() {
    let ran = Scene::new().transcribe(&[EN, "--device", "ndarray"]);
    assert_eq!(ran.ok(), line(EN_WORDS));
    assert_says(&ran.stderr, &["device: ndarray"]);
}

#[test]
fn verbose_tells_the_time_of_each_stage() {
    let ran = Scene::new().transcribe(&["-v", EN]);
    assert_eq!(ran.ok(), line(EN_WORDS));
    assert_says(
        &ran.stderr,
        &["info: ", "digits-en.wav: 4.3s of audio", "encoder"],
    );
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_complain() {
    let scene = Scene::new();
    for arguments in [
        &["transcribe", "-q", EN, DE][..],
        &["transcribe", "-q", "-f", "json", EN, DE],
        &["inspect", "demo"],
        &["models"],
        &["--help"],
    ] {
        let mut child = scene
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn nobody_needs_to_read_the_notices() {
    let scene = Scene::new();
    for (arguments, code, stdout) in [
        (&["transcribe", "-v", EN][..], 0, line(EN_WORDS)),
        (&["transcribe", "absent.wav"], 1, String::new()),
        (&["nonsense"], 2, String::new()),
    ] {
        let mut child = scene
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stderr.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout);
    }
}

#[test]
fn a_model_that_takes_clips_writes_subtitles_too() {
    let scene = Scene::new();
    let ran = scene.transcribe(&["-q", "-f", "srt", EN]);
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(lines[0], "1");
    assert_says(lines[1], &["00:00:0", " --> 00:00:0"]);
    assert_eq!(lines[2], EN_WORDS);
    let json = &scene.transcribe(&["-q", "-f", "json", FR]).json()[0];
    let words = json["words"].as_array().unwrap();
    let spoken: Vec<&str> = words
        .iter()
        .map(|word| word["word"].as_str().unwrap())
        .collect();
    assert_eq!(spoken.join(" "), FR_WORDS);
}

/// What was found out once is read by the next run, and a damaged file is told of and mended.
#[test]
fn the_heads_that_align_are_remembered() {
    let scene = Scene::new();
    let twice: Vec<i16> = [spoken(), spoken()].concat();
    write_wav(&scene.path("long.wav"), 1, RATE, 16, twice);
    let file = "hf/hub/voxtral-heads/demo.json";
    let run = || scene.transcribe(&["-q", "-f", "vtt", "long.wav"]);
    let first = run();
    assert_eq!(first.stderr, "");
    let record = scene.read(file);
    assert_says(&record, &["demo", "aligned"]);
    assert_eq!(run().ok(), first.ok());
    scene.write(file, "[[1, 2");
    let again = scene.transcribe(&["-f", "vtt", "long.wav"]);
    assert_eq!(again.ok(), first.ok());
    assert_says(&again.stderr, &["demo.json", "chosen anew"]);
    assert_eq!(scene.read(file), record);
}
