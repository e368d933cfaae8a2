use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use voxtral_tokenizer::{Language, Tokenizer, TokenizerError, prompt};

use crate::support::{INSTRUCT, REALTIME, bytes, golden, instruct, plain, small};

#[derive(Deserialize)]
struct Golden {
    transcriptions: Vec<Transcription>,
}

#[derive(Deserialize)]
struct Transcription {
    version: String,
    samples: usize,
    language: Option<String>,
    runs: Vec<(u32, usize)>,
}

/// The prompt for a clip of so many samples.
fn transcription(tokenizer: &Tokenizer, samples: usize, language: Option<&str>) -> Vec<u32> {
    let windows = tokenizer.audio().unwrap().windows(samples).unwrap();
    let language = language.map(|code| code.parse().unwrap());
    prompt::transcription(tokenizer, windows.tokens, language).unwrap()
}

fn expand(runs: &[(u32, usize)]) -> Vec<u32> {
    runs.iter()
        .flat_map(|&(id, count)| std::iter::repeat_n(id, count))
        .collect()
}

#[test]
fn known_prompts_have_their_known_ids() {
    let known: [(usize, usize, Option<&str>, &[u32]); 12] = [
        (16_000, 375, None, &[]),
        (16_000, 375, Some("en"), &[9909, 1058, 1262]),
        (16_000, 375, Some("fr"), &[9909, 1058, 7064]),
        (16_000, 375, Some("es"), &[9909, 1058, 1264]),
        (16_000, 375, Some("pt"), &[9909, 1058, 1515]),
        (16_000, 375, Some("hi"), &[9909, 1058, 8101]),
        (16_000, 375, Some("de"), &[9909, 1058, 1558]),
        (16_000, 375, Some("it"), &[9909, 1058, 1276]),
        (16_000, 375, Some("ar"), &[9909, 1058, 1277]),
        (16_000, 375, Some("nl"), &[9909, 24082, 1108]),
        (480_000, 375, Some("en"), &[9909, 1058, 1262]),
        (480_001, 750, Some("en"), &[9909, 1058, 1262]),
    ];
    for version in ["v7", "v11", "v13"] {
        let tokenizer = instruct(version);
        for (samples, audio_tokens, language, ids) in known {
            let mut expected = vec![1, 3, 25];
            expected.resize(3 + audio_tokens, 24);
            expected.push(4);
            expected.extend(ids);
            expected.push(34);
            let found = transcription(tokenizer, samples, language);
            assert_eq!(
                found, expected,
                "{version}, {samples} samples, {language:?}"
            );
        }
    }
}

#[test]
fn prompts_are_those_of_mistral_common_for_every_language_and_length() {
    let golden: Golden = golden("prompts.json.gz");
    let mut languages = BTreeSet::new();
    for row in &golden.transcriptions {
        // ISO 639-1 withdrew it; the reference's table still has it.
        if row.language.as_deref() == Some("sh") {
            continue;
        }
        let tokenizer = instruct(&row.version);
        let found = transcription(tokenizer, row.samples, row.language.as_deref());
        let (version, samples, language) = (&row.version, row.samples, &row.language);
        assert_eq!(
            found,
            expand(&row.runs),
            "{version}, {samples} samples, {language:?}"
        );
        languages.extend(row.language.as_deref());
    }
    assert!(
        languages
            .into_iter()
            .eq(Language::all().map(Language::code))
    );
}

/// A row of `realtime_prompts.json`: a delay, and for lengths of audio the samples of padding.
#[derive(Deserialize)]
struct Stream {
    delay_ms: Option<u64>,
    delay_tokens: usize,
    runs: Vec<(u32, usize)>,
    online: (usize, usize),
    offline: Vec<(usize, usize, usize)>,
}

#[test]
fn streams_are_laid_out_as_mistral_common_lays_them_out() {
    let rows: Vec<Stream> = serde_json::from_slice(&plain("realtime_prompts.json")).unwrap();
    assert_eq!(rows.len(), 17);
    let audio = REALTIME.audio().unwrap();
    for row in rows {
        let delay = row.delay_ms.map(Duration::from_millis);
        let layout = audio.stream(delay).unwrap();
        assert_eq!(layout.delay_tokens, row.delay_tokens, "{delay:?}");
        let ids = prompt::stream(&REALTIME, &layout).unwrap();
        assert_eq!(ids, expand(&row.runs), "{delay:?}");
        let token = layout.samples_per_token;
        let (left, right) = (
            layout.left_pad_tokens * token,
            layout.right_pad_tokens * token,
        );
        assert_eq!((left, right), row.online, "{delay:?}");
        for (samples, left_pad, right_pad) in row.offline {
            assert_eq!(left, left_pad);
            let whole = samples.next_multiple_of(token) - samples;
            assert_eq!(whole + right, right_pad, "{delay:?}, {samples} samples");
        }
    }
}

#[test]
fn a_delay_that_the_model_does_not_know_is_refused() {
    let audio = REALTIME.audio().unwrap();
    for (ms, shown) in [
        (85.0, "85"),
        (0.0, "0"),
        (1280.0, "1280"),
        (2320.0, "2320"),
        (79.9, "79.9"),
    ] {
        let delay = Duration::from_secs_f64(ms / 1000.0);
        let error = audio.stream(Some(delay)).unwrap_err().to_string();
        let expected = "ms, expected a multiple of 80 ms up to 1200 ms, or 2400 ms";
        assert_eq!(error, format!("delay is {shown} {expected}"));
    }
    let error = INSTRUCT.audio().unwrap().stream(None).unwrap_err();
    assert!(matches!(error, TokenizerError::NotStreaming), "{error}");
}

#[test]
fn a_prompt_without_audio_is_refused() {
    let error = prompt::transcription(&INSTRUCT, 0, None).unwrap_err();
    assert!(matches!(error, TokenizerError::NoAudio), "{error}");
}

#[test]
fn a_streaming_model_has_no_transcription_prompt() {
    let error = prompt::transcription(&REALTIME, 375, None).unwrap_err();
    assert!(matches!(error, TokenizerError::Streaming), "{error}");
}

#[test]
fn a_tokenizer_without_the_prompts_tokens_is_an_error_that_names_the_first() {
    let tokenizer = Tokenizer::from_bytes(&bytes(&small())).unwrap();
    let error = prompt::transcription(&tokenizer, 375, None).unwrap_err();
    assert!(error.to_string().contains("`[INST]`"), "{error}");
}
