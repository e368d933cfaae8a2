//! The Realtime demo on voices that it was not trained on: word error rate, word times, and the
//! same tokens as `transformers` gives for every utterance.

use std::time::Duration;

use burn_flex::Flex;
use serde::Deserialize;
use voxtral_checkpoint::Quant;
use voxtral_pipeline::{
    Audio, Backend, Precision, SessionOptions, TranscribeOptions, Transcript, Voxtral,
};

use crate::{
    demo::{edit_distance, matches},
    goldens::data,
    random::Random,
};

/// At most this many of the words of unseen voices are wrong, left out or invented.
const WORD_ERROR_RATE: f64 = 0.03;

/// At least this share of the words starts as near to the truth as [`NEAR`].
const NEAR_SHARE: f64 = 0.95;
const NEAR: f64 = 0.16;

/// One utterance of `demo-realtime-eval/utterances.flac`.
#[derive(Deserialize)]
struct Utterance {
    id: usize,
    start: usize,
    samples: usize,
    reference: String,
    words: Vec<Spoken>,
    transformers_ids: Vec<u32>,
    transformers_text: String,
    #[serde(default)]
    other_delays: std::collections::BTreeMap<u64, Vec<u32>>,
}

/// A word, and the samples at which it begins and ends.
#[derive(Deserialize)]
struct Spoken {
    start: usize,
    end: usize,
}

/// The model with its matrices in this precision; transformers computed in `f32`.
fn in_precision(precision: Precision) -> Voxtral<Flex> {
    let builder = Voxtral::builder().precision(precision);
    builder.demo_realtime().unwrap()
}

/// The tokens in other precisions than that of the oracle.
#[test]
fn narrow_weights_hear_the_same() {
    for (precision, least) in [
        // As stored, bfloat16: on the CPU inputs of many rows are rounded to it too.
        (Precision::Auto, 0.97),
        // Which near ties flip depends on the instruction set: 118 to 120 of 120.
        (Precision::Quantized(Quant::Q8), 0.98),
        // 113 or 114.
        (Precision::Quantized(Quant::Q4), 0.92),
    ] {
        let model = in_precision(precision);
        let speech = speech(&model);
        let (mut same, mut count) = (0_u32, 0_u32);
        for utterance in utterances() {
            let transcript =
                model.transcribe(&clip(&speech, &utterance), &TranscribeOptions::default());
            same += u32::from(ids(&transcript.unwrap()) == utterance.transformers_ids);
            count += 1;
        }
        println!("{precision:?}: {same} of {count} as in f32");
        assert!(
            f64::from(same) >= least * f64::from(count),
            "{precision:?}: {same} of {count}"
        );
    }
}

fn utterances() -> Vec<Utterance> {
    let utterances = std::fs::read(data("demo-realtime-eval/utterances.json")).unwrap();
    serde_json::from_slice(&utterances).unwrap()
}

pub(crate) fn speech<B: Backend>(model: &Voxtral<B>) -> Audio {
    model
        .read_audio(data("demo-realtime-eval/utterances.flac"))
        .unwrap()
}

fn clip(speech: &Audio, utterance: &Utterance) -> Audio {
    let samples = &speech.samples()[utterance.start..][..utterance.samples];
    Audio::new(samples.to_vec(), speech.sample_rate()).unwrap()
}

fn ids(transcript: &Transcript) -> Vec<u32> {
    transcript.tokens.iter().map(|token| token.id).collect()
}

#[test]
fn unseen_voices_are_understood_at_their_times_and_tokens_equal_those_of_transformers() {
    let utterances = utterances();
    assert!(utterances.len() >= 100);
    let model = in_precision(Precision::F32);
    let speech = speech(&model);
    let (mut errors, mut spoken, mut near, mut near_ends) = (0, 0, 0, 0);
    for utterance in &utterances {
        let audio = clip(&speech, utterance);
        let transcript = model
            .transcribe(&audio, &TranscribeOptions::default())
            .unwrap();
        assert_eq!(
            ids(&transcript),
            utterance.transformers_ids,
            "{}",
            utterance.id
        );
        assert_eq!(
            transcript.text,
            utterance.transformers_text.trim(),
            "{}",
            utterance.id
        );
        let words = transcript.words.unwrap();
        let found: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
        assert_eq!(found.join(" "), transcript.text, "{}", utterance.id);
        let times: Vec<Duration> = words
            .iter()
            .flat_map(|word| [word.start, word.end])
            .collect();
        assert!(times.is_sorted(), "{}: {times:?}", utterance.id);
        assert!(
            times.iter().all(|&time| time <= audio.duration()),
            "{}",
            utterance.id
        );
        let reference: Vec<&str> = utterance.reference.split_whitespace().collect();
        errors += edit_distance(&found, &reference);
        spoken += reference.len();
        for (heard, said) in matches(&found, &reference) {
            let (word, truth) = (&words[heard], &utterance.words[said]);
            let off = |found: Duration, truth: usize| {
                (found.as_secs_f64() - truth as f64 / 16_000.0).abs()
            };
            near += usize::from(off(word.start, truth.start) <= NEAR);
            near_ends += usize::from(off(word.end, truth.end) <= NEAR);
        }
    }
    let share = |count: usize| count as f64 / spoken as f64;
    println!(
        "{errors} of {spoken} words wrong, {:.1} % of starts and {:.1} % of ends within {NEAR} s",
        100.0 * share(near),
        100.0 * share(near_ends)
    );
    assert!(
        share(errors) <= WORD_ERROR_RATE,
        "{errors} of {spoken} words wrong"
    );
    assert!(
        share(near) >= NEAR_SHARE,
        "{near} of {spoken} starts near the truth"
    );
    assert!(
        share(near_ends) >= NEAR_SHARE,
        "{near_ends} of {spoken} ends near the truth"
    );
}

#[test]
fn tokens_equal_those_of_transformers_for_other_delays() {
    let model = in_precision(Precision::F32);
    let speech = speech(&model);
    let mut compared = 0;
    for utterance in utterances() {
        for (&delay, expected) in &utterance.other_delays {
            let options = TranscribeOptions {
                delay: Some(Duration::from_millis(delay)),
                ..Default::default()
            };
            let transcript = model
                .transcribe(&clip(&speech, &utterance), &options)
                .unwrap();
            assert_eq!(
                &ids(&transcript),
                expected,
                "{} at {delay} ms",
                utterance.id
            );
            compared += 1;
        }
    }
    assert!(compared >= 40);
}

/// A pause, a flush, and on: nothing is lost, and times are those of the sound.
#[test]
fn a_flush_brings_out_the_words_and_the_stream_goes_on() {
    let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let speech = speech(&model);
    let utterances = utterances();
    let mut random = Random::new(5);
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let mut pushed = 0;
    let (mut errors, mut spoken, mut near) = (0, 0, 0);
    for utterance in &utterances[..20] {
        let audio = clip(&speech, utterance);
        let mut steps = Vec::new();
        let mut left = audio.samples();
        while !left.is_empty() {
            let (now, later) = left.split_at(random.below(9_000).min(left.len()));
            steps.extend(session.push(now).unwrap());
            left = later;
        }
        steps.extend(session.flush().unwrap());
        assert!(
            session.flush().unwrap().is_empty(),
            "nothing new, nothing to bring out"
        );
        let begin = Duration::from_secs_f64(f64::from(pushed) / 16_000.0);
        pushed += utterance.samples as u32;
        let words: Vec<_> = steps.into_iter().flat_map(|step| step.words).collect();
        let found: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
        let reference: Vec<&str> = utterance.reference.split_whitespace().collect();
        errors += edit_distance(&found, &reference);
        spoken += reference.len();
        for (heard, said) in matches(&found, &reference) {
            let start = words[heard].start.saturating_sub(begin).as_secs_f64();
            let truth = utterance.words[said].start as f64 / 16_000.0;
            near += usize::from((start - truth).abs() <= NEAR);
        }
    }
    let share = |count: usize| f64::from(count as u32) / f64::from(spoken as u32);
    assert!(
        share(errors) <= 2.0 * WORD_ERROR_RATE,
        "{errors} of {spoken} words wrong"
    );
    assert!(
        share(near) >= NEAR_SHARE - WORD_ERROR_RATE,
        "{near} of {spoken} near"
    );
    let transcript = session.finish().unwrap();
    assert_eq!(
        transcript.duration,
        Duration::from_secs_f64(f64::from(pushed) / 16_000.0)
    );
    let times: Vec<Duration> = transcript
        .words
        .unwrap()
        .iter()
        .flat_map(|w| [w.start, w.end])
        .collect();
    assert!(times.is_sorted());
}
