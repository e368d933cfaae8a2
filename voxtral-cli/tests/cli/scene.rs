//! A folder of its own for each test, and the program running in it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

macro_rules! sample {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/", $name)
    };
}

pub(crate) use sample;

/// The samples in the repository, and what is spoken in them.
pub(crate) const EN: &str = sample!("digits-en.wav");
pub(crate) const EN_WORDS: &str = "three one four one five nine";
pub(crate) const FR: &str = sample!("digits-fr.wav");
pub(crate) const FR_WORDS: &str = "deux sept un huit deux huit";
pub(crate) const DE: &str = sample!("digits-de.wav");
pub(crate) const DE_WORDS: &str = "vier zwei null sechs neun fünf";
pub(crate) const ES: &str = sample!("digits-es.wav");
pub(crate) const ES_WORDS: &str = "uno seis uno ocho cero tres";

/// A path below the repository's root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The folder in which a run takes place, with a model cache of its own.
pub(crate) struct Scene(TempDir);

impl Scene {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The program, without anything of the user's own settings, cache or network.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voxtral"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .env("HF_HOME", self.path("hf"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("HF_HUB_OFFLINE", "1");
        for variable in [
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_TOKEN",
            "HF_ENDPOINT",
            "RUST_BACKTRACE",
            "RUST_LOG",
            "VOXTRAL_MODEL",
        ] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// `voxtral transcribe`.
    pub(crate) fn transcribe(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["transcribe"], arguments].concat())
    }

    /// `voxtral chat -q`.
    pub(crate) fn chat(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["chat", "-q"], arguments].concat())
    }

    /// `voxtral chat` on these lines.
    pub(crate) fn talk(&self, arguments: &[&str], lines: &str) -> Ran {
        let arguments = [&["chat", "--interactive"], arguments].concat();
        Ran::fed(&mut self.command(&arguments), lines.as_bytes())
    }

    /// The error of `voxtral transcribe -q`, which writes nothing to stdout.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        let ran = self.transcribe(&[&["-q"], arguments].concat());
        assert_eq!(ran.stdout, "", "{ran:?}");
        ran.error(1)
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs with this on stdin.
    pub(crate) fn fed(command: &mut Command, input: &[u8]) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        match child.stdin.take().unwrap().write_all(input) {
            // A program that has read enough need not read the rest.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What a run that went well wrote to stdout.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(!self.stderr.contains("error:"), "{self:?}");
        &self.stdout
    }

    /// The one line that a quiet run with one error wrote to stderr.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        let error = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(error.starts_with("error: "), "{self:?}");
        assert_eq!(error.lines().count(), 1, "{self:?}");
        error.to_owned()
    }

    /// The objects of JSON lines on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.ok().lines().map(parse).collect()
    }
}

/// Checks that a message has all of these in it.
#[track_caller]
pub(crate) fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
}

/// The samples of an English utterance, 16 kHz mono.
pub(crate) fn spoken() -> Vec<i16> {
    let reader = hound::WavReader::open(EN).unwrap();
    assert_eq!(reader.spec().sample_rate, RATE);
    reader.into_samples().map(Result::unwrap).collect()
}

/// The samples' rate.
pub(crate) const RATE: u32 = 16_000;

/// Writes a WAV file of interleaved samples.
pub(crate) fn write_wav<S: hound::Sample>(
    path: &Path,
    channels: u16,
    sample_rate: u32,
    bits_per_sample: u16,
    samples: impl IntoIterator<Item = S>,
) {
    let sample_format = match bits_per_sample {
        32 => hound::SampleFormat::Float,
        _ => hound::SampleFormat::Int,
    };
    let specification = hound::WavSpec {
        channels,
        sample_rate,
        bits_per_sample,
        sample_format,
    };
    let mut writer = hound::WavWriter::create(path, specification).unwrap();
    for sample in samples {
        writer.write_sample(sample).unwrap();
    }
    writer.finalize().unwrap();
}
