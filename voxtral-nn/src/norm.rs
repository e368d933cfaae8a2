//! Normalisation before a block.

use burn_tensor::Tensor;
use voxtral_checkpoint::config;

use crate::{Backend, Loader, NnError};

/// Layer norm or RMS norm over the width, as the configuration says.
#[derive(Debug, Clone)]
pub enum Norm<B: Backend> {
    /// See [`plain::layer_norm`](crate::plain::layer_norm).
    Layer {
        /// Gain, `[width]`.
        weight: Tensor<B, 1>,
        /// Offset, `[width]`.
        bias: Tensor<B, 1>,
        /// Added to the variance.
        eps: f64,
    },
    /// See [`plain::rms_norm`](crate::plain::rms_norm).
    Rms {
        /// Gain, `[width]`.
        weight: Tensor<B, 1>,
        /// Added to the mean square.
        eps: f64,
    },
}

impl<B: Backend> Norm<B> {
    /// Loads `{name}.weight` and, for a layer norm, `{name}.bias`.
    pub fn load(
        loader: &Loader<'_, B>,
        name: &str,
        kind: config::Norm,
        width: usize,
    ) -> Result<Self, NnError> {
        let weight = loader.float(&format!("{name}.weight"), [width])?;
        Ok(match kind {
            config::Norm::Layer { eps } => Self::Layer {
                weight,
                bias: loader.float(&format!("{name}.bias"), [width])?,
                eps,
            },
            config::Norm::Rms { eps } => Self::Rms { weight, eps },
        })
    }

    /// The same norm with its gain multiplied by `scale`, `[width]`.
    #[must_use]
    pub fn scaled(&self, scale: Tensor<B, 1>) -> Self {
        let mut scaled = self.clone();
        let (Self::Layer { weight, .. } | Self::Rms { weight, .. }) = &mut scaled;
        *weight = weight.clone() * scale;
        scaled
    }

    /// `[batch, time, width]` → the same shape.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Layer { weight, bias, eps } => B::layer_normalize(x, weight, bias, *eps),
            Self::Rms { weight, eps } => B::rms_normalize(x, weight, *eps),
        }
    }
}
