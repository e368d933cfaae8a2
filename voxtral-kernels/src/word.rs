//! What a word of a packed operand holds, and how inputs become words.

use crate::micro::{BLOCKS, STEP, UNITS, WORDS};
use crate::quant::{BLOCK, OFFSET};

/// A kind of word: 32 bits of neighbouring inputs.
pub(crate) trait Word: Copy + Send + Sync {
    /// Inputs of a word.
    const INPUTS: usize;

    /// Packs a piece of an input row, at most [`WORDS`] words, into a packed row `[ROW]`, and fills
    /// up with zeros to a multiple of [`STEP`]. To be inlined into a kernel.
    fn pack(values: &[f32], row: &mut [u32]);
}

/// One `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F32Word;

/// Two bfloat16, the first one in the lower half.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Word;

/// Four signed bytes, the first one lowest. Each unit of [`STEP`] words has its own scale, and for
/// weights that are [`OFFSET`] too large, what takes that away again, and so has each of its blocks.
#[derive(Clone, Copy)]
pub(crate) struct ByteWord;

impl Word for F32Word {
    const INPUTS: usize = 1;

    #[inline(always)]
    fn pack(values: &[f32], row: &mut [u32]) {
        for (word, value) in row.iter_mut().zip(values) {
            *word = value.to_bits();
        }
        row[values.len()..values.len().next_multiple_of(STEP)].fill(0);
    }
}

impl Word for Bf16Word {
    const INPUTS: usize = 2;

    #[inline(always)]
    fn pack(values: &[f32], row: &mut [u32]) {
        let (pairs, rest) = values.as_chunks::<2>();
        for (word, [low, high]) in row.iter_mut().zip(pairs) {
            *word = bf16_pair(*low, *high);
        }
        let words = values.len().div_ceil(2);
        row[pairs.len()..words.next_multiple_of(STEP)].fill(0);
        if let [last] = rest {
            row[pairs.len()] = bf16_pair(*last, 0.0);
        }
    }
}

/// Two values rounded to bfloat16.
#[inline(always)]
pub(crate) fn bf16_pair(low: f32, high: f32) -> u32 {
    rounded(low) >> 16 | rounded(high) & 0xffff_0000
}

/// The bits of a value plus what rounds its upper half to nearest, ties to even. A NaN stays one:
/// its upper half is that of a quiet NaN.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if value.is_nan() {
        bits | 0x0040_0000
    } else {
        nearest
    }
}

impl Word for ByteWord {
    const INPUTS: usize = 4;

    #[inline(always)]
    fn pack(values: &[f32], row: &mut [u32]) {
        let (words, extra) = row.split_at_mut(WORDS);
        let (scales, extra) = extra.split_at_mut(UNITS);
        let (offsets, blocks) = extra.split_at_mut(UNITS);
        let units = values.chunks(STEP * Self::INPUTS);
        let offsets = offsets.iter_mut().zip(blocks.chunks_exact_mut(BLOCKS));
        let parts = words
            .chunks_exact_mut(STEP)
            .zip(scales.iter_mut().zip(offsets));
        for (unit, (words, (scale, (offset, blocks)))) in units.zip(parts) {
            let mut full = [0.0; STEP * Self::INPUTS];
            full[..unit.len()].copy_from_slice(unit);
            let (bytes, step) = quantize(&full);
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(bytes.map(|byte| byte as u8));
            }
            let mut total = 0;
            for (offset, block) in blocks.iter_mut().zip(bytes.as_chunks::<BLOCK>().0) {
                let mut sum = 0;
                for byte in block {
                    sum += i32::from(*byte);
                }
                let sum = -i32::from(OFFSET) * sum;
                *offset = sum as u32;
                total += sum;
            }
            *scale = step.to_bits();
            *offset = total as u32;
        }
    }
}

/// A unit in bytes from −127 to 127, and what one is worth: not a number where a value is none, or
/// infinite.
#[inline(always)]
fn quantize(values: &[f32; STEP * ByteWord::INPUTS]) -> ([i8; STEP * ByteWord::INPUTS], f32) {
    // Added to a value up to 2^22, it leaves the nearest integer, ties to even, in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    // Absolute values in the order of their bits, which a NaN is the largest of.
    let mut largest = 0;
    for value in values {
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    let step = largest / 127.0 + 0.0 * largest;
    // A unit of tiny values may have a step whose inverse is infinite: it counts as zeros.
    let inverse = if step > f32::MIN_POSITIVE {
        1.0 / step
    } else {
        0.0
    };
    let mut bytes = [0; STEP * ByteWord::INPUTS];
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (value * inverse + MAGIC).to_bits() as i8;
    }
    (bytes, step)
}
