//! The demo model on voices that it was not trained on: word error rate, and the same tokens as
//! `transformers` gives for every utterance.

use burn_flex::Flex;
use serde::Deserialize;
use voxtral_checkpoint::Quant;
use voxtral_pipeline::{Audio, Language, Precision, TranscribeOptions, Transcript, Voxtral};

use crate::goldens::data;

/// At most this many of the words of unseen voices are wrong, left out or invented.
const WORD_ERROR_RATE: f64 = 0.01;

/// One utterance of `demo-eval/utterances.flac`.
#[derive(Deserialize)]
pub(crate) struct Utterance {
    id: usize,
    start: usize,
    samples: usize,
    pub(crate) language: String,
    pub(crate) prompt_language: Option<String>,
    pub(crate) reference: String,
    transformers_text: String,
    transformers_ids: Vec<u32>,
}

/// The model with its matrices in this precision; transformers computed in `f32`.
fn in_precision(precision: Precision) -> Voxtral<Flex> {
    let builder = Voxtral::builder().precision(precision);
    builder.demo().unwrap()
}

/// The utterances and what is heard.
pub(crate) fn utterances(model: &Voxtral<Flex>) -> Vec<(Utterance, Audio)> {
    let utterances = std::fs::read(data("demo-eval/utterances.json")).unwrap();
    let utterances: Vec<Utterance> = serde_json::from_slice(&utterances).unwrap();
    assert_eq!(utterances.len(), 200);
    let speech = model.read_audio(data("demo-eval/utterances.flac")).unwrap();
    let heard = |utterance: Utterance| {
        let samples = &speech.samples()[utterance.start..][..utterance.samples];
        let audio = Audio::new(samples.to_vec(), speech.sample_rate()).unwrap();
        (utterance, audio)
    };
    utterances.into_iter().map(heard).collect()
}

fn transcribe(model: &Voxtral<Flex>, utterance: &Utterance, audio: &Audio) -> Transcript {
    let language = utterance.prompt_language.as_deref();
    let options = TranscribeOptions {
        language: language.map(|code| code.parse::<Language>().unwrap()),
        ..Default::default()
    };
    model.transcribe(audio, &options).unwrap()
}

/// The texts in other precisions than that of the oracle: the share of the utterances whose text is
/// the same, and no more errors than the demo may have.
#[test]
fn narrow_weights_hear_the_same() {
    for (precision, least) in [
        // As stored, bfloat16: on the CPU inputs of many rows are rounded to it too.
        (Precision::Auto, 0.98),
        // The aim is all. Near ties flip with VNNI but without AVX512-BF16, for which two texts differ
        // (the best token of one has 55 % in f32, of the other 41 %); with other instructions none.
        (Precision::Quantized(Quant::Q8), 0.99),
        (Precision::Quantized(Quant::Q4), 0.97),
    ] {
        let model = in_precision(precision);
        let (mut same, mut errors, mut words, mut count) = (0_u32, 0, 0, 0_u32);
        for (utterance, audio) in utterances(&model) {
            let text = transcribe(&model, &utterance, &audio).text;
            if text == utterance.transformers_text {
                same += 1;
            } else {
                println!(
                    "{}: {text}, not {}",
                    utterance.id, utterance.transformers_text
                );
            }
            let found: Vec<&str> = text.split_whitespace().collect();
            let spoken: Vec<&str> = utterance.reference.split_whitespace().collect();
            errors += edit_distance(&found, &spoken);
            words += spoken.len();
            count += 1;
        }
        println!(
            "{precision:?}: {same} of {count} texts as in f32, {errors} of {words} words wrong"
        );
        assert!(
            f64::from(same) >= least * f64::from(count),
            "{precision:?}: {same} of {count}"
        );
    }
}

#[test]
fn unseen_voices_are_understood_and_tokens_equal_those_of_transformers() {
    let model = in_precision(Precision::F32);
    let (mut errors, mut words, mut exact) = (0, 0, 0);
    for (utterance, audio) in utterances(&model) {
        let transcript = transcribe(&model, &utterance, &audio);
        let ids: Vec<u32> = transcript.tokens.iter().map(|token| token.id).collect();
        assert_eq!(
            transcript.text, utterance.transformers_text,
            "{}",
            utterance.id
        );
        assert_eq!(ids, utterance.transformers_ids, "{}", utterance.id);
        let found: Vec<&str> = transcript.text.split_whitespace().collect();
        let spoken: Vec<&str> = utterance.reference.split_whitespace().collect();
        errors += edit_distance(&found, &spoken);
        words += spoken.len();
        exact += usize::from(found == spoken);
    }
    let rate = errors as f64 / words as f64;
    println!(
        "word error rate {:.2} %, {exact} of 200 utterances exact",
        100.0 * rate
    );
    assert!(rate <= WORD_ERROR_RATE, "word error rate {rate:.4}");
}

/// Substitutions, deletions and insertions between two word lists (Levenshtein, 1966).
pub(crate) fn edit_distance(a: &[&str], b: &[&str]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Pairs of places at which two word lists have the same word, in an alignment with as many as
/// can be: their longest common subsequence.
pub(crate) fn matches(a: &[&str], b: &[&str]) -> Vec<(usize, usize)> {
    let mut best = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            best[i][j] = if a[i] == b[j] {
                best[i + 1][j + 1] + 1
            } else {
                best[i + 1][j].max(best[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if best[i + 1][j] >= best[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[test]
fn matches_pair_the_words_that_are_right() {
    assert_eq!(matches(&["a", "b", "c"], &["a", "c"]), [(0, 0), (2, 1)]);
    assert_eq!(matches(&["x", "b"], &["a", "b"]), [(1, 1)]);
    assert!(matches(&[], &["a"]).is_empty());
}

#[test]
fn edit_distance_counts_each_kind_of_error() {
    let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
    let distance = |a, b| edit_distance(&words(a), &words(b));
    assert_eq!(distance("one two three", "one two three"), 0);
    assert_eq!(distance("one four three", "one two three"), 1);
    assert_eq!(distance("one three", "one two three"), 1);
    assert_eq!(distance("one two two three", "one two three"), 1);
    assert_eq!(distance("", "one two"), 2);
}
