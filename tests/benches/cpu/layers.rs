//! Features, encoder and decoder, one by one.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use burn_tensor::{DType, Tensor, TensorData};
use voxtral_nn::KvCache;

use crate::{
    bench::{Bench, Times},
    common::{
        B,
        clock::time,
        decoder, encoder,
        layers::FILE_TOKENS,
        model::Model,
        sound::{noise, sound},
        text,
        work::Work,
    },
    table::{Rate, Row},
};

/// Sound of which features are computed, and a window of the 2507 models.
const WINDOW_SECONDS: usize = 30;

/// Positions of a prompt: those of a clip of half a minute, and of two minutes.
pub(crate) const PROMPTS: [usize; 2] = [400, 1500];

/// Sequences that decode together; the first is one.
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];

/// Positions before a decode step.
pub(crate) const CONTEXTS: [usize; 2] = [400, 8000];

/// The features of half a minute, as a transcription computes them.
pub(crate) fn log_mel(bench: &mut Bench, model: &Model) -> anyhow::Result<()> {
    let samples = sound(WINDOW_SECONDS, model.sample_rate());
    let features = &model.config.features;
    let frames = samples.len() / features.hop_length;
    let name = format!("log-mel of {WINDOW_SECONDS} s");
    let times = match features.log_mel_max {
        None => bench.turns(&name, bench.limits, || {
            let (taken, features) = time(|| {
                let maximum = model.mel.clip_maximum(&samples, samples.len());
                model
                    .mel
                    .window(&samples, samples.len(), 0, frames, maximum)
            });
            black_box(features?);
            Ok(taken)
        })?,
        Some(maximum) => bench.turns(&name, bench.limits, || {
            let mut stream = model.mel.stream(maximum);
            let mut found = Vec::new();
            Ok(time(|| {
                for piece in samples.chunks(FILE_TOKENS * model.token_samples()) {
                    found.clear();
                    stream.push(piece, &mut found);
                    black_box(&found);
                }
            })
            .0)
        })?,
    };
    let window = features.window_size as f64;
    let numbers = samples.len() + frames * model.bins();
    bench.rows.push(Row {
        key: "mel".to_owned(),
        name,
        times,
        rate: Some(Rate::Sound(WINDOW_SECONDS as f64)),
        // A real Fourier transform of n values: 2.5 n log₂ n operations.
        work: Some(Work {
            float: frames as f64 * 2.5 * window * window.log2(),
            bytes: (numbers * size_of::<f32>()) as f64,
            ..Work::default()
        }),
        note: None,
    });
    Ok(())
}

/// Encoder and projector over a window, or of a stream over as many tokens as a file gives at once,
/// behind a full window.
pub(crate) fn encoder(bench: &mut Bench, model: &Model) -> anyhow::Result<Times> {
    if model.streams() {
        return streamed(bench, model, FILE_TOKENS, "encoder");
    }
    let frames = model.encoder.window_frames();
    let frames = frames.context("the encoder takes no windows")?;
    let tokens = frames / model.token_frames();
    let shape = [1, model.bins(), frames];
    let data = TensorData::new(noise(shape.iter().product(), 6), shape);
    let mel = Tensor::<B, 3>::from_data(data, (&Default::default(), DType::F32));
    let seconds = tokens as f64 * model.token_seconds();
    let name = format!("encoder, projector: window of {seconds:.0} s");
    let times = bench.turns(&name, bench.limits, || {
        let mel = mel.clone();
        let (taken, result) = time(|| -> anyhow::Result<()> {
            let hidden = model.encoder.forward(mel)?;
            black_box(model.projector.forward(hidden)?.into_data());
            Ok(())
        });
        result?;
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: "encoder".to_owned(),
        name,
        times,
        rate: Some(Rate::Sound(seconds)),
        work: Some(model.demands.encoder(0..tokens)),
        note: None,
    });
    Ok(times)
}

/// Encoder and projector of a stream whose window is full, so many tokens at a time.
fn streamed(bench: &mut Bench, model: &Model, tokens: usize, key: &str) -> anyhow::Result<Times> {
    let full_from = model.demands.encoder_window();
    let full_from = full_from.div_ceil(model.config.projector.downsample.get());
    let sample_count = (FILE_TOKENS + 2) * model.token_samples();
    let features = encoder::features(model, &noise(sample_count, 7))?;
    let piece = |tokens: usize| &features[..tokens * model.token_frames() * model.bins()];
    // Filled by larger pieces, which is faster.
    let mut stream = encoder::stream(model, FILE_TOKENS)?;
    for _ in 0..full_from.div_ceil(FILE_TOKENS) {
        encoder::encode(model, piece(FILE_TOKENS), &mut stream)?;
    }
    let seconds = tokens as f64 * model.token_seconds();
    let name = format!("encoder, projector: {seconds:.2} s, window full");
    let times = bench.turns(&name, bench.limits, || {
        let (taken, result) = time(|| encoder::encode(model, piece(tokens), &mut stream));
        result?;
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: key.to_owned(),
        name,
        times,
        rate: Some(Rate::Sound(seconds)),
        work: Some(model.demands.encoder(full_from..full_from + tokens)),
        note: None,
    });
    Ok(times)
}

/// A prompt, in one pass, and the scores behind it.
pub(crate) fn prefill(bench: &mut Bench, model: &Model, positions: usize) -> anyhow::Result<()> {
    let width = model.config.decoder.hidden_size;
    let data = TensorData::new(noise(positions * width, 8), [1, positions, width]);
    let prompt = Tensor::<B, 3>::from_data(data, (&Default::default(), DType::F32));
    let mut cache = model.decoder.new_cache(positions);
    let name = format!("prefill of {positions}");
    let times = bench.turns(&name, bench.limits, || {
        cache.clear();
        let prompt = prompt.clone();
        let (taken, result) = time(|| -> anyhow::Result<()> {
            let hidden = model.decoder.forward(prompt, &mut cache)?;
            black_box(model.decoder.logits(hidden, 1)?);
            Ok(())
        });
        result?;
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: format!("prefill-{positions}"),
        name,
        times,
        rate: Some(Rate::Tokens(positions as f64)),
        work: Some(model.demands.decoder(0..positions)),
        note: None,
    });
    Ok(())
}

/// A cache in which a step finds so many positions, all noise that was written and not computed;
/// and how many those are, which a ring bounds.
pub(crate) fn filled(model: &Model, context: usize) -> anyhow::Result<(KvCache<B>, usize)> {
    let mut cache = if model.streams() {
        model.decoder.new_ring(NonZeroUsize::MIN)?
    } else {
        model.decoder.new_cache(context + 1)
    };
    let held = context.min(cache.capacity());
    decoder::fill(model, &mut cache, held)?;
    Ok((cache, held))
}

/// Forgets what was computed behind the first `held` positions, which stay as they are.
pub(crate) fn rewind(cache: &mut KvCache<B>, held: usize) -> anyhow::Result<()> {
    cache.clear();
    cache.claim(held)?;
    Ok(())
}

/// A token behind so many positions, from its id to scores.
pub(crate) fn decode(bench: &mut Bench, model: &Model, context: usize) -> anyhow::Result<Times> {
    let (mut cache, held) = filled(model, context)?;
    let name = match held == context {
        true => format!("decode step at {context}"),
        false => format!("decode step at {context}, ring of {held} full"),
    };
    let times = bench.turns(&name, bench.limits, || {
        rewind(&mut cache, held)?;
        let (taken, result) = time(|| decoder::step(model, &mut cache));
        result?;
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: format!("decode-{context}"),
        name,
        times,
        rate: Some(Rate::Tokens(1.0)),
        work: Some(model.demands.decoder(held..held + 1)),
        note: None,
    });
    Ok(times)
}

/// A token of each of several sequences in one pass. The sizes take turns, so that load from elsewhere
/// weighs on all alike: what counts is what they gain on one.
pub(crate) fn batches(bench: &mut Bench, model: &Model) -> anyhow::Result<()> {
    let [context, _] = CONTEXTS;
    let most = BATCHES.into_iter().max().unwrap_or(0);
    let caches: Result<Vec<_>, _> = (0..most).map(|_| filled(model, context)).collect();
    let (mut caches, held): (Vec<_>, Vec<_>) = caches?.into_iter().unzip();
    let held = held.into_iter().max().unwrap_or(0);
    text::progress("decode, batches");
    let mut times = BATCHES.map(|_| Vec::new());
    while !times.iter().any(|times| bench.limits.reached(times)) {
        for (size, times) in BATCHES.into_iter().zip(&mut times) {
            let caches = &mut caches[..size];
            for cache in caches.iter_mut() {
                rewind(cache, held)?;
            }
            let (taken, result) = time(|| decoder::steps(model, caches));
            result?;
            times.push(taken);
        }
        bench.sample_now_and_then();
    }
    let times = times.map(|times| Times::of(&times));
    let [one, ..] = times;
    for (size, times) in BATCHES.into_iter().zip(times) {
        let gain = size as f64 * one.best / times.best;
        bench.rows.push(Row {
            key: format!("decode-batch-{size}"),
            name: format!("decode, batch of {size} at {held}"),
            times,
            rate: Some(Rate::Tokens(size as f64)),
            work: Some(model.demands.decoder_batch(held..held + 1, size)),
            note: Some(format!("{gain:.2} times the tokens of one")),
        });
    }
    Ok(())
}

/// What a live stream does for each token, once its windows are full.
pub(crate) fn live(bench: &mut Bench, model: &Model) -> anyhow::Result<()> {
    let first = bench.rows.len();
    let maximum = model.log_mel_max()?;
    let samples = noise(model.token_samples(), 9);
    let mut stream = model.mel.stream(maximum);
    let mut found = Vec::new();
    let name = "log-mel of a token".to_owned();
    let times = bench.turns(&name, bench.limits.part(4), || {
        found.clear();
        let taken = time(|| stream.push(&samples, &mut found)).0;
        black_box(&found);
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: "live-mel".to_owned(),
        name,
        times,
        rate: Some(Rate::Sound(model.token_seconds())),
        work: None,
        note: None,
    });
    streamed(bench, model, 1, "live-encoder")?;
    let window = model.decoder.new_ring(NonZeroUsize::MIN)?.capacity();
    decode(bench, model, window)?;
    let parts = &mut bench.rows[first..];
    let sum = |value: fn(&Row) -> f64| parts.iter().map(value).sum::<f64>();
    let times = Times {
        passes: parts.iter().map(|row| row.times.passes).min().unwrap_or(0),
        best: sum(|row| row.times.best),
        median: sum(|row| row.times.median),
    };
    let work = parts.iter().filter_map(|row| row.work).sum();
    for row in parts.iter_mut() {
        row.name = format!("  {}", row.name);
        if row.key.starts_with("decode") {
            row.key = "live-decode".to_owned();
        }
    }
    let row = Row {
        key: "live".to_owned(),
        name: "a live token, windows full".to_owned(),
        times,
        rate: Some(Rate::Sound(model.token_seconds())),
        work: Some(work),
        note: None,
    };
    bench.rows.insert(first, row);
    Ok(())
}

/// The time of one call.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let (taken, result) = time(work);
    black_box(result);
    taken
}
