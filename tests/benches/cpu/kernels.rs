//! Each operation that our backend overrides, beside the plain Burn operations that it replaces, at
//! the shapes of the model.

use std::fmt;
use std::time::Duration;

use burn_tensor::{
    DType, Tensor,
    activation::{gelu, silu},
};
use serde::Serialize;
use voxtral_checkpoint::config::{AttentionConfig, Mask, Mlp, Norm, Position};
use voxtral_encoder::STEM_STRIDE;
use voxtral_nn::{Backend, Rotary, Weight, plain};

use crate::{
    bench::Bench,
    common::{
        B,
        clock::best,
        layers::FILE_TOKENS,
        model::{Model, cached_dtype},
        text::{milliseconds, progress, rounded},
    },
    layers::{CONTEXTS, PROMPTS, timed},
    profile::heads_of,
    weights::{Matrix, Weights, alone, random, values},
};

/// The times of an operation. In seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    name: String,
    ours: f64,
    plain: f64,
    /// Above 1 ours is faster.
    ratio: f64,
}

/// The comparisons so far.
struct Comparisons<'b> {
    bench: &'b mut Bench,
    found: Vec<Comparison>,
}

/// Compares all of them.
pub(crate) fn compare(
    bench: &mut Bench,
    model: &Model,
    weights: &Weights<'_>,
) -> anyhow::Result<Vec<Comparison>> {
    let mut all = Comparisons {
        bench,
        found: Vec::new(),
    };
    let encoder = &model.config.encoder;
    let stacked = model.config.projector.downsample.get();
    let window = model.encoder.window_frames();
    let rows = window.map_or(FILE_TOKENS * stacked, |frames| frames / STEM_STRIDE);
    let dtype = cached_dtype(&model.decoder)?;

    all.products("encoder", &weights.matrices("encoder.layers.0.", "")?, rows);
    all.products(
        "projector",
        &weights.matrices("projector.", "")?,
        rows / stacked,
    );
    // A window is whole; a stream's ring is full.
    let (keys, held) = match encoder.mask {
        Mask::SlidingWindow(window) => (window.get() + rows - 1, dtype),
        _ => (rows, DType::F32),
    };
    all.attention("encoder", encoder.attention, rows, keys, encoder.mask, held);
    all.norm("encoder", rows, encoder.hidden_size, encoder.norm);
    all.activation("encoder", rows, encoder.intermediate_size, encoder.mlp);
    if let Position::Rope { theta } = encoder.position {
        all.rotation("encoder", encoder.attention, rows, theta);
    }

    let decoder = &model.config.decoder;
    let norm = Norm::Rms {
        eps: decoder.norm_eps,
    };
    for (name, rows) in [("prefill", PROMPTS[0]), ("decode", 1)] {
        all.products(name, &weights.matrices("decoder.layers.0.", "")?, rows);
        all.norm(name, rows, decoder.hidden_size, norm);
        all.activation(name, rows, decoder.intermediate_size, Mlp::SwiGlu);
        all.rotation(name, decoder.attention, rows, decoder.rope_theta);
        all.write(name, decoder.attention, rows, dtype);
    }
    let keys = PROMPTS[0];
    all.attention(
        "prefill",
        decoder.attention,
        keys,
        keys,
        decoder.mask,
        dtype,
    );
    for keys in CONTEXTS {
        all.attention("decode", decoder.attention, 1, keys, decoder.mask, dtype);
    }
    let head = weights.head()?;
    if let Weight::Quantized(table) = &head.weight {
        all.add(
            "look up a row".to_owned(),
            || timed(|| B::look_up(table, &[7])),
            || timed(|| plain::look_up(table, &[7])),
        );
    }
    all.products("decode", &[head], 1);
    Ok(all.found)
}

impl Comparisons<'_> {
    /// Runs both in turns, so that load from elsewhere weighs on both alike.
    fn add(
        &mut self,
        name: String,
        mut ours: impl FnMut() -> Duration,
        mut plain: impl FnMut() -> Duration,
    ) {
        progress(&format!("  {name}"));
        let limits = self.bench.limits.part(16);
        let mut times = [Vec::new(), Vec::new()];
        while !limits.reached(&times[0]) && !limits.reached(&times[1]) || times[0].len() < 2 {
            times[0].push(ours());
            times[1].push(plain());
        }
        let [ours, plain] = times.map(|times| best(&times));
        self.found.push(Comparison {
            name,
            ours,
            plain,
            ratio: plain / ours,
        });
    }

    /// Products with matrices of different shapes.
    fn products(&mut self, place: &str, matrices: &[Matrix], rows: usize) {
        let mut seen = Vec::new();
        for Matrix { name, weight, bias } in matrices {
            let [outputs, inputs] = weight.dims();
            if seen.contains(&[outputs, inputs]) {
                continue;
            }
            seen.push([outputs, inputs]);
            let held = match weight {
                Weight::Float(matrix) => matrix.dtype().name(),
                Weight::Quantized(matrix) => matrix.quant.name(),
            };
            let (_, part) = name.rsplit_once('.').unwrap_or(("", name));
            let name = format!("{place}: {part}, {rows} × {inputs} by {outputs}, {held}");
            let x: Tensor<B, 2> = random([rows, inputs], 11);
            let bias = bias.as_ref();
            self.add(
                name,
                || timed(|| B::project(x.clone(), weight, bias)),
                || timed(|| plain::linear(x.clone(), weight, bias)),
            );
        }
    }

    fn attention(
        &mut self,
        place: &str,
        heads: AttentionConfig,
        queries: usize,
        keys: usize,
        mask: Mask,
        held: DType,
    ) {
        let AttentionConfig {
            num_heads,
            num_kv_heads,
            head_dim,
        } = heads;
        let q = heads_of(num_heads, queries, head_dim);
        let memory = random([1, num_kv_heads, keys, head_dim], 15);
        // The plain operations know no cache in another type than that of the queries.
        let wide = memory.clone();
        let memory: Tensor<B, 4> = memory.cast(held);
        let name = format!(
            "{place}: attention of {num_heads} × {head_dim}, {queries} to {keys}, {}",
            held.name()
        );
        self.add(
            name,
            || timed(|| B::attend(q.clone(), memory.clone(), memory.clone(), mask, keys)),
            || timed(|| plain::attention(q.clone(), wide.clone(), wide.clone(), mask, keys)),
        );
    }

    fn norm(&mut self, place: &str, rows: usize, width: usize, norm: Norm) {
        let x: Tensor<B, 3> = random([1, rows, width], 1);
        let gain: Tensor<B, 1> = random([width], 2);
        match norm {
            Norm::Rms { eps } => self.add(
                format!("{place}: rms norm, {rows} × {width}"),
                || timed(|| B::rms_normalize(x.clone(), &gain, eps)),
                || timed(|| plain::rms_norm(x.clone(), &gain, eps)),
            ),
            Norm::Layer { eps } => self.add(
                format!("{place}: layer norm, {rows} × {width}"),
                || timed(|| B::layer_normalize(x.clone(), &gain, &gain, eps)),
                || timed(|| plain::layer_norm(x.clone(), &gain, &gain, eps)),
            ),
        }
    }

    fn activation(&mut self, place: &str, rows: usize, inner: usize, mlp: Mlp) {
        let x = values([1, rows, inner]);
        let up: Tensor<B, 3> = random([1, rows, inner], 3);
        let new = || alone::<3>(&x);
        match mlp {
            Mlp::Gelu => self.add(
                format!("{place}: gelu, {rows} × {inner}"),
                || {
                    let x = new();
                    timed(|| B::gelu_erf(x))
                },
                || {
                    let x = new();
                    timed(|| gelu(x))
                },
            ),
            Mlp::SwiGlu => self.add(
                format!("{place}: swiglu, {rows} × {inner}"),
                || {
                    let x = new();
                    timed(|| B::swiglu(x, up.clone()))
                },
                || {
                    let x = new();
                    timed(|| silu(x) * up.clone())
                },
            ),
        }
    }

    fn rotation(&mut self, place: &str, heads: AttentionConfig, rows: usize, theta: f64) {
        let (count, d) = (heads.num_heads, heads.head_dim);
        let x = heads_of(count, rows, d);
        let table: Tensor<B, 2> = random([rows, d / 2], 16);
        let rotary = Rotary::<B>::new(0..rows, d, theta, &Default::default());
        self.add(
            format!("{place}: rotation, {rows} × {count} × {d}"),
            || timed(|| rotary.rotate(x.clone())),
            || timed(|| plain::rope(x.clone(), table.clone(), table.clone())),
        );
    }

    fn write(&mut self, place: &str, heads: AttentionConfig, rows: usize, held: DType) {
        let (count, d) = (heads.num_kv_heads, heads.head_dim);
        let new = heads_of(count, rows, d);
        let capacity = CONTEXTS[1];
        let memory = || Some(random::<4>([1, count, capacity, d], 17).cast(held));
        let (mut ours, mut burns) = (memory(), memory());
        let start = CONTEXTS[0];
        self.add(
            format!(
                "{place}: cache write, {rows} × {count} × {d}, {}",
                held.name()
            ),
            || {
                let memory = ours.take();
                let new = new.clone();
                let write = || memory.map(|memory| B::write(memory, start, new));
                let (taken, written) = crate::common::clock::time(write);
                ours = written;
                taken
            },
            || {
                let memory = burns.take();
                let new = new.clone().cast(held);
                // The body that the backend's trait has where nothing overrides it.
                let place = [0..1, 0..count, start..start + rows, 0..d];
                let write = || memory.map(|memory| memory.slice_assign(place, new));
                let (taken, written) = crate::common::clock::time(write);
                burns = written;
                taken
            },
        );
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slower = if self.ratio < 1.0 { "  SLOWER" } else { "" };
        write!(
            f,
            "{:<68} {:>11} {:>11} {:>8}{slower}",
            self.name,
            milliseconds(self.ours),
            milliseconds(self.plain),
            rounded(self.ratio)
        )
    }
}
