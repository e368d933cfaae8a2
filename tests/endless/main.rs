//! Streams that go on and on: memory and work per token stay what they are.
//!
//! A binary of its own, for resident memory is that of a whole process; its tests run one after
//! the other.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error has failed"
)]

use std::io::{Cursor, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn_flex::Flex;
use voxtral_pipeline::{Decoder, LongOptions, Session, SessionOptions, Transcript, Voxtral};

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

/// The header of a WAV stream of no stated length, 16 kHz mono, 16 bits.
fn wav_header() -> Vec<u8> {
    let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    header.extend(16_000_u32.to_le_bytes());
    header.extend(32_000_u32.to_le_bytes());
    header.extend(b"\x02\0\x10\0data\xff\xff\xff\xff");
    header
}

/// Transcribes a WAV stream of these samples in windows that the demo knows.
fn transcribe_long(samples: impl Read + Send + Sync + 'static) -> Transcript {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let options = LongOptions {
        window: Some(Duration::from_secs(8)),
        ..Default::default()
    };
    let decoder = Decoder::from_stream(Cursor::new(wav_header()).chain(samples)).unwrap();
    let recording = model.recording(decoder, &options, None).unwrap();
    model.start_long(recording).finish().unwrap()
}

#[test]
fn ten_hours_of_silence_end_soon_and_take_no_memory() {
    let _alone = alone();
    let before = resident();
    let began = Instant::now();
    let transcript = transcribe_long(std::io::repeat(0).take(10 * 3600 * 32_000));
    assert_eq!(transcript.text, "");
    assert_eq!(transcript.duration, Duration::from_secs(36_000));
    assert!(transcript.gaps.is_empty() && transcript.warnings.is_empty());
    let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
    println!("{took:.1?}, {} MiB", grown >> 20);
    assert!(took < Duration::from_secs(120), "{took:?}");
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[test]
fn memory_does_not_grow_with_a_long_recording() {
    let _alone = alone();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/digits-en.wav");
    let speech = Decoder::open(path).unwrap();
    let mut turn: Vec<u8> = speech
        .flat_map(|chunk| chunk.unwrap())
        .flat_map(|sample| ((sample * 32_768.0) as i16).to_le_bytes())
        .collect();
    turn.extend([0; 32_000]);
    let turns = |count: usize| Cursor::new(turn.clone().repeat(count));
    let few = transcribe_long(turns(20));
    let early = resident();
    let many = transcribe_long(turns(200));
    let late = resident();
    assert_eq!(
        many.text.split(' ').count(),
        10 * few.text.split(' ').count()
    );
    // The stream itself, and a transcript of 1200 words.
    let stream = 200 * turn.len();
    println!("from {} to {} MiB", early >> 20, late >> 20);
    assert!(
        late < early + stream + (8 << 20),
        "from {early} to {late} bytes"
    );
}
