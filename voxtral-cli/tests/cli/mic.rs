//! `voxtral listen --mic`, on Linux, where the environment says which microphones there are.

#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::thread;
use std::time::Duration;

use crate::scene::{EN, RATE, Ran, Scene, assert_says, spoken};

/// `voxtral -q listen --mic` where ALSA has this configuration and no other.
fn listen(scene: &Scene, configuration: &str, arguments: &[&str]) -> Command {
    scene.write("alsa.conf", configuration);
    let mut command = scene.command(&[&["-q", "listen", "--mic"], arguments].concat());
    command.env("ALSA_CONFIG_PATH", scene.path("alsa.conf"));
    command
}

#[test]
fn a_missing_microphone_is_told_before_a_model_is_loaded() {
    let scene = Scene::new();
    let ran = Ran::of(&mut listen(&scene, "", &["-m", "nowhere/nothing"]));
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{ran:?}");
    // ALSA's own library tells on stderr what it looked for.
    let ours = |line: &&str| !line.starts_with("ALSA lib ");
    let lines: Vec<_> = ran.stderr.lines().filter(ours).collect();
    assert_eq!(lines.len(), 1, "{ran:?}");
    assert_says(lines[0], &["error: no microphone was found", "`--stdin`"]);
}

/// The microphone is ALSA's plugin that plays a file: 32-bit floats, two channels, 48 kHz, which
/// is what cpal chooses where everything is possible.
#[test]
fn a_microphone_is_heard_as_a_file_is() {
    let scene = Scene::new();
    let words = scene.run(&["-q", "listen", EN]).ok().trim().to_owned();
    assert!(!words.is_empty());
    // The channels differ, their mean is what was spoken; then there are three seconds of silence.
    let silence = std::iter::repeat_n(0, 3 * RATE as usize);
    let bytes: Vec<u8> = spoken()
        .into_iter()
        .chain(silence)
        .map(|sample| f32::from(sample) / 32_768.0)
        .flat_map(|x| [[1.5 * x, 0.5 * x]; 48_000 / RATE as usize])
        .flatten()
        .flat_map(f32::to_ne_bytes)
        .collect();
    scene.write("spoken.raw", bytes);
    let configuration = format!(
        "pcm.!default {{ type file slave.pcm {{ type null }} file /dev/null format raw infile \
         \"{}\" }}",
        scene.path("spoken.raw").display()
    );
    let mut child = listen(&scene, &configuration, &[])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A microphone never ends by itself, and a test that waits for words that never come must.
    let heard_in_time = Arc::new(AtomicBool::new(false));
    let (flag, id) = (Arc::clone(&heard_in_time), child.id());
    let watchdog = thread::spawn(move || {
        let mut waited = 0;
        while waited < 1200 && !flag.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
            waited += 1;
        }
        if !flag.load(Ordering::Relaxed) {
            let kill = format!("kill -KILL {id}");
            let _ = Command::new("sh").args(["-c", &kill]).status();
        }
    });
    let mut heard = vec![0; words.len()];
    let read = child.stdout.take().unwrap().read_exact(&mut heard);
    heard_in_time.store(true, Ordering::Relaxed);
    watchdog.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), words);
}
