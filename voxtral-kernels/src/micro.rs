//! The innermost loop of a product of many rows, for each kind of arithmetic.
//!
//! Both operands are packed into words of 32 bits, each of which holds one or more neighbouring
//! inputs as the arithmetic takes them. A vector is the same word of the 16 outputs of a panel; a
//! word of an input row is broadcast to it.

use crate::quant::{BLOCK, UNIT};
use crate::simd::{Kernel, Simd};
use crate::word::{F32Word, Word};

/// Outputs that stand side by side, in every packed weight and in the quantized formats.
pub(crate) const PANEL: usize = crate::quant::PANEL;

/// Words that are multiplied before their sums go back to memory: two panels and the rows of a tile
/// fit the first-level cache.
pub(crate) const WORDS: usize = 256;

/// Words that a chunk is filled up to with zeros: a vector of any arithmetic.
pub(crate) const STEP: usize = 16;

/// Distance of packed input rows. What follows the words belongs to the arithmetic: of each unit its
/// scale and its offset, and the offsets of its blocks. It also keeps rows from falling into one set
/// of the cache.
pub(crate) const ROW: usize = WORDS + (2 + BLOCKS) * UNITS;

/// Blocks of a unit, see [`crate::quant`].
pub(crate) const BLOCKS: usize = UNIT / BLOCK;

/// Distance of packed panels: the words, and a panel's scales of each unit.
pub(crate) const PANEL_WORDS: usize = (WORDS + UNITS) * PANEL;

/// Units of a chunk, where the arithmetic is of bytes.
pub(crate) const UNITS: usize = WORDS / STEP;

/// The operands of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Words to multiply, a multiple of [`STEP`] and at most [`WORDS`].
    pub(crate) words: usize,
    /// `[rows, ROW]`.
    pub(crate) inputs: *const u32,
    /// `[panels, PANEL_WORDS]`.
    pub(crate) weights: *const u32,
    /// `[rows, sums_row]`, of which each row has the panels' outputs.
    pub(crate) sums: *mut f32,
    pub(crate) sums_row: usize,
    /// Whether the products are added to what `sums` holds, or replace it.
    pub(crate) add: bool,
}

/// A kind of arithmetic for products of many rows.
pub(crate) trait Micro: Copy + Send + Sync {
    type Simd: Simd;
    /// What a word holds.
    type Word: Word;

    /// Input rows of a tile.
    const ROWS: usize;
    /// Panels of a tile.
    const PANELS: usize;

    fn simd(self) -> Self::Simd;

    /// Runs a kernel compiled for this arithmetic's instructions.
    fn vectorize<K: Kernel>(self, kernel: K);

    /// Computes a tile.
    ///
    /// # Safety
    ///
    /// The pointers are valid for [`Micro::ROWS`] rows, [`Micro::PANELS`] panels and the shapes that
    /// [`Tile`] states.
    unsafe fn tile(self, tile: Tile);

    /// Narrows to bfloat16 as [`Simd::store_bf16`] does, but what is subnormal may become 0.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of a vector's values.
    #[inline(always)]
    unsafe fn narrow(self, to: *mut u16, value: <Self::Simd as Simd>::V) {
        // SAFETY: the caller's.
        unsafe { self.simd().store_bf16(to, value) };
    }
}

/// Multiplication and addition of `f32`.
#[derive(Clone, Copy)]
pub(crate) struct Fma<S>(pub(crate) S);

impl<S: Simd> Micro for Fma<S> {
    type Simd = S;
    type Word = F32Word;

    const ROWS: usize = S::TILE_ROWS;
    const PANELS: usize = S::TILE_PANELS;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) {
        self.0.vectorize(kernel);
    }

    #[inline(always)]
    unsafe fn tile(self, tile: Tile) {
        // SAFETY: the caller's.
        unsafe { self.0.tile(tile) };
    }
}

/// `R` rows times `V` vectors of outputs in `f32`: `R · V` sums stay in registers. Every sum runs
/// over the words in order.
///
/// # Safety
///
/// The pointers are valid for `R` rows, the panels of `V` vectors, and the shapes that [`Tile`]
/// states.
#[inline(always)]
pub(crate) unsafe fn fma_tile<S: Simd, const R: usize, const V: usize>(simd: S, of: Tile) {
    let per_panel = PANEL / S::LANES;
    let mut sums = [[simd.splat(0.0); V]; R];
    for word in 0..of.words {
        let mut weights = [simd.splat(0.0); V];
        for (v, weight) in weights.iter_mut().enumerate() {
            let at = v / per_panel * PANEL_WORDS + word * PANEL + v % per_panel * S::LANES;
            // SAFETY: within the panels.
            *weight = unsafe { simd.load(of.weights.add(at).cast()) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: word `word` of row `r`.
            let input = simd.splat(unsafe { *of.inputs.add(r * ROW + word).cast::<f32>() });
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add(input, weight, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: within row `r` of the sums.
            unsafe { put(simd, of, r, v, sum) };
        }
    }
}

/// Puts or adds vector `v` of row `r`.
///
/// # Safety
///
/// They are within the sums.
#[inline(always)]
pub(crate) unsafe fn put<S: Simd>(simd: S, of: Tile, r: usize, v: usize, mut sum: S::V) {
    // SAFETY: the caller's.
    unsafe {
        let to = of.sums.add(r * of.sums_row + v * S::LANES);
        if of.add {
            sum = simd.add(sum, simd.load(to));
        }
        simd.store(to, sum);
    }
}
