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
        Self::tables(positions.map(|t| t as f64), head_dim, theta, device)
    }

    /// Tables of one row, which turn any number of vectors back by so many positions.
    pub fn backward(positions: usize, head_dim: usize, theta: f64, device: &B::Device) -> Self {
        let back = -(positions as f64);
        Self::tables(std::iter::once(back), head_dim, theta, device)
    }

    fn tables(
        positions: impl ExactSizeIterator<Item = f64> + Clone,
        head_dim: usize,
        theta: f64,
        device: &B::Device,
    ) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|j| theta.powf(-2.0 * j as f64 / head_dim as f64))
            .collect();
        let shape = [positions.len(), half];
        let table = |f: fn(f64) -> f64| {
            let angles = positions
                .clone()
                .flat_map(|t| frequencies.iter().map(move |frequency| t * frequency));
            let values: Vec<f32> = angles.map(|angle| f(angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Positions that it has angles for.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Rotates `[batch, heads, time, head_dim]`, whose time is that of the tables, or any where
    /// they have one row.
    pub fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        B::rotate(x, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;

    fn rotate(x: [f32; 4], position: usize) -> Vec<f32> {
        let device = Default::default();
        let x = Tensor::<Flex, 1>::from_floats(x, &device).reshape([1, 1, 1, 4]);
        let rotary = Rotary::new(position..position + 1, 4, 100.0, &device);
        rotary.rotate(x).into_data().into_vec().unwrap()
    }

    #[test]
    fn halves_turn_by_their_angles() {
        // Pairs (x0, x2) at angle t and (x1, x3) at angle t · 100^(-1/2).
        let found = rotate([1.0, 2.0, 3.0, 4.0], 7);
        let turn = |a: f64, b: f64, angle: f64| {
            let (sin, cos) = angle.sin_cos();
            [a * cos - b * sin, b * cos + a * sin]
        };
        let (first, second) = (turn(1.0, 3.0, 7.0), turn(2.0, 4.0, 0.7));
        let expected = [first[0], second[0], first[1], second[1]];
        for (x, y) in found.iter().zip(expected) {
            assert!((f64::from(*x) - y).abs() < 1e-6, "{x} instead of {y}");
        }
    }

    #[test]
    fn products_depend_on_the_distance_alone() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let (q, k) = ([0.3, -0.2, 0.9, 0.4], [0.5, 0.1, -0.7, 0.6]);
        let near = dot(&rotate(q, 12), &rotate(k, 5));
        // Far out, where angles computed in f32 would be off by a thousandth.
        let far = dot(&rotate(q, 100_012), &rotate(k, 100_005));
        assert!((near - far).abs() < 1e-5, "{near} and {far}");
    }
}
