//! Sequences that share passes of the decoder: whatever joins and leaves, each is as alone.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn_flex::Flex;
use burn_tensor::{DType, Tensor};
use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, KvCache, NnError, Precision};
use voxtral_pipeline::{
    Audio, BatchEvent, Cancel, LongEvent, LongOptions, OnWindow, PipelineError, SamplingOptions,
    Step, TranscribeOptions, Transcript, Voxtral,
};

use crate::{
    goldens::{LOGPROB, STAGE, assert_close},
    parity::{Model, values},
    random::Random,
};

crate::on_every_backend!(
    a_pass_of_many_is_a_pass_of_each,
    rings_share_a_pass,
    clips_that_join_and_leave_are_as_alone,
);

/// Sequences in a test.
const COUNT: usize = 4;

/// Embeddings of random tokens.
fn tokens<B: Backend>(decoder: &Decoder<B>, count: usize, random: &mut Random) -> Tensor<B, 3> {
    let vocab = decoder.config().vocab_size;
    let ids: Vec<u32> = (0..count).map(|_| random.below(vocab) as u32).collect();
    decoder.embed(&ids).unwrap()
}

/// Passes of some sequences, each with as many new positions as `count` says, together in some caches
/// and apart in others; residual streams and scores of both.
fn compare<B: Backend>(
    decoder: &Decoder<B>,
    caches: fn(&Decoder<B>) -> KvCache<B>,
    most: usize,
    check: fn(&[f32], &[f32]),
) {
    let mut random = Random::new(5);
    let mut together: Vec<_> = (0..COUNT).map(|_| caches(decoder)).collect();
    let mut apart: Vec<_> = (0..COUNT).map(|_| caches(decoder)).collect();
    for _ in 0..12 {
        let mut batch = Vec::new();
        let (mut expected, mut scores, mut rows, mut end) = (vec![], vec![], vec![], 0);
        for (cache, alone) in together.iter_mut().zip(&mut apart) {
            let count = random.below(most + 1).min(cache.room());
            if count == 0 {
                continue;
            }
            let embeddings = tokens(decoder, count, &mut random);
            let hidden = decoder.forward(embeddings.clone(), alone).unwrap();
            expected.extend(values(hidden.clone()));
            let last = random.below(count + 1);
            if last > 0 {
                scores.extend(decoder.logits(hidden, last).unwrap());
            }
            end += count;
            rows.push(end - last..end);
            batch.push((embeddings, cache));
        }
        if batch.is_empty() {
            continue;
        }
        let hidden = decoder.forward_batch(batch).unwrap();
        check(&values(hidden.clone()), &expected);
        if !scores.is_empty() {
            check(&decoder.logits_of(hidden, &rows).unwrap(), &scores);
        }
    }
    let lengths = |caches: &[KvCache<B>]| caches.iter().map(KvCache::len).collect::<Vec<_>>();
    assert_eq!(lengths(&together), lengths(&apart));
}

fn near(found: &[f32], expected: &[f32]) {
    assert_close("a pass of many", found, expected, STAGE);
}

fn a_pass_of_many_is_a_pass_of_each<B: Backend>() {
    for folder in ["odd-f32", "tiny-a"] {
        let model = Model::<B>::open(folder);
        compare(&model.decoder, |decoder| decoder.new_cache(40), 9, near);
    }
}

fn rings_share_a_pass<B: Backend>() {
    let model = Model::<B>::open("realtime-f32");
    let ring = |decoder: &Decoder<B>| decoder.new_ring(NonZeroUsize::new(5).unwrap()).unwrap();
    compare(&model.decoder.with_delay(6), ring, 5, near);
}

/// Up to 16 rows of floats, products read the weights once and give each row the bits that it has
/// alone.
#[test]
fn a_few_rows_have_the_bits_of_each_alone() {
    for folder in ["odd-f32", "odd-bf16", "odd-f16"] {
        let model = Model::<Flex>::open_in(folder, Precision::Auto);
        let same = |found: &[f32], expected: &[f32]| assert_eq!(found, expected);
        compare(&model.decoder, |decoder| decoder.new_cache(40), 4, same);
    }
}

#[test]
fn a_pass_that_cannot_be_changes_no_cache() {
    let model = Model::<Flex>::open("odd-f32");
    let decoder = &model.decoder;
    let mut random = Random::new(1);
    let (mut long, mut short) = (decoder.new_cache(8), decoder.new_cache(2));
    let mut three = || tokens(decoder, 3, &mut random);
    let batch = vec![(three(), &mut long), (three(), &mut short)];
    let error = decoder.forward_batch(batch).unwrap_err();
    assert!(matches!(error, NnError::CacheFull { .. }), "{error}");
    assert_eq!((long.len(), short.len()), (0, 0));

    let config = decoder.config();
    let options = (&Default::default(), DType::F32);
    let mut foreign = KvCache::new(config.num_layers + 1, config.attention, 8, options);
    let batch = vec![(three(), &mut long), (three(), &mut foreign)];
    let error = decoder.forward_batch(batch).unwrap_err().to_string();
    assert!(error.starts_with("KV cache has shape"), "{error}");
    assert_eq!(long.len(), 0);

    let error = decoder.forward_batch(Vec::new()).unwrap_err();
    assert!(matches!(error, NnError::Shape { .. }), "{error}");
    let hidden = decoder.forward(three(), &mut long).unwrap();
    for rows in [vec![], vec![1..1, 2..2], vec![0..1, 2..4]] {
        let error = decoder.logits_of(hidden.clone(), &rows).unwrap_err();
        assert!(error.to_string().starts_with("hidden has shape"), "{error}");
    }
}

/// The demo in `f32`, in which a row of many is as exact as a row of few.
fn demo<B: Backend>() -> Voxtral<B> {
    let builder = Voxtral::<B>::builder().precision(Precision::F32);
    builder.demo().unwrap()
}

/// Clips of speech in four languages, whole and cut, and of none, with options of their own.
fn jobs<B: Backend>(model: &Voxtral<B>) -> Vec<(Audio, TranscribeOptions)> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    let mut jobs = Vec::new();
    for language in ["en", "fr", "de", "es"] {
        let path = samples.join(format!("digits-{language}.wav"));
        let speech = model.read_audio(path).unwrap();
        for part in [1.0, 0.4] {
            let count = (part * speech.samples().len() as f64) as usize;
            let audio = Audio::new(speech.samples()[..count].to_vec(), 16_000).unwrap();
            let options = TranscribeOptions {
                language: (part < 1.0).then(|| language.parse().unwrap()),
                // Of a limit, of a draw, of neither.
                max_new_tokens: (language == "fr").then_some(3),
                sampling: SamplingOptions {
                    temperature: if language == "de" { 0.5 } else { 0.0 },
                    seed: jobs.len() as u64,
                    ..Default::default()
                },
                ..Default::default()
            };
            jobs.push((audio, options));
        }
    }
    let silence = Audio::new(vec![0.0; 8000], 16_000).unwrap();
    jobs.push((silence, TranscribeOptions::default()));
    jobs
}

#[track_caller]
fn assert_same(found: &Transcript, expected: &Transcript) {
    let ids = |transcript: &Transcript| -> Vec<u32> {
        transcript.tokens.iter().map(|token| token.id).collect()
    };
    assert_eq!(ids(found), ids(expected));
    assert_eq!(
        (&found.text, found.finish, &found.language),
        (&expected.text, expected.finish, &expected.language)
    );
    assert_eq!(found.duration, expected.duration);
    for (x, y) in found.tokens.iter().zip(&expected.tokens) {
        assert!((x.logprob - y.logprob).abs() <= LOGPROB, "{x:?}, {y:?}");
    }
}

fn clips_that_join_and_leave_are_as_alone<B: Backend>() {
    let model = demo::<B>();
    let jobs: Vec<_> = jobs(&model).into_iter().step_by(2).collect();
    join_and_leave(&model, &jobs, 1);
}

#[test]
fn many_schedules_give_what_clips_give_alone() {
    let model = demo::<Flex>();
    join_and_leave(&model, &jobs(&model), 5);
}

/// Clips join at every moment, so that passes have prompts, steps or both, and leave when they end.
fn join_and_leave<B: Backend>(
    model: &Voxtral<B>,
    jobs: &[(Audio, TranscribeOptions)],
    schedules: u64,
) {
    let alone: Vec<_> = jobs
        .iter()
        .map(|(audio, options)| model.transcribe(audio, options).unwrap())
        .collect();
    for seed in 0..schedules {
        let mut random = Random::new(seed);
        let mut batch = model.batch();
        let mut steps: Vec<Vec<Step>> = jobs.iter().map(|_| Vec::new()).collect();
        let mut waiting = jobs.iter().enumerate();
        let mut finished = 0;
        let mut most = 0;
        while finished < jobs.len() {
            while batch.is_empty() || random.below(3) == 0 {
                let Some((i, (audio, options))) = waiting.next() else {
                    break;
                };
                batch.add(i, audio.clone(), options).unwrap();
            }
            most = most.max(batch.len());
            for (i, event) in batch.advance() {
                match event {
                    BatchEvent::Step(step) => steps[i].push(step),
                    BatchEvent::Transcript(transcript) => {
                        assert_same(&transcript, &alone[i]);
                        let tokens = steps[i].iter().map(|step| &step.token);
                        assert!(tokens.eq(&transcript.tokens));
                        let text: String = steps[i].iter().map(|step| &step.text[..]).collect();
                        assert_eq!(text.trim_end(), transcript.text);
                        finished += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(batch.is_empty() && most > 1, "{most} at once");
    }
}

#[test]
fn one_is_cancelled_and_the_others_go_on() {
    let model = demo::<Flex>();
    let jobs = jobs(&model);
    let cancel = Cancel::new();
    let mut batch = model.batch();
    for (i, (audio, options)) in jobs.iter().enumerate().take(3) {
        let mut options = options.clone();
        if i == 1 {
            options.cancel = cancel.clone();
        }
        batch.add(i, audio.clone(), &options).unwrap();
    }
    let mut steps = 0;
    let mut ended = Vec::new();
    while !batch.is_empty() {
        for (i, event) in batch.advance() {
            match event {
                BatchEvent::Step(_) => steps += usize::from(i == 1),
                BatchEvent::Transcript(transcript) => {
                    let (audio, options) = &jobs[i];
                    assert_same(&transcript, &model.transcribe(audio, options).unwrap());
                    ended.push((i, true));
                }
                BatchEvent::Failed(error) => {
                    assert!(matches!(error, PipelineError::Cancelled), "{error}");
                    ended.push((i, false));
                }
                other => panic!("{other:?}"),
            }
        }
        if steps == 2 {
            cancel.cancel();
        }
    }
    ended.sort_unstable();
    assert_eq!((ended, steps), (vec![(0, true), (1, false), (2, true)], 2));
}

/// What panics fails alone.
#[test]
fn one_panics_and_the_others_go_on() {
    let model = demo::<Flex>();
    let jobs = jobs(&model);
    let mut batch = model.batch();
    for (i, (audio, options)) in jobs.iter().enumerate() {
        batch.add(i, audio.clone(), options).unwrap();
    }
    let options = TranscribeOptions {
        on_window: OnWindow::new(|_, _| panic!("injected")),
        ..Default::default()
    };
    batch.add(100, jobs[0].0.clone(), &options).unwrap();
    let mut failed = Vec::new();
    let mut finished = 0;
    while !batch.is_empty() {
        for (i, event) in batch.advance() {
            match event {
                BatchEvent::Failed(PipelineError::Panicked) => failed.push(i),
                BatchEvent::Transcript(transcript) => {
                    let (audio, options) = &jobs[i];
                    assert_same(&transcript, &model.transcribe(audio, options).unwrap());
                    finished += 1;
                }
                BatchEvent::Step(_) => {}
                other => panic!("{i}: {other:?}"),
            }
        }
    }
    failed.sort_unstable();
    assert_eq!((failed, finished), (vec![100], jobs.len()));
}

/// Clips that cannot be had or transcribed fail alone, with their numbers, and no more clips are
/// taken than there is room for.
#[test]
fn results_come_with_the_numbers_of_their_jobs() {
    let model = demo::<Flex>();
    let good = jobs(&model);
    let empty = Audio::new(Vec::new(), 16_000).unwrap();
    let refused = TranscribeOptions {
        max_new_tokens: Some(10_000_000),
        ..Default::default()
    };
    let taken = Cell::new(0);
    let jobs = (0..good.len() + 3).map(|i| {
        taken.set(taken.get() + 1);
        match i {
            0 => model
                .read_audio("absent.wav")
                .map(|audio| (audio, TranscribeOptions::default())),
            1 => Ok((empty.clone(), TranscribeOptions::default())),
            2 => Ok((good[0].0.clone(), refused.clone())),
            _ => Ok(good[i - 3].clone()),
        }
    });
    let size = NonZeroUsize::new(3).unwrap();
    let mut seen = Vec::new();
    for (i, result) in model.transcribe_batch(jobs, size) {
        seen.push(i);
        assert!(taken.get() <= seen.len() + size.get(), "{seen:?}");
        match result {
            Ok(transcript) => {
                let (audio, options) = &good[i - 3];
                assert_same(&transcript, &model.transcribe(audio, options).unwrap());
            }
            Err(error) => assert!(i < 3, "{error}"),
        }
    }
    assert_eq!(seen.len(), good.len() + 3);
    assert!(
        !seen.is_sorted(),
        "a short clip need not wait for a long one"
    );
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..good.len() + 3));
}

/// A long recording and short clips share a batch: nobody's text is another, and the short ones do
/// not wait for the long one.
#[test]
fn a_recording_lets_short_clips_pass() {
    // A sum of another order may change a confidence in its last digits.
    fn times_and_texts(transcript: &Transcript) -> Vec<(Duration, Duration, &str)> {
        let segments = transcript.segments.as_ref().unwrap();
        segments
            .iter()
            .map(|segment| (segment.start, segment.end, &*segment.text))
            .collect()
    }

    let model = demo::<Flex>();
    let jobs = jobs(&model);
    let rate = model.sample_rate();
    let mut samples = Vec::new();
    for (audio, _) in jobs.iter().cycle().take(40) {
        samples.extend_from_slice(audio.samples());
        samples.extend(vec![0.0; rate as usize]);
    }
    let long = Audio::new(samples, rate).unwrap();
    let options = LongOptions {
        window: Some(Duration::from_secs(4)),
        batch_size: NonZeroUsize::new(3).unwrap(),
        ..Default::default()
    };
    let alone = model.transcribe_long(long.clone(), &options).unwrap();
    let recording = || model.recording_of(long.clone(), &options).unwrap();
    let mut batch = model.batch();
    batch.transcribe(100, recording());
    batch.transcribe(101, recording());
    let mut ended = Vec::new();
    let mut texts = [String::new(), String::new()];
    let mut passes = 0;
    while !batch.is_empty() {
        if passes == 5 {
            for (i, (audio, options)) in jobs.iter().enumerate() {
                batch.add(i, audio.clone(), options).unwrap();
            }
        }
        passes += 1;
        for (i, event) in batch.advance() {
            match event {
                BatchEvent::Step(_) => assert!(i < 100),
                BatchEvent::Recording(LongEvent::Text(text)) => texts[i - 100].push_str(&text),
                BatchEvent::Recording(_) => assert!(i >= 100),
                BatchEvent::Transcript(transcript) => {
                    ended.push(i);
                    if i >= 100 {
                        assert_same(&transcript, &alone);
                        assert_eq!(transcript.text, texts[i - 100]);
                        assert_eq!(times_and_texts(&transcript), times_and_texts(&alone));
                    } else {
                        let (audio, options) = &jobs[i];
                        assert_same(&transcript, &model.transcribe(audio, options).unwrap());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        if passes == 8 {
            batch.remove(101);
        }
    }
    assert_eq!(ended.len(), jobs.len() + 1);
    assert_eq!(ended.last(), Some(&100), "short clips waited: {ended:?}");
}

/// A Realtime model has no batch, but transcribes clips one by one.
#[test]
fn streams_are_transcribed_one_by_one() {
    let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let speech = model.read_audio(sample("digits-stream-en.wav")).unwrap();
    let options = TranscribeOptions::default();
    let error = model.batch().add(0, speech.clone(), &options).unwrap_err();
    assert!(error.to_string().contains("takes streams"), "{error}");
    let jobs = [0, 1].map(|_| Ok::<_, PipelineError>((speech.clone(), options.clone())));
    let size = NonZeroUsize::new(2).unwrap();
    let texts: Vec<_> = model
        .transcribe_batch(jobs, size)
        .map(|(i, result)| (i, result.unwrap().text))
        .collect();
    let text = model.transcribe(&speech, &options).unwrap().text;
    assert_eq!(texts, [(0, text.clone()), (1, text)]);
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../samples")
        .join(name)
}
