//! Clips in memory: what they accept, and writing them.

use std::fs;

use voxtral_audio::{Audio, AudioError};

use crate::{speech, tone};

#[test]
fn only_finite_samples_and_real_rates() {
    let error = Audio::new(vec![0.0, f32::NAN], 16_000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "audio contains NaN at sample 1, expected finite numbers"
    );
    assert!(matches!(
        Audio::new(vec![], 0),
        Err(AudioError::SampleRate { found: 0, .. })
    ));
    assert_eq!(Audio::new(vec![], 16_000).unwrap().duration().as_nanos(), 0);
    let audio = Audio::new(tone(440.0, 8_000, 12_000), 8_000).unwrap();
    assert_eq!(audio.duration().as_millis(), 1_500);
    assert_eq!(audio.sample_rate(), 8_000);
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.wav");
    let speech = Audio::new(speech("jfk.wav"), 16_000).unwrap();
    speech.write_wav(&path).unwrap();
    // The samples came from 16 bits, so nothing is lost.
    assert_eq!(Audio::from_file(&path, 16_000).unwrap(), speech);

    // Overwriting; values beyond the range are clipped.
    let loud = Audio::new(vec![2.0, -2.0, 0.5, -1.0], 8_000).unwrap();
    loud.write_wav(&path).unwrap();
    let read = Audio::from_file(&path, 8_000).unwrap();
    assert_eq!(read.samples(), [32_767.0 / 32_768.0, -1.0, 0.5, -1.0]);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no other file is left"
    );
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let audio = Audio::new(vec![0.0; 10], 16_000).unwrap();
    let error = audio
        .write_wav(folder.path().join("no/such/folder/out.wav"))
        .unwrap_err();
    assert!(matches!(error, AudioError::Write { .. }), "{error}");
    // A folder stands in the way.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert!(audio.write_wav(&taken).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn written_files_have_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours.wav"), folder.path().join("plain"));
    Audio::new(vec![0.0; 10], 16_000)
        .unwrap()
        .write_wav(&ours)
        .unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(ours), mode(plain));
}
