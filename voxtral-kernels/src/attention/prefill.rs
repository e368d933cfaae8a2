//! Attention of many queries, which is limited by arithmetic.
//!
//! A task is a head of keys and up to [`PANELS`] panels of the queries that it serves. A panel
//! `[head_dim, R]` has as many queries as a tile of registers, so that a vector holds the same
//! element of neighbouring queries, and so are scores `[keys, R]` and sums `[head_dim, R]`: the
//! maximum, the exponential and the sum of each query's weights are vectors, and no lanes are ever
//! added up. Keys and values come block by block, widened and without gaps.

use std::cell::RefCell;
use std::ops::Range;

use super::{Attend, Element, overlap};
use crate::buffer::Buffer;
use crate::exp::exp2_negative;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::for_each_part;

/// Positions of a block, from multiples of it on.
const BLOCK: usize = 64;

/// Elements of keys that are multiplied before a tile's scores go back to memory.
const DEPTH: usize = 128;

/// Distance of keys: a power of two would put them all into few sets of the cache.
const STRIDE: usize = DEPTH + 16;

/// Room for what makes the last tile of a block a whole one, wherever the block begins.
const ROOM: usize = BLOCK + 8;

/// The most panels of a task: so often is a block used, which was copied.
const PANELS: usize = 4;

thread_local! {
    /// Keys, values and scores of a task, and its panels.
    static SCRATCH: RefCell<[Buffer; 4]> = RefCell::default();
}

/// Computes everything.
pub(super) fn prefill<S: Simd, E: Element>(simd: S, of: Attend<'_, E>) {
    let shape = of.shape;
    let rows = shape.queries * of.group();
    let width = PANELS * widest::<S>();
    let tasks = rows.div_ceil(width);
    let heads = shape.batch * shape.kv_heads;
    for_each_part(heads * tasks, of.multiplications(), |i| {
        let head = i / tasks;
        let first = i % tasks * width;
        let task = Task {
            of,
            batch: head / shape.kv_heads,
            kv_head: head % shape.kv_heads,
            rows: first..rows.min(first + width),
        };
        let mut scratch = SCRATCH.take();
        simd.vectorize(TaskWith(task, &mut scratch));
        SCRATCH.set(scratch);
    });
}

/// Some queries of a head of keys.
struct Task<'a, E> {
    of: Attend<'a, E>,
    batch: usize,
    kv_head: usize,
    rows: Range<usize>,
}

/// A task and its memory.
struct TaskWith<'a, E>(Task<'a, E>, &'a mut [Buffer; 4]);

impl<E: Element> Kernel for TaskWith<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(task, [keys, values, scores, panels]) = self;
        let d = task.of.shape.head_dim;
        let widest = widest::<S>();
        let at = Layout::new(d, widest);
        let keys = keys.get(d.div_ceil(DEPTH) * ROOM * STRIDE);
        let values = values.get(BLOCK * at.value);
        let scores = scores.get(ROOM * widest);
        let count = task.rows.len().div_ceil(widest);
        let panels = panels.get(count * at.len());
        for (panel, memory) in panels.chunks_exact_mut(at.len()).enumerate() {
            task.begin::<S>(&task.panel::<S>(panel), memory);
        }
        let seen = task.seen(&task.rows);
        let mut first = seen.start - seen.start % BLOCK;
        while first < seen.end {
            let block = seen.start.max(first)..seen.end.min(first + BLOCK);
            task.load(simd, &block, keys, values, at.value);
            for (panel, memory) in panels.chunks_exact_mut(at.len()).enumerate() {
                let rows = task.panel::<S>(panel);
                // At the edge of a mask only some keys of the block are seen by anyone.
                let own = overlap(&task.seen(&rows), &block);
                if own.is_empty() {
                    continue;
                }
                let skip = own.start - block.start;
                let step = Step {
                    block: own,
                    keys: &keys[skip * STRIDE..],
                    values: &values[skip * at.value..],
                    scores,
                    memory,
                };
                match rows.len().div_ceil(S::LANES) {
                    1 => task.step::<S, 1>(simd, &rows, step),
                    3 if const { vectors::<S>() == 3 } => task.step::<S, 3>(simd, &rows, step),
                    _ => task.step::<S, 2>(simd, &rows, step),
                }
            }
            first += BLOCK;
        }
        for (panel, memory) in panels.chunks_exact(at.len()).enumerate() {
            task.end::<S>(&task.panel::<S>(panel), memory);
        }
    }
}

/// How the memory of a panel lies, which is as wide as it says, or narrower.
#[derive(Clone, Copy)]
struct Layout {
    width: usize,
    /// Distance of values, and elements that they are filled up to.
    value: usize,
}

impl Layout {
    #[inline(always)]
    fn new(d: usize, width: usize) -> Self {
        Self {
            width,
            // As for the distance of keys.
            value: d.next_multiple_of(MAX_LANES) + MAX_LANES,
        }
    }

    /// After the queries, `[d, width]`: sums `[d, width]`, and rows that mean nothing.
    #[inline(always)]
    fn sums(self) -> usize {
        self.value * self.width
    }

    /// The maximum, the sum of weights and the scale of each query, and the block's keys that it
    /// sees: the first and that after the last.
    #[inline(always)]
    fn states(self) -> usize {
        2 * self.value * self.width
    }

    #[inline(always)]
    fn len(self) -> usize {
        self.states() + 5 * self.width
    }
}

/// A panel, and what it sees of a block.
struct Step<'a> {
    block: Range<usize>,
    /// From the first of its keys, and values, on.
    keys: &'a [f32],
    values: &'a [f32],
    scores: &'a mut [f32],
    memory: &'a mut [f32],
}

impl<E: Element> Task<'_, E> {
    /// The rows of a panel.
    #[inline(always)]
    fn panel<S: Simd>(&self, panel: usize) -> Range<usize> {
        let width = widest::<S>();
        let first = self.rows.start + panel * width;
        first..self.rows.end.min(first + width)
    }

    /// The positions that any of these rows sees.
    #[inline(always)]
    fn seen(&self, rows: &Range<usize>) -> Range<usize> {
        let group = self.of.group();
        self.of
            .visible_to(rows.start / group..rows.end.div_ceil(group))
    }

    /// Queries of a panel, and nothing added up. Lanes beyond the last query repeat it.
    #[inline(always)]
    fn begin<S: Simd>(&self, rows: &Range<usize>, memory: &mut [f32]) {
        let width = rows.len().next_multiple_of(S::LANES);
        let d = self.of.shape.head_dim;
        let at = Layout::new(d, widest::<S>());
        let scale = self.of.scale();
        let (queries, rest) = memory.split_at_mut(at.sums());
        for lane in 0..width {
            let row = rows.start + lane.min(rows.len() - 1);
            let query = self.of.query(self.batch, self.kv_head, row);
            let to = queries[lane..].iter_mut().step_by(width);
            for (to, from) in to.zip(query) {
                *to = scale * from;
            }
        }
        let (sums, states) = rest.split_at_mut(at.states() - at.sums());
        sums.fill(0.0);
        states[..width].fill(f32::MIN);
        states[width..2 * width].fill(0.0);
    }

    /// Copies the keys and values of a block.
    #[inline(always)]
    fn load<S: Simd>(
        &self,
        simd: S,
        block: &Range<usize>,
        keys: &mut [f32],
        values: &mut [f32],
        value: usize,
    ) {
        let d = self.of.shape.head_dim;
        let slots = self.of.shape.keys;
        let mut slot = block.start % slots;
        for i in 0..block.len() {
            let from = Attend::slot(self.of.cache.keys, self.batch, self.kv_head, slot);
            for first in (0..d).step_by(DEPTH) {
                let to = &mut keys[(first / DEPTH * ROOM + i) * STRIDE..][..STRIDE];
                // SAFETY: an element of a key that is there, and as many as are left of it.
                unsafe { widen(simd, from.add(first), DEPTH.min(d - first), to) };
            }
            let from = Attend::slot(self.of.cache.values, self.batch, self.kv_head, slot);
            // SAFETY: a value that is there.
            unsafe { widen(simd, from, d, &mut values[i * value..][..value]) };
            slot += 1;
            if slot == slots {
                slot = 0;
            }
        }
    }

    /// Adds a block to what a panel has, which is `V` vectors wide.
    #[inline(always)]
    fn step<S: Simd, const V: usize>(&self, simd: S, rows: &Range<usize>, step: Step<'_>) {
        let d = self.of.shape.head_dim;
        let at = Layout::new(d, widest::<S>());
        let (width, count) = (V * S::LANES, step.block.len());
        let (queries, rest) = step.memory.split_at_mut(at.sums());
        let (sums, states) = rest.split_at_mut(at.states() - at.sums());
        let padded = count.next_multiple_of(tile_rows::<S>());
        assert!(step.scores.len() >= padded * width && count <= BLOCK);
        for first in (0..d).step_by(DEPTH) {
            let keys = &step.keys[first / DEPTH * ROOM * STRIDE..];
            // Where the last tile is not a whole one, whatever follows takes part, for nothing.
            assert!(keys.len() >= padded * STRIDE);
            let product = Product {
                depth: DEPTH.min(d - first),
                a: queries[first * width..].as_ptr(),
                b: keys.as_ptr(),
                step: 1,
                out: step.scores.as_mut_ptr(),
                start: if first == 0 { Start::Zero } else { Start::Sum },
            };
            // SAFETY: `[depth, width]`, `[padded, STRIDE]` and `[padded, width]` are there.
            unsafe { product.rows::<S, V, STRIDE>(simd, padded) };
        }
        let group = self.of.group();
        let [first, last] = [rows.start, rows.end - 1].map(|row| self.of.visible(row / group));
        let Range { start, end } = step.block;
        if start < last.start || end > first.end {
            self.hide::<S, V>(simd, rows, start, count, step.scores, states);
        }
        weigh::<S, V>(simd, count, step.scores, states);
        let product = Product {
            depth: count,
            a: step.scores.as_ptr(),
            b: step.values.as_ptr(),
            step: at.value,
            out: sums.as_mut_ptr(),
            start: Start::Scaled(states[2 * width..].as_ptr()),
        };
        let padded = d.next_multiple_of(tile_rows::<S>());
        assert!(sums.len() >= padded * width && at.value >= padded);
        // SAFETY: `[count, width]`, `[count, value]` and `[padded, width]` are there.
        unsafe { product.rows::<S, V, 1>(simd, padded) };
    }

    /// Makes the scores of keys that a query does not see those of no weight.
    #[inline(always)]
    fn hide<S: Simd, const V: usize>(
        &self,
        simd: S,
        rows: &Range<usize>,
        start: usize,
        count: usize,
        scores: &mut [f32],
        states: &mut [f32],
    ) {
        let width = V * S::LANES;
        let group = self.of.group();
        let (from, to) = states[3 * width..].split_at_mut(width);
        for lane in 0..width {
            let row = rows.start + lane.min(rows.len() - 1);
            let own = self.of.visible(row / group);
            // Small enough to be exact.
            from[lane] = own.start.saturating_sub(start).min(count) as f32;
            to[lane] = own.end.saturating_sub(start).min(count) as f32;
        }
        assert!(scores.len() >= count * width);
        let hidden = simd.splat(f32::NEG_INFINITY);
        for key in 0..count {
            let index = simd.splat(key as f32);
            for v in 0..V {
                // SAFETY: within `[count, width]`, and within `width`.
                unsafe {
                    let at = scores.as_mut_ptr().add(key * width + v * S::LANES);
                    let from = simd.load(from.as_ptr().add(v * S::LANES));
                    let to = simd.load(to.as_ptr().add(v * S::LANES));
                    let score = simd.if_less(index, to, simd.load(at), hidden);
                    simd.store(at, simd.if_less(index, from, hidden, score));
                }
            }
        }
    }

    /// Writes the results of a panel.
    #[inline(always)]
    fn end<S: Simd>(&self, rows: &Range<usize>, memory: &[f32]) {
        let width = rows.len().next_multiple_of(S::LANES);
        let at = Layout::new(self.of.shape.head_dim, widest::<S>());
        let (sums, states) = memory[at.sums()..].split_at(at.states() - at.sums());
        for (lane, row) in rows.clone().enumerate() {
            // No weights, no keys: the sums are zeros.
            let weights = states[width + lane];
            let scale = if weights == 0.0 { 0.0 } else { 1.0 / weights };
            // SAFETY: this task alone has this row, which dies at once.
            let out = unsafe { self.of.result(self.batch, self.kv_head, row) };
            for (out, sum) in out.iter_mut().zip(sums[lane..].iter().step_by(width)) {
                *out = sum * scale;
            }
        }
    }
}

/// Rows of a tile: with [`vectors`] vectors each, these and a factor, as many sums as there are
/// registers for.
const fn tile_rows<S: Simd>() -> usize {
    match (S::REGISTERS, S::LANES) {
        (32.., _) => 8,
        (_, 8..) => 6,
        // Without fused multiplication products need registers as well.
        _ => 4,
    }
}

/// The most vectors of queries of a panel.
const fn vectors<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 3 } else { 2 }
}

/// The most queries of a panel.
const fn widest<S: Simd>() -> usize {
    vectors::<S>() * S::LANES
}

/// Widens `count` elements, and fills up the last vector with zeros.
///
/// # Safety
///
/// `from` is valid for reads of `count` values.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(simd: S, from: *const E, count: usize, to: &mut [f32]) {
    assert!(to.len() >= count.next_multiple_of(S::LANES));
    let whole = count - count % S::LANES;
    let mut i = 0;
    while i < whole {
        // SAFETY: `i + LANES <= count`.
        unsafe { simd.store(to.as_mut_ptr().add(i), E::load(simd, from.add(i))) };
        i += S::LANES;
    }
    if whole < count {
        // SAFETY: less than a vector is left, and `to` has room for a whole one.
        unsafe {
            let rest = E::load_first(simd, from.add(whole), count - whole);
            simd.store(to.as_mut_ptr().add(whole), rest);
        }
    }
}

/// Turns scores into weights, and writes what the sums must be scaled with.
#[inline(always)]
fn weigh<S: Simd, const V: usize>(simd: S, count: usize, scores: &mut [f32], states: &mut [f32]) {
    let width = V * S::LANES;
    assert!(scores.len() >= count * width && states.len() >= 3 * width);
    let (scores, states) = (scores.as_mut_ptr(), states.as_mut_ptr());
    let mut maxima = [simd.splat(0.0); V];
    for (v, maximum) in maxima.iter_mut().enumerate() {
        // SAFETY: within `width`.
        *maximum = unsafe { simd.load(states.add(v * S::LANES)) };
    }
    for key in 0..count {
        for (v, maximum) in maxima.iter_mut().enumerate() {
            // SAFETY: within `[count, width]`.
            let score = unsafe { simd.load(scores.add(key * width + v * S::LANES)) };
            *maximum = simd.max(score, *maximum);
        }
    }
    let mut sums = [simd.splat(0.0); V];
    for key in 0..count {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            unsafe {
                let at = scores.add(key * width + v * S::LANES);
                let weight = exp2_negative(simd, simd.sub(simd.load(at), maxima[v]));
                simd.store(at, weight);
                *sum = simd.add(*sum, weight);
            }
        }
    }
    for (v, (maximum, sum)) in maxima.into_iter().zip(sums).enumerate() {
        // SAFETY: within three times `width`.
        unsafe {
            let at = states.add(v * S::LANES);
            let scale = exp2_negative(simd, simd.sub(simd.load(at), maximum));
            simd.store(at, maximum);
            let weights = simd.mul_add(simd.load(at.add(width)), scale, sum);
            simd.store(at.add(width), weights);
            simd.store(at.add(2 * width), scale);
        }
    }
}

/// What products are added to.
#[derive(Clone, Copy)]
enum Start {
    Zero,
    /// What the result holds.
    Sum,
    /// That, times the scale of each query.
    Scaled(*const f32),
}

/// `out[j, r] = start + Σ_p b[j, p] a[p, r]`.
#[derive(Clone, Copy)]
struct Product {
    depth: usize,
    /// `[depth, R]`.
    a: *const f32,
    /// Elements `p` are `step` apart, rows `j` as the tile says.
    b: *const f32,
    step: usize,
    /// `[rows, R]`.
    out: *mut f32,
    start: Start,
}

impl Product {
    /// All rows, a multiple of those of a tile; `V` vectors each.
    ///
    /// # Safety
    ///
    /// The pointers are valid for these shapes.
    #[inline(always)]
    unsafe fn rows<S: Simd, const V: usize, const STRIDE: usize>(mut self, simd: S, rows: usize) {
        for _ in (0..rows).step_by(tile_rows::<S>()) {
            // SAFETY: the caller's.
            unsafe {
                match const { tile_rows::<S>() } {
                    8 => self.tile::<S, 8, V, STRIDE>(simd),
                    6 => self.tile::<S, 6, V, STRIDE>(simd),
                    _ => self.tile::<S, 4, V, STRIDE>(simd),
                }
            }
            self.b = self.b.wrapping_add(tile_rows::<S>() * STRIDE);
            self.out = self.out.wrapping_add(tile_rows::<S>() * V * S::LANES);
        }
    }

    /// The first `W` rows, whose sums stay in registers. Every sum runs over `p` in order.
    ///
    /// # Safety
    ///
    /// As of [`rows`](Self::rows).
    #[inline(always)]
    unsafe fn tile<S: Simd, const W: usize, const V: usize, const STRIDE: usize>(self, simd: S) {
        let mut sums = [[simd.splat(0.0); V]; W];
        match self.start {
            Start::Zero => {}
            Start::Sum => {
                for (j, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: within `[W, V · LANES]`.
                        *sum = unsafe { simd.load(self.out.add((j * V + v) * S::LANES)) };
                    }
                }
            }
            Start::Scaled(scales) => {
                for v in 0..V {
                    // SAFETY: within `V · LANES`.
                    let scale = unsafe { simd.load(scales.add(v * S::LANES)) };
                    for (j, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: within `[W, V · LANES]`.
                        let sum = unsafe { simd.load(self.out.add((j * V + v) * S::LANES)) };
                        sums[v] = simd.mul(sum, scale);
                    }
                }
            }
        }
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.depth {
            let mut inputs = [simd.splat(0.0); V];
            for (v, input) in inputs.iter_mut().enumerate() {
                // SAFETY: `a` is at row `p` of `[depth, V · LANES]`.
                *input = unsafe { simd.load(a.add(v * S::LANES)) };
            }
            for (j, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row `j` of `W`, element `p` of `depth`.
                let factor = simd.splat(unsafe { *b.add(j * STRIDE) });
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = simd.mul_add(factor, input, *sum);
                }
            }
            a = a.wrapping_add(V * S::LANES);
            b = b.wrapping_add(self.step);
        }
        for (j, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: within `[W, V · LANES]`.
                unsafe { simd.store(self.out.add((j * V + v) * S::LANES), sum) };
            }
        }
    }
}
