//! The spoken language of the demo models: forced, found out and reported.

use std::num::NonZeroUsize;
use std::time::Duration;

use burn_flex::Flex;
use serde_json::Value;
use voxtral_pipeline::{
    Audio, Language, LanguageSource, PipelineError, TranscribeOptions, Transcript, Voxtral,
};

use crate::{demo::utterances, goldens::data};

/// At least this share of the languages is right.
const RIGHT: f64 = 0.98;

fn demo() -> Voxtral<Flex> {
    Voxtral::builder().demo().unwrap()
}

fn language(code: &str) -> Language {
    code.parse().unwrap()
}

fn transcribe(model: &Voxtral<Flex>, audio: &Audio, language: Option<&str>) -> Transcript {
    let options = TranscribeOptions {
        language: language.map(self::language),
        ..Default::default()
    };
    model.transcribe(audio, &options).unwrap()
}

#[test]
fn the_demos_languages_are_found_out() {
    let model = demo();
    let (mut right, mut by_model, mut count) = (0_u32, 0_u32, 0_u32);
    let (mut spent, mut all) = (Duration::ZERO, Duration::ZERO);
    for (utterance, audio) in utterances(&model) {
        let transcript = transcribe(&model, &audio, None);
        let found = transcript.language_detected.as_ref();
        let code = found.map(|found| found.language.as_str());
        assert_eq!(transcript.language.as_deref(), code);
        right += u32::from(code == Some(&utterance.language));
        by_model += u32::from(found.is_some_and(|found| found.source == LanguageSource::Model));
        assert!(found.is_none_or(|found| (0.0..=1.0).contains(&found.probability)));
        let timings = transcript.timings;
        spent += timings.language;
        all += timings.encoder + timings.prefill + timings.decode;
        count += 1;
    }
    println!(
        "{right} of {count} languages right, {by_model} by the model, {spent:.2?} beside {all:.2?}"
    );
    assert!(
        f64::from(right) >= RIGHT * f64::from(count),
        "{right} of {count}"
    );
}

#[test]
fn what_is_asked_for_is_not_found_out() {
    let model = demo();
    let (utterance, audio) = utterances(&model).swap_remove(0);
    let forced = transcribe(&model, &audio, Some(&utterance.language));
    assert_eq!(forced.language, Some(utterance.language));
    assert_eq!(forced.language_detected, None);
    assert_eq!(forced.timings.language, Duration::ZERO);
    let skipped = TranscribeOptions {
        skip_language_detection: true,
        ..Default::default()
    };
    let skipped = model.transcribe(&audio, &skipped).unwrap();
    assert_eq!((skipped.language, skipped.language_detected), (None, None));
    assert_eq!(skipped.timings.language, Duration::ZERO);
    // Finding out changes nothing of the text.
    assert_eq!(transcribe(&model, &audio, None).tokens, skipped.tokens);
}

#[test]
fn a_language_that_the_model_lacks_is_refused() {
    let model = demo();
    let audio = Audio::new(vec![0.0; 16_000], 16_000).unwrap();
    let options = TranscribeOptions {
        language: Some(language("pt")),
        ..Default::default()
    };
    let error = model.transcribe(&audio, &options).unwrap_err();
    assert!(matches!(error, PipelineError::LanguageUnsupported { .. }));
    let message = error.to_string();
    for words in ["demo", "`pt`", "de, en, es, fr"] {
        assert!(message.contains(words), "{message}");
    }
    // A checkpoint of one's own may know others.
    let own = Voxtral::<Flex>::builder()
        .languages([language("pt")])
        .demo()
        .unwrap();
    assert_eq!(own.languages(), [language("pt")]);
    own.transcribe(&audio, &options).unwrap();
}

/// The names of languages that were not learned have little of the probability together.
#[test]
fn scores_of_languages_that_were_not_learned_tell_nothing() {
    let others = ["it", "nl", "pt"].map(language);
    let model = Voxtral::<Flex>::builder().languages(others).demo().unwrap();
    for (_, audio) in utterances(&model).into_iter().step_by(20) {
        let found = transcribe(&model, &audio, None).language_detected;
        assert!(found.is_none_or(|found| found.source == LanguageSource::Text));
    }
}

#[test]
fn silence_has_no_language() {
    let audio = Audio::new(vec![0.0; 32_000], 16_000).unwrap();
    let transcript = transcribe(&demo(), &audio, None);
    assert_eq!((&*transcript.text, transcript.language), ("", None));
    assert_eq!(transcript.language_detected, None);
}

#[test]
fn clips_together_have_their_languages() {
    let model = demo();
    let clips: Vec<Audio> = utterances(&model)
        .into_iter()
        .take(6)
        .map(|(_, a)| a)
        .collect();
    let jobs = clips
        .iter()
        .map(|audio| Ok((audio.clone(), TranscribeOptions::default())));
    let size = NonZeroUsize::new(4).unwrap();
    for (index, found) in model.transcribe_batch::<_, PipelineError>(jobs, size) {
        let alone = transcribe(&model, &clips[index], None);
        let found = found.unwrap().language_detected.map(|found| found.language);
        assert_eq!(found, alone.language, "{index}");
    }
}

#[test]
fn a_stream_has_the_language_of_its_words() {
    let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let speech = crate::demo_realtime::speech(&model);
    let spoken = std::fs::read(data("demo-realtime-eval/utterances.json")).unwrap();
    let spoken: Vec<Value> = serde_json::from_slice(&spoken).unwrap();
    for code in ["en", "de"] {
        let of_language = spoken
            .iter()
            .filter(|utterance| utterance["language"] == code);
        let samples = of_language.take(10).flat_map(|utterance| {
            let [start, length] = ["start", "samples"].map(|key| utterance[key].as_u64().unwrap());
            &speech.samples()[start as usize..][..length as usize]
        });
        let audio = Audio::new(samples.copied().collect(), speech.sample_rate()).unwrap();
        let transcript = model
            .transcribe(&audio, &TranscribeOptions::default())
            .unwrap();
        assert_eq!(
            transcript.language.as_deref(),
            Some(code),
            "{}",
            transcript.text
        );
        let found = transcript.language_detected.unwrap();
        assert_eq!(
            (&*found.language, found.source),
            (code, LanguageSource::Text)
        );
    }
}
