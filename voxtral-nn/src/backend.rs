//! The seam between the model and its speed.

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::Mask;

use crate::plain;

/// A Burn backend that can run the Voxtral layers.
///
/// Every operation has a default body in plain Burn operations ([`plain`]); a backend overrides
/// what it can do faster. Overrides must agree with the default bodies, which are their oracle.
// Verbs, since Burn already uses the nouns for operations of other shapes.
pub trait Backend: burn_tensor::backend::Backend {
    /// The precision in which a product with a weight of `dtype` is computed: [`DType::F32`]
    /// widens the weight block by block, the weight's own precision rounds the input to it.
    #[must_use]
    fn matmul_dtype(_dtype: DType) -> DType {
        DType::F32
    }

    /// A matrix in `f32`.
    #[must_use]
    fn widen(matrix: Tensor<Self, 2>) -> Tensor<Self, 2> {
        matrix.cast(DType::F32)
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
        weight: &Tensor<Self, 2>,
        bias: Option<&Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        plain::linear(x, weight, bias)
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
    fn matmul_dtype(dtype: DType) -> DType {
        dtype
    }
}

#[cfg(feature = "flex")]
mod flex {
    //! Burn's default CPU backend. Three of its operations have a direct form here: products with a
    //! weight run in our own kernels, which widen it in registers, where Burn would copy it; its
    //! cast goes through a `f64` copy on one core; its slice assignment copies the whole tensor,
    //! and every token would copy the KV cache.

    use std::sync::LazyLock;

    use burn_flex::{Flex, FlexTensor, Layout};
    use burn_tensor::{Bytes, DType, Tensor, TensorPrimitive, bf16, f16};
    use rayon::prelude::*;
    use voxtral_kernels::{Kernels, Shape, Weight};

    use crate::plain;

    /// The kernels of this processor, or those that the environment asks for.
    static KERNELS: LazyLock<Kernels> = LazyLock::new(|| {
        Kernels::from_env().unwrap_or_else(|error| {
            tracing::warn!("{error}: taking the best");
            Kernels::detect()
        })
    });

    impl super::Backend for Flex {
        fn widen(matrix: Tensor<Self, 2>) -> Tensor<Self, 2> {
            let primitive = matrix.into_primitive().tensor();
            let widened = match primitive.dtype() {
                DType::BF16 => widen_with(&primitive, bf16::to_f32),
                DType::F16 => widen_with(&primitive, f16::to_f32),
                _ => primitive,
            };
            Tensor::from_primitive(TensorPrimitive::Float(widened))
        }

        fn project(
            x: Tensor<Self, 2>,
            weight: &Tensor<Self, 2>,
            bias: Option<&Tensor<Self, 1>>,
        ) -> Tensor<Self, 2> {
            let stored = weight.clone().into_primitive().tensor();
            if !stored.layout().is_contiguous() || x.dtype() != DType::F32 {
                return plain::linear(x, weight, bias);
            }
            let [rows, inputs] = x.dims();
            let [outputs, _] = weight.dims();
            let x = x.into_primitive().tensor().to_contiguous();
            let bias = bias.map(|bias| bias.clone().into_primitive().tensor().to_contiguous());
            let shape = Shape {
                rows,
                inputs,
                outputs,
            };
            let mut out = vec![0.0_f32; rows * outputs];
            let weight = match stored.dtype() {
                DType::BF16 => Weight::Bf16(bytemuck::cast_slice(elements::<bf16>(&stored))),
                DType::F16 => Weight::F16(bytemuck::cast_slice(elements::<f16>(&stored))),
                _ => Weight::F32(elements(&stored)),
            };
            let bias = bias.as_ref().map(elements);
            // Shapes were checked when the weights were loaded and by the layers before.
            if let Err(error) = KERNELS.project(shape, elements(&x), weight, bias, &mut out) {
                unreachable!("layers check their shapes: {error}");
            }
            let layout = Layout::contiguous([rows, outputs].into());
            let product = FlexTensor::new(Bytes::from_elems(out), layout, DType::F32);
            Tensor::from_primitive(TensorPrimitive::Float(product))
        }

        fn write(memory: Tensor<Self, 4>, start: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
            let [batch, heads, count, d] = new.dims();
            let capacity = memory.dims()[2];
            let mut memory = memory.into_primitive().tensor();
            let new = new.into_primitive().tensor().to_contiguous();
            let first = new.layout().start_offset();
            let source = &new.storage::<f32>()[first..first + batch * heads * count * d];
            // A cache is created whole, so its rows lie where its shape says.
            let target = memory.storage_mut::<f32>();
            for (head, rows) in source.chunks_exact(count * d).enumerate() {
                let to = (head * capacity + start) * d;
                target[to..to + rows.len()].copy_from_slice(rows);
            }
            Tensor::from_primitive(TensorPrimitive::Float(memory))
        }
    }

    /// The elements of a contiguous tensor.
    fn elements<E: burn_tensor::Element + bytemuck::Pod>(tensor: &FlexTensor) -> &[E] {
        let start = tensor.layout().start_offset();
        &tensor.storage::<E>()[start..start + tensor.layout().num_elements()]
    }

    fn widen_with<E>(tensor: &FlexTensor, to_f32: impl Fn(E) -> f32 + Sync) -> FlexTensor
    where
        E: burn_tensor::Element + bytemuck::Pod + Sync,
    {
        /// Elements per task: enough to outweigh the scheduling.
        const BLOCK: usize = 1 << 16;

        let tensor = tensor.to_contiguous();
        let start = tensor.layout().start_offset();
        let shape = tensor.layout().shape().clone();
        let source = &tensor.storage::<E>()[start..start + tensor.layout().num_elements()];
        let mut target = vec![0.0_f32; source.len()];
        target
            .par_chunks_mut(BLOCK)
            .zip(source.par_chunks(BLOCK))
            .for_each(|(target, source)| {
                for (to, from) in target.iter_mut().zip(source) {
                    *to = to_f32(*from);
                }
            });
        FlexTensor::new(
            Bytes::from_elems(target),
            Layout::contiguous(shape),
            DType::F32,
        )
    }
}
