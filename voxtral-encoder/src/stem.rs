//! The convolutional stem: `gelu(conv₂(gelu(conv₁(mel))))`, kernels of 3, strides of 1 and 2.

use burn_tensor::{DType, Tensor, s};
use voxtral_checkpoint::config::{ConvPadding, EncoderConfig};
use voxtral_nn::{Backend, Loader, NnError, Weight};

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
        let h = B::gelu_erf(self.first.forward(mel.swap_dims(1, 2)));
        B::gelu_erf(self.second.forward(h))
    }

    /// The same for the next frames of a stream, an even number of them: `state` stands for those
    /// before. Both convolutions must be causal.
    pub(crate) fn stream(&self, mel: Tensor<B, 3>, state: &mut StemState<B>) -> Tensor<B, 3> {
        let mel = mel.swap_dims(1, 2);
        let h = B::gelu_erf(self.first.stream(mel, &mut state.first));
        B::gelu_erf(self.second.stream(h, &mut state.second))
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

/// A convolution over time with its padding: one product with the frames that each output covers
/// side by side. Frames are `[windows, time, channels]`.
#[derive(Debug, Clone)]
struct Conv<B: Backend> {
    /// `[output, KERNEL · input]`, the channels of the first frame first.
    weight: Weight<B>,
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
        let weight = loader.float(&format!("{name}.weight"), [output, input, KERNEL])?;
        let weight = weight.swap_dims(1, 2).reshape([output, KERNEL * input]);
        Ok(Self {
            weight: Weight::Float(weight),
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
        let [windows, _, channels] = x.dims();
        let zeros = |frames| Tensor::zeros([windows, frames, channels], (&x.device(), DType::F32));
        self.covered(Tensor::cat(vec![zeros(left), x.clone(), zeros(right)], 1))
    }

    /// The outputs that end in `x`, given the inputs before it, which are then replaced.
    fn stream(&self, x: Tensor<B, 3>, before: &mut Tensor<B, 3>) -> Tensor<B, 3> {
        let x = Tensor::cat(vec![before.clone(), x], 1);
        let [_, frames, _] = x.dims();
        *before = x.clone().slice_dim(1, frames - (KERNEL - self.stride)..);
        self.covered(x)
    }

    /// The zeros that stand before a stream.
    fn silence(&self) -> Tensor<B, 3> {
        let [_, covered] = self.weight.dims();
        let options = (&self.weight.device(), DType::F32);
        Tensor::zeros([1, KERNEL - self.stride, covered / KERNEL], options)
    }

    /// The outputs whose frames all are in `x`.
    fn covered(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [windows, frames, channels] = x.dims();
        let outputs = (frames - KERNEL) / self.stride + 1;
        let stride = self.stride as isize;
        let frame = |k: usize| {
            let end = k + (outputs - 1) * self.stride + 1;
            x.clone().slice(s![.., k..end; stride, ..])
        };
        let rows = Tensor::cat((0..KERNEL).map(frame).collect(), 2);
        let rows = rows.reshape([windows * outputs, KERNEL * channels]);
        let y = B::project(rows, &self.weight, Some(&self.bias));
        let [_, output] = y.dims();
        y.reshape([windows, outputs, output])
    }
}
