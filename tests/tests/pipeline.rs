//! The library's promises: steps, options, sharing, limits, both forms of a whole model folder.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn_flex::Flex;
use voxtral_checkpoint::{Checkpoint, ConvertOptions, Form, convert};
use voxtral_nn::Backend;
use voxtral_pipeline::{
    Audio, Cancel, Finish, PipelineError, Precision, SamplingOptions, TranscribeOptions,
    Transcript, Voxtral,
};

crate::on_every_backend!(the_demo_understands_every_sample);

const SAMPLES: [(&str, &str); 4] = [
    ("en", "three one four one five nine"),
    ("fr", "deux sept un huit deux huit"),
    ("de", "vier zwei null sechs neun fünf"),
    ("es", "uno seis uno ocho cero tres"),
];

fn sample(language: &str) -> std::path::PathBuf {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    samples.join(format!("digits-{language}.wav"))
}

fn demo() -> Voxtral<Flex> {
    Voxtral::<Flex>::builder().demo().unwrap()
}

fn the_demo_understands_every_sample<B: Backend>() {
    let model = Voxtral::<B>::builder().demo().unwrap();
    for (language, text) in SAMPLES {
        for given in [None, Some(language.parse().unwrap())] {
            let options = TranscribeOptions {
                language: given,
                ..Default::default()
            };
            let transcript = model.transcribe_file(sample(language), &options).unwrap();
            assert_eq!(transcript.text, text);
            assert_eq!(transcript.finish, Finish::Stop);
            assert_eq!(transcript.language.as_deref(), Some(language));
            assert_eq!(transcript.language_detected.is_some(), given.is_none());
        }
    }
}

#[test]
fn steps_add_up_to_the_transcript() {
    let model = demo();
    let audio = model.read_audio(sample("fr")).unwrap();
    let mut run = model.start(&audio, &TranscribeOptions::default()).unwrap();
    let steps: Vec<_> = run.by_ref().map(Result::unwrap).collect();
    let transcript = run.finish().unwrap();
    let text: String = steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(text, transcript.text);
    let tokens: Vec<_> = steps.into_iter().map(|step| step.token).collect();
    assert_eq!(tokens, transcript.tokens);
    let end = transcript.tokens.last().unwrap();
    assert_eq!(
        (end.id, end.text.as_str()),
        (model.tokenizer().eos().unwrap(), "</s>")
    );
    assert!(
        transcript
            .tokens
            .iter()
            .all(|token| token.logprob <= 0.0 && token.logprob > -20.0)
    );
    let seconds = audio.samples().len() as f64 / f64::from(audio.sample_rate());
    assert!((transcript.duration.as_secs_f64() - seconds).abs() < 1e-3);
}

#[test]
fn one_model_serves_many_threads() {
    let model = Arc::new(demo());
    let threads = SAMPLES.map(|(language, text)| {
        let model = Arc::clone(&model);
        std::thread::spawn(move || {
            let options = TranscribeOptions::default();
            let transcript = model.transcribe_file(sample(language), &options).unwrap();
            assert_eq!(transcript.text, text);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_token_limit_ends_the_text() {
    let options = TranscribeOptions {
        max_new_tokens: Some(3),
        ..Default::default()
    };
    let transcript = demo().transcribe_file(sample("en"), &options).unwrap();
    assert_eq!(transcript.finish, Finish::Length);
    assert_eq!(transcript.tokens.len(), 3);
    assert!(
        "three one".starts_with(&transcript.text),
        "{}",
        transcript.text
    );
}

#[test]
fn a_seed_repeats_a_temperature() {
    let model = demo();
    let audio = model.read_audio(sample("de")).unwrap();
    let run = |seed| {
        let options = TranscribeOptions {
            sampling: SamplingOptions {
                temperature: 3.0,
                seed,
                ..Default::default()
            },
            max_new_tokens: Some(40),
            ..Default::default()
        };
        model.transcribe(&audio, &options).unwrap().tokens
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn every_precision_gives_the_words() {
    for precision in [Precision::F32, Precision::BF16, Precision::F16] {
        let builder = Voxtral::<Flex>::builder().precision(precision);
        let transcript = builder
            .demo()
            .unwrap()
            .transcribe_file(sample("es"), &TranscribeOptions::default())
            .unwrap();
        assert_eq!(
            transcript.text, "uno seis uno ocho cero tres",
            "{precision:?}"
        );
    }
}

#[test]
fn a_cancelled_transcription_stops() {
    let model = demo();
    let audio = model.read_audio(sample("en")).unwrap();
    let cancel = Cancel::new();
    let options = TranscribeOptions {
        cancel: cancel.clone(),
        ..Default::default()
    };
    let mut run = model.start(&audio, &options).unwrap();
    assert!(run.next().unwrap().is_ok());
    cancel.cancel();
    assert!(matches!(run.next(), Some(Err(PipelineError::Cancelled))));
    assert!(run.next().is_none());
    assert!(matches!(
        model.start(&audio, &options),
        Err(PipelineError::Cancelled)
    ));
}

#[test]
fn impossible_requests_are_refused() {
    let model = demo();
    let refuse = |seconds: usize, options: &TranscribeOptions| -> String {
        let audio = Audio::new(vec![0.0; seconds * 16_000], 16_000).unwrap();
        model.transcribe(&audio, options).unwrap_err().to_string()
    };
    let message = refuse(31 * 60, &TranscribeOptions::default());
    assert_eq!(
        message,
        "audio is 31:00 long, the model takes at most 30:00: split the file"
    );
    let options = TranscribeOptions {
        sampling: SamplingOptions {
            temperature: -1.0,
            ..Default::default()
        },
        ..Default::default()
    };
    assert!(refuse(1, &options).starts_with("temperature is -1"));
    let options = TranscribeOptions {
        max_new_tokens: Some(10_000_000),
        ..Default::default()
    };
    assert!(
        refuse(1, &options).contains("exceed the context"),
        "{}",
        refuse(1, &options)
    );
}

#[test]
fn the_default_answer_is_as_long_as_the_context_allows() {
    // Three minutes are 2255 tokens of prompt; as many again exceed the demo's context.
    let model = demo();
    let context = model.config().decoder.max_positions.unwrap();
    assert!(context < 2 * 2250);
    let speech = model.read_audio(sample("en")).unwrap();
    let mut samples = speech.into_samples();
    samples.resize(180 * 16_000, 0.0);
    let audio = Audio::new(samples, 16_000).unwrap();
    let options = TranscribeOptions::default();
    assert!(
        model
            .start(&audio, &options)
            .unwrap()
            .next()
            .unwrap()
            .is_ok()
    );
}

#[test]
fn damaged_weights_give_an_error_and_no_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voxtral-pipeline/demo");
    let damaged = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), damaged.path().join(file.file_name())).unwrap();
    }
    let path = damaged.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    // NaN in the last values of the file, a matrix of the projector.
    let end = bytes.len();
    bytes[end - 64..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let model = Voxtral::<Flex>::builder()
        .open_folder(damaged.path())
        .unwrap();
    let error = model
        .transcribe_file(sample("en"), &TranscribeOptions::default())
        .unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}

#[test]
fn a_folder_in_either_form_gives_the_same_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voxtral-pipeline/demo");
    let native = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&folder).unwrap();
    let options = ConvertOptions::new(Form::Native);
    convert(&source, native.path(), &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let run = |folder: &Path| -> Transcript {
        let model = Voxtral::<Flex>::builder().open_folder(folder).unwrap();
        model
            .transcribe_file(sample("en"), &TranscribeOptions::default())
            .unwrap()
    };
    let (hugging_face, native) = (run(&folder), run(native.path()));
    assert_eq!(hugging_face.text, native.text);
    let ids = |transcript: &Transcript| -> Vec<u32> {
        transcript.tokens.iter().map(|token| token.id).collect()
    };
    assert_eq!(ids(&hugging_face), ids(&native));
}
