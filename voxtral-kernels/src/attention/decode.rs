//! Attention of a few queries, which is limited by the memory that keys and values come from.
//!
//! A task is a head of keys and a span of positions, and all queries that the head serves: the
//! keys of a chunk give the scores of each, then the chunk's values are added up by their weights.
//! Each span gives a maximum, a sum of weights and a sum of values; whoever computes the last span
//! of a head puts them together, in the order of the spans.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Attend, Element, overlap};
use crate::buffer::{Buffer, Shared};
use crate::exp::exp2_negative;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::for_each_part;

/// Positions of a task, from multiples of it on: at 400 keys and 8 heads there are still tasks for
/// as many threads.
const SPAN: usize = 512;

/// Positions whose scores are held at once.
const CHUNK: usize = 128;

/// Positions whose values are added up at once, so that they stay in the first-level cache while
/// one group of rows after the other takes them.
const BLOCK: usize = 32;

/// How many keys, and values, later the memory is asked for: within a page or two, where the
/// processor would start anew.
const KEYS_AHEAD: usize = 16;
const VALUES_AHEAD: usize = BLOCK;

/// Distance of the rows of scores: the last tile may write beyond the chunk.
const SCORES: usize = CHUNK + MAX_LANES;

/// Rows that share a load of a key or a value.
const ROWS: usize = 4;

thread_local! {
    /// What the spans of the thread that calls gave.
    static PARTIALS: RefCell<Buffer> = RefCell::default();
    /// The queries and the scores of a task.
    static SCRATCH: RefCell<[Buffer; 2]> = RefCell::default();
}

/// Computes everything.
pub(super) fn decode<S: Simd, E: Element>(simd: S, of: Attend<'_, E>) {
    let shape = of.shape;
    let rows = shape.queries * of.group();
    let seen = of.visible_to(0..shape.queries);
    let first = seen.start / SPAN;
    let spans = seen.end.div_ceil(SPAN).saturating_sub(first).max(1);
    let heads = shape.batch * shape.kv_heads;
    let partials = Partials {
        rows,
        width: shape.head_dim.next_multiple_of(S::LANES),
    };
    // Not borrowed: while this thread waits, it may be given something else to compute.
    let mut buffer = PARTIALS.take();
    let memory = Shared::new(buffer.get(heads * spans * partials.len()));
    let done: Vec<AtomicUsize> = (0..heads).map(|_| AtomicUsize::new(0)).collect();
    for_each_part(heads * spans, of.multiplications(), |i| {
        let (head, span) = (i / spans, i % spans);
        let start = (first + span) * SPAN;
        let task = Task {
            of,
            partials,
            batch: head / shape.kv_heads,
            kv_head: head % shape.kv_heads,
            positions: overlap(&(start..start + SPAN), &seen),
            // SAFETY: every task has its own, and it ends before `done` says so.
            partial: unsafe { memory.part(i * partials.len(), partials.len()) },
        };
        let mut scratch = SCRATCH.take();
        simd.vectorize(TaskWith(task, &mut scratch));
        SCRATCH.set(scratch);
        // Releases what this task wrote, and acquires what the others of its head wrote.
        if done[head].fetch_add(1, Ordering::AcqRel) + 1 == spans {
            simd.vectorize(Merge {
                of,
                partials,
                batch: head / shape.kv_heads,
                kv_head: head % shape.kv_heads,
                // SAFETY: all tasks of this head have ended, and one of them comes here.
                spans: unsafe {
                    memory.part(head * spans * partials.len(), spans * partials.len())
                },
            });
        }
    });
    PARTIALS.set(buffer);
}

/// How the results of a span lie: for each row its sum of values, and after all rows the maximum
/// and the sum of weights of each.
#[derive(Clone, Copy)]
struct Partials {
    rows: usize,
    /// Of a row, filled up to whole vectors.
    width: usize,
}

impl Partials {
    fn len(self) -> usize {
        // Cache lines of their own, since threads write them at the same time.
        (self.rows * (self.width + 2)).next_multiple_of(MAX_LANES)
    }

    #[inline(always)]
    fn sums(self, row: usize) -> usize {
        row * self.width
    }

    #[inline(always)]
    fn maximum(self, row: usize) -> usize {
        self.rows * self.width + row
    }

    #[inline(always)]
    fn weights(self, row: usize) -> usize {
        self.rows * (self.width + 1) + row
    }
}

/// All queries of a head of keys, and some positions.
struct Task<'a, E> {
    of: Attend<'a, E>,
    partials: Partials,
    batch: usize,
    kv_head: usize,
    positions: Range<usize>,
    partial: &'a mut [f32],
}

/// A task, and memory for its queries and its scores.
struct TaskWith<'a, E>(Task<'a, E>, &'a mut [Buffer; 2]);

impl<E: Element> Kernel for TaskWith<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(mut task, [queries, scores]) = self;
        let Partials { rows, width } = task.partials;
        let queries = queries.get(rows * width);
        let scores = scores.get(rows * SCORES);
        let scale = task.of.scale();
        for (row, to) in queries.chunks_exact_mut(width).enumerate() {
            let from = task.of.query(task.batch, task.kv_head, row);
            to[from.len()..].fill(0.0);
            for (to, from) in to.iter_mut().zip(from) {
                *to = scale * from;
            }
            task.partial[task.partials.sums(row)..][..width].fill(0.0);
            task.partial[task.partials.maximum(row)] = f32::MIN;
            task.partial[task.partials.weights(row)] = 0.0;
        }
        let Range { start, end } = task.positions;
        let mut first = start - start % CHUNK;
        while first < end {
            let chunk = start.max(first)..end.min(first + CHUNK);
            for (from, slot, count) in task.segments(&chunk) {
                task.scores(simd, queries, from - first, slot, count, scores);
            }
            for row in 0..rows {
                let own = task.own(row, &chunk);
                if !own.is_empty() {
                    let own = own.start - first..own.end - first;
                    task.weigh(simd, row, own, &mut scores[row * SCORES..][..CHUNK]);
                }
            }
            for (from, slot, count) in task.segments(&chunk) {
                for skip in (0..count).step_by(BLOCK) {
                    let block = from + skip..from + count.min(skip + BLOCK);
                    task.add(simd, block, slot + skip, first, scores);
                }
            }
            first += CHUNK;
        }
    }
}

impl<E: Element> Task<'_, E> {
    /// The slots of some positions: a position, its slot, and for how many both go on.
    #[inline(always)]
    fn segments(&self, positions: &Range<usize>) -> [(usize, usize, usize); 2] {
        let keys = self.of.shape.keys;
        let slot = positions.start % keys;
        let count = positions.len().min(keys - slot);
        let rest = positions.len() - count;
        [
            (positions.start, slot, count),
            (positions.start + count, 0, rest),
        ]
    }

    /// Those of some positions that a row sees.
    #[inline(always)]
    fn own(&self, row: usize, positions: &Range<usize>) -> Range<usize> {
        overlap(&self.of.visible(row / self.of.group()), positions)
    }

    /// The scores of all rows with `count` keys from `slot` on, the first of which is the chunk's
    /// key `at`.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        simd: S,
        queries: &[f32],
        at: usize,
        slot: usize,
        count: usize,
        scores: &mut [f32],
    ) {
        let Partials { rows, width } = self.partials;
        assert!(queries.len() == rows * width && scores.len() == rows * SCORES);
        assert!(at + count <= CHUNK);
        // A few keys at a time, so that all rows but the first take them from cache.
        let mut key = 0;
        while key < count {
            let step = S::LANES.min(count - key);
            let mut row = 0;
            while row < rows {
                let of = Scores {
                    queries: &queries[row * width..],
                    width,
                    d: self.of.shape.head_dim,
                    keys: Attend::slot(self.of.cache.keys, self.batch, self.kv_head, slot + key),
                    stride: self.of.cache.keys.strides.time,
                    count: step,
                    ahead: if row == 0 { KEYS_AHEAD } else { 0 },
                    scores: &mut scores[row * SCORES + at + key..],
                };
                // SAFETY: the keys from `slot + key` on are there, as are the rows.
                row += unsafe {
                    match rows - row {
                        ROWS.. => of.rows::<S, ROWS>(simd),
                        2.. => of.rows::<S, 2>(simd),
                        _ => of.rows::<S, 1>(simd),
                    }
                };
            }
            key += step;
        }
    }

    /// Turns a row's scores into weights, of which only its `own` are not 0, and scales what was
    /// added up before.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, row: usize, own: Range<usize>, scores: &mut [f32]) {
        assert_eq!(scores.len(), CHUNK);
        scores[..own.start].fill(f32::NEG_INFINITY);
        scores[own.end..].fill(f32::NEG_INFINITY);
        let at = scores.as_mut_ptr();
        let mut maximum = simd.splat(f32::NEG_INFINITY);
        for i in (0..CHUNK).step_by(S::LANES) {
            // SAFETY: `LANES` divides `CHUNK`.
            maximum = simd.max(unsafe { simd.load(at.add(i)) }, maximum);
        }
        let before = self.partial[self.partials.maximum(row)];
        let maximum = before.max(simd.max_lane(maximum));
        let shift = simd.splat(maximum);
        let mut sum = simd.splat(0.0);
        for i in (0..CHUNK).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe {
                let weight = exp2_negative(simd, simd.sub(simd.load(at.add(i)), shift));
                simd.store(at.add(i), weight);
                sum = simd.add(sum, weight);
            }
        }
        let sum = simd.sum(sum);
        if maximum == before {
            self.partial[self.partials.weights(row)] += sum;
            return;
        }
        let scale = exp2(simd, before - maximum);
        self.partial[self.partials.maximum(row)] = maximum;
        let weights = &mut self.partial[self.partials.weights(row)];
        *weights = *weights * scale + sum;
        for value in &mut self.partial[self.partials.sums(row)..][..self.partials.width] {
            *value *= scale;
        }
    }

    /// Adds the values of some positions, which stand in the slots from `slot` on, by the weights
    /// of a chunk that begins at `first`.
    #[inline(always)]
    fn add<S: Simd>(
        &mut self,
        simd: S,
        positions: Range<usize>,
        slot: usize,
        first: usize,
        weights: &[f32],
    ) {
        let Partials { rows, width } = self.partials;
        let stride = self.of.cache.values.strides.time;
        let mut row = 0;
        while row < rows {
            // Rows that see the same of them go together; a weight of 0 would do as well for the
            // others, were it not for values that are not finite.
            let own = self.own(row, &positions);
            let mut same = 1;
            while same < ROWS.min(rows - row) && self.own(row + same, &positions) == own {
                same += 1;
            }
            if own.is_empty() {
                row += same;
                continue;
            }
            let slot = slot + (own.start - positions.start);
            let of = Values {
                weights: &weights[row * SCORES + own.start - first..],
                values: Attend::slot(self.of.cache.values, self.batch, self.kv_head, slot),
                stride,
                count: own.len(),
                ahead: if row == 0 { VALUES_AHEAD } else { 0 },
                d: self.of.shape.head_dim,
                width,
                sums: &mut self.partial[self.partials.sums(row)..rows * width],
            };
            // SAFETY: the values of `own` are there, in slots that follow each other.
            row += unsafe {
                match same {
                    ROWS.. => of.rows::<S, ROWS>(simd),
                    2.. => of.rows::<S, 2>(simd),
                    _ => of.rows::<S, 1>(simd),
                }
            };
        }
    }
}

/// Some rows of queries, and as many keys as a vector has lanes, or fewer.
struct Scores<'a, E> {
    /// `[rows, width]`, filled up with zeros.
    queries: &'a [f32],
    width: usize,
    d: usize,
    keys: *const E,
    stride: usize,
    count: usize,
    /// How many keys later the memory is asked for, by the first rows.
    ahead: usize,
    /// Rows at a distance of [`SCORES`].
    scores: &'a mut [f32],
}

impl<E: Element> Scores<'_, E> {
    /// `R` rows; gives `R`.
    ///
    /// # Safety
    ///
    /// There are `count` keys of `d` elements, `stride` apart, and `count` is not 0.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(mut self, simd: S) -> usize {
        assert!(self.queries.len() >= R * self.width && self.d <= self.width);
        assert!(self.scores.len() >= (R - 1) * SCORES + S::LANES);
        let mut key = 0;
        while key < self.count {
            // SAFETY: the caller's; there are `R` rows, whose scores may be followed by others up
            // to `LANES`.
            unsafe {
                match const { S::LANES / R } {
                    16 => self.tile::<S, R, 16>(simd, key),
                    8 => self.tile::<S, R, 8>(simd, key),
                    4 => self.tile::<S, R, 4>(simd, key),
                    2 => self.tile::<S, R, 2>(simd, key),
                    _ => self.tile::<S, R, 1>(simd, key),
                }
            }
            key += S::LANES / R;
        }
        R
    }

    /// `R` rows times `T` keys from `first` on, which fill a vector of sums; beyond the last key
    /// it is taken again, and its scores mean nothing.
    ///
    /// # Safety
    ///
    /// As of [`rows`](Self::rows), `R · T = LANES`, `first` is a multiple of `T` below `count`, and
    /// the asserted lengths.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const T: usize>(&mut self, simd: S, first: usize) {
        let mut keys = [self.keys; T];
        for (t, key) in keys.iter_mut().enumerate() {
            *key = key.wrapping_add((first + t).min(self.count - 1) * self.stride);
        }
        let queries = self.queries.as_ptr();
        let ahead = self.ahead * self.stride;
        let mut sums = [[simd.splat(0.0); T]; R];
        let whole = self.d - self.d % S::LANES;
        let mut p = 0;
        while p < whole {
            let mut inputs = [simd.splat(0.0); R];
            for (r, input) in inputs.iter_mut().enumerate() {
                // SAFETY: `p + LANES <= width`, of `R` rows.
                *input = unsafe { simd.load(queries.add(r * self.width + p)) };
            }
            for (t, key) in keys.iter().enumerate() {
                simd.prefetch(key.wrapping_add(p + ahead).cast());
                // SAFETY: `p + LANES <= d`.
                let key = unsafe { E::load(simd, key.add(p)) };
                for (sums, input) in sums.iter_mut().zip(inputs) {
                    sums[t] = simd.mul_add(input, key, sums[t]);
                }
            }
            p += S::LANES;
        }
        if whole < self.d {
            for (t, key) in keys.iter().enumerate() {
                // SAFETY: `d - whole < LANES` elements are left.
                let key = unsafe { E::load_first(simd, key.add(whole), self.d - whole) };
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: rows are filled up to whole vectors.
                    let input = unsafe { simd.load(queries.add(r * self.width + whole)) };
                    sums[t] = simd.mul_add(input, key, sums[t]);
                }
            }
        }
        let mut flat = [simd.splat(0.0); MAX_LANES];
        for (r, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                flat[r * T + t] = sum;
            }
        }
        let mut each = [0.0; MAX_LANES];
        // SAFETY: `MAX_LANES >= LANES`.
        unsafe { simd.store(each.as_mut_ptr(), simd.sum_each(&flat)) };
        let scores = self.scores.as_mut_ptr();
        for r in 0..R {
            // SAFETY: `first + T <= LANES`, of `R` rows.
            unsafe {
                let to = scores.add(r * SCORES + first);
                std::ptr::copy_nonoverlapping(each.as_ptr().add(r * T), to, T);
            }
        }
    }
}

/// Some rows of weights, and the values that they are of.
struct Values<'a, E> {
    /// Rows at a distance of [`SCORES`].
    weights: &'a [f32],
    values: *const E,
    stride: usize,
    count: usize,
    /// How many values later the memory is asked for, by the first rows.
    ahead: usize,
    d: usize,
    /// Distance of the rows of `sums`.
    width: usize,
    sums: &'a mut [f32],
}

impl<E: Element> Values<'_, E> {
    /// `sums[r] += Σ_k weights[r, k] values[k]` of `R` rows; gives `R`.
    ///
    /// # Safety
    ///
    /// There are `count` values of `d` elements, `stride` apart.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(mut self, simd: S) -> usize {
        assert!(self.count > 0 && self.weights.len() >= (R - 1) * SCORES + self.count);
        assert!(self.sums.len() >= R * self.width && self.d <= self.width);
        assert!(self.width.is_multiple_of(S::LANES));
        let whole = self.d - self.d % S::LANES;
        let mut p = 0;
        while p < whole {
            let vectors = (whole - p) / S::LANES;
            // SAFETY: the caller's, and so many vectors are left.
            p += S::LANES
                * unsafe {
                    match vectors {
                        4.. if const { S::REGISTERS > 4 * R + R + 4 } => {
                            self.tile::<S, R, 4>(simd, p)
                        }
                        2.. => self.tile::<S, R, 2>(simd, p),
                        _ => self.tile::<S, R, 1>(simd, p),
                    }
                };
        }
        if whole < self.d {
            // SAFETY: the caller's, and less than a vector is left.
            unsafe { self.tail::<S, R>(simd, whole) };
        }
        R
    }

    /// `D` vectors from `p` on; gives `D`.
    ///
    /// # Safety
    ///
    /// As of [`rows`](Self::rows), with the asserted lengths; `p + D · LANES <= d`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const D: usize>(&mut self, simd: S, p: usize) -> usize {
        let mut sums = [[simd.splat(0.0); D]; R];
        let to = self.sums.as_mut_ptr().wrapping_add(p);
        for (r, sums) in sums.iter_mut().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: within row `r`.
                *sum = unsafe { simd.load(to.add(r * self.width + i * S::LANES)) };
            }
        }
        let mut from = self.values.wrapping_add(p);
        let weights = self.weights.as_ptr();
        let ahead = self.ahead * self.stride;
        for key in 0..self.count {
            let mut values = [simd.splat(0.0); D];
            for (i, value) in values.iter_mut().enumerate() {
                simd.prefetch(from.wrapping_add(i * S::LANES + ahead).cast());
                // SAFETY: within value `key`.
                *value = unsafe { E::load(simd, from.add(i * S::LANES)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `key < count`.
                let weight = simd.splat(unsafe { *weights.add(r * SCORES + key) });
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = simd.mul_add(weight, value, *sum);
                }
            }
            from = from.wrapping_add(self.stride);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (i, sum) in sums.into_iter().enumerate() {
                // SAFETY: within row `r`.
                unsafe { simd.store(to.add(r * self.width + i * S::LANES), sum) };
            }
        }
        D
    }

    /// What is left from `whole` on.
    ///
    /// # Safety
    ///
    /// As of [`rows`](Self::rows), with the asserted lengths; `d - whole < LANES`.
    #[inline(always)]
    unsafe fn tail<S: Simd, const R: usize>(&mut self, simd: S, whole: usize) {
        let to = self.sums.as_mut_ptr().wrapping_add(whole);
        for key in 0..self.count {
            let from = self.values.wrapping_add(key * self.stride + whole);
            // SAFETY: within value `key`.
            let value = unsafe { E::load_first(simd, from, self.d - whole) };
            for r in 0..R {
                // SAFETY: rows are filled up to whole vectors, and `key < count`.
                unsafe {
                    let weight = simd.splat(*self.weights.as_ptr().add(r * SCORES + key));
                    let sum = simd.load(to.add(r * self.width));
                    simd.store(to.add(r * self.width), simd.mul_add(weight, value, sum));
                }
            }
        }
    }
}

/// The spans of a head.
struct Merge<'a, E> {
    of: Attend<'a, E>,
    partials: Partials,
    batch: usize,
    kv_head: usize,
    spans: &'a mut [f32],
}

impl<E: Element> Kernel for Merge<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let at = self.partials;
        let d = self.of.shape.head_dim;
        let len = at.len();
        for row in 0..at.rows {
            let mut maximum = f32::MIN;
            for span in self.spans.chunks_exact(len) {
                maximum = maximum.max(span[at.maximum(row)]);
            }
            // The first span takes the sums.
            let (first, rest) = self.spans.split_at_mut(len);
            let scale = exp2(simd, first[at.maximum(row)] - maximum);
            let mut weights = scale * first[at.weights(row)];
            let sums = &mut first[at.sums(row)..][..d];
            for sum in sums.iter_mut() {
                *sum *= scale;
            }
            for span in rest.chunks_exact(len) {
                let scale = exp2(simd, span[at.maximum(row)] - maximum);
                weights += scale * span[at.weights(row)];
                for (sum, value) in sums.iter_mut().zip(&span[at.sums(row)..][..d]) {
                    *sum += scale * value;
                }
            }
            // No weights, no keys: the sums are zeros.
            let scale = if weights == 0.0 { 0.0 } else { 1.0 / weights };
            // SAFETY: this thread alone merges this head, and the row dies at once.
            let out = unsafe { self.of.result(self.batch, self.kv_head, row) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = *sum * scale;
            }
        }
    }
}

/// `2^x` for `x ≤ 0`.
#[inline(always)]
fn exp2<S: Simd>(simd: S, x: f32) -> f32 {
    simd.max_lane(exp2_negative(simd, simd.splat(x)))
}
