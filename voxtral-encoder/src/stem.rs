//! The convolutional stem: `gelu(conv₂(gelu(conv₁(mel))))`, kernels of 3, strides of 1 and 2.

use burn_tensor::{Tensor, module::conv1d, ops::PaddedConvOptions};
use voxtral_checkpoint::config::{ConvPadding, EncoderConfig};
use voxtral_nn::{Backend, Loader, NnError};

/// Frames that one output of either convolution covers; part of the architecture.
const KERNEL: usize = 3;

/// Two convolutions that halve the frame rate.
#[derive(Debug, Clone)]
pub struct ConvStem<B: Backend> {
    first: Conv<B>,
    second: Conv<B>,
}

impl<B: Backend> ConvStem<B> {
    /// Input frames per output frame.
    pub const STRIDE: usize = 2;

    /// Loads `encoder.conv1` and `encoder.conv2`.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn load(loader: &Loader<'_, B>, config: &EncoderConfig) -> Result<Self, NnError> {
        let EncoderConfig {
            num_mel_bins,
            hidden_size,
            padding,
            ..
        } = *config;
        let load =
            |name, input, stride| Conv::load(loader, name, [hidden_size, input], stride, padding);
        Ok(Self {
            first: load("encoder.conv1", num_mel_bins, 1)?,
            second: load("encoder.conv2", hidden_size, Self::STRIDE)?,
        })
    }

    /// `[windows, mel, frames]` → `[windows, frames / 2, width]`.
    pub fn forward(&self, mel: Tensor<B, 3>) -> Tensor<B, 3> {
        let h = B::gelu_erf(self.first.forward(mel));
        B::gelu_erf(self.second.forward(h)).swap_dims(1, 2)
    }
}

/// A convolution over time with its padding.
#[derive(Debug, Clone)]
struct Conv<B: Backend> {
    weight: Tensor<B, 3>,
    bias: Tensor<B, 1>,
    stride: usize,
    padding: ConvPadding,
}

impl<B: Backend> Conv<B> {
    fn load(
        loader: &Loader<'_, B>,
        name: &str,
        [output, input]: [usize; 2],
        stride: usize,
        padding: ConvPadding,
    ) -> Result<Self, NnError> {
        Ok(Self {
            weight: loader.float(&format!("{name}.weight"), [output, input, KERNEL])?,
            bias: loader.float(&format!("{name}.bias"), [output])?,
            stride,
            padding,
        })
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [left, right] = match self.padding {
            ConvPadding::Symmetric => [KERNEL / 2; 2],
            ConvPadding::Causal => [KERNEL - self.stride, 0],
        };
        let options = PaddedConvOptions::asymmetric([self.stride], [left], [right], [1], 1);
        conv1d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}
