//! Sessions of the Realtime model: how sound is cut makes no difference, nothing ends a stream but
//! its user, and nothing grows.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use burn_flex::Flex;
use burn_tensor::{DType, Tensor, TensorData};
use voxtral_audio::{LogMel, LogMelMax, MelConfig, Resampler};
use voxtral_checkpoint::Checkpoint;
use voxtral_nn::Backend;
use voxtral_pipeline::{
    Audio, Cancel, PipelineError, Session, SessionOptions, Step, TranscribeOptions, Voxtral, Word,
};
use voxtral_tokenizer::Tokenizer;

use crate::{
    goldens::data,
    parity::Model,
    random::Random,
    realtime::{END, PAD, decode},
};

/// Silence before a stream, in tokens, and the special tokens of [`tokenizer`].
const LEFT: usize = 4;
const SPECIAL: usize = 51;

crate::on_every_backend!(sessions_run);

/// A tokenizer for the random models: bytes, as many special tokens as leave room for them.
fn tokenizer(vocab_size: usize, end: u32) -> Tokenizer {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let vocab: Vec<_> = (0..=255_u8)
        .map(|byte| serde_json::json!({ "rank": byte, "token_bytes": engine.encode([byte]) }))
        .collect();
    let special: Vec<_> = (0..SPECIAL as u32)
        .map(|rank| {
            let name = match rank {
                0 => "<unk>".to_owned(),
                1 => "<s>".to_owned(),
                rank if rank == end => "</s>".to_owned(),
                32 => "[STREAMING_PAD]".to_owned(),
                33 => "[STREAMING_WORD]".to_owned(),
                _ => format!("<SPECIAL_{rank}>"),
            };
            serde_json::json!({ "rank": rank, "token_str": name, "is_control": true })
        })
        .collect();
    let file = serde_json::json!({
        "config": {
            "pattern": ".",
            "num_vocab_tokens": 256,
            "default_vocab_size": vocab_size,
            "default_num_special_tokens": vocab_size - 256,
            "version": "v7",
        },
        "vocab": vocab,
        "special_tokens": special,
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": { "num_mel_bins": 128, "hop_length": 160, "window_size": 400 },
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": LEFT,
        },
        "version": 1,
        "type": "Tekken",
    });
    Tokenizer::from_bytes(&serde_json::to_vec(&file).unwrap()).unwrap()
}

/// A random model, whose tokens depend on all that it hears.
pub(crate) fn random_model<B: Backend>(folder: &str, end: u32) -> Voxtral<B> {
    let checkpoint = Checkpoint::open(data("models").join(folder)).unwrap();
    let tokenizer = tokenizer(checkpoint.config().decoder.vocab_size, end);
    Voxtral::<B>::builder()
        .precision(voxtral_pipeline::Precision::F32)
        .load(folder, &checkpoint, tokenizer)
        .unwrap()
}

static MODEL: LazyLock<Voxtral<Flex>> = LazyLock::new(|| random_model("realtime-f32", END));

/// Sound with much going on: tones that come, go and slide, and noise.
pub(crate) fn sound(samples: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut phase = 0.0_f64;
    (0..samples)
        .map(|i| {
            let t = i as f64 / 16_000.0;
            phase += (300.0 + 250.0 * (t * 3.1 + seed as f64).sin()) / 16_000.0;
            let tone = (phase * std::f64::consts::TAU).sin() * (t * 7.3).sin().max(0.0);
            (0.4 * tone) as f32 + 0.02 * random.unit()
        })
        .collect()
}

fn ids(steps: &[Step]) -> Vec<u32> {
    steps.iter().map(|step| step.token.id).collect()
}

fn transcript_ids<B: Backend>(session: &mut Session<'_, B>) -> Vec<u32> {
    let transcript = session.finish().unwrap();
    transcript.tokens.iter().map(|token| token.id).collect()
}

fn open(delay: Option<u64>) -> Session<'static, Flex> {
    let options = SessionOptions {
        delay: delay.map(Duration::from_millis),
        ..Default::default()
    };
    MODEL.session(&options).unwrap()
}

/// Pushes sound in pieces of these sizes, over and over.
fn push_in_pieces(session: &mut Session<'_, Flex>, sound: &[f32], sizes: &[usize]) -> Vec<u32> {
    let mut left = sound;
    let mut found = Vec::new();
    for &size in sizes.iter().cycle() {
        let (now, later) = left.split_at(size.min(left.len()));
        found.extend(ids(&session.push(now).unwrap()));
        left = later;
        if left.is_empty() {
            return found;
        }
    }
    unreachable!("the sizes are not all zero")
}

/// The whole of a stream at once, layer by layer: no state, no pieces.
fn offline(sound: &[f32], delay_tokens: usize) -> Vec<u32> {
    offline_with_end(sound, delay_tokens, END)
}

fn offline_with_end(sound: &[f32], delay_tokens: usize, end: u32) -> Vec<u32> {
    let token = 1280;
    let mut padded = vec![0.0; LEFT * token];
    padded.extend(sound);
    padded.resize(
        padded.len().next_multiple_of(token) + (delay_tokens + 11) * token,
        0.0,
    );
    let mel = LogMel::new(MelConfig {
        sample_rate: 16_000,
        window_size: 400,
        hop_length: 160,
        num_mel_bins: 128,
    });
    let mel = mel
        .unwrap()
        .features(&padded, LogMelMax::Fixed(1.5))
        .unwrap();
    let data = TensorData::new(mel.data, [1, 128, mel.frames]);
    let mel = Tensor::<Flex, 3>::from_data(data, (&Default::default(), DType::F32));
    let model = Model::<Flex>::open("realtime-f32");
    let encoded = model.encoder.forward(mel).unwrap();
    let audio = model.projector.forward(encoded).unwrap();
    let decoder = model.decoder.with_delay(delay_tokens);
    decode(&decoder, &audio, 1 + LEFT + delay_tokens, end).0
}

#[test]
fn streams_equal_whole_files_for_every_delay_and_any_pieces() {
    let mut random = Random::new(3);
    for delay in (80..=1200).step_by(80).chain([2400]) {
        let samples = 16_000 + random.below(48_000);
        let sound = sound(samples, delay);
        let expected = offline(&sound, delay as usize / 80);
        assert_eq!(
            expected.len(),
            samples.div_ceil(1280) + 11,
            "one token for every 80 ms behind the prompt"
        );
        for round in 0..3 {
            let sizes: Vec<usize> = match round {
                0 => vec![samples],
                1 => (0..40).map(|_| random.below(3_000)).chain([1]).collect(),
                _ => (0..40).map(|_| random.below(40_000)).chain([1]).collect(),
            };
            let mut session = open(Some(delay));
            let known = push_in_pieces(&mut session, &sound, &sizes);
            let all = transcript_ids(&mut session);
            assert_eq!(all, expected, "delay {delay}, round {round}");
            assert!(all.starts_with(&known));
        }
    }
}

#[test]
fn streams_equal_whole_files_sample_by_sample_and_for_minutes() {
    let short = sound(20_000, 1);
    let mut session = open(None);
    let known = push_in_pieces(&mut session, &short, &[1]);
    // 480 ms behind, and 2.5 ms of look-ahead: no token comes later than it can.
    assert_eq!(known.len(), (20_000 - 40) / 1280 - 6);
    assert_eq!(transcript_ids(&mut session), offline(&short, 6));

    let long = sound(150 * 16_000, 2);
    let expected = offline(&long, 6);
    for sizes in [&[150 * 16_000][..], &[1600], &[70 * 16_000, 3]] {
        let mut session = open(None);
        push_in_pieces(&mut session, &long, sizes);
        assert_eq!(
            transcript_ids(&mut session),
            expected,
            "pieces of {sizes:?}"
        );
    }
}

/// A token comes with the sample that completes it, neither earlier nor later.
#[test]
fn tokens_come_as_soon_as_they_can() {
    for (delay, tokens) in [(80, 1), (480, 6), (2400, 30)] {
        let mut session = open(Some(delay));
        let sound = sound(60_000, 4);
        for (pushed, piece) in (0..).step_by(8).zip(sound.chunks(8)) {
            let found = session.push(piece).unwrap().len();
            // Token k needs the sound of k + 1 + delay tokens, and 40 samples more.
            let complete =
                |samples: usize| (samples.saturating_sub(40) / 1280).saturating_sub(tokens);
            assert_eq!(
                found,
                complete(pushed + piece.len()) - complete(pushed),
                "at {pushed}"
            );
        }
    }
}

#[test]
fn an_empty_push_does_nothing_and_an_empty_stream_is_an_empty_transcript() {
    let mut session = open(None);
    assert!(session.push(&[]).unwrap().is_empty());
    assert!(session.flush().unwrap().is_empty());
    let transcript = session.finish().unwrap();
    assert_eq!((transcript.text.as_str(), transcript.tokens.len()), ("", 0));
    assert_eq!(transcript.words, Some(Vec::new()));

    let mut session = open(None);
    let sound = sound(30_000, 5);
    let mut with_gaps = Vec::new();
    for piece in sound.chunks(7_000) {
        with_gaps.extend(session.push(&[]).unwrap());
        with_gaps.extend(session.push(piece).unwrap());
    }
    assert_eq!(transcript_ids(&mut session), offline(&sound, 6));
}

#[test]
fn one_sample_is_a_stream() {
    let mut session = open(None);
    session.push(&[0.1]).unwrap();
    assert_eq!(transcript_ids(&mut session), offline(&[0.1], 6));
}

#[test]
fn a_session_begins_anew_after_a_reset() {
    let (first, second) = (sound(50_000, 6), sound(40_000, 7));
    let mut session = open(None);
    session.push(&first).unwrap();
    session.reset().unwrap();
    session.push(&second).unwrap();
    assert_eq!(session.received(), Duration::from_millis(2_500));
    assert_eq!(transcript_ids(&mut session), offline(&second, 6));
    let error = session.push(&first).unwrap_err();
    assert!(matches!(error, PipelineError::SessionEnded), "{error}");
    session.reset().unwrap();
    session.push(&first).unwrap();
    assert_eq!(transcript_ids(&mut session), offline(&first, 6));
}

#[test]
fn sessions_are_independent() {
    let sounds = [sound(60_000, 8), sound(60_000, 9), sound(60_000, 10)];
    let delays = [80, 480, 960];
    let mut sessions = delays.map(|delay| open(Some(delay)));
    for piece in 0..60 {
        for (session, sound) in sessions.iter_mut().zip(&sounds) {
            session.push(&sound[piece * 1000..][..1000]).unwrap();
        }
    }
    for ((mut session, sound), delay) in sessions.into_iter().zip(&sounds).zip(delays) {
        assert_eq!(
            transcript_ids(&mut session),
            offline(sound, delay as usize / 80)
        );
    }
    // And on threads of their own.
    std::thread::scope(|scope| {
        let runs = sounds.each_ref().map(|sound| {
            scope.spawn(move || {
                let mut session = open(None);
                session.push(sound).unwrap();
                transcript_ids(&mut session)
            })
        });
        for (run, sound) in runs.into_iter().zip(&sounds) {
            assert_eq!(run.join().unwrap(), offline(sound, 6));
        }
    });
}

/// Of different lengths and delays, in pieces of different sizes; one is cancelled in the middle.
#[test]
fn sessions_that_write_together_write_what_each_does_alone() {
    let delays = [480, 480, 960, 480, 480];
    let lengths = [60_000, 90_000, 80_000, 75_000, 90_000];
    let sounds: Vec<Vec<f32>> = (20..)
        .zip(lengths)
        .map(|(seed, length)| sound(length, seed))
        .collect();
    let cancel = Cancel::new();
    let mut sessions: Vec<_> = (0..)
        .zip(delays)
        .map(|(number, delay)| {
            let options = SessionOptions {
                delay: Some(Duration::from_millis(delay)),
                cancel: if number == 3 {
                    cancel.clone()
                } else {
                    Cancel::new()
                },
                ..Default::default()
            };
            MODEL.session(&options).unwrap()
        })
        .collect();
    let mut random = Random::new(19);
    let mut left: Vec<&[f32]> = sounds.iter().map(Vec::as_slice).collect();
    let mut written = vec![Vec::new(); sessions.len()];
    let mut cancelled = false;
    while left.iter().any(|left| !left.is_empty()) {
        for ((session, left), written) in sessions.iter_mut().zip(&mut left).zip(&mut written) {
            // Now and then, much more than is encoded at once.
            let most = if random.below(10) == 0 { 50_000 } else { 4_000 };
            let (piece, rest) = left.split_at(random.below(most).min(left.len()));
            *left = rest;
            match session.prepare(piece) {
                Ok(steps) => written.extend(ids(&steps)),
                Err(error) => assert!(cancelled, "{error}"),
            }
        }
        if left[3].len() < 40_000 && !cancelled {
            cancel.cancel();
            cancelled = true;
        }
        let mut all: Vec<_> = sessions.iter_mut().collect();
        for (number, steps) in Session::write_together(&mut all).into_iter().enumerate() {
            match steps {
                Ok(steps) => written[number].extend(ids(&steps)),
                Err(error) => assert!(number == 3 && cancelled, "{number}: {error}"),
            }
        }
    }
    assert!(cancelled && sessions[3].push(&[0.0]).is_err());
    for (number, session) in sessions.iter_mut().enumerate().filter(|(at, _)| *at != 3) {
        let expected = offline(&sounds[number], delays[number] as usize / 80);
        assert!(expected.starts_with(&written[number]), "session {number}");
        assert!(written[number].len() + 45 > expected.len());
        assert_eq!(transcript_ids(session), expected, "session {number}");
    }
}

#[test]
fn samples_that_are_no_numbers_are_refused_and_the_session_goes_on() {
    let sound = sound(30_000, 11);
    let mut session = open(None);
    session.push(&sound[..10_000]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = session.push(&[0.0, 0.5, bad, 0.1]).unwrap_err().to_string();
        assert!(error.contains("10002"), "{error}");
    }
    session.push(&sound[10_000..]).unwrap();
    assert_eq!(transcript_ids(&mut session), offline(&sound, 6));
}

#[test]
fn a_stream_keeps_its_rate() {
    let mut session = open(None);
    session
        .push_audio(&Audio::new(vec![0.1; 1600], 16_000).unwrap())
        .unwrap();
    let error = session
        .push_audio(&Audio::new(vec![0.1; 4800], 48_000).unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sample rate changed to 48000 Hz within a stream of 16000 Hz: resample it, or begin a new \
         session"
    );
    assert_eq!(
        session.received(),
        Duration::from_millis(100),
        "nothing was taken"
    );
}

#[test]
fn another_rate_is_resampled_as_a_whole_file_is() {
    let sound = sound(3 * 48_000, 12);
    let mut resampler = Resampler::new(48_000, 16_000).unwrap();
    let mut resampled = Vec::new();
    resampler.push(&sound, &mut resampled).unwrap();
    resampler.finish(&mut resampled).unwrap();
    let options = SessionOptions {
        sample_rate: Some(48_000),
        ..Default::default()
    };
    let mut session = MODEL.session(&options).unwrap();
    push_in_pieces(&mut session, &sound, &[1_111]);
    assert_eq!(session.received(), Duration::from_secs(3));
    assert_eq!(transcript_ids(&mut session), offline(&resampled, 6));
}

/// The end token is the one that the model writes most, and so comes in the middle of streams.
#[test]
fn an_end_token_ends_nothing() {
    let sound = sound(120_000, 18);
    let usual = offline(&sound, 6);
    let special = 3..SPECIAL as u32;
    let frequent = special.filter(|&id| id != PAD && id != PAD + 1);
    let end = frequent.max_by_key(|&id| usual.iter().filter(|&&other| other == id).count());
    let end = end.unwrap();
    let model = random_model::<Flex>("realtime-f32", end);
    let expected = offline_with_end(&sound, 6, end);
    let ends = expected[..expected.len() - 5]
        .iter()
        .filter(|&&id| id == end);
    assert!(
        ends.count() > 0,
        "the stream has an end token in its middle"
    );
    assert_ne!(usual, expected, "what is fed back makes a difference");
    let mut session = model.session(&SessionOptions::default()).unwrap();
    session.push(&sound).unwrap();
    assert_eq!(transcript_ids(&mut session), expected);
    let audio = Audio::new(sound, 16_000).unwrap();
    let transcript = model
        .transcribe(&audio, &TranscribeOptions::default())
        .unwrap();
    let ids: Vec<u32> = transcript.tokens.iter().map(|token| token.id).collect();
    assert_eq!(ids, expected, "a file goes on to its end too");
}

#[test]
fn a_cancelled_session_says_so_and_can_be_reset() {
    let options = SessionOptions {
        cancel: Cancel::new(),
        ..Default::default()
    };
    let mut session = MODEL.session(&options).unwrap();
    let sound = sound(40_000, 13);
    let known = session.push(&sound[..30_000]).unwrap().len();
    assert!(known > 0);
    options.cancel.cancel();
    let error = session.push(&sound[30_000..]).unwrap_err();
    assert!(matches!(error, PipelineError::Cancelled), "{error}");
    let error = session.push(&sound).unwrap_err();
    assert!(matches!(error, PipelineError::Unfinished), "{error}");
    let transcript = session.finish().unwrap();
    assert_eq!(transcript.tokens.len(), known, "what is known stays known");
    assert!(transcript.truncated);
}

#[test]
fn clipped_noise_and_silence_are_streams_like_any_other() {
    let mut random = Random::new(14);
    let clipped: Vec<f32> = (0..50_000)
        .map(|_| (3.0 * random.unit()).clamp(-1.0, 1.0))
        .collect();
    let beyond: Vec<f32> = clipped.iter().map(|x| x * 1e6).collect();
    for sound in [clipped, beyond, vec![0.0; 50_000]] {
        let mut session = open(None);
        push_in_pieces(&mut session, &sound, &[999]);
        assert_eq!(transcript_ids(&mut session), offline(&sound, 6));
    }
}

#[test]
fn a_transcription_of_a_file_is_the_session_of_its_sound() {
    let sound = sound(100_000, 15);
    let expected = offline(&sound, 6);
    let audio = Audio::new(sound, 16_000).unwrap();
    let mut run = MODEL.start(&audio, &TranscribeOptions::default()).unwrap();
    let steps: Vec<Step> = run.by_ref().map(Result::unwrap).collect();
    let transcript = run.finish().unwrap();
    assert_eq!(ids(&steps), expected);
    let text: String = steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(text.trim_end(), transcript.text);
    let words: Vec<Word> = steps.into_iter().flat_map(|step| step.words).collect();
    assert_eq!(Some(words), transcript.words);
    assert_eq!(transcript.duration, Duration::from_millis(6_250));
}

#[test]
fn options_of_the_other_kind_of_model_are_refused() {
    let audio = Audio::new(vec![0.1; 16_000], 16_000).unwrap();
    let limited = TranscribeOptions {
        max_new_tokens: Some(5),
        ..Default::default()
    };
    let error = MODEL.transcribe(&audio, &limited).unwrap_err().to_string();
    assert!(
        error.contains("does not take the number of new tokens"),
        "{error}"
    );
    let delayed = TranscribeOptions {
        delay: Some(Duration::from_millis(480)),
        ..Default::default()
    };
    let clips = Voxtral::<Flex>::builder().demo().unwrap();
    let error = clips.transcribe(&audio, &delayed).unwrap_err().to_string();
    assert!(error.starts_with("demo does not take a delay"), "{error}");
    let error = clips.session(&SessionOptions::default()).err().unwrap();
    assert!(
        error.to_string().contains("whole clips, not streams"),
        "{error}"
    );
    for ms in [85, 0, 1280] {
        let options = SessionOptions {
            delay: Some(Duration::from_millis(ms)),
            ..Default::default()
        };
        let error = MODEL.session(&options).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("delay is {ms} ms, expected")),
            "{error}"
        );
    }
}

/// Runs on every backend what a session does.
fn sessions_run<B: Backend>() {
    let model = random_model::<B>("realtime-f32", END);
    let sound = sound(30_000, 16);
    let expected = offline(&sound, 6);
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let mut found = Vec::new();
    for piece in sound.chunks(3_333) {
        found.extend(ids(&session.push(piece).unwrap()));
    }
    assert_eq!(transcript_ids(&mut session), expected);
    assert!(expected.starts_with(&found));
}

/// A checkpoint that bears few positions makes its decoder turn the keys back all the time.
#[test]
fn a_stream_outlives_the_positions_of_its_checkpoint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voxtral-pipeline/demo-realtime");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let mut params: serde_json::Value = serde_json::from_slice(&read("params.json")).unwrap();
    let [usual, turned] = [1_u64 << 17, 128].map(|positions| {
        params["model_max_length"] = positions.into();
        let params = serde_json::to_vec(&params).unwrap();
        let weights = read("consolidated.safetensors");
        let checkpoint = Checkpoint::from_native_bytes(&params, weights).unwrap();
        assert_eq!(
            checkpoint.config().decoder.max_positions,
            Some(positions as usize)
        );
        let tokenizer = Tokenizer::from_bytes(&read("tekken.json")).unwrap();
        let model = Voxtral::<Flex>::builder()
            .load("demo", &checkpoint, tokenizer)
            .unwrap();
        let samples = folder.join("../../samples/digits-stream-en.wav");
        let speech = model.read_audio(samples).unwrap();
        let mut session = model.session(&SessionOptions::default()).unwrap();
        for _ in 0..10 {
            session.push(speech.samples()).unwrap();
        }
        transcript_ids(&mut session)
    });
    assert!(usual.len() > 10 * 64, "ten times around the ring at least");
    assert_eq!(usual, turned);
}
