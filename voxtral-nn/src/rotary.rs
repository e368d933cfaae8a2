//! Cosines and sines of the rotary position embedding.

use std::ops::Range;

use burn_tensor::{DType, Tensor, TensorData};

use crate::Backend;

/// The angles `t · θ^(−2j/d)` of positions `t`, for pairs `j` of a head of size `d`.
///
/// They are computed in `f64`: in `f32` the product of a large position and a frequency near one
/// would be wrong in the third decimal.
#[derive(Debug, Clone)]
pub struct Rotary<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
}

impl<B: Backend> Rotary<B> {
    /// Tables for these positions, each `[positions, head_dim / 2]`.
    pub fn new(positions: Range<usize>, head_dim: usize, theta: f64, device: &B::Device) -> Self {
        let half = head_dim / 2;
        let shape = [positions.len(), half];
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = positions
                .clone()
                .flat_map(|t| (0..half).map(move |j| (t, j)))
                .map(|(t, j)| {
                    let frequency = theta.powf(-2.0 * j as f64 / head_dim as f64);
                    f(t as f64 * frequency) as f32
                })
                .collect();
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates `[batch, heads, time, head_dim]`, whose time is that of the tables.
    pub fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        B::rotate(x, self.cos.clone(), self.sin.clone())
    }
}
