//! Scaled dot-product attention, `softmax(q kᵀ / √d) v`, with grouped queries.
//!
//! | queries | kernel | bound by | how |
//! |---|---|---|---|
//! | 1 to 8 | `decode` | memory | keys and values are read once for all queries of a group of heads |
//! | more | `prefill` | arithmetic | blocks of queries and of keys in cache, sums in registers |
//! | more, of bfloat16 | `pairs` | arithmetic | the same by products of pairs of bfloat16 |
//!
//! The last one needs [`Isa::Amx`] or [`Isa::Avx512Bf16`], whose products of bfloat16 are faster
//! than those of `f32`, and heads of at most 512 elements. It rounds the queries and the weights
//! to bfloat16, as the keys and values are that it takes; all else is `f32` everywhere.
//!
//! Scores are never held for all keys: both keep a running maximum and sum of each query, and what
//! was added up before is scaled when the maximum grows (Milakov & Gimelshein, 2018,
//! arXiv:1805.02867). What a mask shows of the keys is a range of positions, and a range of
//! positions is at most two ranges of the slots of a ring: hidden keys are skipped, not masked,
//! but for those at the ends of a block.
//!
//! Keys are taken in blocks that begin at multiples of a constant, counted in positions. So a query
//! gives the same, bit for bit, on any number of threads, whatever the other queries are, however
//! many keys the cache holds that it does not see, and in whichever slots of a ring they stand;
//! as long as it is computed by the same kernel.

mod decode;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod prefill;

use std::num::NonZeroUsize;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::Isa;
use crate::Kernels;
use crate::buffer::Shared;
use crate::dispatch::Job;
use crate::simd::Simd;
use crate::strides::{LayerError, Strided, Strides, check_input, check_output};
#[cfg(target_arch = "x86_64")]
use crate::{amx, dots};

/// The largest number of queries that is a few.
const FEW_QUERIES: usize = 8;

/// The sizes of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences that know nothing of each other.
    pub batch: usize,
    /// Heads of the queries, a multiple of `kv_heads`: each head of keys serves as many
    /// consecutive ones.
    pub heads: usize,
    /// Heads of the keys and values.
    pub kv_heads: usize,
    /// Queries of each head.
    pub queries: usize,
    /// Slots of each head that hold keys and values.
    pub keys: usize,
    /// The length of a query, a key or a value.
    pub head_dim: usize,
}

/// What a query at position `i` may attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Every key.
    Full,
    /// Keys `j ≤ i`.
    Causal,
    /// Keys `i − window < j ≤ i`.
    SlidingWindow(NonZeroUsize),
}

/// Keys and values, each `[batch, kv_heads, keys, head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct KeysValues<'a, E> {
    /// The keys.
    pub keys: Strided<&'a [E]>,
    /// The values.
    pub values: Strided<&'a [E]>,
}

/// Keys and values as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Cache<'a> {
    /// Single precision.
    F32(KeysValues<'a, f32>),
    /// The bits of bfloat16.
    Bf16(KeysValues<'a, u16>),
}

/// An element of a cache.
trait Element: Copy + Send + Sync {
    /// # Safety
    ///
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V;

    /// The first `count` lanes, and zeros.
    ///
    /// # Safety
    ///
    /// `count <= LANES`, and `from` is valid for reads of `count` values.
    unsafe fn load_first<S: Simd>(simd: S, from: *const Self, count: usize) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load(from) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(simd: S, from: *const f32, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load_first(from, count) }
    }
}

/// The bits of bfloat16.
impl Element for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const u16) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(simd: S, from: *const u16, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { simd.load_first_bf16(from, count) }
    }
}

/// The operands, which have been checked.
#[derive(Clone, Copy)]
struct Attend<'a, E> {
    shape: AttentionShape,
    mask: Mask,
    end: usize,
    q: Strided<&'a [f32]>,
    cache: KeysValues<'a, E>,
    out: Shared<'a>,
    to: Strides,
}

impl<E: Element> Job for Attend<'_, E> {
    fn run<S: Simd>(self, simd: S) {
        match self.shape.queries <= FEW_QUERIES {
            true => decode::decode(simd, self),
            false => prefill::prefill(simd, self),
        }
    }
}

impl<'a, E: Element> Attend<'a, E> {
    /// Query heads of a head of keys.
    #[inline(always)]
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// What scores are multiplied by, so that weights are powers of 2 instead of e.
    #[inline(always)]
    fn scale(&self) -> f32 {
        (std::f64::consts::LOG2_E / (self.shape.head_dim as f64).sqrt()) as f32
    }

    /// The positions that a query sees. Their ends never fall from one query to the next.
    #[inline(always)]
    fn visible(&self, query: usize) -> Range<usize> {
        let AttentionShape { queries, keys, .. } = self.shape;
        let oldest = self.end - keys;
        // Just after the query's own.
        let after = self.end - queries + query + 1;
        let (start, end) = match self.mask {
            Mask::Full => (oldest, self.end),
            Mask::Causal => (oldest, after),
            Mask::SlidingWindow(window) => (oldest.max(after.saturating_sub(window.get())), after),
        };
        start..end.max(start)
    }

    /// The positions that any of these queries sees.
    #[inline(always)]
    fn visible_to(&self, queries: Range<usize>) -> Range<usize> {
        self.visible(queries.start).start..self.visible(queries.end - 1).end
    }

    /// The number of products of a query's element and a key's, and of a weight and a value's.
    fn multiplications(&self) -> usize {
        let AttentionShape {
            batch,
            heads,
            queries,
            head_dim,
            ..
        } = self.shape;
        let seen = self.visible(queries / 2).len();
        (batch * heads * queries)
            .saturating_mul(2 * head_dim)
            .saturating_mul(seen)
    }

    /// The query in row `row` of those that a head of keys serves: those of one position, then
    /// those of the next.
    #[inline(always)]
    fn query(&self, batch: usize, kv_head: usize, row: usize) -> &'a [f32] {
        let group = self.group();
        let head = kv_head * group + row % group;
        &self.q.elements[self.q.strides.offset(batch, head, row / group)..][..self.shape.head_dim]
    }

    /// The result of such a row.
    ///
    /// # Safety
    ///
    /// No other thread takes this row, and none takes it again while it lives.
    #[inline(always)]
    unsafe fn result(&self, batch: usize, kv_head: usize, row: usize) -> &'a mut [f32] {
        let group = self.group();
        let head = kv_head * group + row % group;
        let start = self.to.offset(batch, head, row / group);
        // SAFETY: rows of the result are apart; the rest is the caller's.
        unsafe { self.out.part(start, self.shape.head_dim) }
    }

    /// The key or value in a slot, which is in a slice that has been checked.
    #[inline(always)]
    fn slot(of: Strided<&[E]>, batch: usize, kv_head: usize, slot: usize) -> *const E {
        let offset = of.strides.offset(batch, kv_head, slot);
        debug_assert!(offset < of.elements.len());
        of.elements.as_ptr().wrapping_add(offset)
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl AttentionShape {
    fn check(self, end: usize) -> Result<(), LayerError> {
        let Self {
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
            ..
        } = self;
        let dimensions = [
            ("kv_heads", kv_heads, kv_heads > 0, "at least 1"),
            (
                "heads",
                heads,
                kv_heads > 0 && heads.is_multiple_of(kv_heads),
                "a multiple of `kv_heads`",
            ),
            ("head_dim", head_dim, head_dim > 0, "at least 1"),
            ("keys", keys, keys > 0 && keys <= end, "1 to `end`"),
            ("queries", queries, queries <= end, "at most `end`"),
        ];
        for (operand, found, good, expected) in dimensions {
            if !good {
                return Err(LayerError::Dimension {
                    operand,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

impl Kernels {
    /// `out = softmax(q kᵀ / √head_dim + mask) v`; `q` and `out` are
    /// `[batch, heads, queries, head_dim]`.
    ///
    /// Queries and keys are the last positions before `end`: query `i` stands at
    /// `end − queries + i`, and key `s` at the last position before `end` that is `s` modulo `keys`.
    /// That is `s` where `end` is `keys`, and otherwise the slot of a ring that has gone round.
    ///
    /// A query that sees no key, whose position is not among the keys either, gives zeros. Scores
    /// must be finite, and with more than 8 queries so must be values that some of them do not
    /// see: what is not finite in them may reach those as well.
    ///
    /// All arithmetic is in `f32`, but for more than 8 queries to a cache in bfloat16 on
    /// [`Isa::Amx`] and [`Isa::Avx512Bf16`]. There queries and weights are rounded to bfloat16,
    /// whose unit roundoff is `u = 2⁻⁸`: a score is off by `δ = u Σ|q||k| / √head_dim` at most, so
    /// that every weight keeps within a factor of `e^2δ`, and its rounding adds one of `1 ± u`. The
    /// result is off by `(e^2δ (1 + u) − 1) Σ w|v|` at most, and by much less where errors do not
    /// all agree. Scores must be finite before they are divided by `√head_dim` as well.
    ///
    /// # Errors
    ///
    /// [`LayerError`] if a dimension is zero that must not be, or there are more keys or queries
    /// than positions, or an operand ends too early, or rows of `out` overlap. Without queries
    /// there is nothing to do, and no error.
    pub fn attend(
        self,
        shape: AttentionShape,
        q: Strided<&[f32]>,
        cache: Cache<'_>,
        mask: Mask,
        end: usize,
        out: Strided<&mut [f32]>,
    ) -> Result<(), LayerError> {
        let AttentionShape {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
        } = shape;
        if batch == 0 || heads == 0 || queries == 0 {
            return Ok(());
        }
        shape.check(end)?;
        let asked = [batch, heads, queries, head_dim];
        let held = [batch, kv_heads, keys, head_dim];
        check_input("q", q.elements.len(), q.strides, asked)?;
        let [keys, values] = match cache {
            Cache::F32(of) => [
                (of.keys.elements.len(), of.keys.strides),
                (of.values.elements.len(), of.values.strides),
            ],
            Cache::Bf16(of) => [
                (of.keys.elements.len(), of.keys.strides),
                (of.values.elements.len(), of.values.strides),
            ],
        };
        check_input("keys", keys.0, keys.1, held)?;
        check_input("values", values.0, values.1, held)?;
        check_output("out", out.elements.len(), out.strides, asked)?;
        let to = out.strides;
        let out = Shared::new(out.elements);
        match cache {
            Cache::F32(cache) => self.run(Attend {
                shape,
                mask,
                end,
                q,
                cache,
                out,
                to,
            }),
            Cache::Bf16(cache) => self.attend_narrow(Attend {
                shape,
                mask,
                end,
                q,
                cache,
                out,
                to,
            }),
        }
        Ok(())
    }

    /// Keys and values in bfloat16, by products of pairs where there are many queries and the
    /// instruction set has them.
    fn attend_narrow(self, of: Attend<'_, u16>) {
        #[cfg(target_arch = "x86_64")]
        if of.shape.queries > FEW_QUERIES && of.shape.head_dim <= pairs::LONGEST {
            match self.isa() {
                Isa::Amx => {
                    // SAFETY: the instruction set of `Kernels` is available.
                    let tiles = unsafe { amx::Tiles::new_unchecked() };
                    return pairs::prefill(tiles, of);
                }
                Isa::Avx512Bf16 => {
                    // SAFETY: as above.
                    let pairs = unsafe { dots::Pairs::new_unchecked() };
                    return pairs::prefill(pairs, of);
                }
                _ => {}
            }
        }
        self.run(of);
    }
}
