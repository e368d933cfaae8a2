//! How the elements of a tensor are stored, and conversion between the three ways.
//!
//! Every stored type widens to F32 without loss. Narrowing rounds to nearest, ties to even, as
//! PyTorch does.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

/// How one element is stored, always little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    BF16,
}

impl Dtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        }
    }

    /// The name in a Hugging Face `config.json`.
    pub const fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    /// The type by its safetensors name; `None` for those that no Voxtral checkpoint uses.
    pub(crate) fn from_header(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::BF16]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error of parsing a [`Dtype`] from a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a storage type: expected f32, f16 or bf16")]
pub struct ParseDtypeError(String);

impl FromStr for Dtype {
    type Err = ParseDtypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_header(&text.to_ascii_uppercase())
            .ok_or_else(|| ParseDtypeError(text.to_owned()))
    }
}

impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
        }
    }
}

/// Appends the elements of `bytes`, stored as `from`, to `out`, stored as `to`.
///
/// `bytes` may lie at any address; a trailing partial element is ignored.
pub(crate) fn convert(bytes: &[u8], from: Dtype, to: Dtype, out: &mut Vec<u8>) {
    if from == to {
        out.extend_from_slice(bytes);
        return;
    }
    match to {
        Dtype::F32 => each_f32(bytes, from, |x| out.extend_from_slice(&x.to_le_bytes())),
        Dtype::F16 => {
            each_f32(bytes, from, |x| {
                out.extend_from_slice(&f16::from_f32(x).to_le_bytes())
            });
        }
        Dtype::BF16 => {
            each_f32(bytes, from, |x| {
                out.extend_from_slice(&bf16::from_f32(x).to_le_bytes())
            });
        }
    }
}

/// Appends `values` to `out`, stored as `to`.
pub(crate) fn append(values: &[f32], to: Dtype, out: &mut Vec<u8>) {
    let values = values.iter();
    match to {
        Dtype::F32 => out.extend(values.flat_map(|x| x.to_le_bytes())),
        Dtype::F16 => out.extend(values.flat_map(|&x| f16::from_f32(x).to_le_bytes())),
        Dtype::BF16 => out.extend(values.flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
    }
}

/// Calls `f` with every element of `bytes`, widened.
pub(crate) fn each_f32(bytes: &[u8], from: Dtype, mut f: impl FnMut(f32)) {
    match from {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .for_each(|&raw| f(f32::from_le_bytes(raw))),
        Dtype::F16 => {
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .for_each(|&raw| f(f16::from_le_bytes(raw).to_f32()));
        }
        Dtype::BF16 => {
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .for_each(|&raw| f(bf16::from_le_bytes(raw).to_f32()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(values: &[f32], to: Dtype) -> Vec<f32> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        convert(&bytes, Dtype::F32, to, &mut narrow);
        each_f32(&narrow, to, |x| wide.push(x));
        wide
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // One unit in the last place of bf16 is 2⁻⁷ above 1: halves go to the even neighbour.
        let half_ulp = 2f32.powi(-8);
        let found = narrow(
            &[1.0 + half_ulp, 1.0 + 3.0 * half_ulp, 1.0 + 1.01 * half_ulp],
            Dtype::BF16,
        );
        assert_eq!(found, [1.0, 1.0 + 4.0 * half_ulp, 1.0 + 2.0 * half_ulp]);
    }

    #[test]
    fn f16_rounds_to_nearest_even_and_overflows_to_infinity() {
        let half_ulp = 2f32.powi(-11);
        let found = narrow(&[1.0 + half_ulp, 1.0 + 3.0 * half_ulp, 1e6], Dtype::F16);
        assert_eq!(found, [1.0, 1.0 + 4.0 * half_ulp, f32::INFINITY]);
    }

    #[test]
    fn widening_and_back_is_exact() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let (mut wide, mut back) = (Vec::new(), Vec::new());
            convert(&all, dtype, Dtype::F32, &mut wide);
            convert(&wide, Dtype::F32, dtype, &mut back);
            for (before, after) in all.as_chunks::<2>().0.iter().zip(back.as_chunks::<2>().0) {
                let (mut x, mut y) = (0.0, 0.0);
                each_f32(before, dtype, |v| x = v);
                each_f32(after, dtype, |v| y = v);
                assert!(
                    before == after || (x.is_nan() && y.is_nan()),
                    "{before:?} became {after:?}"
                );
            }
        }
    }

    #[test]
    fn names_parse() {
        assert_eq!("bf16".parse(), Ok(Dtype::BF16));
        let error = "int8".parse::<Dtype>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`int8` is not a storage type: expected f32, f16 or bf16"
        );
    }
}
