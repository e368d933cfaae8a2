//! `x Wᵀ + b`: shapes, and which kernel computes which.

use crate::buffer::Shared;
use crate::format::{Bf16, F16, F32, Format};
use crate::gemm::gemm;
use crate::gemv::{GROUP, Gemv};
use crate::simd::Simd;
use crate::threads::for_each_part;

/// The largest number of rows that is a few. Beyond, weights are widened for all rows at once.
const FEW_ROWS: usize = 8;

/// Bytes of weights that a thread takes at a time.
const PART_BYTES: usize = 1 << 16;

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

/// A weight as it is stored, one row of inputs for each output.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// The bits of bfloat16.
    Bf16(&'a [u16]),
    /// The bits of IEEE binary16.
    F16(&'a [u16]),
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

impl Weight<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(bits) | Self::F16(bits) => bits.len(),
        }
    }
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
        let operands = [
            ("x", x.len(), [rows, inputs]),
            ("weight", weight.len(), [outputs, inputs]),
            ("bias", bias.map_or(outputs, <[f32]>::len), [1, outputs]),
            ("out", out.len(), [rows, outputs]),
        ];
        for (operand, found, expected) in operands {
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

/// The operands of a product, whose lengths are those of its shape.
pub(crate) struct Product<'a, F: Format> {
    pub(crate) shape: Shape,
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [F::Bits],
    pub(crate) bias: Option<&'a [f32]>,
}

impl<F: Format> Clone for Product<'_, F> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Format> Copy for Product<'_, F> {}

impl<F: Format> Product<'_, F> {
    pub(crate) fn multiplications(&self) -> usize {
        let Shape {
            rows,
            inputs,
            outputs,
        } = self.shape;
        rows.saturating_mul(inputs).saturating_mul(outputs)
    }
}

/// Computes a product whose shape has been checked.
pub(crate) fn compute<S: Simd>(
    simd: S,
    shape: Shape,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    match weight {
        Weight::F32(weight) => multiply::<S, F32>(
            simd,
            Product {
                shape,
                x,
                weight,
                bias,
            },
            out,
        ),
        Weight::Bf16(weight) => multiply::<S, Bf16>(
            simd,
            Product {
                shape,
                x,
                weight,
                bias,
            },
            out,
        ),
        Weight::F16(weight) => multiply::<S, F16>(
            simd,
            Product {
                shape,
                x,
                weight,
                bias,
            },
            out,
        ),
    }
}

fn multiply<S: Simd, F: Format>(simd: S, product: Product<'_, F>, out: &mut [f32]) {
    let Shape {
        rows,
        inputs,
        outputs,
    } = product.shape;
    if rows == 0 || outputs == 0 {
        return;
    }
    let out = Shared::new(out);
    if inputs > 0 && rows > FEW_ROWS {
        return gemm(simd, product, out);
    }
    let groups = PART_BYTES / (GROUP * inputs * size_of::<F::Bits>()).max(1);
    let part = GROUP * groups.max(1);
    for_each_part(outputs.div_ceil(part), product.multiplications(), |i| {
        let outputs = i * part..((i + 1) * part).min(outputs);
        simd.vectorize(Gemv {
            product,
            outputs,
            out,
        });
    });
}
