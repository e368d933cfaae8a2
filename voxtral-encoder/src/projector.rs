//! From encoder frames to embeddings of the decoder's width.

use burn_tensor::Tensor;
use voxtral_checkpoint::config::ProjectorConfig;
use voxtral_nn::{Backend, Linear, Loader, NnError};

/// `gelu(s W₁ᵀ) W₂ᵀ`, where `s` stacks consecutive frames: `s[t] = [h[nt], …, h[nt + n − 1]]`.
#[derive(Debug, Clone)]
pub struct Projector<B: Backend> {
    linear1: Linear<B>,
    linear2: Linear<B>,
    config: ProjectorConfig,
}

impl<B: Backend> Projector<B> {
    /// Loads `projector.linear1` and `projector.linear2`.
    ///
    /// # Errors
    /// A tensor is missing or misshapen, or the precision cannot be held.
    pub fn load(loader: &Loader<'_, B>, config: &ProjectorConfig) -> Result<Self, NnError> {
        let ProjectorConfig {
            input_size: input,
            output_size: output,
            ..
        } = *config;
        Ok(Self {
            linear1: Linear::load(loader, "projector.linear1", [output, input], false)?,
            linear2: Linear::load(loader, "projector.linear2", [output, output], false)?,
            config: config.clone(),
        })
    }

    /// `[windows, frames, width]` → `[windows, frames / downsample, decoder width]`.
    ///
    /// # Errors
    /// The frames are no multiple of the stacking.
    pub fn forward(&self, h: Tensor<B, 3>) -> Result<Tensor<B, 3>, NnError> {
        let [windows, frames, width] = h.dims();
        let downsample = self.config.downsample.get();
        if frames % downsample != 0 {
            return Err(NnError::Shape {
                subject: "encoder output",
                found: vec![windows, frames, width],
                expected: format!("[windows, n · {downsample}, {width}]"),
            });
        }
        let stacked = h.reshape([windows, frames / downsample, width * downsample]);
        Ok(self
            .linear2
            .forward(B::gelu_erf(self.linear1.forward(stacked))))
    }
}
