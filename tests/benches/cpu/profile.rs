//! Where the time of a pass goes.
//!
//! The operations of a pass are run by themselves, each as often as the pass has it and on its
//! shapes: products with every layer's own matrix, so that weights come from memory as they do in
//! the pass. What they do not explain is `other`: allocation, copies and scheduling, or, where it is
//! negative, work that finds its operands in cache when it does not stand alone.

use std::fmt;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use burn_tensor::{DType, Tensor};
use serde::Serialize;
use voxtral_checkpoint::config::{AttentionConfig, Mask, Mlp, Norm, Position};
use voxtral_encoder::{ConvStem, STEM_STRIDE};
use voxtral_nn::{Backend, KvCache, RingConfig, Rotary};

use crate::{
    bench::{Bench, Times},
    common::{
        B,
        layers::FILE_TOKENS,
        model::Model,
        text::{milliseconds, percent},
    },
    layers::{filled, rewind, timed},
    weights::{Matrix, Weights, alone, random, values},
};

/// A pass in parts.
#[derive(Debug, Serialize)]
pub(crate) struct Profile {
    name: String,
    /// The best time of the whole pass.
    seconds: f64,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    name: &'static str,
    /// Calls in a pass.
    calls: usize,
    /// The best time of all of them.
    seconds: f64,
    /// Of the pass.
    share: f64,
}

/// A stack of layers and the rows that go through it.
struct Stack<'m> {
    prefix: &'static str,
    layers: usize,
    rows: usize,
    width: usize,
    inner: usize,
    heads: AttentionConfig,
    norm: Norm,
    mlp: Mlp,
    mask: Mask,
    rope_theta: Option<f64>,
    /// Keys and values, and the positions before the rows; none where a window is whole.
    cache: Option<(&'m mut KvCache<B>, usize)>,
}

/// The parts as they are found.
struct Parts<'b> {
    bench: &'b mut Bench,
    found: Vec<(&'static str, usize, f64)>,
}

/// A decode step behind so many positions, which took these times.
pub(crate) fn decoder(
    bench: &mut Bench,
    model: &Model,
    weights: &Weights<'_>,
    context: usize,
    whole: Times,
) -> anyhow::Result<Profile> {
    let config = &model.config.decoder;
    let (mut cache, held) = filled(model, context)?;
    let mut parts = Parts::new(bench);
    parts.add("embedding", 1, || {
        let (taken, result) = crate::common::clock::time(|| model.decoder.embed(&[1]));
        black_box(result?);
        Ok(taken)
    })?;
    let stack = Stack {
        prefix: "decoder.layers.",
        layers: config.num_layers,
        rows: 1,
        width: config.hidden_size,
        inner: config.intermediate_size,
        heads: config.attention,
        norm: Norm::Rms {
            eps: config.norm_eps,
        },
        mlp: Mlp::SwiGlu,
        mask: config.mask,
        rope_theta: Some(config.rope_theta),
        cache: Some((&mut cache, held)),
    };
    stack.parts(weights, &mut parts)?;
    parts.products("head", &[weights.head()?], 1)?;
    Ok(parts.profile(format!("decode step at {context}"), whole))
}

/// A pass of the encoder, as its row has it, which took these times.
pub(crate) fn encoder(
    bench: &mut Bench,
    model: &Model,
    weights: &Weights<'_>,
    whole: Times,
) -> anyhow::Result<Profile> {
    let config = &model.config.encoder;
    let stacked = model.config.projector.downsample.get();
    let window = model.encoder.window_frames();
    let rows = window.map_or(FILE_TOKENS * stacked, |frames| frames / STEM_STRIDE);
    let rope_theta = match config.position {
        Position::Rope { theta } => Some(theta),
        Position::Table { .. } => None,
    };
    let ring = match (config.mask, rope_theta) {
        (Mask::SlidingWindow(window), Some(rope_theta)) => Some(RingConfig {
            window,
            step: NonZeroUsize::new(rows).unwrap_or(NonZeroUsize::MIN),
            rope_theta,
            max_positions: usize::MAX,
        }),
        _ => None,
    };
    let mut ring = ring.map(|ring| {
        let device = Default::default();
        // As of an encoder whose weights are those of a published model.
        let dtype = B::cache_dtype(DType::BF16);
        KvCache::<B>::ring(config.num_layers, config.attention, ring, (&device, dtype))
    });
    if let Some(ring) = &mut ring {
        let heads = config.attention;
        let shape = [1, heads.num_kv_heads, ring.capacity(), heads.head_dim];
        let keys = random(shape, 4);
        let claim = ring.claim(shape[2])?;
        for layer in claim.layers {
            layer.append(claim.start, keys.clone(), keys.clone());
        }
    }
    let mut parts = Parts::new(bench);
    let stem = ConvStem::load(&weights.loader(), config)?;
    let mel = random([1, config.num_mel_bins, STEM_STRIDE * rows], 13);
    parts.add("stem", 1, || Ok(timed(|| stem.forward(mel.clone()))))?;
    let stack = Stack {
        prefix: "encoder.layers.",
        layers: config.num_layers,
        rows,
        width: config.hidden_size,
        inner: config.intermediate_size,
        heads: config.attention,
        norm: config.norm,
        mlp: config.mlp,
        mask: config.mask,
        rope_theta,
        cache: ring.as_mut().map(|ring| {
            let held = ring.capacity();
            (ring, held)
        }),
    };
    stack.parts(weights, &mut parts)?;
    parts.products(
        "projector",
        &weights.matrices("projector.", "")?,
        rows / stacked,
    )?;
    let name = match window {
        Some(_) => "encoder, projector: a window",
        None => "encoder, projector: tokens of a file",
    };
    Ok(parts.profile(name.to_owned(), whole))
}

impl Stack<'_> {
    fn parts(mut self, weights: &Weights<'_>, parts: &mut Parts<'_>) -> anyhow::Result<()> {
        let matrices = |part| weights.matrices(self.prefix, part);
        let (rows, width, layers) = (self.rows, self.width, self.layers);
        parts.products("projections of attention", &matrices(".attention.")?, rows)?;
        parts.products("projections of feed-forward", &matrices(".mlp.")?, rows)?;
        self.attention(parts)?;
        self.rotations(parts)?;

        let (x, gain) = (random([1, rows, width], 1), random([width], 2));
        let norm = |x| match self.norm {
            Norm::Rms { eps } => B::rms_normalize(x, &gain, eps),
            Norm::Layer { eps } => B::layer_normalize(x, &gain, &gain, eps),
        };
        parts.repeat("norms", 2 * layers + 1, || timed(|| norm(x.clone())))?;

        let inner = values([1, rows, self.inner]);
        let up = random([1, rows, self.inner], 3);
        parts.repeat("activation", layers, || {
            let x = alone(&inner);
            match self.mlp {
                Mlp::Gelu => timed(|| B::gelu_erf(x)),
                Mlp::SwiGlu => timed(|| B::swiglu(x, up.clone())),
            }
        })?;

        let residual = values([1, rows, width]);
        parts.repeat("residual sums", 2 * layers, || {
            let (h, new): (Tensor<B, 3>, _) = (alone(&residual), alone(&residual));
            timed(|| h + new)
        })
    }

    /// Writing the new keys and values, and attention to them and to those before.
    fn attention(&mut self, parts: &mut Parts<'_>) -> anyhow::Result<()> {
        let (rows, layers, mask) = (self.rows, self.layers, self.mask);
        let AttentionConfig {
            num_heads,
            num_kv_heads,
            head_dim,
        } = self.heads;
        let queries = heads_of(num_heads, rows, head_dim);
        let new = heads_of(num_kv_heads, rows, head_dim);
        let mut held = Vec::new();
        let end = match &mut self.cache {
            None => {
                // As beside the weights of a published model.
                let new = B::hold(new, B::cache_dtype(DType::BF16));
                held.resize(layers, (new.clone(), new));
                rows
            }
            Some((cache, before)) => {
                let before = *before;
                parts.add("cache write", 2 * layers, || {
                    rewind(cache, before)?;
                    let claim = cache.claim(rows)?;
                    let mut taken = Duration::ZERO;
                    for layer in claim.layers {
                        let (k, v) = (new.clone(), new.clone());
                        taken += timed(|| layer.append(claim.start, k, v));
                    }
                    Ok(taken)
                })?;
                rewind(cache, before)?;
                let claim = cache.claim(rows)?;
                for layer in claim.layers {
                    held.push(layer.append(claim.start, new.clone(), new.clone()));
                }
                before + rows
            }
        };
        parts.add("attention", layers, || {
            let taken = held.iter().map(|(keys, values)| {
                let (q, k, v) = (queries.clone(), keys.clone(), values.clone());
                timed(|| B::attend(q, k, v, mask, end))
            });
            Ok(taken.sum())
        })
    }

    fn rotations(&self, parts: &mut Parts<'_>) -> anyhow::Result<()> {
        let Some(theta) = self.rope_theta else {
            return Ok(());
        };
        let (rows, heads) = (self.rows, self.heads);
        let queries = heads_of(heads.num_heads, rows, heads.head_dim);
        let keys = heads_of(heads.num_kv_heads, rows, heads.head_dim);
        parts.add("rotary embedding", 2 * self.layers, || {
            let device = Default::default();
            let tables = || Rotary::<B>::new(0..rows, heads.head_dim, theta, &device);
            let (mut taken, rotary) = crate::common::clock::time(tables);
            for _ in 0..self.layers {
                taken += timed(|| rotary.rotate(queries.clone()));
                taken += timed(|| rotary.rotate(keys.clone()));
            }
            Ok(taken)
        })
    }
}

/// `[1, heads, rows, d]` of noise, lying as a projection leaves it.
pub(crate) fn heads_of(heads: usize, rows: usize, head_dim: usize) -> Tensor<B, 4> {
    random([1, rows, heads, head_dim], 14).swap_dims(1, 2)
}

impl<'b> Parts<'b> {
    fn new(bench: &'b mut Bench) -> Self {
        Self {
            bench,
            found: Vec::new(),
        }
    }

    /// Adds a part of so many calls, whose time `pass` tells.
    fn add(
        &mut self,
        name: &'static str,
        calls: usize,
        pass: impl FnMut() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<()> {
        let limits = self.bench.limits.part(8);
        let times = self.bench.turns(&format!("  {name}"), limits, pass)?;
        self.found.push((name, calls, times.best));
        Ok(())
    }

    /// Adds a part of so many equal calls.
    fn repeat(
        &mut self,
        name: &'static str,
        calls: usize,
        mut call: impl FnMut() -> Duration,
    ) -> anyhow::Result<()> {
        self.add(name, calls, || Ok((0..calls).map(|_| call()).sum()))
    }

    /// Adds the products of so many rows with each of these.
    fn products(
        &mut self,
        name: &'static str,
        matrices: &[Matrix],
        rows: usize,
    ) -> anyhow::Result<()> {
        let mut inputs: Vec<Tensor<B, 2>> = Vec::new();
        for matrix in matrices {
            let [_, width] = matrix.weight.dims();
            if !inputs.iter().any(|x| x.dims()[1] == width) {
                inputs.push(matrix.input(rows));
            }
        }
        self.add(name, matrices.len(), || {
            let taken = matrices.iter().map(|Matrix { weight, bias, .. }| {
                let [_, width] = weight.dims();
                let x = inputs.iter().find(|x| x.dims()[1] == width).cloned();
                timed(|| x.map(|x| B::project(x, weight, bias.as_ref())))
            });
            Ok(taken.sum())
        })
    }

    fn profile(self, name: String, whole: Times) -> Profile {
        let whole = whole.best;
        let explained: f64 = self.found.iter().map(|(.., seconds)| seconds).sum();
        let other = ("other", 0, whole - explained);
        let mut parts: Vec<Part> = self
            .found
            .into_iter()
            .map(|(name, calls, seconds)| Part {
                name,
                calls,
                seconds,
                share: seconds / whole,
            })
            .collect();
        parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        parts.extend(std::iter::once(other).map(|(name, calls, seconds)| Part {
            name,
            calls,
            seconds,
            share: seconds / whole,
        }));
        Profile {
            name,
            seconds: whole,
            parts,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("where the time goes: {}", self.name);
        writeln!(
            f,
            "{title:<68} {:>6} {:>11} {:>7}",
            "calls",
            milliseconds(self.seconds),
            "share"
        )?;
        self.parts.iter().try_for_each(|part| {
            let calls = match part.calls {
                0 => String::new(),
                calls => calls.to_string(),
            };
            writeln!(
                f,
                "  {:<66} {calls:>6} {:>11} {:>7}",
                part.name,
                milliseconds(part.seconds),
                percent(part.share)
            )
        })
    }
}
