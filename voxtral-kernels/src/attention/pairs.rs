//! Attention of many queries to keys and values in bfloat16, where the processor multiplies pairs
//! of bfloat16 faster than `f32`.
//!
//! A task is a head of keys and a block of the queries that it serves. Block by block, it packs the
//! keys as panels of 16 keys, whose words are two neighbouring elements, and the values as panels
//! of 16 elements, whose words are those of two neighbouring keys: what [`Micro::tile`] takes as
//! weights. Queries are rounded to bfloat16 once; a tile of them gives scores, `[rows, keys]`, in
//! `f32`. Their exponentials, rounded to bfloat16, are rows of words as they stand, and give what
//! is added to the sums, `[rows, head_dim]`, in `f32`.
//!
//! Only queries and weights are rounded, each by a factor of at most `1 ± 2⁻⁸`. The scale and the
//! maximum are applied to scores in `f32`, and the sum of weights, which the result is divided by,
//! is that of weights before they are rounded.
//!
//! Keys stand in a block where their positions say, and those that a query does not see have the
//! weight 0, which changes no sum: so a query does not depend on what else is computed beside it.

use std::cell::RefCell;
use std::ops::Range;

use super::{Attend, overlap};
use crate::buffer::Buffer;
use crate::exp::exp2_scaled;
use crate::micro::{Micro, PANEL, PANEL_WORDS, ROW, STEP, Tile, WORDS};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::{for_each_part, threads};
use crate::word::{Bf16Word, Word};

/// The longest query: its words are those of one tile.
pub(super) const LONGEST: usize = WORDS * Bf16Word::INPUTS;

/// Positions of a block, from multiples of it on.
const BLOCK: usize = 128;

/// Positions that are computed or left out together: the words of a step, and the panels of a tile.
const SPAN: usize = STEP * Bf16Word::INPUTS;

/// The most rows of a task: so many share a packed block, and what they have fits the second-level
/// cache. Whole tiles of 12 and of 32 rows.
const TASK_ROWS: usize = 384;

/// Tasks for each thread, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;

/// What stands for a key or value beyond a block.
static ZEROS: [u16; LONGEST] = [0; LONGEST];

/// The most rows of a tile.
const MOST_ROWS: usize = 32;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Memory of a task.
#[derive(Default)]
struct Memory {
    queries: Buffer,
    keys: Buffer,
    values: Buffer,
    scores: Buffer,
    weights: Buffer,
    sums: Buffer,
    states: Buffer,
}

/// Computes everything; a query has at most [`LONGEST`] elements.
pub(super) fn prefill<M: Micro<Word = Bf16Word>>(micro: M, of: Attend<'_, u16>) {
    let shape = of.shape;
    let heads = shape.batch * shape.kv_heads;
    let rows = shape.queries * of.group();
    let tiles = rows.div_ceil(M::ROWS);
    let wanted = (threads() * TASKS_PER_THREAD).div_ceil(heads);
    let wanted = wanted.max(rows.div_ceil(TASK_ROWS));
    let task_rows = M::ROWS * tiles.div_ceil(wanted);
    let tasks = rows.div_ceil(task_rows);
    for_each_part(heads * tasks, of.multiplications(), |i| {
        let head = i / tasks;
        let first = i % tasks * task_rows;
        let task = Task {
            micro,
            of,
            batch: head / shape.kv_heads,
            kv_head: head % shape.kv_heads,
            rows: first..rows.min(first + task_rows),
        };
        // Not borrowed: while this thread waits, it may be given something else to compute.
        let mut memory = MEMORY.take();
        micro.vectorize(TaskWith(task, &mut memory));
        MEMORY.set(memory);
    });
}

/// Some queries of a head of keys.
struct Task<'a, M> {
    micro: M,
    of: Attend<'a, u16>,
    batch: usize,
    kv_head: usize,
    rows: Range<usize>,
}

/// A task and its memory.
struct TaskWith<'a, M>(Task<'a, M>, &'a mut Memory);

/// Where operands of the same number of words stand: as many side by side as fit the distance that
/// rows and panels have from each other anyway, so that they fill few pages.
#[derive(Clone, Copy)]
struct Places {
    words: usize,
}

impl Places {
    #[inline(always)]
    fn split(self, i: usize) -> (usize, usize) {
        let beside = WORDS / self.words;
        (i / beside, i % beside)
    }

    /// The words of so many tiles of rows.
    #[inline(always)]
    fn rows_len<M: Micro>(self, tiles: usize) -> usize {
        tiles.div_ceil(WORDS / self.words) * M::ROWS * ROW
    }

    /// The first row of a tile.
    #[inline(always)]
    fn rows<M: Micro>(self, tile: usize) -> usize {
        let (far, near) = self.split(tile);
        far * M::ROWS * ROW + near * self.words
    }

    /// The words of the panels of so many tiles.
    #[inline(always)]
    fn panels_len<M: Micro>(self, tiles: usize) -> usize {
        tiles.div_ceil(WORDS / self.words) * M::PANELS * PANEL_WORDS
    }

    /// A panel, `M::PANELS` of each tile.
    #[inline(always)]
    fn panel<M: Micro>(self, panel: usize) -> usize {
        let (far, near) = self.split(panel / M::PANELS);
        (far * M::PANELS + panel % M::PANELS) * PANEL_WORDS + near * self.words * PANEL
    }
}

/// Of queries and keys.
#[inline(always)]
fn elements(d: usize) -> Places {
    Places {
        words: d.div_ceil(Bf16Word::INPUTS).next_multiple_of(STEP),
    }
}

/// Of weights and values.
const POSITIONS: Places = Places {
    words: BLOCK / Bf16Word::INPUTS,
};

/// The operands of a step: a tile of rows and a block of keys.
struct Step<'a> {
    /// The tile's own.
    rows: Range<usize>,
    /// The block, all of it.
    first: usize,
    /// The positions of it that have been packed.
    block: Range<usize>,
    queries: &'a [u32],
    keys: &'a [u32],
    values: &'a [u32],
    /// `[rows, BLOCK]`.
    scores: &'a mut [f32],
    /// `[rows, ROW]`.
    weights: &'a mut [u32],
    /// `[rows, width]`.
    sums: &'a mut [f32],
    /// Of each row the maximum of its scores, before they are scaled.
    maxima: &'a mut [f32],
    /// Of each row the sums of its weights, a vector of them.
    totals: &'a mut [f32],
}

impl<M: Micro<Word = Bf16Word>> Kernel for TaskWith<'_, M> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        const { assert!(M::PANELS * PANEL == SPAN && M::ROWS <= MOST_ROWS) };
        const { assert!(TASK_ROWS.is_multiple_of(M::ROWS)) };
        let Self(task, memory) = self;
        let d = task.of.shape.head_dim;
        assert!(d <= LONGEST);
        let elements = elements(d);
        let width = task.width();
        let tiles = task.rows.len().div_ceil(M::ROWS);
        let height = tiles * M::ROWS;
        let queries = memory.queries.words(elements.rows_len::<M>(tiles));
        let keys = elements.panels_len::<M>(BLOCK / SPAN);
        let keys = memory.keys.words(keys);
        let values = POSITIONS.panels_len::<M>(width / SPAN);
        let values = memory.values.words(values);
        let scores = memory.scores.get(M::ROWS * BLOCK);
        let weights = memory.weights.words(M::ROWS * ROW);
        let sums = memory.sums.get(height * width);
        let (maxima, totals) = memory
            .states
            .get(height * (1 + MAX_LANES))
            .split_at_mut(height);
        task.pack_queries(queries, height);
        sums.fill(0.0);
        maxima.fill(f32::MIN);
        totals.fill(0.0);
        let seen = task.seen(&task.rows);
        let mut first = seen.start - seen.start % BLOCK;
        while first < seen.end {
            let block = seen.start.max(first)..seen.end.min(first + BLOCK);
            task.pack_block(first, &block, keys, values);
            for tile in 0..tiles {
                let at = tile * M::ROWS;
                let rows = task.rows.start + at..task.rows.end.min(task.rows.start + at + M::ROWS);
                task.step(Step {
                    rows,
                    first,
                    block: block.clone(),
                    queries: &queries[elements.rows::<M>(tile)..],
                    keys,
                    values,
                    scores,
                    weights,
                    sums: &mut sums[at * width..][..M::ROWS * width],
                    maxima: &mut maxima[at..][..M::ROWS],
                    totals: &mut totals[at * MAX_LANES..][..M::ROWS * MAX_LANES],
                });
            }
            first += BLOCK;
        }
        task.end(sums, totals);
    }
}

impl<M: Micro<Word = Bf16Word>> Task<'_, M> {
    /// Elements that a row of sums has room for.
    #[inline(always)]
    fn width(&self) -> usize {
        self.of.shape.head_dim.next_multiple_of(SPAN)
    }

    /// The positions that any of these rows sees.
    #[inline(always)]
    fn seen(&self, rows: &Range<usize>) -> Range<usize> {
        let group = self.of.group();
        self.of
            .visible_to(rows.start / group..rows.end.div_ceil(group))
    }

    /// Rounds the queries, and fills up the last tile with zeros.
    #[inline(always)]
    fn pack_queries(&self, queries: &mut [u32], height: usize) {
        let elements = elements(self.of.shape.head_dim);
        for i in 0..height {
            let at = elements.rows::<M>(i / M::ROWS) + i % M::ROWS * ROW;
            let to = &mut queries[at..][..elements.words];
            let row = self.rows.start + i;
            if row < self.rows.end {
                Bf16Word::pack(self.of.query(self.batch, self.kv_head, row), to);
            } else {
                to.fill(0);
            }
        }
    }

    /// Packs the keys and values of a block, zeros where a span has positions beyond it.
    #[inline(always)]
    fn pack_block(&self, first: usize, block: &Range<usize>, keys: &mut [u32], values: &mut [u32]) {
        let slots = self.of.shape.keys;
        let mut rows = [[ZEROS.as_ptr(); BLOCK]; 2];
        let mut slot = block.start % slots;
        for i in block.start - first..block.end - first {
            for (rows, held) in rows
                .iter_mut()
                .zip([self.of.cache.keys, self.of.cache.values])
            {
                rows[i] = Attend::slot(held, self.batch, self.kv_head, slot);
            }
            slot += 1;
            if slot == slots {
                slot = 0;
            }
        }
        let mut span = (block.start - first) / SPAN * SPAN;
        while span < block.end - first {
            // SAFETY: each is a key or value that is there, or `ZEROS`.
            unsafe {
                self.pack_keys(span, &rows[0], keys);
                self.pack_values(span, &rows[1], values);
            }
            span += SPAN;
        }
    }

    /// Packs the keys of a span.
    ///
    /// # Safety
    ///
    /// Each has the elements of a key.
    #[inline(always)]
    unsafe fn pack_keys(&self, span: usize, keys: &[*const u16; BLOCK], to: &mut [u32]) {
        let simd = self.micro.simd();
        let d = self.of.shape.head_dim;
        let elements = elements(d);
        let lanes = <M::Simd as Simd>::LANES;
        for first in (span..span + SPAN).step_by(lanes) {
            let at = elements.panel::<M>(first / PANEL);
            let to = &mut to[at..][..elements.words * PANEL];
            let keys = &keys[first..first + lanes];
            for word in (0..elements.words).step_by(lanes) {
                let element = word * Bf16Word::INPUTS;
                let mut turned = [simd.splat(0.0); MAX_LANES];
                if d - element.min(d) >= lanes * Bf16Word::INPUTS {
                    for (turned, key) in turned.iter_mut().zip(keys) {
                        // SAFETY: a vector of words is left of the key.
                        *turned = unsafe { simd.load(key.add(element).cast()) };
                    }
                } else if element < d {
                    for (turned, key) in turned.iter_mut().zip(keys) {
                        let mut end = [0; MAX_LANES * Bf16Word::INPUTS];
                        // SAFETY: so much is left of the key, and `end` is a vector of words.
                        unsafe {
                            let rest = key.add(element);
                            rest.copy_to_nonoverlapping(end.as_mut_ptr(), d - element);
                            *turned = simd.load(end.as_ptr().cast());
                        }
                    }
                }
                simd.transpose(&mut turned);
                let to = &mut to[word * PANEL + first % PANEL..];
                assert!(to.len() >= (lanes - 1) * PANEL + lanes);
                for (i, turned) in turned.into_iter().take(lanes).enumerate() {
                    // SAFETY: by the line above.
                    unsafe { simd.store(to.as_mut_ptr().add(i * PANEL).cast(), turned) };
                }
            }
        }
    }

    /// Packs the values of a span.
    ///
    /// # Safety
    ///
    /// Each has the elements of a value.
    #[inline(always)]
    unsafe fn pack_values(&self, span: usize, values: &[*const u16; BLOCK], to: &mut [u32]) {
        let d = self.of.shape.head_dim;
        let pairs = values[span..span + SPAN].as_chunks::<{ Bf16Word::INPUTS }>();
        for panel in 0..self.width() / PANEL {
            let element = panel * PANEL;
            let at = POSITIONS.panel::<M>(panel) + span / Bf16Word::INPUTS * PANEL;
            let to = to[at..][..STEP * PANEL].as_chunks_mut::<PANEL>().0;
            if d - element.min(d) >= PANEL {
                for (to, pair) in to.iter_mut().zip(pairs.0) {
                    // SAFETY: a panel is left of each value.
                    let [low, high] = unsafe {
                        [
                            pair[0].add(element).cast::<[u16; PANEL]>().read_unaligned(),
                            pair[1].add(element).cast::<[u16; PANEL]>().read_unaligned(),
                        ]
                    };
                    interleave(&low, &high, to);
                }
            } else {
                let rest = d - element.min(d);
                for (to, pair) in to.iter_mut().zip(pairs.0) {
                    let mut halves = [[0; PANEL]; Bf16Word::INPUTS];
                    for (half, value) in halves.iter_mut().zip(pair) {
                        // SAFETY: so much is left of the value, less than a panel.
                        unsafe {
                            let value = value.add(d - rest);
                            value.copy_to_nonoverlapping(half.as_mut_ptr(), rest);
                        }
                    }
                    interleave(&halves[0], &halves[1], to);
                }
            }
        }
    }

    /// Adds a block to what a tile of rows has.
    #[inline(always)]
    fn step(&self, mut of: Step<'_>) {
        // At the edge of a mask only some spans of the block are seen by anyone.
        let own = overlap(&self.seen(&of.rows), &of.block);
        if own.is_empty() {
            return;
        }
        let spans = (own.start - of.first) / SPAN..(own.end - of.first).div_ceil(SPAN);
        let elements = elements(self.of.shape.head_dim);
        let width = self.width();
        assert!(of.queries.len() >= (M::ROWS - 1) * ROW + elements.words);
        assert!(
            of.keys.len() >= elements.panels_len::<M>(BLOCK / SPAN) && spans.end <= BLOCK / SPAN
        );
        assert!(of.values.len() >= POSITIONS.panels_len::<M>(width / SPAN));
        assert!(of.scores.len() >= M::ROWS * BLOCK && of.weights.len() >= M::ROWS * ROW);
        assert!(of.sums.len() >= M::ROWS * width);
        for span in spans.clone() {
            let tile = Tile {
                words: elements.words,
                inputs: of.queries.as_ptr(),
                weights: of.keys[elements.panel::<M>(span * M::PANELS)..].as_ptr(),
                sums: of.scores[span * SPAN..].as_mut_ptr(),
                sums_row: BLOCK,
                add: false,
            };
            // SAFETY: by the lines above.
            unsafe { self.micro.tile(tile) };
        }
        self.hide(&mut of, &spans);
        self.weigh(&mut of, &spans);
        let skip = spans.start * STEP;
        for tile in 0..width / SPAN {
            let panel = POSITIONS.panel::<M>(tile * M::PANELS) + skip * PANEL;
            let tile = Tile {
                words: spans.len() * STEP,
                inputs: of.weights[skip..].as_ptr(),
                weights: of.values[panel..].as_ptr(),
                sums: of.sums[tile * SPAN..].as_mut_ptr(),
                sums_row: width,
                add: true,
            };
            // SAFETY: by the lines above.
            unsafe { self.micro.tile(tile) };
        }
    }

    /// Makes the scores of keys that a query does not see those of no weight.
    #[inline(always)]
    fn hide(&self, of: &mut Step<'_>, spans: &Range<usize>) {
        let group = self.of.group();
        let [start, end] = [spans.start, spans.end].map(|span| of.first + span * SPAN);
        let [oldest, newest] = [of.rows.start, of.rows.end - 1].map(|r| self.of.visible(r / group));
        if start >= newest.start && end <= oldest.end {
            return;
        }
        for (row, scores) in of.rows.clone().zip(of.scores.chunks_exact_mut(BLOCK)) {
            let own = overlap(&self.of.visible(row / group), &(start..end));
            // An empty range may begin anywhere.
            let [from, to] = [own.start, own.end].map(|at| at.min(end) - of.first);
            scores[start - of.first..from].fill(f32::NEG_INFINITY);
            scores[to..end - of.first].fill(f32::NEG_INFINITY);
        }
    }

    /// Turns scores into weights, and scales what was added up before.
    #[inline(always)]
    fn weigh(&self, of: &mut Step<'_>, spans: &Range<usize>) {
        let simd = self.micro.simd();
        let lanes = <M::Simd as Simd>::LANES;
        let scale = self.of.scale();
        let width = self.width();
        let (start, end) = (spans.start * SPAN, spans.end * SPAN);
        let count = of.rows.len();
        assert!(count <= M::ROWS && end <= BLOCK && of.totals.len() >= count * MAX_LANES);
        assert!(of.scores.len() >= count * BLOCK && of.weights.len() >= count * ROW);
        // What sums grow by, and 1 where there is no row.
        let mut scales = [1.0; MOST_ROWS];
        for (row, before) in of.maxima[..count].iter_mut().enumerate() {
            let mut maximum = simd.splat(*before);
            let mut i = start;
            while i < end {
                // SAFETY: `end` is within the row.
                maximum = simd.max(
                    unsafe { simd.load(of.scores.as_ptr().add(row * BLOCK + i)) },
                    maximum,
                );
                i += lanes;
            }
            let maximum = simd.max_lane(maximum);
            scales[row] = *before - maximum;
            *before = maximum;
        }
        let mut row = 0;
        while row < count {
            // SAFETY: the most rows are a multiple of the lanes.
            unsafe {
                let at = scales.as_mut_ptr().add(row);
                simd.store(at, exp2_scaled(simd, simd.load(at), scale));
            }
            row += lanes;
        }
        for (row, &grown) in scales[..count].iter().enumerate() {
            let shift = simd.splat(of.maxima[row]);
            let mut sum = simd.splat(0.0);
            let mut i = start;
            while i < end {
                // SAFETY: `end` is within the row, and as many halves of words are there.
                unsafe {
                    let score = simd.load(of.scores.as_ptr().add(row * BLOCK + i));
                    // The maximum comes off before the scale, so that nothing is left of it.
                    let weight = exp2_scaled(simd, simd.sub(score, shift), scale);
                    sum = simd.add(sum, weight);
                    let to = of.weights.as_mut_ptr().add(row * ROW).cast::<u16>();
                    self.micro.narrow(to.add(i), weight);
                }
                i += lanes;
            }
            let scale = simd.splat(grown);
            // SAFETY: a vector, of `MAX_LANES`.
            unsafe {
                let at = of.totals.as_mut_ptr().add(row * MAX_LANES);
                simd.store(at, simd.mul_add(simd.load(at), scale, sum));
            }
            if grown != 1.0 {
                for i in (0..width).step_by(lanes) {
                    let sums = &mut of.sums[row * width + i..][..lanes];
                    // SAFETY: the slice is a vector.
                    unsafe {
                        let scaled = simd.mul(simd.load(sums.as_ptr()), scale);
                        simd.store(sums.as_mut_ptr(), scaled);
                    }
                }
            }
        }
    }

    /// Writes the results.
    #[inline(always)]
    fn end(&self, sums: &[f32], totals: &[f32]) {
        let simd = self.micro.simd();
        let rows = self.rows.clone().zip(sums.chunks_exact(self.width()));
        for ((row, sums), totals) in rows.zip(totals.as_chunks::<MAX_LANES>().0) {
            // SAFETY: `MAX_LANES` values are a vector at least, and the rest of them is not used.
            let weights = simd.sum(unsafe { simd.load(totals.as_ptr()) });
            // No weights, no keys: the sums are zeros.
            let scale = if weights == 0.0 { 0.0 } else { 1.0 / weights };
            // SAFETY: this task alone has this row, which dies at once.
            let out = unsafe { self.of.result(self.batch, self.kv_head, row) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * scale;
            }
        }
    }
}

/// Words of two rows.
#[inline(always)]
fn interleave(low: &[u16; PANEL], high: &[u16; PANEL], to: &mut [u32; PANEL]) {
    for (to, (&low, &high)) in to.iter_mut().zip(low.iter().zip(high)) {
        *to = u32::from(low) | u32::from(high) << 16;
    }
}

#[cfg(test)]
mod tests;
