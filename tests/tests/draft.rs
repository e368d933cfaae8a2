//! Guesses ahead change nothing but the number of passes: files with them and token by token.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use burn_flex::Flex;
use voxtral_nn::Backend;
use voxtral_pipeline::{
    Audio, Cancel, OnWindow, PipelineError, SamplingOptions, SessionOptions, Step,
    TranscribeOptions, Transcript, Voxtral,
};

use crate::{
    demo_realtime::speech,
    goldens::LOGPROB,
    random::Random,
    realtime::END,
    stream::{random_model, sound},
};

/// Samples of a token.
const TOKEN: usize = 1280;

crate::on_every_backend!(files_are_the_same_with_guesses);

fn demo() -> Voxtral<Flex> {
    Voxtral::<Flex>::builder().demo_realtime().unwrap()
}

fn audio(samples: &[f32]) -> Audio {
    Audio::new(samples.to_vec(), 16_000).unwrap()
}

fn ids(transcript: &Transcript) -> Vec<u32> {
    transcript.tokens.iter().map(|token| token.id).collect()
}

/// The words and when they were spoken. Their confidence differs as log-probabilities do.
fn times(transcript: &Transcript) -> Vec<(String, Duration, Duration)> {
    let words = transcript.words.iter().flatten();
    words
        .map(|word| (word.word.clone(), word.start, word.end))
        .collect()
}

/// Transcripts with guesses and one token at a time, which must be equal; and the share of the
/// time that the decoder took.
fn compare<B: Backend>(model: &Voxtral<B>, audio: &Audio, delay: Option<u64>) -> (Transcript, f64) {
    let [guessed, plain] = [false, true].map(|one_by_one| {
        let options = TranscribeOptions {
            delay: delay.map(Duration::from_millis),
            one_by_one,
            ..Default::default()
        };
        model.transcribe(audio, &options).unwrap()
    });
    assert_eq!(ids(&guessed), ids(&plain));
    assert_eq!(guessed.text, plain.text);
    assert_eq!(times(&guessed), times(&plain));
    let texts = |transcript: &Transcript| -> Option<Vec<String>> {
        let segments = transcript.segments.as_ref()?.iter();
        Some(segments.map(|segment| segment.text.clone()).collect())
    };
    assert_eq!(texts(&guessed), texts(&plain));
    for (x, y) in guessed.tokens.iter().zip(&plain.tokens) {
        assert!((x.logprob - y.logprob).abs() <= LOGPROB, "{x:?}, {y:?}");
    }
    assert_eq!(plain.timings.passes + 1, plain.tokens.len());
    assert!(guessed.timings.passes <= plain.timings.passes);
    let [time, whole] = [&guessed, &plain].map(|run| run.timings.decode.as_secs_f64());
    (guessed, time / whole)
}

fn tokens_per_pass(transcript: &Transcript) -> f64 {
    transcript.tokens.len() as f64 / (1 + transcript.timings.passes) as f64
}

#[test]
fn speech_of_minutes_takes_fewer_passes() {
    let model = demo();
    let speech = speech(&model);
    for delay in [80, 480, 2400] {
        let (transcript, share) = compare(&model, &speech, Some(delay));
        let gain = tokens_per_pass(&transcript);
        println!(
            "speech, {delay} ms: {gain:.2} tokens in a pass, {:.0} % of the time",
            100.0 * share
        );
        assert!(gain > 2.0, "{gain}");
    }
}

#[test]
fn silence_takes_the_fewest_passes() {
    let model = demo();
    let speech = speech(&model);
    let mut planted = speech.samples()[..10 * 16_000].to_vec();
    planted.resize(planted.len() + 60 * 16_000, 0.0);
    planted.extend(&speech.samples()[10 * 16_000..15 * 16_000]);
    let (transcript, share) = compare(&model, &audio(&planted), None);
    let gain = tokens_per_pass(&transcript);
    println!(
        "silence: {gain:.2} tokens in a pass, {:.0} % of the time",
        100.0 * share
    );
    assert!(gain > 5.0, "{gain}");
}

/// The end of the sound lies everywhere in a pass.
#[test]
fn files_of_every_length_are_the_same_with_guesses() {
    let model = demo();
    let speech = speech(&model);
    let silence = vec![0.0; 40 * TOKEN];
    for samples in [&speech.samples()[..40 * TOKEN], &silence] {
        for tokens in 1..40 {
            let expected = 11 + tokens;
            let (transcript, _) = compare(&model, &audio(&samples[..tokens * TOKEN - 7]), None);
            assert_eq!(transcript.tokens.len(), expected);
        }
    }
}

/// Random models, which follow wrong guesses with anything; and one whose end token, which is fed
/// as a pad, comes often.
fn files_are_the_same_with_guesses<B: Backend>() {
    for (folder, end) in [
        ("realtime-f32", END),
        ("realtime-f32", 40),
        ("realtime-bf16", END),
    ] {
        let model = random_model::<B>(folder, end);
        for seed in 0..3 {
            compare(&model, &audio(&sound(60_000, seed)), None);
        }
    }
}

/// However the sound is cut, and so however far guesses reach.
#[test]
fn pieces_make_no_difference_to_guesses() {
    let model = demo();
    let speech = speech(&model);
    let speech = &speech.samples()[..12 * 16_000];
    let run = |one_by_one, most: usize| {
        let options = SessionOptions {
            one_by_one,
            ..Default::default()
        };
        let mut session = model.session(&options).unwrap();
        let mut random = Random::new(21);
        let mut left = speech;
        while !left.is_empty() {
            let (now, later) = left.split_at((1 + random.below(most)).min(left.len()));
            session.push(now).unwrap();
            left = later;
        }
        session.finish().unwrap()
    };
    let plain = run(true, 5_000);
    let mut passes = Vec::new();
    for most in [1_000, 5_000, 20_000, 100_000] {
        let guessed = run(false, most);
        assert_eq!(ids(&guessed), ids(&plain), "pieces below {most}");
        assert_eq!(times(&guessed), times(&plain));
        passes.push(guessed.timings.passes);
    }
    assert!(passes.is_sorted_by(|a, b| a >= b), "{passes:?}");
    assert!(plain.timings.passes > passes[3]);
}

/// A session that was reset has learned nothing and kept nothing.
#[test]
fn guesses_begin_anew_after_a_reset() {
    let model = demo();
    let speech = speech(&model);
    let speech = &speech.samples()[..8 * 16_000];
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let runs = [0; 2].map(|_| {
        session.reset().unwrap();
        session.push(speech).unwrap();
        session.finish().unwrap()
    });
    assert_eq!(runs[0].tokens, runs[1].tokens);
    assert_eq!(runs[0].timings.passes, runs[1].timings.passes);
}

/// What is known when the work is stopped is the beginning of what would have been.
#[test]
fn a_cancelled_file_gives_the_beginning() {
    let model = demo();
    let clip = audio(&speech(&model).samples()[..6 * 16_000]);
    let (whole, _) = compare(&model, &clip, None);
    for steps in [0, 1, 2, 5, 17, 33] {
        let cancel = Cancel::new();
        let options = TranscribeOptions {
            cancel: cancel.clone(),
            ..Default::default()
        };
        let mut run = model.start(&clip, &options).unwrap();
        let mut known: Vec<Step> = run.by_ref().take(steps).map(Result::unwrap).collect();
        cancel.cancel();
        let rest: Vec<_> = run.by_ref().collect();
        let (error, rest) = rest.split_last().unwrap();
        assert!(matches!(error, Err(PipelineError::Cancelled)), "{error:?}");
        known.extend(rest.iter().map(|step| step.as_ref().unwrap().clone()));
        assert!(known.len() >= steps && known.len() < whole.tokens.len());
        for (step, token) in known.iter().zip(&whole.tokens) {
            assert_eq!(&step.token, token);
        }
    }
}

/// Steps and progress come while there is more to hear.
#[test]
fn steps_come_in_bursts_and_not_at_the_end() {
    let model = demo();
    let clip = audio(&speech(&model).samples()[..20 * 16_000]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let options = TranscribeOptions {
        on_window: OnWindow::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        }),
        ..Default::default()
    };
    let mut most = 0;
    let mut since = 0;
    let mut calls_before = 0;
    for step in model.start(&clip, &options).unwrap() {
        step.unwrap();
        let calls = calls.load(Ordering::Relaxed);
        since = if calls == calls_before { since + 1 } else { 1 };
        calls_before = calls;
        most = most.max(since);
    }
    assert!(calls_before > 5, "told {calls_before} times");
    assert!(most <= 32, "{most} steps at once");
}

/// What is drawn cannot be guessed, and is the same as ever.
#[test]
fn nothing_is_guessed_where_tokens_are_drawn() {
    let model = demo();
    let clip = audio(&speech(&model).samples()[..4 * 16_000]);
    let [usual, plain] = [false, true].map(|one_by_one| {
        let options = TranscribeOptions {
            sampling: SamplingOptions {
                temperature: 0.7,
                seed: 3,
                ..Default::default()
            },
            one_by_one,
            ..Default::default()
        };
        model.transcribe(&clip, &options).unwrap()
    });
    assert_eq!(usual.tokens, plain.tokens);
    assert_eq!(usual.timings.passes, plain.timings.passes);
}

/// Prints what guesses gain on the speech that the demo is evaluated on and on silence.
#[test]
#[ignore = "measures, to be watched on a quiet machine"]
fn what_guesses_gain() {
    let model = demo();
    let speech = speech(&model);
    let silence = audio(&vec![0.0; 300 * 16_000]);
    for (name, clip) in [("speech", &speech), ("silence", &silence)] {
        let mut best = [f64::INFINITY; 2];
        let mut tokens = [0.0; 2];
        for _ in 0..7 {
            for (i, one_by_one) in [false, true].into_iter().enumerate() {
                let options = TranscribeOptions {
                    one_by_one,
                    ..Default::default()
                };
                let transcript = model.transcribe(clip, &options).unwrap();
                best[i] = best[i].min(transcript.timings.decode.as_secs_f64());
                tokens[i] = tokens_per_pass(&transcript);
            }
        }
        println!(
            "{name}: {:.2} tokens in a pass, {:.2} s for {:.2} s ({:.2} times as fast)",
            tokens[0],
            best[0],
            best[1],
            best[1] / best[0]
        );
    }
}
