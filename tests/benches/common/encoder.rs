//! Encoder and projector in a stream.

use std::hint::black_box;
use std::num::NonZeroUsize;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_encoder::EncoderStream;

use super::{
    B,
    clock::{Limits, time},
    layers::{Passes, Stage, at_once},
    model::Model,
};

/// Encoder and projector, so many tokens at a time: while the ring fills, and when it is full.
pub(crate) fn stages(
    model: &Model,
    sound: &[f32],
    tokens: usize,
    limits: Limits,
) -> anyhow::Result<Vec<Stage>> {
    let features = features(model, sound)?;
    let pieces = features.chunks_exact(tokens * model.token_frames() * model.bins());
    if let Some(first) = pieces.clone().next() {
        // Weights are paged in.
        encode(model, first, &mut stream(model, tokens)?)?;
    }
    let full_from = model
        .demands
        .encoder_window()
        .div_ceil(model.config.projector.downsample.get());
    // A short sound never fills the window.
    let fills = pieces.len() * tokens > full_from;
    let mut stream = stream(model, tokens)?;
    let (mut filling, mut full) = (Passes::default(), Passes::default());
    for (i, piece) in pieces.enumerate() {
        let range = i * tokens..(i + 1) * tokens;
        let (taken, result) = time(|| encode(model, piece, &mut stream));
        result?;
        let passes = if range.start < full_from {
            &mut filling
        } else {
            &mut full
        };
        passes.add(taken, model.demands.encoder(range));
        let last = if fills { &full } else { &filling };
        if limits.reached(&last.times) {
            break;
        }
    }
    let name = |state| format!("encoder, {}, window {state}", at_once(tokens));
    // Of a live stream it is the full window that counts.
    let live = |is_last| tokens == 1 && is_last;
    let stages = [
        filling.stage(name("filling"), tokens, live(!fills)),
        full.stage(name("full"), tokens, live(fills)),
    ];
    Ok(stages.into_iter().flatten().collect())
}

/// The features of sound as it comes.
pub(crate) fn features(model: &Model, sound: &[f32]) -> anyhow::Result<Vec<f32>> {
    let mut features = Vec::new();
    let mut mel = model.mel.stream(model.log_mel_max()?);
    mel.push(sound, &mut features);
    Ok(features)
}

/// A stream that takes so many tokens at a time.
pub(crate) fn stream(model: &Model, tokens: usize) -> anyhow::Result<EncoderStream<B>> {
    let step = model
        .config
        .projector
        .downsample
        .saturating_mul(NonZeroUsize::new(tokens).unwrap_or(NonZeroUsize::MIN));
    let positions = EncoderStream::<B>::MAX_POSITIONS;
    Ok(EncoderStream::new(&model.encoder, step, positions)?)
}

/// `[frames, bins]` through encoder and projector.
pub(crate) fn encode(
    model: &Model,
    features: &[f32],
    stream: &mut EncoderStream<B>,
) -> anyhow::Result<()> {
    let bins = model.bins();
    let data = TensorData::new(features.to_vec(), [1, features.len() / bins, bins]);
    let mel = Tensor::<B, 3>::from_data(data, (&Default::default(), DType::F32));
    let hidden = model.encoder.forward_stream(mel.swap_dims(1, 2), stream)?;
    black_box(model.projector.forward(hidden)?.into_data());
    Ok(())
}
