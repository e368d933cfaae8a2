//! Times of words from the attention of a model that takes clips.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use burn_flex::Flex;
use voxtral_checkpoint::{RandomModel, RandomOptions, random_checkpoint};
use voxtral_pipeline::{
    Audio, LongOptions, SamplingOptions, TranscribeOptions, Transcript, Voxtral, Word,
};

use crate::{
    demo::{matches, utterances},
    goldens::data,
};

/// At least this share of the words starts as near to the truth as [`NEAR`].
const NEAR_SHARE: f64 = 0.95;
const NEAR: f64 = 0.16;

/// Samples at which the words of each utterance of the evaluation set begin and end.
pub(crate) fn truth() -> Vec<Vec<[usize; 2]>> {
    let truth = std::fs::read(data("demo-eval/words.json")).unwrap();
    serde_json::from_slice(&truth).unwrap()
}

fn options() -> TranscribeOptions {
    TranscribeOptions {
        word_times: true,
        ..Default::default()
    }
}

/// What must hold of any transcript with times.
fn check(transcript: &Transcript) {
    let words = transcript.words.as_ref().unwrap();
    let joined: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
    assert_eq!(joined.join(" "), transcript.text);
    let times: Vec<Duration> = words
        .iter()
        .flat_map(|word| [word.start, word.end])
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.iter().all(|&time| time <= transcript.duration));
    let sure = |confidence: Option<f32>| confidence.is_some_and(|c| c > 0.0 && c <= 1.0);
    assert!(words.iter().all(|word| sure(word.confidence)));
    let segments = transcript.segments.as_ref().unwrap();
    assert!(segments.iter().all(|segment| sure(segment.confidence)));
    let all = segments.iter().flat_map(|segment| &segment.words);
    assert!(all.eq(words));
}

/// Counts words, and starts and ends that are near the truth.
#[derive(Default)]
struct Count {
    words: usize,
    near: usize,
    near_ends: usize,
}

impl Count {
    fn add(
        &mut self,
        transcript: &Transcript,
        reference: &str,
        truth: &[[usize; 2]],
        begin: usize,
    ) {
        let words = transcript.words.as_ref().unwrap();
        let found: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
        let spoken: Vec<&str> = reference.split_whitespace().collect();
        self.words += spoken.len();
        for (heard, said) in matches(&found, &spoken) {
            let off = |time: Duration, sample: usize| {
                let truth = (begin + sample) as f64 / 16_000.0;
                (time.as_secs_f64() - truth).abs()
            };
            self.near += usize::from(off(words[heard].start, truth[said][0]) <= NEAR);
            self.near_ends += usize::from(off(words[heard].end, truth[said][1]) <= NEAR);
        }
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / self.words as f64
    }

    fn summary(&self) -> String {
        format!(
            "{:.1} % of {} starts and {:.1} % of ends within {NEAR} s",
            100.0 * self.share(self.near),
            self.words,
            100.0 * self.share(self.near_ends)
        )
    }
}

#[test]
fn words_of_unseen_voices_start_when_they_are_spoken() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let truth = truth();
    let mut utterances: Vec<_> = utterances(&model).into_iter().zip(&truth).collect();
    // Which heads align is found out on a text of some words.
    utterances.sort_by_key(|((_, audio), _)| std::cmp::Reverse(audio.samples().len()));
    let mut count = Count::default();
    let (mut alignment, mut decode) = (Duration::ZERO, Duration::ZERO);
    for ((utterance, audio), truth) in &utterances {
        let transcript = model.transcribe(audio, &options()).unwrap();
        check(&transcript);
        assert!(transcript.timings.alignment > Duration::ZERO);
        alignment += transcript.timings.alignment;
        decode += transcript.timings.decode;
        count.add(&transcript, &utterance.reference, truth, 0);
    }
    println!("utterances: {}", count.summary());
    let cost = alignment.as_secs_f64() / decode.as_secs_f64();
    // No more than 20 is the aim.
    println!("{:.1} % of the time of decoding", 100.0 * cost);
    assert!(count.share(count.near) >= NEAR_SHARE);
    assert!(count.share(count.near_ends) >= 0.9);
}

/// Utterances behind 30 s of silence and more: their times are those of the second window. The demo
/// was trained on one window and breaks off in the second, so what counts are the words that it
/// hears, where all up to them are right.
#[test]
fn words_beyond_the_first_window_start_when_they_are_spoken() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let utterances = utterances(&model);
    // Which heads align is known from the first window.
    let longest = utterances.iter().map(|(_, audio)| audio);
    let longest = longest.max_by_key(|audio| audio.samples().len()).unwrap();
    check(&model.transcribe(longest, &options()).unwrap());
    let mut count = Count::default();
    for (i, ((utterance, audio), truth)) in utterances.iter().zip(&truth()).enumerate() {
        if i % 10 != 3 {
            continue;
        }
        let lead = 31 * 16_000 + 777 * i;
        let mut samples = vec![0.0; lead];
        samples.extend(audio.samples());
        let audio = Audio::new(samples, 16_000).unwrap();
        let transcript = model.transcribe(&audio, &options()).unwrap();
        let heard: Vec<&str> = transcript.text.split_whitespace().collect();
        let spoken: Vec<&str> = utterance.reference.split_whitespace().collect();
        if spoken.starts_with(&heard) {
            check(&transcript);
            count.add(&transcript, &heard.join(" "), truth, lead);
        }
    }
    println!("second window: {}", count.summary());
    assert!(count.words >= 20);
    assert!(count.share(count.near) >= NEAR_SHARE);
}

/// A model of the demo's shape with random weights, in whose attention there is nothing to find, and
/// the folder where its heads would be remembered.
fn random_model() -> (Voxtral<Flex>, tempfile::TempDir) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voxtral-pipeline/demo");
    let folder = tempfile::tempdir().unwrap();
    let options = RandomOptions {
        tokenizer: Some(demo.join("tekken.json")),
        ..RandomOptions::new(RandomModel::File(demo.join("config.json")))
    };
    let path = folder.path().join("model");
    random_checkpoint(&options, &path, &mut |_| ControlFlow::Continue(())).unwrap();
    let model = Voxtral::builder()
        .heads_folder(folder.path().join("heads"))
        .open_folder(&path);
    (model.unwrap(), folder)
}

#[test]
fn without_a_head_that_aligns_there_are_no_words_but_segments_where_the_sound_is() {
    let (model, folder) = random_model();
    let demo = Voxtral::<Flex>::builder().demo().unwrap();
    let (_, spoken) = &utterances(&demo)[0];
    let second = spoken.sample_rate() as usize;
    let mut samples = vec![0.0; 2 * second];
    samples.extend(spoken.samples());
    samples.extend(vec![0.0; 3 * second]);
    let audio = Audio::new(samples.clone(), spoken.sample_rate()).unwrap();
    let options = TranscribeOptions {
        // Any text will do, of more words than one.
        sampling: SamplingOptions {
            temperature: 1.0,
            ..Default::default()
        },
        max_new_tokens: Some(40),
        ..options()
    };
    let truth = &truth()[0];
    let (first, last) = (truth[0][0], truth[truth.len() - 1][1]);
    let near = |time: Duration, sample: usize| {
        let expected = 2.0 + sample as f64 / 16_000.0;
        assert!(
            (time.as_secs_f64() - expected).abs() < 0.3,
            "{time:?} and {expected}"
        );
    };
    let clip = model.transcribe(&audio, &options).unwrap();
    assert!(clip.text.split_whitespace().count() > 1, "{}", clip.text);
    assert_eq!(clip.words, None);
    let [segment] = &clip.segments.as_ref().unwrap()[..] else {
        panic!("one segment: {:?}", clip.segments);
    };
    assert_eq!(segment.text, clip.text);
    near(segment.start, first);
    near(segment.end, last);
    assert!(segment.words.is_empty());
    assert!(segment.confidence.is_some_and(|c| c > 0.0 && c < 1.0));
    assert!(clip.timings.alignment > Duration::ZERO);

    // Twice, in two windows.
    let window = audio.duration();
    samples.extend_from_within(..);
    let long = LongOptions {
        transcribe: options,
        window: Some(window),
        ..Default::default()
    };
    let audio = Audio::new(samples, spoken.sample_rate()).unwrap();
    let long = model.transcribe_long(audio, &long).unwrap();
    assert_eq!(long.words, None);
    let segments = long.segments.as_ref().unwrap();
    assert!(segments.len() >= 2, "{segments:?}");
    assert!(segments.is_sorted_by(|before, behind| before.end <= behind.start));
    assert!(segments.iter().all(|segment| segment.words.is_empty()));
    let texts: Vec<&str> = segments.iter().map(|segment| &*segment.text).collect();
    assert_eq!(texts.join(" "), long.text);
    assert!(long.timings.alignment > Duration::ZERO);
    assert!(!folder.path().join("heads").exists(), "nothing was learnt");
}

/// Prints what word times cost beside decoding in a model whose heads are all scored, in vain, as
/// before it is known which align: in the folder that `VOXTRAL_MODEL` names, or one as small as the
/// demo.
#[test]
#[ignore = "measures"]
fn cost_of_scoring_every_head() {
    let (mut model, _folder) = random_model();
    if let Ok(folder) = std::env::var("VOXTRAL_MODEL") {
        model = Voxtral::builder().open_folder(folder).unwrap();
    }
    let demo = Voxtral::<Flex>::builder().demo().unwrap();
    let spoken = utterances(&demo);
    let samples = spoken.iter().flat_map(|(_, audio)| audio.samples());
    let samples = samples.copied().take(29 * 16_000).collect();
    let audio = Audio::new(samples, 16_000).unwrap();
    let tokenizer = model.tokenizer();
    let begins_word = |&id: &u32| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        bytes.starts_with(b" ") && bytes[1..].iter().all(u8::is_ascii_alphabetic)
    };
    let ids = 0..tokenizer.vocab_size() as u32;
    let options = TranscribeOptions {
        sampling: SamplingOptions {
            temperature: 1.0,
            // As many words as tokens: the most there is to score.
            logit_bias: ids.filter(begins_word).map(|id| (id, 100.0)).collect(),
            ..Default::default()
        },
        max_new_tokens: Some(100),
        skip_language_detection: true,
        ..options()
    };
    let transcript = model.transcribe(&audio, &options).unwrap();
    let timings = &transcript.timings;
    println!(
        "{} words of {} tokens: {:.1} % of the time of decoding",
        transcript.text.split_whitespace().count(),
        transcript.tokens.len(),
        100.0 * timings.alignment.as_secs_f64() / timings.decode.as_secs_f64()
    );
}

#[test]
fn what_words_come_from_is_kept_where_asked_on_the_clock_of_the_recording() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let utterances = utterances(&model);
    let mut samples = Vec::new();
    for (_, audio) in &utterances[..4] {
        samples.extend_from_slice(audio.samples());
        samples.extend(vec![0.0; 16_000]);
    }
    let run = |keeps_attention| {
        let options = LongOptions {
            transcribe: TranscribeOptions {
                keeps_attention,
                ..options()
            },
            window: Some(Duration::from_secs(5)),
            ..Default::default()
        };
        let audio = Audio::new(samples.clone(), 16_000).unwrap();
        model.transcribe_long(audio, &options).unwrap()
    };
    let words = run(true).words.unwrap();
    assert!(words.len() > 8);
    for word in &words {
        let attention = word.attention.as_ref().unwrap();
        assert_eq!(attention.stretch, Duration::from_millis(80));
        assert!(attention.weights.is_sorted_by_key(|(start, _)| *start));
        let sum: f32 = attention.weights.iter().map(|(_, weight)| weight).sum();
        assert!(sum > 0.2 && sum < 1.01, "{sum}");
        assert!(
            word.start.abs_diff(attention.place) <= Duration::from_millis(500),
            "{word:?}"
        );
    }
    let plain = run(false).words.unwrap();
    assert!(plain.iter().all(|word| word.attention.is_none()));
    let times = |words: &[Word]| words.iter().map(|w| (w.start, w.end)).collect::<Vec<_>>();
    assert_eq!(times(&plain), times(&words));
}

#[test]
fn nothing_is_computed_unless_it_is_asked_for() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let (_, audio) = &utterances(&model)[0];
    let plain = model
        .transcribe(audio, &TranscribeOptions::default())
        .unwrap();
    assert!(plain.words.is_none() && plain.segments.is_none());
    assert_eq!(plain.timings.alignment, Duration::ZERO);
    let timed = model.transcribe(audio, &options()).unwrap();
    assert_eq!(timed.tokens, plain.tokens);
    assert_eq!(timed.text, plain.text);
}
