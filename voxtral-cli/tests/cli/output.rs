//! Outputs that cannot be written. All is found out before any work.

use std::fs;

use crate::scene::{DE, EN, EN_WORDS, FR, Scene, assert_says};

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

#[test]
fn several_formats_need_a_place_each() {
    let scene = Scene::new();
    let error = scene.refusal(&[EN, "-f", "text,json"]);
    assert_says(&error, &["`text,json`", "2 files", "--output-dir"]);
    let error = scene.refusal(&[EN, "-f", "text,json", "-o", "words"]);
    assert_says(&error, &["`--output` takes one format", "--output-dir"]);
    let error = scene.refusal(&[EN, "-f", "text,json", "-f", "text", "--output-dir", "out"]);
    assert_says(&error, &["`text` twice"]);
    let arguments = [EN, "-f", "text,json", "--output-template", "{stem}"];
    assert_says(
        &scene.refusal(&arguments),
        &["`text` and `json`", "both", "`digits-en`", "{ext}"],
    );
    let arguments = [EN, FR, "--output-template", "{model}.{ext}"];
    assert_says(
        &scene.refusal(&arguments),
        &["digits-en.wav", "digits-fr.wav", "both", "`demo.txt`"],
    );
    assert_eq!(scene.names("."), [""; 0]);
}

#[test]
fn a_template_names_files_below_the_folder() {
    let scene = Scene::new();
    scene.write("...", fs::read(EN).unwrap());
    let template = "{date}/{model}/{stem}.{format}.{ext}";
    let arguments = [
        "...",
        DE,
        "-f",
        "text,md",
        "--output-dir",
        "out",
        "--output-template",
        template,
    ];
    let ran = scene.transcribe(&arguments);
    assert_eq!(ran.ok(), "");
    let days = scene.names("out");
    assert_eq!(days.len(), 1);
    let is_date = |(index, c): (usize, char)| match index {
        4 | 7 => c == '-',
        _ => c.is_ascii_digit(),
    };
    assert!(days[0].len() == 10 && days[0].chars().enumerate().all(is_date));
    assert_eq!(
        scene.names(&format!("out/{}/demo", days[0])),
        [
            "__.md.md",
            "__.text.txt",
            "digits-de.md.md",
            "digits-de.text.txt"
        ]
    );
    assert_eq!(scene.names("."), ["...", "out"]);
}

#[cfg(target_os = "linux")]
mod full {
    use std::process::Command;

    use super::*;
    use crate::long::{WINDOW, conversation, turns};
    use crate::scene::Ran;

    #[test]
    fn a_full_device() {
        let scene = Scene::new();
        let error = scene.refusal(&[EN, "-o", "/dev/full"]);
        assert_says(
            &error,
            &["cannot write `/dev/full`", "free some space", "No space"],
        );
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = scene.command(&["transcribe", "-q", EN]);
        let output = command.stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_says(&error, &["cannot write to stdout", "No space"]);
    }

    /// The program in a shell that lets no file grow beyond so many blocks of 512 bytes: the write
    /// that crosses the limit fails in the middle of the file, as on a disk that fills up.
    fn limited(scene: &Scene, blocks: u32, arguments: &[&str]) -> Ran {
        let program = scene.command(arguments);
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .arg(program.get_program())
            .args(program.get_args())
            .current_dir(scene.path("."))
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("VOXTRAL_MODEL");
        Ran::of(&mut shell)
    }

    #[test]
    fn a_disk_that_fills_up_under_a_journal_loses_no_finished_window() {
        let scene = Scene::new();
        conversation(&scene, "talk.wav", 8);
        let arguments = ["transcribe", "talk.wav", "-o", "talk.txt", "--resume"];
        let arguments = [&arguments, &WINDOW[..]].concat();
        let ran = limited(&scene, 12, &arguments);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_says(&ran.stderr, &["talk.txt.journal", "File too large"]);
        assert_eq!(scene.names("."), ["talk.txt.journal", "talk.wav"]);
        let journal = scene.read("talk.txt.journal");
        // But for the header and what is torn.
        let finished = journal.matches('\n').count() - 1;
        assert!((1..8).contains(&finished), "{journal}");
        let ran = scene.run(&arguments);
        assert_eq!(ran.ok(), "");
        let behind = format!("going on behind {finished} windows");
        assert_says(&ran.stderr, &[&behind]);
        assert_eq!(scene.read("talk.txt"), turns(8));
        assert_eq!(scene.names("."), ["talk.txt", "talk.wav"]);
    }

    #[test]
    fn nothing_half_written_stays() {
        let scene = Scene::new();
        scene.write("words.json", "from an earlier run");
        let arguments = ["transcribe", "-q", EN, "-f", "json", "-o", "words.json"];
        let error = limited(&scene, 1, &arguments).error(1);
        assert_says(
            &error,
            &["cannot write `words.json`", "nothing is left", "free some"],
        );
        assert_eq!(scene.read("words.json"), "from an earlier run");
        assert_eq!(scene.names("."), ["words.json"]);

        let arguments = ["inspect", "-q", EN, "--plot", "picture.png"];
        let ran = limited(&scene, 1, &arguments);
        assert_eq!(ran.code, Some(1));
        assert_says(&ran.stderr, &["cannot write `picture.png`", "free some"]);
        assert_eq!(scene.names("."), ["words.json"]);

        // What fits is written, the other files of the run too.
        let arguments = [
            "transcribe",
            "-q",
            EN,
            "-f",
            "text,json",
            "--output-dir",
            "out",
        ];
        assert_eq!(limited(&scene, 1, &arguments).code, Some(1));
        assert_eq!(scene.names("out"), ["digits-en.txt"]);
    }
}
