//! The Realtime layers against `transformers`, one shot and streamed, and against formulas in
//! `f64` where a stream is longer than anything else can follow.

use std::num::NonZeroUsize;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_checkpoint::{
    Checkpoint,
    config::{DecoderConfig, Mask},
};
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, EncoderStream, Projector};
use voxtral_nn::{Backend, KvCache, Loader, NnError, Precision};

use crate::{
    goldens::{Golden, LOGPROB, STAGE, assert_close, data},
    parity::{Model, kept_rows, mel, values},
    random::Random,
    reference::{Reference, Rows},
};

/// Folder, and whose goldens hold.
const MODELS: [(&str, &str); 4] = [
    ("realtime-f32", "realtime-f32"),
    ("realtime-native", "realtime-f32"),
    ("realtime-bf16", "realtime-bf16"),
    ("tiny-b", "tiny-b"),
];

/// What the fixtures' prompts are made of, and what ends nothing.
pub(crate) const PAD: u32 = 32;
pub(crate) const END: u32 = 2;

crate::on_every_backend!(
    stages_match_transformers,
    streamed_stages_match_transformers,
    greedy_tokens_match_transformers,
    endless_streams_match_absolute_positions,
    positions_that_are_taken_back_leave_no_trace,
);

/// Frames of model B's stream, which are a formula.
const FRAMES: usize = 96;

/// The delays of a fixture for which there are logits, with the ids at every position.
fn scored(golden: &Golden) -> Vec<(usize, Vec<u32>)> {
    [6, 12]
        .into_iter()
        .filter(|delay| golden.has(&format!("delay_{delay}.logits")))
        .map(|delay| {
            let own = format!("delay_{delay}.input_ids");
            let name = if golden.has(&own) { &own } else { "input_ids" };
            (delay, ids(golden, name))
        })
        .collect()
}

fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    let ids = golden.integers(name).into_iter();
    ids.map(|id| id as u32).collect()
}

fn check_rows<B: Backend>(golden: &Golden, folder: &str, stage: &str, x: Tensor<B, 3>) {
    let found = kept_rows(golden, stage, x);
    let stage_name = format!("{folder} {stage}");
    assert_close(&stage_name, &found, &golden.floats(stage), STAGE);
}

/// Logits of all positions, run in pieces as long as the cache has room for, but at most `step`.
fn all_logits<B: Backend>(
    decoder: &Decoder<B>,
    input: Tensor<B, 3>,
    cache: &mut KvCache<B>,
    step: usize,
) -> Vec<f32> {
    let positions = input.dims()[1];
    let mut logits = Vec::new();
    let mut start = 0;
    while start < positions {
        let end = positions.min(start + step.min(cache.room()));
        let piece = input.clone().slice_dim(1, start..end);
        let hidden = decoder.forward(piece, cache).unwrap();
        logits.extend(decoder.logits(hidden, end - start).unwrap());
        start = end;
    }
    logits
}

fn stages_match_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let encoded = model.encoder.forward(mel(&golden, FRAMES)).unwrap();
        let audio = model.projector.forward(encoded.clone()).unwrap();
        check_rows(&golden, folder, "encoder", encoded);
        check_rows(&golden, folder, "projector", audio.clone());
        let delays = scored(&golden);
        assert!(!delays.is_empty(), "{folder}");
        for (delay, ids) in delays {
            let decoder = model.decoder.with_delay(delay);
            let input = audio.clone() + decoder.embed(&ids).unwrap();
            let expected = golden.floats(&format!("delay_{delay}.logits"));
            // All positions at once, with keys of positions that no query sees.
            let mut cache = decoder.new_cache(ids.len());
            let found = all_logits(&decoder, input.clone(), &mut cache, usize::MAX);
            assert_close(
                &format!("{folder} logits, delay {delay}"),
                &found,
                &expected,
                STAGE,
            );
            // In a ring, whose slots hold what a query sees and nothing more.
            for (step, at_once) in [(usize::MAX, 1), (1, 1), (5, 5), (1, 5)] {
                let at_once = NonZeroUsize::new(at_once).unwrap();
                let mut ring = decoder.new_ring(at_once).unwrap();
                let found = all_logits(&decoder, input.clone(), &mut ring, step);
                let stage = format!("{folder} logits in a ring, delay {delay}");
                assert_close(&stage, &found, &expected, STAGE);
            }
        }
    }
}

fn streamed_stages_match_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let mel = mel::<B>(&golden, FRAMES);
        let frames = mel.dims()[2];
        for tokens in [1, 3, 16] {
            let step = NonZeroUsize::new(4 * tokens).unwrap();
            let mut stream = EncoderStream::new(&model.encoder, step, 1 << 16).unwrap();
            let mut encoded = Vec::new();
            for start in (0..frames).step_by(8 * tokens) {
                let end = frames.min(start + 8 * tokens);
                let piece = mel.clone().slice_dim(2, start..end);
                encoded.push(model.encoder.forward_stream(piece, &mut stream).unwrap());
            }
            let encoded = Tensor::cat(encoded, 1);
            check_rows(&golden, folder, "encoder", encoded.clone());
            check_rows(
                &golden,
                folder,
                "projector",
                model.projector.forward(encoded).unwrap(),
            );
        }
    }
}

/// Greedy ids in a ring; an end token is fed back as a pad. Also their log-probabilities.
pub(crate) fn decode<B: Backend>(
    decoder: &Decoder<B>,
    audio: &Tensor<B, 3>,
    prompt: usize,
    end: u32,
) -> (Vec<u32>, Vec<f32>) {
    let mut ring = decoder.new_ring(NonZeroUsize::MIN).unwrap();
    let mut sampler = voxtral_pipeline::Sampler::greedy();
    let mut chosen = (Vec::new(), Vec::new());
    let mut next = 1;
    for position in 0..audio.dims()[1] {
        let here = audio.clone().slice_dim(1, position..position + 1);
        let input = here + decoder.embed(&[next]).unwrap();
        let hidden = decoder.forward(input, &mut ring).unwrap();
        next = PAD;
        if position + 1 >= prompt {
            let choice = sampler.choose(&decoder.logits(hidden, 1).unwrap()).unwrap();
            chosen.0.push(choice.id);
            chosen.1.push(choice.logprob);
            next = if choice.id == end { PAD } else { choice.id };
        }
    }
    chosen
}

fn greedy_tokens_match_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let golden = Golden::of(twin);
        if !golden.has("delays") {
            assert_eq!(folder, "tiny-b", "model B has pinned logits alone");
            continue;
        }
        let model = Model::<B>::open(folder);
        let encoded = model.encoder.forward(mel(&golden, FRAMES)).unwrap();
        let audio = model.projector.forward(encoded).unwrap();
        let delays = golden.integers("delays").into_iter();
        for (delay, prompt) in delays.zip(golden.integers("prompt_lengths")) {
            let decoder = model.decoder.with_delay(delay as usize);
            let (found, logprobs) = decode(&decoder, &audio, prompt as usize, END);
            let expected = ids(&golden, &format!("delay_{delay}.greedy_ids"));
            assert_eq!(found, expected, "{folder}, delay {delay}");
            let expected = golden.floats(&format!("delay_{delay}.greedy_logprobs"));
            assert_eq!(logprobs.len(), expected.len());
            for (x, y) in logprobs.iter().zip(&expected) {
                let close = (x - y).abs() <= LOGPROB;
                assert!(close, "{folder}, delay {delay}: {x} instead of {y}");
            }
        }
    }
}

/// How often rings turn their keys back in a test: on a GPU's driver in software, every token is
/// thousands of small kernels.
fn turns<B: Backend>() -> usize {
    let on_cpu = ["flex", "ndarray"].iter().any(|name| {
        let backend = B::name(&B::Device::default());
        backend.contains(name)
    });
    if on_cpu { 100 } else { 8 }
}

/// Rings that turn their keys back as often as they can, against absolute positions in `f64`,
/// computed from scratch.
fn endless_streams_match_absolute_positions<B: Backend>() {
    let checkpoint = Checkpoint::open(data("models/realtime-f32")).unwrap();
    let config = checkpoint.config();
    let loader = Loader::<B>::new(&checkpoint, B::Device::default(), Precision::F32);
    let encoder = Encoder::load(&loader, &config.encoder).unwrap();
    let projector = Projector::load(&loader, &config.projector).unwrap();
    // The smallest limit: a ring turns back whenever it has gone round once more.
    let short = DecoderConfig {
        max_positions: Some(1),
        ..config.decoder.clone()
    };
    let delay = 6;
    let decoder = Decoder::load(&loader, &short).unwrap().with_delay(delay);
    let (Mask::SlidingWindow(heard), Mask::SlidingWindow(read)) =
        (config.encoder.mask, config.decoder.mask)
    else {
        panic!("a Realtime model has windows")
    };
    let turns = turns::<B>();
    let tokens = turns * read.get() + 50;
    assert!(
        tokens * 4 > turns * (heard.get() + 3),
        "the encoder's ring turns as often"
    );

    let bins = config.features.num_mel_bins;
    let mut random = Random::new(1);
    let mel: Vec<f32> = (0..tokens * 8 * bins).map(|_| random.unit()).collect();
    let mut stream = EncoderStream::new(&encoder, NonZeroUsize::new(4).unwrap(), 1).unwrap();
    let pieces: Vec<_> = mel
        .chunks(8 * bins)
        .map(|frames| {
            let data = TensorData::new(frames.to_vec(), [1, 8, bins]);
            let piece = Tensor::<B, 3>::from_data(data, (&B::Device::default(), DType::F32));
            encoder
                .forward_stream(piece.swap_dims(1, 2), &mut stream)
                .unwrap()
        })
        .collect();
    let encoded = Tensor::cat(pieces, 1);
    let audio = projector.forward(encoded.clone()).unwrap();
    let prompt = 5 + delay;
    let (found, _) = decode(&decoder, &audio, prompt, END);

    let reference = Reference::new(&checkpoint);
    let rows: Rows = mel
        .chunks(bins)
        .map(|frame| frame.iter().copied().map(f64::from).collect())
        .collect();
    let expected = reference.encode(&rows);
    let flat = |rows: &Rows| {
        rows.concat()
            .into_iter()
            .map(|x| x as f32)
            .collect::<Vec<_>>()
    };
    assert_close("encoder", &values(encoded), &flat(&expected), STAGE);
    let embeddings = reference.project(&expected);
    assert_close("projector", &values(audio), &flat(&embeddings), STAGE);
    let mut fed = vec![PAD; tokens];
    fed[0] = 1;
    for (position, &id) in (prompt..).zip(&found[..found.len() - 1]) {
        fed[position] = if id == END { PAD } else { id };
    }
    let logits = reference.logits(&embeddings, &fed, delay);
    let best = |scores: &Vec<f64>| {
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.unwrap().0 as u32
    };
    let expected: Vec<u32> = logits[prompt - 1..].iter().map(best).collect();
    assert_eq!(found, expected);
    let distinct: std::collections::BTreeSet<_> = found.iter().collect();
    assert!(distinct.len() > 10, "tokens that say nothing prove nothing");
}

/// Behind each position, a few with other tokens are run with it and taken back, in a ring that
/// turns its keys back as often as it can: the scores are those of a ring that never saw them.
fn positions_that_are_taken_back_leave_no_trace<B: Backend>() {
    let checkpoint = Checkpoint::open(data("models/realtime-f32")).unwrap();
    let loader = Loader::<B>::new(&checkpoint, B::Device::default(), Precision::F32);
    let Mask::SlidingWindow(window) = checkpoint.config().decoder.mask else {
        panic!("a Realtime model has windows")
    };
    let short = DecoderConfig {
        max_positions: Some(1),
        ..checkpoint.config().decoder.clone()
    };
    let decoder = Decoder::load(&loader, &short).unwrap().with_delay(6);
    let ring = |step| decoder.new_ring(NonZeroUsize::new(step).unwrap()).unwrap();
    let mut random = Random::new(20);
    let tokens = turns::<B>() / 2 * window.get() + 50;
    let (mut plain, mut guessing) = (ring(1), ring(8));
    let mut position = 0;
    while position < tokens {
        // Of the positions of a pass, the first few are right, and one always is.
        let right = 1 + random.below(8);
        let run = right + random.below(9 - right);
        let ids: Vec<u32> = (0..run).map(|_| random.below(300) as u32).collect();
        let input = decoder.embed(&ids).unwrap();
        let hidden = decoder.forward(input.clone(), &mut guessing).unwrap();
        let found = decoder
            .logits(hidden.slice_dim(1, 0..right), right)
            .unwrap();
        guessing.take_back(run - right).unwrap();
        let expected = all_logits(&decoder, input.slice_dim(1, 0..right), &mut plain, 1);
        assert_close(&format!("logits at {position}"), &found, &expected, STAGE);
        position += right;
        assert_eq!(guessing.len(), position);
    }
    let error = guessing.take_back(9).unwrap_err();
    assert!(matches!(error, NnError::TakenBack { .. }), "{error}");
}

#[test]
fn a_decoder_without_its_delay_and_layers_without_windows_are_refused() {
    type B = burn_flex::Flex;
    let model = Model::<B>::open("realtime-f32");
    let embedding = model.decoder.embed(&[1]).unwrap();
    let mut cache = model.decoder.new_cache(1);
    let error = model.decoder.forward(embedding, &mut cache).unwrap_err();
    assert!(matches!(error, NnError::DelayMissing), "{error}");

    let clips = Model::<B>::open("odd-f32");
    let error = clips.decoder.new_ring(NonZeroUsize::MIN);
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("decoder attends to Causal, expected a sliding window"),
        "{error}"
    );
    let step = NonZeroUsize::new(4).unwrap();
    let error = EncoderStream::new(&clips.encoder, step, 100)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("encoder attends to Full"), "{error}");
}

#[test]
fn a_stream_takes_whole_frames_in_steps_that_it_was_made_for() {
    let model = Model::<burn_flex::Flex>::open("realtime-f32");
    let mut stream =
        EncoderStream::new(&model.encoder, NonZeroUsize::new(4).unwrap(), 100).unwrap();
    for (shape, good) in [
        ([1, 128, 8], true),
        ([1, 128, 2], true),
        ([1, 128, 3], false),
        ([1, 128, 0], false),
        ([1, 128, 10], false),
        ([1, 80, 8], false),
        ([2, 128, 8], false),
    ] {
        let mel = Tensor::zeros(shape, &Default::default());
        let outcome = model.encoder.forward_stream(mel, &mut stream);
        assert_eq!(outcome.is_ok(), good, "{shape:?}");
        if let Err(error) = outcome {
            let expected = "expected [1, 128, a multiple of 2 up to 8]";
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}
