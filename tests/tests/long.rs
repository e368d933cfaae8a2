//! Long recordings of spoken digits: no word is lost where they are cut.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use burn_flex::Flex;
use voxtral_pipeline::{
    Audio, Decoder, Doubt, LongEvent, LongOptions, TranscribeOptions, Transcript, Vad, Voxtral,
};

use crate::{
    demo::{Utterance, edit_distance, utterances},
    goldens::data,
    random::Random,
    word_times::truth,
};

const RATE: usize = 16_000;

/// Samples of the pauses between turns, at least and at most.
const PAUSES: Range<usize> = RATE / 2..2 * RATE;

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

/// Utterances one behind the other.
struct Conversation {
    samples: Vec<f32>,
    /// The number of each, and where it begins.
    turns: Vec<(usize, usize)>,
}

/// Utterances of at most `turn` seconds up to so many seconds, with a pause behind each of which `pause`
/// tells the shortest and the longest.
fn conversation(
    spoken: &[(Utterance, Audio)],
    seconds: usize,
    turn: f64,
    pause: Range<usize>,
) -> Conversation {
    let mut samples = Vec::new();
    let mut turns = Vec::new();
    // One language after the other, as the demo was trained on one at a time.
    let truth = truth();
    let is_short = |&number: &usize| {
        let words = &truth[number];
        let length = words[words.len() - 1][1] - words[0][0];
        length as f64 <= turn * RATE as f64
    };
    let mut order: Vec<usize> = (0..spoken.len()).filter(is_short).collect();
    order.sort_by_key(|&number| &spoken[number].0.language);
    let order = order.into_iter().cycle();
    for (turn, number) in order.enumerate() {
        if samples.len() >= seconds * RATE {
            break;
        }
        turns.push((number, samples.len()));
        samples.extend_from_slice(spoken[number].1.samples());
        let silence = pause.start + (turn * 7_919) % pause.len();
        samples.extend(std::iter::repeat_n(0.0, silence));
    }
    Conversation { samples, turns }
}

/// Where the words of a conversation lie.
fn words_of(conversation: &Conversation) -> Vec<Range<usize>> {
    let truth = truth();
    let turns = conversation.turns.iter();
    let words = turns.flat_map(|&(number, start)| {
        let words = truth[number].iter();
        words.map(move |[from, to]| start + from..start + to)
    });
    words.collect()
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
    conversation: &Conversation,
    transcript: &Transcript,
) -> (usize, usize, usize, usize) {
    let turns = conversation.turns.iter();
    let numbers: Vec<usize> = turns.map(|&(number, _)| number).collect();
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

/// The transcript of samples, and where they were cut.
fn transcribe_and_cut(
    model: &Voxtral<Flex>,
    samples: Vec<f32>,
    options: &LongOptions,
) -> (Transcript, Vec<usize>) {
    let audio = Audio::new(samples, RATE as u32).unwrap();
    let recording = model.recording_of(audio, options).unwrap();
    let mut run = model.start_long(recording);
    let mut cuts = Vec::new();
    for event in run.by_ref() {
        if let LongEvent::Progress { done, .. } = event.unwrap() {
            cuts.push((done.as_secs_f64() * RATE as f64).round() as usize);
        }
    }
    // The last is the end.
    cuts.pop();
    (run.finish().unwrap(), cuts)
}

/// How many cuts go through a word.
fn torn(cuts: &[usize], words: &[Range<usize>]) -> usize {
    let through = |cut: usize| words.iter().any(|word| word.start < cut && cut < word.end);
    cuts.iter().filter(|&&cut| through(cut)).count()
}

/// What a conversation is made of, and the shares that may go wrong.
struct Case {
    seconds: usize,
    /// Seconds of the longest turn.
    turn: f64,
    /// Of the cuts, through a word.
    torn: f64,
    /// Of the words, beside those that are wrong utterance by utterance. The demo never heard two
    /// utterances in a row.
    wrong: f64,
}

/// In half of a window there is always a pause.
const SHORT_TURNS: Case = Case {
    seconds: 20 * 60,
    turn: 1.9,
    torn: 0.0,
    wrong: 0.01,
};

/// Many turns are longer than a window, so that some are cut where nobody pauses.
const ALL_TURNS: Case = Case {
    turn: f64::INFINITY,
    torn: 0.05,
    wrong: 0.03,
    ..SHORT_TURNS
};

/// Nothing of the conversation is lost: the long transcript is as good as those of its utterances.
fn check_conversation(case: &Case) -> String {
    let model = model();
    let spoken = utterances(&model);
    let conversation = conversation(&spoken, case.seconds, case.turn, PAUSES);
    let began = Instant::now();
    let samples = conversation.samples.clone();
    let (transcript, cuts) = transcribe_and_cut(&model, samples, &options(DEMO_WINDOW));
    let took = began.elapsed();
    let torn = torn(&cuts, &words_of(&conversation));
    let (beside, errors, alone, count) = compare(&model, &spoken, &conversation, &transcript);
    let summary = format!(
        "{} s in {took:.1?}: {errors} of {count} words wrong, {alone} of them alone, \
         {beside} other than alone; {torn} of {} cuts through a word, {} gaps, {} warnings",
        case.seconds,
        cuts.len(),
        transcript.gaps.len(),
        transcript.warnings.len()
    );
    assert!(torn as f64 <= case.torn * cuts.len() as f64, "{summary}");
    let most = alone as f64 + case.wrong * count as f64;
    assert!(errors as f64 <= most, "{summary}");
    summary
}

/// Windows in which somebody pauses are cut there, also where pauses are as short as those between two
/// words and there is noise in them.
#[test]
fn no_word_is_cut() {
    let model = model();
    let spoken = utterances(&model);
    for (pauses, noise) in [(PAUSES, 0.0), (RATE / 10..RATE / 5, 0.001)] {
        let mut conversation = conversation(&spoken, 600, f64::INFINITY, pauses);
        let mut random = Random::new(5);
        for sample in &mut conversation.samples {
            *sample += noise * random.unit();
        }
        let words = words_of(&conversation);
        for window in [8.0, 15.0, 30.0] {
            let options = LongOptions {
                transcribe: TranscribeOptions {
                    // What is heard does not matter here.
                    max_new_tokens: Some(1),
                    ..Default::default()
                },
                ..options(window)
            };
            let samples = conversation.samples.clone();
            let (_, cuts) = transcribe_and_cut(&model, samples, &options);
            assert!(cuts.len() >= 600 / window as usize - 1, "{cuts:?}");
            assert_eq!(torn(&cuts, &words), 0, "{window} s, noise {noise}");
        }
    }
}

#[test]
fn twenty_minutes_of_conversation_lose_no_word() {
    for case in [SHORT_TURNS, ALL_TURNS] {
        println!("{}", check_conversation(&case));
    }
}

#[test]
#[ignore = "takes minutes; the 20 minutes above have the same cuts"]
fn three_hours_of_conversation_lose_no_word() {
    for case in [SHORT_TURNS, ALL_TURNS] {
        let seconds = 3 * 3600;
        println!("{}", check_conversation(&Case { seconds, ..case }));
    }
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
    let conversation = conversation(&spoken, 240, f64::INFINITY, PAUSES);
    for seconds in [3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 30.0] {
        let began = Instant::now();
        let samples = conversation.samples.clone();
        let transcript = transcribe(&model, samples, &options(seconds));
        let took = began.elapsed();
        let (beside, errors, _, count) = compare(&model, &spoken, &conversation, &transcript);
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
