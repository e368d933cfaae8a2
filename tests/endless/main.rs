//! Streams that go on and on: memory and work per token stay what they are.
//!
//! A binary of its own, for resident memory is that of a whole process; its tests run one after
//! the other.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error has failed"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn_flex::Flex;
use voxtral_pipeline::{Session, SessionOptions, Voxtral};

/// Samples of a minute.
const MINUTE: usize = 60 * 16_000;

/// Tokens of a minute.
const TOKENS: usize = 750;

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory in bytes, as Linux counts it.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn model() -> Voxtral<Flex> {
    Voxtral::<Flex>::builder().demo_realtime().unwrap()
}

/// A session that keeps no transcript.
fn open(model: &Voxtral<Flex>) -> Session<'_, Flex> {
    let options = SessionOptions {
        discard: true,
        ..Default::default()
    };
    model.session(&options).unwrap()
}

/// Speech and pauses, a minute of them.
fn minute(model: &Voxtral<Flex>) -> Vec<f32> {
    let samples = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../samples/digits-stream-en.wav"
    );
    let speech = model.read_audio(samples).unwrap();
    let mut minute = speech.samples().to_vec();
    while minute.len() < MINUTE {
        minute.extend_from_within(..minute.len().min(MINUTE - minute.len()));
    }
    minute
}

/// Pushes minutes of sound as a sound card gives it, and counts the tokens.
fn push(session: &mut Session<'_, Flex>, minute: &[f32], minutes: usize) -> usize {
    let pieces = (0..minutes).flat_map(|_| minute.chunks(1_600));
    pieces.map(|piece| session.push(piece).unwrap().len()).sum()
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let _alone = alone();
    let model = model();
    let minute = minute(&model);
    let mut session = open(&model);
    let early_tokens = push(&mut session, &minute, 2);
    let early = resident();
    let late_tokens = push(&mut session, &minute, 18);
    let late = resident();
    assert!(late < early + (2 << 20), "from {early} to {late} bytes");
    // All but those behind the delay.
    assert_eq!(early_tokens + late_tokens, 20 * TOKENS - 7);
    let transcript = session.finish().unwrap();
    assert!(transcript.tokens.is_empty() && transcript.text.is_empty());
    assert_eq!(transcript.duration, Duration::from_secs(20 * 60));
}

#[test]
fn an_hour_of_silence_is_an_hour_without_words() {
    let _alone = alone();
    let model = model();
    let mut session = open(&model);
    let silence = vec![0.0; MINUTE];
    let mut text = String::new();
    for _ in 0..60 {
        for step in session.push(&silence).unwrap() {
            text.push_str(&step.text);
        }
    }
    assert_eq!(text, "");
    // And the words behind it are heard as if there had been none.
    let speech = &minute(&model)[..12 * 16_000];
    let words = |session: &mut Session<'_, Flex>| {
        let mut steps = session.push(speech).unwrap();
        steps.extend(session.flush().unwrap());
        let words = steps.into_iter().flat_map(|step| step.words);
        words.map(|word| word.word).collect::<Vec<_>>()
    };
    let late = words(&mut session);
    let early = words(&mut open(&model));
    assert!(!early.is_empty());
    assert_eq!(late, early);
}

#[test]
fn dropping_a_session_frees_all_it_held() {
    let _alone = alone();
    let model = model();
    let minute = minute(&model);
    let run = |count: usize| {
        for _ in 0..count {
            let mut session = open(&model);
            session.push(&minute[..16_000]).unwrap();
        }
        resident()
    };
    let before = run(20);
    let after = run(100);
    // A session of this model holds more than half a megabyte.
    assert!(after < before + (8 << 20), "from {before} to {after} bytes");
}

/// A day of sound, as fast as the machine can follow: prints what an hour of it took.
#[test]
#[ignore = "runs for an hour: a day of sound, to be watched"]
fn a_day_needs_no_more_memory_and_time_than_an_hour() {
    let _alone = alone();
    let model = model();
    let minute = minute(&model);
    let mut session = open(&model);
    let mut sizes = Vec::new();
    for hour in 1..=24 {
        let started = Instant::now();
        let tokens = push(&mut session, &minute, 60);
        let per_token = started.elapsed() / tokens as u32;
        sizes.push(resident());
        let size = sizes[sizes.len() - 1] / 1024;
        println!("hour {hour}: {per_token:.1?} per token, {size} KiB resident");
    }
    assert!(sizes[23] < sizes[0] + (4 << 20), "{sizes:?}");
}
