//! How weights are stored.

use crate::simd::Simd;

/// A format of weights, one element after the other.
pub(crate) trait Format: Copy + Send + Sync {
    type Bits: Copy + Send + Sync;

    const ZERO: Self::Bits;

    /// # Safety
    ///
    /// `from` is valid for reads of [`Simd::LANES`] values.
    unsafe fn load<S: Simd>(simd: S, from: *const Self::Bits) -> S::V;
}

#[derive(Clone, Copy)]
pub(crate) struct F32;

#[derive(Clone, Copy)]
pub(crate) struct Bf16;

#[derive(Clone, Copy)]
pub(crate) struct F16;

impl Format for F32 {
    type Bits = f32;

    const ZERO: f32 = 0.0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load(from) }
    }
}

impl Format for Bf16 {
    type Bits = u16;

    const ZERO: u16 = 0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u16) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load_bf16(from) }
    }
}

impl Format for F16 {
    type Bits = u16;

    const ZERO: u16 = 0;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u16) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load_f16(from) }
    }
}

/// bfloat16 is the upper half of an `f32`.
#[inline(always)]
pub(crate) fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE binary16 without a branch: its exponent and mantissa, moved into an `f32`'s, make a number
/// that is 2^112 too small, subnormals included; infinities and NaN come out as 2^16 and more,
/// and get the exponent they should have.
#[inline(always)]
pub(crate) fn widen_f16(bits: u16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * SCALE;
    let special = if magnitude >= 65_536.0 {
        0x7f80_0000
    } else {
        0
    };
    f32::from_bits(magnitude.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = widen_f16(bits);
            assert!(
                found == expected || found.is_nan() && expected.is_nan(),
                "{bits:#06x}"
            );
            assert_eq!(found.is_sign_negative(), expected.is_sign_negative());
            let expected = half::bf16::from_bits(bits).to_f32();
            let found = widen_bf16(bits);
            assert!(
                found == expected || found.is_nan() && expected.is_nan(),
                "{bits:#06x}"
            );
        }
    }
}
