//! Every operation of [`Backend`](crate::Backend) in plain Burn operations: correct on any
//! backend, and the oracle of the fast ones.

use std::ops::Range;

use burn_tensor::{Bool, DType, Tensor, TensorData, activation::softmax};
use voxtral_checkpoint::config::Mask;

use crate::Backend;

/// Elements of a weight that are widened at once, so that the copy stays small beside the model.
const WIDEN_ELEMENTS: usize = 1 << 22;

/// Scores that attention holds at once (256 MiB): a long prefill works through its queries in
/// blocks, since all scores of a 30 min file would need 64 GB.
const SCORE_ELEMENTS: usize = 1 << 26;

/// `x Wᵀ + b`: `x` is `[rows, in]` in `f32`, `weight` `[out, in]` in any precision, `bias` `[out]`;
/// gives `[rows, out]` in `f32`.
///
/// A weight in another precision is widened block by block, or, where
/// [`Backend::matmul_dtype`] says so, the input is rounded to the weight's.
pub fn linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    bias: Option<&Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let dtype = weight.dtype();
    let product = if dtype == DType::F32 {
        x.matmul(weight.clone().transpose())
    } else if B::matmul_dtype(dtype) == dtype {
        x.cast(dtype)
            .matmul(weight.clone().transpose())
            .cast(DType::F32)
    } else {
        let [rows, width] = weight.dims();
        let blocks = ranges(rows, (WIDEN_ELEMENTS / width).max(1))
            .map(|block| {
                let block = B::widen(weight.clone().slice([block]));
                x.clone().matmul(block.transpose())
            })
            .collect();
        Tensor::cat(blocks, 1)
    };
    match bias {
        Some(bias) => product + bias.clone().unsqueeze(),
        None => product,
    }
}

/// `softmax(q kᵀ / √d + mask) v`, with grouped queries.
///
/// `q` is `[batch, heads, queries, d]`, `k` and `v` are `[batch, kv_heads, keys, d]`; each key
/// head serves `heads / kv_heads` consecutive query heads. The queries are the last positions of
/// the keys: query `i` stands at `keys − queries + i`. Gives `[batch, heads, queries, d]`.
pub fn attention<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Mask,
) -> Tensor<B, 4> {
    let [batch, heads, queries, head_dim] = q.dims();
    let keys = k.dims()[2];
    let q = q.mul_scalar((head_dim as f64).powf(-0.5));
    let block = (SCORE_ELEMENTS / (batch * heads * keys)).max(1);
    let blocks = ranges(queries, block)
        .map(|block| {
            let first = keys - queries + block.start;
            let visible = visible_keys(mask, first..first + block.len(), keys);
            let seen = |x: &Tensor<B, 4>| x.clone().slice_dim(2, visible.clone());
            let q = q.clone().slice_dim(2, block.clone());
            attend(q, seen(&k), seen(&v), mask, first - visible.start)
        })
        .collect();
    Tensor::cat(blocks, 2)
}

/// Keys that any of the queries at these positions may see.
fn visible_keys(mask: Mask, queries: Range<usize>, keys: usize) -> Range<usize> {
    match mask {
        Mask::Full => 0..keys,
        Mask::Causal => 0..queries.end,
        Mask::SlidingWindow(window) => {
            (queries.start + 1).saturating_sub(window.get())..queries.end
        }
    }
}

/// Attention of one block of scaled queries, the first of which stands at position `first`.
fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Mask,
    first: usize,
) -> Tensor<B, 4> {
    let [batch, heads, queries, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let group = heads / kv_heads;
    // The queries of a group are rows of one product, so keys are never repeated.
    let q = q.reshape([batch, kv_heads, group * queries, head_dim]);
    let mut scores = q
        .matmul(k.swap_dims(2, 3))
        .reshape([batch * kv_heads, group, queries, keys]);
    if let Some(hidden) = hidden_keys::<B>(mask, first, queries, keys, &scores.device()) {
        scores = scores.mask_fill(
            hidden.expand([batch * kv_heads, group, queries, keys]),
            f32::NEG_INFINITY,
        );
    }
    softmax(scores, 3)
        .reshape([batch, kv_heads, group * queries, keys])
        .matmul(v)
        .reshape([batch, heads, queries, head_dim])
}

/// `[1, 1, queries, keys]`, true where the key is hidden from the query; `None` if nothing is.
fn hidden_keys<B: Backend>(
    mask: Mask,
    first: usize,
    queries: usize,
    keys: usize,
    device: &B::Device,
) -> Option<Tensor<B, 4, Bool>> {
    let hides = |query: usize, key: usize| match mask {
        Mask::Full => false,
        Mask::Causal => key > query,
        Mask::SlidingWindow(window) => key > query || key + window.get() <= query,
    };
    let hidden: Vec<bool> = (first..first + queries)
        .flat_map(|query| (0..keys).map(move |key| hides(query, key)))
        .collect();
    hidden
        .contains(&true)
        .then(|| Tensor::from_data(TensorData::new(hidden, [1, 1, queries, keys]), device))
}

/// `x / √(mean(x²) + eps) ⊙ weight` over the last dimension (Zhang & Sennrich, 2019,
/// arXiv:1910.07467).
pub fn rms_norm<B: Backend>(x: Tensor<B, 3>, weight: &Tensor<B, 1>, eps: f64) -> Tensor<B, 3> {
    let mean_square = x.clone().square().mean_dim(2);
    x / mean_square.add_scalar(eps).sqrt() * weight.clone().unsqueeze()
}

/// `(x − mean) / √(var + eps) ⊙ weight + bias` over the last dimension (Ba et al., 2016,
/// arXiv:1607.06450).
pub fn layer_norm<B: Backend>(
    x: Tensor<B, 3>,
    weight: &Tensor<B, 1>,
    bias: &Tensor<B, 1>,
    eps: f64,
) -> Tensor<B, 3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / variance.add_scalar(eps).sqrt() * weight.clone().unsqueeze()
        + bias.clone().unsqueeze()
}

/// Rotary position embedding in the split-half layout: with `a, b` the halves of a head,
/// `a' = a cos − b sin`, `b' = b cos + a sin` (Su et al., 2021, arXiv:2104.09864).
///
/// `x` is `[batch, heads, time, d]`; `cos` and `sin` are `[time, d / 2]`, of the angles
/// `t · θ^(−2j/d)`.
pub fn rope<B: Backend>(x: Tensor<B, 4>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 4> {
    let half = x.dims()[3] / 2;
    let a = x.clone().narrow(3, 0, half);
    let b = x.narrow(3, half, half);
    let cos: Tensor<B, 4> = cos.unsqueeze();
    let sin: Tensor<B, 4> = sin.unsqueeze();
    let rotated_a = a.clone() * cos.clone() - b.clone() * sin.clone();
    let rotated_b = b * cos + a * sin;
    Tensor::cat(vec![rotated_a, rotated_b], 3)
}

/// `0..len` in pieces of at most `step`.
fn ranges(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len)
        .step_by(step)
        .map(move |start| start..(start + step).min(len))
}
