//! How tokens are chosen, with whole models: seeds, stops, alternatives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use burn_flex::Flex;
use voxtral_nn::Backend;
use voxtral_pipeline::{
    Audio, Finish, PipelineError, Precision, SamplingOptions, SessionOptions, TranscribeOptions,
    Transcript, Voxtral,
};

crate::on_every_backend!(a_seed_gives_the_same_text);

const WORDS: &str = "three one four one five nine";

fn demo<B: Backend>() -> Voxtral<B> {
    let builder = Voxtral::<B>::builder().precision(Precision::F32);
    builder.demo().unwrap()
}

static DEMO: LazyLock<Voxtral<Flex>> = LazyLock::new(demo);

fn speech<B: Backend>(model: &Voxtral<B>) -> Audio {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    model.read_audio(samples.join("digits-en.wav")).unwrap()
}

fn transcribe<B: Backend>(model: &Voxtral<B>, sampling: SamplingOptions) -> Transcript {
    let options = TranscribeOptions {
        sampling,
        max_new_tokens: Some(40),
        ..Default::default()
    };
    model.transcribe(&speech(model), &options).unwrap()
}

fn ids(transcript: &Transcript) -> Vec<u32> {
    transcript.tokens.iter().map(|token| token.id).collect()
}

/// The tokens that are drawn do not depend on the backend, with any options.
fn a_seed_gives_the_same_text<B: Backend>() {
    let model = demo::<B>();
    let greedy = ids(&transcribe(&DEMO, SamplingOptions::default()));
    let mut drawn = 0;
    for seed in 0..3 {
        for temperature in [1.0, 4.0] {
            let hot = SamplingOptions {
                temperature,
                seed,
                ..Default::default()
            };
            let all = SamplingOptions {
                top_p: Some(0.98),
                top_k: Some(500),
                min_p: Some(0.001),
                repetition_penalty: 1.2,
                presence_penalty: 0.3,
                frequency_penalty: 0.2,
                logit_bias: [(greedy[0], -2.0)].into(),
                ..hot.clone()
            };
            for sampling in [hot, all] {
                let [found, expected] = [
                    transcribe(&model, sampling.clone()),
                    transcribe(&DEMO, sampling.clone()),
                ];
                assert_eq!(ids(&found), ids(&expected), "{sampling:?}");
                assert_eq!(found.text, expected.text);
                drawn += usize::from(ids(&found) != greedy);
            }
        }
    }
    assert!(
        drawn >= 6,
        "{drawn} of 12 differ from what is most probable"
    );
}

/// Every stretch of the text as a stop string: the text is what stands before it, in steps that
/// never say more.
#[test]
fn a_stop_string_cuts_the_text_wherever_it_is() {
    let audio = speech(&DEMO);
    for (start, length) in (0..WORDS.len()).flat_map(|start| [1, 3, 8].map(|len| (start, len))) {
        let Some(stop) = WORDS.get(start..start + length) else {
            continue;
        };
        let options = TranscribeOptions {
            sampling: SamplingOptions {
                stop: vec!["zero".into(), stop.into(), "nine.".into()],
                ..Default::default()
            },
            ..Default::default()
        };
        let mut run = DEMO.start(&audio, &options).unwrap();
        let shown: String = run.by_ref().map(|step| step.unwrap().text).collect();
        let transcript = run.finish().unwrap();
        let expected = WORDS.split(stop).next().unwrap();
        assert_eq!(shown, expected, "{stop:?}");
        assert_eq!(transcript.text, expected.trim_end(), "{stop:?}");
        assert_eq!(transcript.stop.as_deref(), Some(stop));
        assert_eq!(transcript.finish, Finish::Stop);
        // Those of the stop string are among the tokens, and none behind it.
        let all: String = transcript.tokens.iter().map(|t| &*t.text).collect();
        assert!(all.contains(stop), "{all:?} {stop:?}");
        let before = transcript.tokens.split_last().unwrap().1;
        let before: String = before.iter().map(|t| &*t.text).collect();
        assert!(!before.trim_start().contains(stop), "{before:?} {stop:?}");
    }
}

#[test]
fn what_only_begins_like_a_stop_string_is_text() {
    let transcript = transcribe(
        &DEMO,
        SamplingOptions {
            stop: vec!["nine and more".into(), "one six".into()],
            ..Default::default()
        },
    );
    assert_eq!((&*transcript.text, transcript.stop), (WORDS, None));
    assert_eq!(transcript.finish, Finish::Stop, "of the model's own");
}

#[test]
fn a_stop_id_ends_as_the_end_token_does() {
    let whole = transcribe(&DEMO, SamplingOptions::default());
    for at in 0..whole.tokens.len() - 1 {
        let id = whole.tokens[at].id;
        let first = whole
            .tokens
            .iter()
            .position(|token| token.id == id)
            .unwrap();
        let sampling = SamplingOptions {
            stop_ids: vec![id],
            ..Default::default()
        };
        let transcript = transcribe(&DEMO, sampling);
        assert_eq!(transcript.tokens, whole.tokens[..=first]);
        let text: String = whole.tokens[..first].iter().map(|t| &*t.text).collect();
        assert_eq!(transcript.text, text.trim());
        assert_eq!((transcript.finish, transcript.stop), (Finish::Stop, None));
    }
}

#[test]
fn alternatives_are_told_and_change_nothing() {
    let plain = transcribe(&DEMO, SamplingOptions::default());
    let told = transcribe(
        &DEMO,
        SamplingOptions {
            top_logprobs: 4,
            ..Default::default()
        },
    );
    assert_eq!(told.text, plain.text);
    for (token, plain) in told.tokens.iter().zip(&plain.tokens) {
        assert!(plain.top.is_empty());
        assert_eq!(token.top.len(), 4);
        let best = &token.top[0];
        assert_eq!(
            (best.id, &best.text, best.logprob),
            (token.id, &token.text, token.logprob)
        );
        assert_eq!(token.logprob, plain.logprob);
        assert!(token.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        let sum: f32 = token.top.iter().map(|other| other.logprob.exp()).sum();
        assert!(sum <= 1.0 + 1e-5, "{sum}");
    }
}

/// A biased stream, which is still guessed ahead; and what a stream does not take.
#[test]
fn a_stream_takes_what_makes_sense_for_it() {
    let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let refused = |sampling: SamplingOptions| {
        let options = SessionOptions {
            sampling,
            ..Default::default()
        };
        match model.session(&options) {
            Err(error @ PipelineError::OptionUnsupported { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{options:?} is taken"),
        }
    };
    for (set, words) in [
        (
            (|o| o.stop = vec!["nine".into()]) as fn(&mut SamplingOptions),
            "a stop string",
        ),
        (|o| o.stop_ids = vec![7], "a stop id"),
        (|o| o.repetition_penalty = 1.1, "a repetition penalty"),
        (|o| o.presence_penalty = 0.5, "a presence penalty"),
        (|o| o.frequency_penalty = 0.5, "a frequency penalty"),
    ] {
        let mut sampling = SamplingOptions::default();
        set(&mut sampling);
        let message = refused(sampling);
        assert!(message.contains(words), "{message}");
    }
    let audio = speech(&model);
    let run = |logit_bias: BTreeMap<u32, f32>, one_by_one| {
        let options = TranscribeOptions {
            sampling: SamplingOptions {
                logit_bias,
                top_logprobs: 2,
                ..Default::default()
            },
            one_by_one,
            ..Default::default()
        };
        model.transcribe(&audio, &options).unwrap()
    };
    let plain = run(BTreeMap::new(), false);
    // What says "one" is banned.
    let one = plain.tokens.iter().find(|token| token.text.trim() == "one");
    let banned = one.map_or(plain.tokens[0].id, |token| token.id);
    let bias = BTreeMap::from([(banned, -100.0)]);
    let [guessed, alone] = [false, true].map(|one_by_one| run(bias.clone(), one_by_one));
    assert_eq!(ids(&guessed), ids(&alone));
    assert!(!ids(&guessed).contains(&banned) && ids(&plain).contains(&banned));
    assert!(guessed.timings.passes < alone.timings.passes);
    assert!(guessed.tokens.iter().all(|token| token.top.len() == 2));
}
