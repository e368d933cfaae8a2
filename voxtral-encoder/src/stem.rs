//! The convolutional stem: `gelu(conv₂(gelu(conv₁(mel))))`, kernels of 3, strides of 1 and 2.

use burn_tensor::{DType, Tensor, module::conv1d, ops::PaddedConvOptions};
use voxtral_checkpoint::config::{ConvPadding, EncoderConfig};
use voxtral_nn::{Backend, Loader, NnError};

/// Frames that one output of either convolution covers; part of the architecture.
const KERNEL: usize = 3;

/// Mel frames per frame behind the stem; part of the architecture.
pub const STEM_STRIDE: usize = 2;

/// Two convolutions that halve the frame rate.
#[derive(Debug, Clone)]
pub struct ConvStem<B: Backend> {
    first: Conv<B>,
    second: Conv<B>,
}

impl<B: Backend> ConvStem<B> {
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
            second: load("encoder.conv2", hidden_size, STEM_STRIDE)?,
        })
    }

    /// `[windows, mel, frames]` → `[windows, frames / 2, width]`.
    pub fn forward(&self, mel: Tensor<B, 3>) -> Tensor<B, 3> {
        let h = B::gelu_erf(self.first.forward(mel));
        B::gelu_erf(self.second.forward(h)).swap_dims(1, 2)
    }

    /// The same for the next frames of a stream, an even number of them: `state` stands for those
    /// before. Both convolutions must be causal.
    pub(crate) fn stream(&self, mel: Tensor<B, 3>, state: &mut StemState<B>) -> Tensor<B, 3> {
        let h = B::gelu_erf(self.first.stream(mel, &mut state.first));
        B::gelu_erf(self.second.stream(h, &mut state.second)).swap_dims(1, 2)
    }

    /// The state at the beginning of a stream.
    pub(crate) fn new_state(&self) -> StemState<B> {
        StemState {
            first: self.first.silence(),
            second: self.second.silence(),
        }
    }
}

/// The last inputs of both convolutions: two mel frames and one frame in between.
#[derive(Debug)]
pub(crate) struct StemState<B: Backend> {
    first: Tensor<B, 3>,
    second: Tensor<B, 3>,
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
        self.padded(x, left, right)
    }

    /// The outputs that end in `x`, given the inputs before it, which are then replaced.
    fn stream(&self, x: Tensor<B, 3>, before: &mut Tensor<B, 3>) -> Tensor<B, 3> {
        let x = Tensor::cat(vec![before.clone(), x], 2);
        let [_, _, frames] = x.dims();
        *before = x.clone().slice_dim(2, frames - (KERNEL - self.stride)..);
        self.padded(x, 0, 0)
    }

    /// The zeros that stand before a stream.
    fn silence(&self) -> Tensor<B, 3> {
        let [_, input, _] = self.weight.dims();
        let options = (&self.weight.device(), DType::F32);
        Tensor::zeros([1, input, KERNEL - self.stride], options)
    }

    fn padded(&self, x: Tensor<B, 3>, left: usize, right: usize) -> Tensor<B, 3> {
        let options = PaddedConvOptions::asymmetric([self.stride], [left], [right], [1], 1);
        conv1d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}
