//! `x Wᵀ + b`: shapes, and which kernel computes which.

use crate::buffer::Shared;
use crate::few::{Quads, few};
use crate::format::{Bf16, F16, F32, Format};
use crate::gemm::gemm;
use crate::gemv::{GROUP, Gemv};
use crate::micro::{Fma, Micro};
use crate::quant::{PANEL, Quant};
use crate::simd::Simd;
use crate::source::{Panels, Rows, Source};
use crate::threads::for_each_part;

/// The largest number of rows that is a few beside quantized weights, which lie as products of many
/// rows take them.
const FEW_CODED_ROWS: usize = 8;

/// The same beside floats. To transpose and to widen them for products of many rows pays for more.
const FEW_FLOAT_ROWS: usize = 16;

/// Bytes of weights that a thread takes at a time.
pub(crate) const PART_BYTES: usize = 1 << 16;

/// The shape of a product: `x` is `[rows, inputs]`, the weight `[outputs, inputs]`, the result
/// `[rows, outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the input and of the result.
    pub rows: usize,
    /// Columns of the input and of the weight.
    pub inputs: usize,
    /// Rows of the weight, columns of the result.
    pub outputs: usize,
}

/// A weight as it is stored, one row of inputs for each output, or panels of them.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// The bits of bfloat16.
    Bf16(&'a [u16]),
    /// The bits of IEEE binary16.
    F16(&'a [u16]),
    /// Panels of codes and scales, [`Quant::bytes`] of them.
    Quantized(Quant, &'a [u8]),
}

/// An operand that has not the number of elements that the shape asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{operand}` has {found} elements, expected {} × {} = {}",
    expected[0], expected[1], expected[0].saturating_mul(expected[1])
)]
pub struct ShapeError {
    /// `x`, `weight`, `bias` or `out`.
    pub operand: &'static str,
    /// Its number of elements.
    pub found: usize,
    /// The rows and columns that the shape asks for.
    pub expected: [usize; 2],
}

impl Shape {
    pub(crate) fn check(
        self,
        x: &[f32],
        weight: Weight<'_>,
        bias: Option<&[f32]>,
        out: &[f32],
    ) -> Result<(), ShapeError> {
        let Self {
            rows,
            inputs,
            outputs,
        } = self;
        let (weight, stored) = match weight {
            Weight::F32(values) => (values.len(), Some([outputs, inputs])),
            Weight::Bf16(bits) | Weight::F16(bits) => (bits.len(), Some([outputs, inputs])),
            Weight::Quantized(quant, data) => {
                let bytes = quant.bytes(outputs, inputs);
                (
                    data.len(),
                    bytes.map(|_| [outputs.div_ceil(PANEL), quant.panel_bytes(inputs)]),
                )
            }
        };
        let operands = [
            ("x", x.len(), Some([rows, inputs])),
            ("weight", weight, stored),
            (
                "bias",
                bias.map_or(outputs, <[f32]>::len),
                Some([1, outputs]),
            ),
            ("out", out.len(), Some([rows, outputs])),
        ];
        for (operand, found, expected) in operands {
            let expected = expected.unwrap_or([usize::MAX; 2]);
            if expected[0].checked_mul(expected[1]) != Some(found) {
                return Err(ShapeError {
                    operand,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// The operands of a product but for the weight, whose lengths are those of its shape.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) shape: Shape,
    pub(crate) x: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
}

impl Product<'_> {
    pub(crate) fn multiplications(&self) -> usize {
        let Shape {
            rows,
            inputs,
            outputs,
        } = self.shape;
        rows.saturating_mul(inputs).saturating_mul(outputs)
    }
}

/// How an instruction set computes what it has a choice for.
#[derive(Clone, Copy)]
pub(crate) struct Machine<S, N, C, Q> {
    pub(crate) simd: S,
    /// Many rows times a bfloat16 weight.
    pub(crate) narrow: N,
    /// Many rows times a quantized weight.
    pub(crate) coded: C,
    /// A few rows times a quantized weight.
    pub(crate) few: Q,
}

impl<S, N, C, Q> Machine<S, N, C, Q>
where
    S: Simd,
    N: Micro,
    C: Micro,
    Q: Quads,
    for<'a> Rows<'a, Bf16>: Source<N::Word>,
    for<'a> Panels<'a>: Source<C::Word>,
{
    /// Computes a product whose shape has been checked.
    pub(crate) fn compute(self, product: Product<'_>, weight: Weight<'_>, out: &mut [f32]) {
        let Shape {
            rows,
            inputs,
            outputs,
        } = product.shape;
        if rows == 0 || outputs == 0 {
            return;
        }
        let out = Shared::new(out);
        let exact = Fma(self.simd);
        let few_rows = match weight {
            Weight::Quantized(..) => FEW_CODED_ROWS,
            Weight::F32(_) | Weight::Bf16(_) | Weight::F16(_) => FEW_FLOAT_ROWS,
        };
        let is_few = rows <= few_rows || inputs == 0;
        match weight {
            Weight::F32(weight) if is_few => gemv::<S, F32>(self.simd, product, weight, out),
            Weight::Bf16(weight) if is_few => gemv::<S, Bf16>(self.simd, product, weight, out),
            Weight::F16(weight) if is_few => gemv::<S, F16>(self.simd, product, weight, out),
            Weight::F32(values) => gemm(exact, product, Rows::<F32> { values, inputs }, out),
            // bfloat16 words would take three of its bits.
            Weight::F16(values) => gemm(exact, product, Rows::<F16> { values, inputs }, out),
            Weight::Bf16(values) => {
                gemm(self.narrow, product, Rows::<Bf16> { values, inputs }, out);
            }
            Weight::Quantized(quant, data) => {
                let weight = Panels {
                    quant,
                    data,
                    inputs,
                };
                if is_few {
                    few(self.few, product, weight, out);
                } else {
                    gemm(self.coded, product, weight, out);
                }
            }
        }
    }
}

/// Computes a product of a few rows.
fn gemv<S: Simd, F: Format>(simd: S, product: Product<'_>, weight: &[F::Bits], out: Shared<'_>) {
    let Shape {
        inputs, outputs, ..
    } = product.shape;
    let groups = PART_BYTES / (GROUP * inputs * size_of::<F::Bits>()).max(1);
    let part = GROUP * groups.max(1);
    for_each_part(outputs.div_ceil(part), product.multiplications(), |i| {
        let outputs = i * part..((i + 1) * part).min(outputs);
        simd.vectorize(Gemv::<F> {
            product,
            weight,
            outputs,
            out,
        });
    });
}
