//! Every operation of [`Backend`] in plain Burn operations: correct on any
//! backend, and the oracle of the fast ones.

use std::ops::Range;

use burn_std::Bytes;
use burn_tensor::{Bool, DType, Int, Tensor, TensorData, activation::softmax};
use voxtral_checkpoint::{config::Mask, dequantize};

use crate::{Backend, Quantized, Weight};

/// Elements of a weight that are widened at once, so that the copy stays small beside the model.
const WIDEN_ELEMENTS: usize = 1 << 22;

/// Scores that attention holds at once (256 MiB): a long prefill works through its queries in
/// blocks, since all scores of a 30 min file would need 64 GB.
const SCORE_ELEMENTS: usize = 1 << 26;

/// `x Wᵀ + b`: `x` is `[rows, in]` in `f32`, `weight` `[out, in]` in any precision, `bias` `[out]`;
/// gives `[rows, out]` in `f32`.
///
/// A weight in another precision is widened or dequantized block by block, or, where
/// [`Backend::matmul_dtype`] says so, the input is rounded to the weight's.
pub fn linear<B: Backend>(
    x: Tensor<B, 2>,
    weight: &Weight<B>,
    bias: Option<&Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let product = match weight {
        Weight::Float(matrix) => match matrix.dtype() {
            DType::F32 => x.matmul(matrix.clone().transpose()),
            dtype if B::matmul_dtype(dtype) == dtype => x
                .cast(dtype)
                .matmul(matrix.clone().transpose())
                .cast(DType::F32),
            _ => by_blocks(x, weight.dims(), |block| {
                matrix.clone().slice([block]).cast(DType::F32)
            }),
        },
        Weight::Quantized(matrix) => {
            let data = bytes(matrix);
            let device = matrix.data.device();
            by_blocks(x, matrix.shape, |block| {
                widen(matrix, &data, block, &device)
            })
        }
    };
    match bias {
        Some(bias) => product + bias.clone().unsqueeze(),
        None => product,
    }
}

/// Rows of a quantized table.
pub fn look_up<B: Backend>(table: &Quantized<B>, ids: &[u32]) -> Tensor<B, 2> {
    let (data, device) = (bytes(table), table.data.device());
    let rows = ids.iter().map(|&id| {
        let id = id as usize;
        widen(table, &data, id..id + 1, &device)
    });
    Tensor::cat(rows.collect(), 0)
}

/// A product with a weight of which some rows at a time are in `f32`.
fn by_blocks<B: Backend>(
    x: Tensor<B, 2>,
    [rows, width]: [usize; 2],
    weight: impl Fn(Range<usize>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    let blocks = ranges(rows, (WIDEN_ELEMENTS / width).max(1));
    let products = blocks.map(|block| x.clone().matmul(weight(block).transpose()));
    Tensor::cat(products.collect(), 1)
}

/// Some rows of a quantized matrix whose bytes these are.
fn widen<B: Backend>(
    matrix: &Quantized<B>,
    data: &[u8],
    rows: Range<usize>,
    device: &B::Device,
) -> Tensor<B, 2> {
    let shape = [rows.len(), matrix.shape[1]];
    let mut values = vec![0.0; shape[0] * shape[1]];
    dequantize(matrix.quant, shape[1], data, rows, &mut values);
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// The bytes of a quantized matrix, read back from the device.
fn bytes<B: Backend>(matrix: &Quantized<B>) -> Bytes {
    matrix.data.clone().into_data().bytes
}

/// `softmax(q kᵀ / √d + mask) v`, with grouped queries.
///
/// `q` is `[batch, heads, queries, d]`, `k` and `v` are `[batch, kv_heads, keys, d]`; each key
/// head serves `heads / kv_heads` consecutive query heads. Gives `[batch, heads, queries, d]`.
///
/// Queries and keys are the last positions before `end`: query `i` stands at
/// `end − queries + i`, and key `s` at the last position before `end` that is `s` modulo `keys`.
/// That is `s` where `end` is `keys`, and otherwise the slot of a ring that has gone round.
pub fn attention<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Mask,
    end: usize,
) -> Tensor<B, 4> {
    let [batch, heads, queries, head_dim] = q.dims();
    let keys = k.dims()[2];
    let positions: Vec<usize> = (0..keys)
        .map(|slot| end - 1 - (end - 1 - slot) % keys)
        .collect();
    let q = q.mul_scalar((head_dim as f64).powf(-0.5));
    let block = (SCORE_ELEMENTS / (batch * heads * keys)).max(1);
    let blocks = ranges(queries, block)
        .map(|block| {
            let first = end - queries + block.start;
            let asked = first..first + block.len();
            let visible = visible_slots(mask, asked.clone(), keys, end);
            let seen = |x: &Tensor<B, 4>| x.clone().slice_dim(2, visible.clone());
            let q = q.clone().slice_dim(2, block.clone());
            attend(
                q,
                seen(&k),
                seen(&v),
                mask,
                asked,
                &positions[visible.clone()],
            )
        })
        .collect();
    Tensor::cat(blocks, 2)
}

/// `softmax(q kᵀ / √d + mask)`, as far as it falls on the keys `kept`; gives `[heads, rows, kept]`.
///
/// `q` is `[1, heads, rows, d]`, of rows at the positions `at`; `k` is `[1, kv_heads, keys, d]`, of
/// the positions from 0 on. Each query head has its own of the key heads, `kv_heads`.
pub fn attention_weights<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    mask: Mask,
    at: &[usize],
    (kv_heads, kept): (&[usize], Range<usize>),
) -> Tensor<B, 3> {
    let [_, heads, rows, head_dim] = q.dims();
    let keys = k.dims()[2];
    let positions: Vec<usize> = (0..keys).collect();
    let q = q.mul_scalar((head_dim as f64).powf(-0.5));
    let blocks: Vec<_> = ranges(rows, (SCORE_ELEMENTS / (heads * keys)).max(1))
        .map(|block| {
            let asked = at[block.clone()].iter().copied();
            (
                hidden_keys::<B>(mask, asked, &positions, &q.device()),
                block,
            )
        })
        .collect();
    let mut first = 0;
    // Heads that share keys are rows of one product, as in `attend`.
    let sharing = kv_heads.chunk_by(|a, b| a == b).map(|sharing| {
        let (kv_head, count) = (sharing[0], sharing.len());
        let q = q.clone().slice_dim(1, first..first + count);
        first += count;
        let k = k.clone().slice_dim(1, kv_head..kv_head + 1);
        let k = k.cast(DType::F32).swap_dims(2, 3);
        let weights = blocks.iter().map(|(hidden, block)| {
            let q = q.clone().slice_dim(2, block.clone());
            let q = q.reshape([1, 1, count * block.len(), head_dim]);
            let shape = [1, count, block.len(), keys];
            let mut scores = q.matmul(k.clone()).reshape(shape);
            if let Some(hidden) = hidden {
                scores = scores.mask_fill(hidden.clone().expand(shape), f32::NEG_INFINITY);
            }
            softmax(scores, 3).slice_dim(3, kept.clone())
        });
        Tensor::cat(weights.collect(), 2)
    });
    Tensor::cat(sharing.collect(), 1).reshape([heads, rows, kept.len()])
}

/// Some of `[batch, heads, time, d]`, by their numbers in this dimension.
pub fn select<B: Backend>(x: Tensor<B, 4>, dim: usize, numbers: &[usize]) -> Tensor<B, 4> {
    let numbers: Vec<i32> = numbers.iter().map(|&number| number as i32).collect();
    let numbers = Tensor::<B, 1, Int>::from_data(numbers.as_slice(), &x.device());
    x.select(dim, numbers)
}

/// Slots with keys that any of the queries at these positions may see.
fn visible_slots(mask: Mask, queries: Range<usize>, keys: usize, end: usize) -> Range<usize> {
    match mask {
        _ if end != keys => 0..keys,
        Mask::Full => 0..keys,
        Mask::Causal => 0..queries.end,
        Mask::SlidingWindow(window) => {
            (queries.start + 1).saturating_sub(window.get())..queries.end
        }
    }
}

/// Attention of one block of scaled queries at these positions to keys at those.
fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Mask,
    asked: Range<usize>,
    held: &[usize],
) -> Tensor<B, 4> {
    let [batch, heads, queries, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let group = heads / kv_heads;
    // The queries of a group are rows of one product, so keys are never repeated.
    let q = q.reshape([batch, kv_heads, group * queries, head_dim]);
    let mut scores = q
        .matmul(k.swap_dims(2, 3))
        .reshape([batch * kv_heads, group, queries, keys]);
    if let Some(hidden) = hidden_keys::<B>(mask, asked, held, &scores.device()) {
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
    asked: impl ExactSizeIterator<Item = usize>,
    held: &[usize],
    device: &B::Device,
) -> Option<Tensor<B, 4, Bool>> {
    let shape = [1, 1, asked.len(), held.len()];
    let hides = |query: usize, key: usize| match mask {
        Mask::Full => false,
        Mask::Causal => key > query,
        Mask::SlidingWindow(window) => key > query || key + window.get() <= query,
    };
    let hidden: Vec<bool> = asked
        .flat_map(|query| held.iter().map(move |&key| hides(query, key)))
        .collect();
    hidden
        .contains(&true)
        .then(|| Tensor::from_data(TensorData::new(hidden, shape), device))
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
/// `x` is `[batch, heads, time, d]`; `cos` and `sin` are `[time, d / 2]` or `[1, d / 2]`, of the
/// angles `t · θ^(−2j/d)`.
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use burn_flex::Flex;
    use voxtral_checkpoint::Quant;
    use voxtral_kernels::quantize;

    use super::*;

    type T<const D: usize> = Tensor<Flex, D>;

    /// Numbers without a pattern, in [-1, 1].
    fn noise<const D: usize>(shape: [usize; D], seed: u64) -> T<D> {
        let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64)
            .map(|i| ((i + 1) * 7_919 + seed * 104_729) as f64)
            .map(|x| ((x.sin() * 43_758.545_3).fract()) as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &Default::default())
    }

    fn values<const D: usize>(x: T<D>) -> Vec<f32> {
        x.into_data().into_vec().unwrap()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (i, (x, y)) in found.iter().zip(expected).enumerate() {
            assert!(
                (f64::from(*x) - y).abs() <= tolerance,
                "at {i}: {x} instead of {y}"
            );
        }
    }

    /// Attention of one query head by its definition, in `f64`.
    fn attention_by_definition(q: &[f32], k: &[f32], v: &[f32], d: usize, mask: Mask) -> Vec<f64> {
        let (queries, keys) = (q.len() / d, k.len() / d);
        let mut out = Vec::new();
        for i in 0..queries {
            let position = keys - queries + i;
            let weights: Vec<f64> = (0..keys)
                .map(|j| {
                    let seen = match mask {
                        Mask::Full => true,
                        Mask::Causal => j <= position,
                        Mask::SlidingWindow(w) => j <= position && j + w.get() > position,
                    };
                    let dot: f64 = (0..d)
                        .map(|c| f64::from(q[i * d + c]) * f64::from(k[j * d + c]))
                        .sum();
                    if seen {
                        (dot / (d as f64).sqrt()).exp()
                    } else {
                        0.0
                    }
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..keys)
                    .map(|j| weights[j] * f64::from(v[j * d + c]))
                    .sum();
                out.push(sum / total);
            }
        }
        out
    }

    #[test]
    fn attention_is_its_definition() {
        let (heads, kv_heads, d) = (6, 2, 4);
        let window = |n| Mask::SlidingWindow(NonZeroUsize::new(n).unwrap());
        for mask in [Mask::Full, Mask::Causal, window(1), window(3), window(100)] {
            for (queries, keys) in [(1, 1), (5, 5), (1, 9), (4, 9)] {
                let q = noise([1, heads, queries, d], 1);
                let k = noise([1, kv_heads, keys, d], 2);
                let v = noise([1, kv_heads, keys, d], 3);
                let found = values(attention(q.clone(), k.clone(), v.clone(), mask, keys));
                let (q, k, v) = (values(q), values(k), values(v));
                for head in 0..heads {
                    let kv = head / (heads / kv_heads) * keys * d;
                    let expected = attention_by_definition(
                        &q[head * queries * d..][..queries * d],
                        &k[kv..][..keys * d],
                        &v[kv..][..keys * d],
                        d,
                        mask,
                    );
                    assert_close(&found[head * queries * d..][..queries * d], &expected, 1e-6);
                }
            }
        }
    }

    /// A ring in whose slots the keys stand in another order than that of time.
    #[test]
    fn the_slots_of_a_ring_are_told_apart_by_their_positions() {
        let (keys, d) = (7, 4);
        let window = Mask::SlidingWindow(NonZeroUsize::new(5).unwrap());
        let (k, v) = (noise([1, 2, keys, d], 2), noise([1, 2, keys, d], 3));
        for end in [7, 8, 12, 20, 21] {
            // Slot s of the ring holds the key of rank (s − end) mod keys in time.
            let turn = |x: &T<4>| {
                let first = keys - end % keys;
                Tensor::cat(
                    vec![
                        x.clone().slice_dim(2, first..),
                        x.clone().slice_dim(2, 0..first),
                    ],
                    2,
                )
            };
            for queries in [1, 3] {
                let q = noise([1, 4, queries, d], 1);
                let straight = attention(q.clone(), k.clone(), v.clone(), window, keys);
                let ring = attention(q, turn(&k), turn(&v), window, end);
                let expected: Vec<f64> = values(straight).into_iter().map(f64::from).collect();
                assert_close(&values(ring), &expected, 1e-6);
            }
        }
    }

    #[test]
    fn blocks_of_queries_do_not_change_the_result() {
        // Long enough for several blocks: 2 heads of 6000 keys leave 5592 queries to a block.
        let (keys, d) = (6000, 2);
        let q = noise([1, 2, keys, d], 4);
        let (k, v) = (noise([1, 1, keys, d], 5), noise([1, 1, keys, d], 6));
        let window = Mask::SlidingWindow(NonZeroUsize::new(50).unwrap());
        for mask in [Mask::Causal, window] {
            let whole = attention(q.clone(), k.clone(), v.clone(), mask, keys);
            // The last query, alone, sees the same keys.
            let last = |x: &T<4>| values(x.clone().slice_dim(2, keys - 1..keys));
            let q = q.clone().slice_dim(2, keys - 1..keys);
            let alone = attention(q, k.clone(), v.clone(), mask, keys);
            let expected: Vec<f64> = values(alone).into_iter().map(f64::from).collect();
            assert_close(&last(&whole), &expected, 1e-5);
        }
    }

    #[test]
    fn a_narrow_weight_is_widened_exactly() {
        // More rows than one block holds.
        let shape = [WIDEN_ELEMENTS / 512 + 3, 512];
        let x = noise([2, 512], 7);
        for dtype in [DType::BF16, DType::F16] {
            let weight = noise(shape, 8).cast(dtype);
            let widened = Weight::Float(weight.clone().cast(DType::F32));
            let weight = Weight::Float(weight);
            let expected: Vec<f64> = values(linear(x.clone(), &widened, None))
                .into_iter()
                .map(f64::from)
                .collect();
            assert_close(&values(linear(x.clone(), &weight, None)), &expected, 1e-4);
        }
    }

    /// What a backend runs instead of this module's products.
    #[test]
    fn a_backends_own_product_is_the_plain_one() {
        let (inputs, outputs) = (37, 29);
        for rows in [1, 3, 8, 9, 40] {
            // The second input is a view: its rows do not follow each other in memory.
            let whole = noise([rows, inputs], 14);
            let view = noise([inputs, rows], 15).transpose();
            let matrix = noise([outputs, inputs], 16);
            for (weight, tolerance) in [
                (Weight::Float(matrix.clone()), 1e-5),
                // The kernels may round inputs to bfloat16, by 2^-8 of the sum of 37 products of
                // absolute values below one, a quarter on the average.
                (Weight::Float(matrix.clone().cast(DType::BF16)), 0.02),
                (Weight::Float(matrix.clone().cast(DType::F16)), 1e-5),
                // Inputs to 127ths or bfloat16, and weights to bfloat16.
                (quantized(&matrix, Quant::Q8), 0.04),
                // A few rows take levels, each worth up to a 94th, before they are rounded.
                (
                    quantized(&matrix, Quant::Q4),
                    0.04 + 0.5 / 94.0 * 37.0 / 2.0,
                ),
            ] {
                for bias in [None, Some(noise([outputs], 17))] {
                    for x in [&whole, &view] {
                        let plain = linear(x.clone(), &weight, bias.as_ref());
                        let expected: Vec<f64> = values(plain).into_iter().map(f64::from).collect();
                        let found = Flex::project(x.clone(), &weight, bias.as_ref());
                        assert_close(&values(found), &expected, tolerance);
                    }
                }
            }
        }
    }

    fn quantized(matrix: &T<2>, quant: Quant) -> Weight<Flex> {
        let shape = matrix.dims();
        let mut data = vec![0; quant.bytes(shape[0], shape[1]).unwrap()];
        quantize(quant, shape[1], &values(matrix.clone()), &mut data);
        let options = (&Default::default(), DType::U8);
        let len = data.len();
        Weight::Quantized(Quantized {
            data: Tensor::from_data(TensorData::new(data, [len]), options),
            quant,
            shape,
        })
    }

    #[test]
    fn rows_of_a_quantized_table_are_its_weights() {
        let table = noise([40, 70], 18);
        for (quant, tolerance) in [(Quant::Q8, 0.005), (Quant::Q4, 0.13)] {
            let Weight::Quantized(codes) = quantized(&table, quant) else {
                unreachable!("it was quantized");
            };
            let ids = [39, 0, 17, 17];
            let found = values(Flex::look_up(&codes, &ids));
            assert_eq!(found, values(look_up(&codes, &ids)));
            for (row, id) in found.chunks(70).zip(ids) {
                let id = id as usize;
                let expected = values(table.clone().narrow(0, id, 1));
                let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
                assert_close(row, &expected, tolerance);
            }
        }
    }

    /// What a backend runs instead of this module's other operations, on views too.
    #[test]
    fn a_backends_own_layers_are_the_plain_ones() {
        let close = |found: Vec<f32>, plain: Vec<f32>, tolerance: f64| {
            let expected: Vec<f64> = plain.into_iter().map(f64::from).collect();
            assert_close(&found, &expected, tolerance);
        };
        for time in [1, 7, 40] {
            let [x, y] = [20, 21].map(|seed| noise([2, time, 48], seed) * 3.0);
            let [weight, bias] = [22, 23].map(|seed| noise([48], seed));
            let found = Flex::rms_normalize(x.clone(), &weight, 1e-5);
            close(
                values(found),
                values(rms_norm(x.clone(), &weight, 1e-5)),
                1e-5,
            );
            let found = Flex::layer_normalize(x.clone(), &weight, &bias, 1e-5);
            let plain = layer_norm(x.clone(), &weight, &bias, 1e-5);
            close(values(found), values(plain), 1e-5);
            let plain = burn_tensor::activation::gelu(x.clone());
            close(values(Flex::gelu_erf(x.clone())), values(plain), 1e-6);
            let plain = burn_tensor::activation::silu(x.clone()) * y.clone();
            close(values(Flex::swiglu(x.clone(), y)), values(plain), 1e-5);

            let heads = |seed, count| noise([2, time, count, 12], seed).swap_dims(1, 2);
            let (q, k, v) = (heads(24, 4), heads(25, 2), heads(26, 2));
            for tables in [1, time] {
                let [cos, sin] = [27, 28].map(|seed| noise([tables, 6], seed));
                let found = Flex::rotate(q.clone(), cos.clone(), sin.clone());
                close(values(found), values(rope(q.clone(), cos, sin)), 1e-6);
            }
            let window = Mask::SlidingWindow(NonZeroUsize::new(5).unwrap());
            for mask in [Mask::Full, Mask::Causal, window] {
                let plain = attention(q.clone(), k.clone(), v.clone(), mask, time);
                let found = Flex::attend(q.clone(), k.clone(), v.clone(), mask, time);
                close(values(found), values(plain), 1e-5);
            }
        }
    }

    #[test]
    fn rms_norm_is_its_definition() {
        let (x, weight, eps) = (noise([1, 2, 5], 9), noise([5], 10), 0.1);
        let found = values(rms_norm(x.clone(), &weight, eps));
        let (x, weight) = (values(x), values(weight));
        let expected: Vec<f64> = x
            .chunks(5)
            .flat_map(|row| {
                let square: f64 = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 5.0;
                let scale = 1.0 / (square + eps).sqrt();
                row.iter()
                    .zip(&weight)
                    .map(move |(&v, &g)| f64::from(v) * scale * f64::from(g))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_close(&found, &expected, 1e-6);
    }

    #[test]
    fn layer_norm_is_its_definition() {
        let (x, eps) = (noise([1, 2, 5], 11), 0.1);
        let (weight, bias) = (noise([5], 12), noise([5], 13));
        let found = values(layer_norm(x.clone(), &weight, &bias, eps));
        let (x, weight, bias) = (values(x), values(weight), values(bias));
        let expected: Vec<f64> = x
            .chunks(5)
            .flat_map(|row| {
                let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / 5.0;
                let variance = row
                    .iter()
                    .map(|&v| (f64::from(v) - mean).powi(2))
                    .sum::<f64>()
                    / 5.0;
                let scale = 1.0 / (variance + eps).sqrt();
                (0..5)
                    .map(|i| {
                        (f64::from(row[i]) - mean) * scale * f64::from(weight[i])
                            + f64::from(bias[i])
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_close(&found, &expected, 1e-6);
    }
}
