//! Tiles, which few machines have, by their model in plain Rust, against attention in `f32`.

use std::num::NonZeroUsize;

use half::bf16;

use super::*;
use crate::attention::{AttentionShape, KeysValues, Mask};
use crate::buffer::Shared;
use crate::{Isa, Kernels, Strided, Strides};

/// Numbers without a pattern, in [-1, 1).
fn noise(count: usize, seed: f64) -> Vec<f32> {
    (0..count)
        .map(|i| (2.0 * ((i as f64 + seed).sin() * 43_758.545_3).fract().abs() - 1.0) as f32)
        .collect()
}

struct Case {
    shape: AttentionShape,
    mask: Mask,
    end: usize,
    strides: [Strides; 2],
    q: Vec<f32>,
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl Case {
    /// The result of tiles, and that in `f32`.
    fn run<M: Micro<Word = Bf16Word>>(&self, micro: M) -> [Vec<f32>; 2] {
        let held = |elements| Strided {
            elements,
            strides: self.strides[1],
        };
        let cache = KeysValues {
            keys: held(&self.keys[..]),
            values: held(&self.values[..]),
        };
        let q = Strided {
            elements: &self.q[..],
            strides: self.strides[0],
        };
        let mut results = [vec![f32::NAN; self.q.len()], vec![f32::NAN; self.q.len()]];
        let [found, expected] = &mut results;
        let of = Attend {
            shape: self.shape,
            mask: self.mask,
            end: self.end,
            q,
            cache,
            out: Shared::new(found),
            to: self.strides[0],
        };
        prefill(micro, of);
        Kernels::new(Isa::Portable).unwrap().run(Attend {
            out: Shared::new(expected),
            ..of
        });
        results
    }

    /// As the tests of all instruction sets have it: queries and weights are off by `2⁻⁸` at most,
    /// which the exponential turns into twice that of a score's terms. Here values are at most 1,
    /// and so are scores of `f32`, but for some roundings.
    #[track_caller]
    fn check<M: Micro<Word = Bf16Word>>(&mut self, micro: M) {
        let size = (self.shape.head_dim as f64).sqrt();
        let few = 1e-5 * (1.0 + size);
        // Queries that are rounded, then such as are bfloat16 already, and then equal weights,
        // which are not rounded either.
        let exact: Vec<f32> = (self.q.iter())
            .map(|&q| bf16::from_f32(q).to_f32())
            .collect();
        let zeros = vec![0.0; exact.len()];
        let u = 1.0 / 256.0;
        let rounded = (2.0 * size * u).exp() * (1.0 + u) - 1.0;
        for (q, tolerance) in [(self.q.clone(), rounded), (exact, u), (zeros, 0.0)] {
            self.q = q;
            let [found, expected] = self.run(micro);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let error = f64::from((found - expected).abs());
                assert!(
                    error <= tolerance + few,
                    "{:?} {:?} end {}, element {i}: {found} instead of {expected}, tolerance \
                     {tolerance:e}",
                    self.shape,
                    self.mask,
                    self.end
                );
            }
        }
    }
}

#[test]
fn tiles_attend() {
    let Some(tiles) = crate::amx::tests::model() else {
        return;
    };
    let window = |n| NonZeroUsize::new(n).map_or(Mask::Causal, Mask::SlidingWindow);
    let shapes = [
        ([1, 1], 9, 9, 9, 64, Mask::Full),
        ([2, 1], 33, 33, 33, 2, Mask::Causal),
        ([4, 2], 70, 300, 300, 40, window(90)),
        ([3, 3], 20, 200, 431, 128, Mask::Full),
        ([6, 2], 45, 150, 1000, 96, window(70)),
        ([1, 1], 12, 140, 140, 512, Mask::Causal),
        ([4, 1], 40, 7, 50, 24, Mask::Causal),
    ];
    for (turn, ([heads, kv_heads], queries, keys, end, head_dim, mask)) in
        shapes.into_iter().enumerate()
    {
        let narrow = |values: Vec<f32>| -> Vec<u16> {
            values
                .into_iter()
                .map(|value| bf16::from_f32(value).to_bits())
                .collect()
        };
        let batch = 1 + turn % 2;
        let held = batch * kv_heads * keys * head_dim;
        let mut case = Case {
            shape: AttentionShape {
                batch,
                heads,
                kv_heads,
                queries,
                keys,
                head_dim,
            },
            mask,
            end,
            strides: match turn % 3 {
                0 => [
                    Strides::heads_first(heads, queries, head_dim),
                    Strides::time_first(keys, kv_heads, head_dim),
                ],
                _ => [
                    Strides::time_first(queries, heads, head_dim),
                    Strides::heads_first(kv_heads, keys, head_dim),
                ],
            },
            q: noise(batch * heads * queries * head_dim, 0.1),
            keys: narrow(noise(held, 0.3)),
            values: narrow(noise(held, 0.7)),
        };
        case.check(tiles);
    }
}
