//! Long recordings of spoken digits: no word is lost where they are cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn_flex::Flex;
use voxtral_pipeline::{
    Audio, Decoder, Doubt, LongOptions, TranscribeOptions, Transcript, Vad, Voxtral,
};

use crate::{
    demo::{Utterance, edit_distance, utterances},
    goldens::data,
};

const RATE: usize = 16_000;

/// Seconds of the windows: the demo knows one to eight digits in a row, and no more.
const DEMO_WINDOW: f64 = 4.0;

fn model() -> Voxtral<Flex> {
    Voxtral::<Flex>::builder().demo().unwrap()
}

fn options(window: f64) -> LongOptions {
    LongOptions {
        window: Some(Duration::from_secs_f64(window)),
        ..Default::default()
    }
}

/// Utterances one behind the other, with pauses of 0.5 to 2 s, up to so many seconds, and their
/// numbers.
fn conversation(spoken: &[(Utterance, Audio)], seconds: usize) -> (Vec<f32>, Vec<usize>) {
    let mut samples = Vec::new();
    let mut numbers = Vec::new();
    // One language after the other, as the demo was trained on one at a time.
    let mut order: Vec<usize> = (0..spoken.len()).collect();
    order.sort_by_key(|&number| &spoken[number].0.language);
    let order = order.into_iter().cycle();
    for (turn, number) in order.enumerate() {
        if samples.len() >= seconds * RATE {
            break;
        }
        samples.extend_from_slice(spoken[number].1.samples());
        let pause = RATE / 2 + (turn * 7_919) % (3 * RATE / 2);
        samples.extend(std::iter::repeat_n(0.0, pause));
        numbers.push(number);
    }
    (samples, numbers)
}

fn transcribe(model: &Voxtral<Flex>, samples: Vec<f32>, options: &LongOptions) -> Transcript {
    let audio = Audio::new(samples, RATE as u32).unwrap();
    model.transcribe_long(audio, options).unwrap()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Errors of the transcript of a conversation beside the words of its utterances alone, errors beside
/// what was spoken, those of the utterances alone, and the number of words.
fn compare(
    model: &Voxtral<Flex>,
    spoken: &[(Utterance, Audio)],
    numbers: &[usize],
    transcript: &Transcript,
) -> (usize, usize, usize, usize) {
    let alone: BTreeMap<usize, String> = numbers
        .iter()
        .map(|&number| {
            let options = TranscribeOptions::default();
            let audio = &spoken[number].1;
            (number, model.transcribe(audio, &options).unwrap().text)
        })
        .collect();
    let alone: Vec<&str> = numbers.iter().flat_map(|n| words(&alone[n])).collect();
    let reference: Vec<&str> = numbers
        .iter()
        .flat_map(|&n| words(&spoken[n].0.reference))
        .collect();
    let found = words(&transcript.text);
    (
        edit_distance(&found, &alone),
        edit_distance(&found, &reference),
        edit_distance(&alone, &reference),
        reference.len(),
    )
}

/// Nothing of the conversation is lost: the long transcript is as good as those of its utterances.
fn check_conversation(seconds: usize) -> String {
    let model = model();
    let spoken = utterances(&model);
    let (samples, numbers) = conversation(&spoken, seconds);
    let began = Instant::now();
    let transcript = transcribe(&model, samples, &options(DEMO_WINDOW));
    let took = began.elapsed();
    let (beside, errors, alone, count) = compare(&model, &spoken, &numbers, &transcript);
    let summary = format!(
        "{seconds} s in {took:.1?}: {errors} of {count} words wrong, {alone} of them alone, \
         {beside} other than alone; {} gaps, {} warnings",
        transcript.gaps.len(),
        transcript.warnings.len()
    );
    // As good as utterance by utterance, but for three words of a hundred: the demo never heard two
    // utterances in a row.
    assert!(
        errors as f64 <= alone as f64 + 0.03 * count as f64,
        "{errors} of {count} words, {alone} alone"
    );
    summary
}

#[test]
fn twenty_minutes_of_conversation_lose_no_word() {
    println!("{}", check_conversation(20 * 60));
}

#[test]
#[ignore = "takes minutes; the 20 minutes above have the same cuts"]
fn three_hours_of_conversation_lose_no_word() {
    println!("{}", check_conversation(3 * 3600));
}

/// Prints the word error rate over window lengths.
#[test]
#[ignore = "measures"]
fn window_lengths() {
    let model = model();
    // A quarter of each language.
    let spoken = utterances(&model).into_iter().enumerate();
    let spoken = spoken.filter(|(number, _)| number % 16 < 4);
    let spoken: Vec<_> = spoken.map(|(_, utterance)| utterance).collect();
    let (samples, numbers) = conversation(&spoken, 240);
    for seconds in [3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 30.0] {
        let began = Instant::now();
        let transcript = transcribe(&model, samples.clone(), &options(seconds));
        let took = began.elapsed();
        let (beside, errors, _, count) = compare(&model, &spoken, &numbers, &transcript);
        println!(
            "| {seconds} | {:.2} % | {beside} | {} | {} | {took:.1?} |",
            100.0 * errors as f64 / count as f64,
            transcript.gaps.len(),
            transcript.warnings.len()
        );
    }
}

#[test]
fn a_clip_of_one_window_is_heard_as_a_clip() {
    let model = model();
    for (_, audio) in utterances(&model).iter().step_by(10) {
        let clip = model
            .transcribe(audio, &TranscribeOptions::default())
            .unwrap();
        let long = model
            .transcribe_long(audio.clone(), &LongOptions::default())
            .unwrap();
        if long.warnings.is_empty() && long.gaps.is_empty() {
            assert_eq!(long.text, clip.text);
            assert_eq!(long.tokens, clip.tokens);
        }
        assert_eq!(long.duration, clip.duration);
    }
}

#[test]
fn noise_and_silence_have_no_words() {
    let model = model();
    let mut state = 1_u32;
    let mut noise = |amplitude: f32| -> Vec<f32> {
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            amplitude * (state as f32 / 2_f32.powi(31) - 1.0)
        };
        (0..45 * RATE).map(next).collect()
    };
    for amplitude in [0.0, 0.001, 0.03, 0.5] {
        let samples = noise(amplitude);
        let transcript = transcribe(&model, samples.clone(), &LongOptions::default());
        assert_eq!(transcript.text, "", "{amplitude}");
        assert!(transcript.gaps.is_empty() && transcript.warnings.is_empty());
        assert!(transcript.tokens.is_empty(), "nothing is heard");
        let all = LongOptions {
            vad: Vad::Off,
            ..Default::default()
        };
        assert!(!transcribe(&model, samples, &all).tokens.is_empty());
    }
}

#[test]
fn a_file_that_breaks_off_is_read_as_far_as_it_goes() {
    let model = model();
    let whole = std::fs::read(data("demo-eval/utterances.flac")).unwrap();
    let torn = whole[..whole.len() / 10].to_vec();
    let decoder = Decoder::new(std::io::Cursor::new(torn)).unwrap();
    let stated = decoder.duration().unwrap();
    let recording = model
        .recording(decoder, &options(DEMO_WINDOW), None)
        .unwrap();
    let transcript = model.start_long(recording).finish().unwrap();
    assert!(transcript.truncated);
    let gap = transcript.gaps.last().unwrap();
    assert_eq!(
        (gap.reason, gap.start, gap.end),
        (Doubt::Truncated, transcript.duration, stated)
    );
    assert!(words(&transcript.text).len() > 50, "{}", transcript.text);
}

#[test]
fn impossible_windows_are_refused() {
    let model = model();
    let audio = Audio::new(vec![0.0; RATE], RATE as u32).unwrap();
    for seconds in [0.0, 0.5, 1801.0] {
        let error = model
            .transcribe_long(audio.clone(), &options(seconds))
            .unwrap_err();
        assert!(error.to_string().contains("1 s to 30 min"), "{error}");
    }
    let realtime = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    assert!(
        realtime
            .transcribe_long(audio, &LongOptions::default())
            .is_err()
    );
}
