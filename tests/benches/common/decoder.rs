//! Decode steps, which must not grow with the stream.

use std::hint::black_box;
use std::num::NonZeroUsize;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_nn::{KvCache, NnError};

use super::{
    B,
    clock::{Limits, time},
    layers::{Passes, Stage},
    model::Model,
    sound::noise,
};

/// A token of the decoder, with the ring empty, half full and full, and when its keys are turned
/// back: equal work but for the keys.
pub(crate) fn stages(model: &Model, seconds: usize, limits: Limits) -> Result<Vec<Stage>, NnError> {
    let most = (seconds as f64 / model.token_seconds()) as usize;
    let mut ring = model.decoder.new_ring(NonZeroUsize::MIN)?;
    let capacity = ring.capacity();
    // Weights are paged in.
    step(model, &mut ring)?;
    ring.clear();
    let mut stages = Vec::new();
    for (state, held) in [
        ("empty", 0),
        ("half full", capacity / 2),
        ("full", capacity),
    ] {
        fill(model, &mut ring, held)?;
        let mut passes = Passes::default();
        // Not so many that the state is another.
        let most = most.min((capacity / 8).max(1));
        while passes.times.len() < most && !limits.reached(&passes.times) {
            pass(model, &mut ring, &mut passes)?;
        }
        let name = format!("decode step, ring {state}");
        stages.extend(passes.stage(name, 1, state == "full"));
    }
    stages.extend(turning(model, &mut ring)?);
    Ok(stages)
}

/// The step at which the keys of a full ring are turned back.
fn turning(model: &Model, ring: &mut KvCache<B>) -> Result<Option<Stage>, NnError> {
    let capacity = ring.capacity();
    let Some(limit) = model.config.decoder.max_positions else {
        return Ok(None);
    };
    let limit = limit.max(2 * capacity);
    let mut turns_at = limit;
    let mut passes = Passes::default();
    for _ in 0..3 {
        while ring.len() < turns_at {
            // Nothing is computed: the keys that are there stay.
            ring.claim(1)?;
        }
        pass(model, ring, &mut passes)?;
        // The oldest key now has the angle zero.
        turns_at += limit - capacity;
    }
    let name = format!(
        "decode step, ring turned back (one of {})",
        limit - capacity
    );
    Ok(passes.stage(name, 1, false))
}

/// Lets the cache hold noise up to this position: nothing is computed.
pub(crate) fn fill(model: &Model, ring: &mut KvCache<B>, held: usize) -> Result<(), NnError> {
    let new = held.saturating_sub(ring.len());
    if new == 0 {
        return Ok(());
    }
    let heads = model.config.decoder.attention;
    let shape = [1, heads.num_kv_heads, new, heads.head_dim];
    let data = TensorData::new(noise(shape.iter().product(), 4), shape);
    let keys = Tensor::<B, 4>::from_data(data, (&Default::default(), DType::F32));
    let claim = ring.claim(new)?;
    for layer in claim.layers {
        layer.append(claim.start, keys.clone(), keys.clone());
    }
    Ok(())
}

/// Measures a step.
fn pass(model: &Model, ring: &mut KvCache<B>, passes: &mut Passes) -> Result<(), NnError> {
    let position = ring.len();
    let (taken, result) = time(|| step(model, ring));
    result?;
    passes.add(taken, model.demands.decoder(position..position + 1));
    Ok(())
}

/// One token: the sum of its embedding and that of the sound, through the decoder, to scores.
pub(crate) fn step(model: &Model, ring: &mut KvCache<B>) -> Result<(), NnError> {
    steps(model, [ring])
}

/// One token of each of these sequences, in one pass.
pub(crate) fn steps<'c>(
    model: &Model,
    caches: impl IntoIterator<Item = &'c mut KvCache<B>>,
) -> Result<(), NnError> {
    let width = model.config.decoder.hidden_size;
    let data = TensorData::new(noise(width, 5), [1, 1, width]);
    let sound = Tensor::<B, 3>::from_data(data, (&Default::default(), DType::F32));
    let input = sound + model.decoder.embed(&[1])?;
    let batch: Vec<_> = caches
        .into_iter()
        .map(|cache| (input.clone(), cache))
        .collect();
    let rows = batch.len();
    let hidden = model.decoder.forward_batch(batch)?;
    black_box(model.decoder.logits(hidden, rows)?);
    Ok(())
}
