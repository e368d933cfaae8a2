//! The seam between the model and its speed.

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::Mask;

use crate::{Quantized, Weight, plain};

/// A Burn backend that can run the Voxtral layers.
///
/// Every operation has a default body in plain Burn operations ([`plain`]); a backend overrides
/// what it can do faster. Overrides must agree with the default bodies, which are their oracle.
// Verbs, since Burn already uses the nouns for operations of other shapes.
pub trait Backend: burn_tensor::backend::Backend {
    /// Called before the first tensor of a model is made, from any thread, any number of times.
    fn prepare() {}

    /// The precision in which a product with a weight of `dtype` is computed: [`DType::F32`]
    /// widens the weight block by block, the weight's own precision rounds the input to it.
    #[must_use]
    fn matmul_dtype(_dtype: DType) -> DType {
        DType::F32
    }

    /// Whether products with a quantized weight run on its codes. Elsewhere weights are dequantized
    /// when they are loaded.
    const MULTIPLIES_QUANTIZED: bool = false;

    /// The precision of keys and values beside matrices of this one (bytes are quantized ones).
    #[must_use]
    fn cache_dtype(_matrices: DType) -> DType {
        DType::F32
    }

    /// Keys or values that no cache holds, in the precision in which one would hold them, where
    /// attention is faster with it.
    #[must_use]
    fn hold(x: Tensor<Self, 4>, _dtype: DType) -> Tensor<Self, 4> {
        x
    }

    /// Writes `new`, `[batch, heads, count, d]`, into `memory`, `[batch, heads, capacity, d]`,
    /// from position `start` on; in place where `memory` has no other owner.
    #[must_use]
    fn write(memory: Tensor<Self, 4>, start: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [batch, heads, count, d] = new.dims();
        memory.slice_assign([0..batch, 0..heads, start..start + count, 0..d], new)
    }

    /// `x Wᵀ + b`: `x` is `[rows, in]`, `weight` `[out, in]`, `bias` `[out]`; gives `[rows, out]`.
    #[must_use]
    fn project(
        x: Tensor<Self, 2>,
        weight: &Weight<Self>,
        bias: Option<&Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        plain::linear(x, weight, bias)
    }

    /// Rows of a quantized table, `[ids, width]`; all ids are within it.
    #[must_use]
    fn look_up(table: &Quantized<Self>, ids: &[u32]) -> Tensor<Self, 2> {
        plain::look_up(table, ids)
    }

    /// Scaled dot-product attention, see [`plain::attention`].
    #[must_use]
    fn attend(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        mask: Mask,
        end: usize,
    ) -> Tensor<Self, 4> {
        plain::attention(q, k, v, mask, end)
    }

    /// RMS norm over the last dimension, see [`plain::rms_norm`].
    #[must_use]
    fn rms_normalize(x: Tensor<Self, 3>, weight: &Tensor<Self, 1>, eps: f64) -> Tensor<Self, 3> {
        plain::rms_norm(x, weight, eps)
    }

    /// Layer norm over the last dimension, see [`plain::layer_norm`].
    #[must_use]
    fn layer_normalize(
        x: Tensor<Self, 3>,
        weight: &Tensor<Self, 1>,
        bias: &Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, 3> {
        plain::layer_norm(x, weight, bias, eps)
    }

    /// `½ x (1 + erf(x / √2))`, the exact form, not the tanh approximation.
    #[must_use]
    fn gelu_erf(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        burn_tensor::activation::gelu(x)
    }

    /// `silu(gate) ⊙ up`.
    #[must_use]
    fn swiglu(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        burn_tensor::activation::silu(gate) * up
    }

    /// Rotary position embedding, see [`plain::rope`].
    #[must_use]
    fn rotate(x: Tensor<Self, 4>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 4> {
        plain::rope(x, cos, sin)
    }
}

#[cfg(feature = "ndarray")]
impl Backend for burn_ndarray::NdArray {}

/// Every CubeCL runtime (wgpu, Vulkan, Metal, CUDA): products run in the weights' own precision.
#[cfg(feature = "cubecl")]
impl<R, F, I, BT> Backend for burn_cubecl::CubeBackend<R, F, I, BT>
where
    Self: burn_tensor::backend::Backend,
    R: burn_cubecl::CubeRuntime,
    F: burn_cubecl::FloatElement,
    I: burn_cubecl::IntElement,
    BT: burn_cubecl::element::BoolElement,
{
    fn prepare() {
        one_stream();
    }

    fn matmul_dtype(dtype: DType) -> DType {
        dtype
    }
}

/// Lets the work of all threads pass through one stream, unless the program chose its own
/// configuration or has used the device already.
///
/// With a stream for each thread, as is CubeCL's default, wgpu now and then gives wrong values in
/// version 0.10: memory of one stream is written while another still reads it. One device runs one
/// stream at a time in any case.
#[cfg(feature = "cubecl")]
fn one_stream() {
    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::storage().lock();
    if config.is_none() {
        let mut chosen = CubeClRuntimeConfig::from_current_dir().override_from_env();
        chosen.streaming.max_streams = 1;
        *config = Some(chosen.into());
    }
}
