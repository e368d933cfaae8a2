//! Weights in 8 bits: the largest of 64 gets the largest code.

use half::f16;

use super::{OFFSET, UNIT};

/// The largest code, less [`OFFSET`].
const TOP: f32 = 127.0;

/// The magnitude that the largest scale reaches.
pub(super) const LARGEST: f32 = TOP * 65504.0;

/// Adding it rounds to a whole number and leaves that in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Quantizes weights of magnitudes up to [`LARGEST`].
#[inline(always)]
pub(super) fn quantize(values: &[f32; UNIT]) -> (f16, [u8; UNIT]) {
    let largest = values.iter().fold(0.0, |max, x| {
        let x = x.abs();
        if x > max { x } else { max }
    });
    let mut scale = f16::from_f32(largest / TOP);
    // Where f16 is coarse, a scale that was rounded down would cut the largest off.
    if scale < f16::MAX && scale.to_f32() * (TOP + 0.5) < largest {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    if scale == f16::ZERO {
        return (scale, [OFFSET; UNIT]);
    }
    let inverse = 1.0 / scale.to_f32();
    let mut codes = [OFFSET; UNIT];
    for (code, x) in codes.iter_mut().zip(values) {
        let rounded = (x * inverse).clamp(-TOP, TOP) + ROUND;
        *code = (rounded.to_bits() as u8).wrapping_add(OFFSET);
    }
    (scale, codes)
}
