//! Burn's default CPU backend, whose hot operations run in our own kernels.
//!
//! Burn's are of one thread or scalar in many places, copy the KV cache for every token, and widen
//! weights as a whole; `cargo bench -p voxtral-nn` holds each against the kernel.

use std::sync::LazyLock;

use burn_flex::{Flex, FlexTensor, Layout};
use burn_tensor::{Bytes, DType, Int, Tensor, TensorPrimitive, bf16, f16};
use voxtral_checkpoint::config::Mask;
use voxtral_kernels::machine::Arithmetic;
use voxtral_kernels::{
    AttentionShape, Cache, Kernels, KeysValues, LayerError, Shape, ShapeError, Strided, Strides,
    dequantize,
};

use crate::{Backend, Quantized, Weight, plain};

/// The kernels of this processor, or those that the environment asks for.
static KERNELS: LazyLock<Kernels> = LazyLock::new(|| {
    Kernels::from_env().unwrap_or_else(|error| {
        tracing::warn!("{error}: taking the best");
        Kernels::detect()
    })
});

impl Backend for Flex {
    const MULTIPLIES_QUANTIZED: bool = true;

    fn cache_dtype(matrices: DType) -> DType {
        match matrices {
            // Eight bits of every key are what the weights that made it have, or more.
            DType::BF16 | DType::U8 => DType::BF16,
            _ => DType::F32,
        }
    }

    fn hold(x: Tensor<Self, 4>, dtype: DType) -> Tensor<Self, 4> {
        let multiplies = Arithmetic::of_bf16(KERNELS.isa()) != Arithmetic::F32;
        if dtype != DType::BF16 || !multiplies {
            return x;
        }
        let mut x = primitive(x);
        if x.layout().start_offset() != 0 || x.storage::<f32>().len() != x.layout().num_elements() {
            x = x.to_contiguous();
        }
        // In whatever order the elements lie, they keep it.
        let mut bits = vec![bf16::ZERO; x.layout().num_elements()];
        expect(KERNELS.narrow(x.storage::<f32>(), bytemuck::cast_slice_mut(&mut bits)));
        let layout = x.layout().clone();
        tensor(FlexTensor::new(
            Bytes::from_elems(bits),
            layout,
            DType::BF16,
        ))
    }

    fn write(memory: Tensor<Self, 4>, start: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [_, heads, count, d] = new.dims();
        let capacity = memory.dims()[2];
        // Keys that were rotated as a whole may lie in another order.
        let mut memory = whole(memory);
        let new = rows(primitive(new));
        let from = elements_from::<f32>(&new);
        let strides = strides(&new);
        let batches = new.layout().shape()[0];
        let positions = (0..batches * heads).flat_map(|h| (0..count).map(move |t| (h, t)));
        let places = positions.map(|(head, time)| {
            let (batch, of) = (head / heads, head % heads);
            let from = batch * strides.batch + of * strides.heads + time * strides.time;
            (from, (head * capacity + start + time) * d)
        });
        if memory.dtype() == DType::BF16 {
            let target: &mut [u16] = bytemuck::cast_slice_mut(memory.storage_mut::<bf16>());
            for (at, to) in places {
                expect(KERNELS.narrow(&from[at..at + d], &mut target[to..to + d]));
            }
        } else {
            let target = memory.storage_mut::<f32>();
            for (at, to) in places {
                target[to..to + d].copy_from_slice(&from[at..at + d]);
            }
        }
        tensor(memory)
    }

    fn project(
        x: Tensor<Self, 2>,
        weight: &Weight<Self>,
        bias: Option<&Tensor<Self, 1>>,
    ) -> Tensor<Self, 2> {
        let [rows, inputs] = x.dims();
        let [outputs, _] = weight.dims();
        let shape = Shape {
            rows,
            inputs,
            outputs,
        };
        match weight {
            Weight::Float(matrix) => {
                let stored = primitive(matrix.clone());
                if !stored.layout().is_contiguous() || x.dtype() != DType::F32 {
                    return plain::linear(x, weight, bias);
                }
                let weight = match stored.dtype() {
                    DType::BF16 => {
                        let bits = bytemuck::cast_slice(elements::<bf16>(&stored));
                        voxtral_kernels::Weight::Bf16(bits)
                    }
                    DType::F16 => {
                        let bits = bytemuck::cast_slice(elements::<f16>(&stored));
                        voxtral_kernels::Weight::F16(bits)
                    }
                    _ => voxtral_kernels::Weight::F32(elements(&stored)),
                };
                multiply(shape, x, weight, bias)
            }
            Weight::Quantized(matrix) => {
                let data = codes(matrix);
                let codes = elements::<u8>(&data);
                let weight = voxtral_kernels::Weight::Quantized(matrix.quant, codes);
                multiply(shape, x, weight, bias)
            }
        }
    }

    fn look_up(table: &Quantized<Self>, ids: &[u32]) -> Tensor<Self, 2> {
        let [_, width] = table.shape;
        let data = codes(table);
        let codes = elements::<u8>(&data);
        let mut out = vec![0.0; ids.len() * width];
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(width)) {
            let id = id as usize;
            dequantize(table.quant, width, codes, id..id + 1, row);
        }
        made(out, [ids.len(), width])
    }

    fn attend(
        q: Tensor<Self, 4>,
        k: Tensor<Self, 4>,
        v: Tensor<Self, 4>,
        mask: Mask,
        end: usize,
    ) -> Tensor<Self, 4> {
        let [batch, heads, queries, head_dim] = q.dims();
        let [_, kv_heads, keys, _] = k.dims();
        let shape = AttentionShape {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
        };
        let mask = match mask {
            Mask::Full => voxtral_kernels::Mask::Full,
            Mask::Causal => voxtral_kernels::Mask::Causal,
            Mask::SlidingWindow(window) => voxtral_kernels::Mask::SlidingWindow(window),
        };
        let (q, k, v) = (rows(primitive(q)), rows(primitive(k)), rows(primitive(v)));
        let cache = match k.dtype() {
            DType::BF16 => Cache::Bf16(KeysValues {
                keys: strided::<bf16, u16>(&k),
                values: strided::<bf16, u16>(&v),
            }),
            _ => Cache::F32(KeysValues {
                keys: strided::<f32, f32>(&k),
                values: strided::<f32, f32>(&v),
            }),
        };
        let q = strided::<f32, f32>(&q);
        time_first([batch, heads, queries, head_dim], |out| {
            KERNELS.attend(shape, q, cache, mask, end, out)
        })
    }

    fn rms_normalize(x: Tensor<Self, 3>, weight: &Tensor<Self, 1>, eps: f64) -> Tensor<Self, 3> {
        let dims = x.dims();
        let (x, weight) = (whole(x), whole(weight.clone()));
        let mut out = vec![0.0; dims.iter().product()];
        let found = KERNELS.rms_norm(elements(&x), elements(&weight), eps, &mut out);
        expect(found);
        made(out, dims)
    }

    fn layer_normalize(
        x: Tensor<Self, 3>,
        weight: &Tensor<Self, 1>,
        bias: &Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, 3> {
        let dims = x.dims();
        let (x, weight, bias) = (whole(x), whole(weight.clone()), whole(bias.clone()));
        let mut out = vec![0.0; dims.iter().product()];
        let (weight, bias) = (elements(&weight), elements(&bias));
        expect(KERNELS.layer_norm(elements(&x), weight, bias, eps, &mut out));
        made(out, dims)
    }

    fn gelu_erf(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let mut x = whole(x);
        KERNELS.gelu(elements_mut(&mut x));
        tensor(x)
    }

    fn swiglu(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        let (mut gate, up) = (whole(gate), whole(up));
        expect(KERNELS.swiglu(elements_mut(&mut gate), elements(&up)));
        tensor(gate)
    }

    fn rotate(x: Tensor<Self, 4>, cos: Tensor<Self, 2>, sin: Tensor<Self, 2>) -> Tensor<Self, 4> {
        let dims = x.dims();
        let (x, cos, sin) = (rows(primitive(x)), whole(cos), whole(sin));
        if x.dtype() == DType::BF16 {
            return turned(x.to_contiguous(), elements(&cos), elements(&sin));
        }
        let (x, cos, sin) = (strided::<f32, f32>(&x), elements(&cos), elements(&sin));
        time_first(dims, |out| KERNELS.rotate(dims, x, cos, sin, out))
    }
}

/// Rotates keys of a cache, which stay in bfloat16 and where they are.
fn turned(mut keys: FlexTensor, cos: &[f32], sin: &[f32]) -> Tensor<Flex, 4> {
    let &[batch, heads, time, d] = &keys.layout().shape()[..] else {
        unreachable!("keys have four dimensions");
    };
    let bits: &mut [u16] = bytemuck::cast_slice_mut(keys.storage_mut::<bf16>());
    let mut wide = vec![0.0; time * d];
    let mut rotated = vec![0.0; time * d];
    let strides = Strides::heads_first(1, time, d);
    for bits in bits.chunks_exact_mut(time * d).take(batch * heads) {
        for (wide, bits) in wide.iter_mut().zip(&*bits) {
            *wide = bf16::from_bits(*bits).to_f32();
        }
        let x = Strided {
            elements: &wide[..],
            strides,
        };
        let out = Strided {
            elements: &mut rotated[..],
            strides,
        };
        expect(KERNELS.rotate([1, 1, time, d], x, cos, sin, out));
        expect(KERNELS.narrow(&rotated, bits));
    }
    tensor(keys)
}

/// Layers check their shapes when they are loaded and when they are called.
fn expect(result: Result<(), LayerError>) {
    if let Err(error) = result {
        unreachable!("layers check their shapes: {error}");
    }
}

fn multiply(
    shape: Shape,
    x: Tensor<Flex, 2>,
    weight: voxtral_kernels::Weight<'_>,
    bias: Option<&Tensor<Flex, 1>>,
) -> Tensor<Flex, 2> {
    let x = whole(x);
    let bias = bias.map(|bias| whole(bias.clone()));
    let bias = bias.as_ref().map(elements);
    let mut out = vec![0.0; shape.rows * shape.outputs];
    let found: Result<(), ShapeError> =
        KERNELS.project(shape, elements(&x), weight, bias, &mut out);
    if let Err(error) = found {
        unreachable!("layers check their shapes: {error}");
    }
    made(out, [shape.rows, shape.outputs])
}

fn primitive<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    tensor.into_primitive().tensor()
}

fn tensor<const D: usize>(primitive: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The bytes of a quantized matrix.
fn codes(matrix: &Quantized<Flex>) -> FlexTensor {
    let data: Tensor<Flex, 1, Int> = matrix.data.clone();
    data.into_primitive().to_contiguous()
}

/// A tensor of new values.
fn made<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Tensor<Flex, D> {
    let layout = Layout::contiguous(dims.into());
    tensor(FlexTensor::new(
        Bytes::from_elems(values),
        layout,
        DType::F32,
    ))
}

/// A tensor `[batch, heads, time, d]` of new values that lie `[batch, time, heads, d]`, as the
/// projections before and after it have them.
fn time_first(
    [batch, heads, time, d]: [usize; 4],
    compute: impl FnOnce(Strided<&mut [f32]>) -> Result<(), LayerError>,
) -> Tensor<Flex, 4> {
    let mut out = vec![0.0; batch * heads * time * d];
    expect(compute(Strided {
        elements: &mut out,
        strides: Strides::time_first(time, heads, d),
    }));
    made(out, [batch, time, heads, d]).swap_dims(1, 2)
}

/// The tensor, copied if its elements do not follow each other.
fn whole<const D: usize>(tensor: Tensor<Flex, D>) -> FlexTensor {
    primitive(tensor).to_contiguous()
}

/// The elements of a contiguous tensor.
fn elements<E: burn_tensor::Element + bytemuck::Pod>(tensor: &FlexTensor) -> &[E] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<E>()[start..start + tensor.layout().num_elements()]
}

/// The elements of a contiguous tensor, copied if it has another owner.
fn elements_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, len) = (
        tensor.layout().start_offset(),
        tensor.layout().num_elements(),
    );
    &mut tensor.storage_mut::<f32>()[start..start + len]
}

/// A tensor `[batch, heads, time, d]`, copied if its rows do not lie whole and in order.
fn rows(tensor: FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    let fits = strides.iter().all(|&stride| stride >= 0) && strides.last() == Some(&1);
    if fits { tensor } else { tensor.to_contiguous() }
}

fn strides(tensor: &FlexTensor) -> Strides {
    let strides = tensor.layout().strides();
    let [batch, heads, time] = [0, 1, 2].map(|i| strides[i].unsigned_abs());
    Strides { batch, heads, time }
}

/// What lies from the first element on.
fn elements_from<E: burn_tensor::Element + bytemuck::Pod>(tensor: &FlexTensor) -> &[E] {
    &tensor.storage::<E>()[tensor.layout().start_offset()..]
}

/// Rows with their strides, `E` as the kernels' `K` of the same size.
fn strided<E, K>(tensor: &FlexTensor) -> Strided<&[K]>
where
    E: burn_tensor::Element + bytemuck::Pod,
    K: bytemuck::Pod,
{
    Strided {
        elements: bytemuck::cast_slice(elements_from::<E>(tensor)),
        strides: strides(tensor),
    }
}
