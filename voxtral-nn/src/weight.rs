//! Matrices as a backend holds them.

use burn_tensor::{DType, Int, Tensor};
use voxtral_checkpoint::Quant;

use crate::Backend;

/// The matrix of a linear layer or a table, `[out, in]`.
#[derive(Debug, Clone)]
pub enum Weight<B: Backend> {
    /// Floats of any precision.
    Float(Tensor<B, 2>),
    /// Codes and scales.
    Quantized(Quantized<B>),
}

/// A quantized matrix.
#[derive(Debug, Clone)]
pub struct Quantized<B: Backend> {
    /// Panels of codes and scales, byte by byte.
    pub data: Tensor<B, 1, Int>,
    /// Their format.
    pub quant: Quant,
    /// `[out, in]` of the matrix.
    pub shape: [usize; 2],
}

impl<B: Backend> Weight<B> {
    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(matrix) => matrix.dims(),
            Self::Quantized(matrix) => matrix.shape,
        }
    }

    /// How its elements are stored; bytes where it is quantized.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Float(matrix) => matrix.dtype(),
            Self::Quantized(matrix) => matrix.data.dtype(),
        }
    }

    /// Where it is placed.
    pub fn device(&self) -> B::Device {
        match self {
            Self::Float(matrix) => matrix.device(),
            Self::Quantized(matrix) => matrix.data.device(),
        }
    }
}
