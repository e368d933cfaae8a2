//! Products of many rows, which are limited by arithmetic.
//!
//! The input is copied once into panels `[inputs, R]` of as many rows as a tile has, so that a
//! vector holds the same input of neighbouring rows. A task is a block of rows and a block of
//! weight rows. [`DEPTH`] inputs at a time, it widens its weights into `[weight rows, DEPTH]` in
//! cache, which needs no transposition since a weight is broadcast, and adds up its tiles into
//! `[weight rows, R]` for each panel; in the end it writes those transposed, with the bias.
//!
//! Each sum is that of the sums of [`DEPTH`] inputs, both in order. It depends neither on the
//! other rows nor on the threads.

use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::{Buffer, Shared};
use crate::format::Format;
use crate::product::{Product, Shape};
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_part;
use crate::tile::{DEPTH, STRIDE, Tile};

/// Rows of a task: its sums and its weights stay in the second-level cache.
const TASK_ROWS: usize = 512;

/// Weight rows of a task.
const TASK_OUTPUTS: usize = 96;

/// Tasks for each thread, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;

/// Values of the input that are in panels at once (32 MiB), whatever the number of rows.
const PACKED: usize = 1 << 23;

thread_local! {
    /// The panels of the thread that calls.
    static PANELS: RefCell<Buffer> = RefCell::default();
    /// The widened weights and the sums of a task.
    static SCRATCH: RefCell<[Buffer; 2]> = RefCell::default();
}

/// Computes the whole product, on the threads of rayon's current pool.
pub(crate) fn gemm<S: Simd, F: Format>(simd: S, product: Product<'_, F>, out: Shared<'_>) {
    let Shape { rows, inputs, .. } = product.shape;
    let width = S::TILE_VECTORS * S::LANES;
    let block = (PACKED / inputs / width).max(1) * width;
    // Not borrowed: while this thread waits, rayon may give it another product to compute.
    let mut buffer = PANELS.take();
    for first in (0..rows).step_by(block) {
        let rows = first..(first + block).min(rows);
        let panels = buffer.get(rows.len().next_multiple_of(S::LANES) * inputs);
        pack(product, rows.clone(), width, S::LANES, panels);
        multiply(simd, product, rows, panels, out);
    }
    PANELS.set(buffer);
}

/// Copies rows into panels `[inputs, width]`, the last one as narrow as vectors of `lanes` allow
/// and filled up with zeros.
fn pack<F: Format>(
    product: Product<'_, F>,
    rows: Range<usize>,
    width: usize,
    lanes: usize,
    panels: &mut [f32],
) {
    let inputs = product.shape.inputs;
    let x = &product.x[rows.start * inputs..rows.end * inputs];
    let panels = Shared::new(panels);
    let parts = rows.len().div_ceil(width);
    for_each_part(parts, product.multiplications(), |i| {
        let start = i * width * inputs;
        let x = &x[start..(start + width * inputs).min(x.len())];
        let count = x.len() / inputs;
        let width = count.next_multiple_of(lanes);
        // SAFETY: every panel is another part's.
        let panel = unsafe { panels.part(start, width * inputs) };
        // A vector of inputs of each row at a time, so that lines of both sides stay in cache.
        for first in (0..inputs).step_by(lanes) {
            for r in 0..width {
                for p in first..(first + lanes).min(inputs) {
                    panel[p * width + r] = if r < count { x[r * inputs + p] } else { 0.0 };
                }
            }
        }
    });
}

/// Multiplies rows that are in panels.
fn multiply<S: Simd, F: Format>(
    simd: S,
    product: Product<'_, F>,
    rows: Range<usize>,
    panels: &[f32],
    out: Shared<'_>,
) {
    let outputs = product.shape.outputs;
    let width = S::TILE_VECTORS * S::LANES;
    let blocks = rows.len().div_ceil(TASK_ROWS);
    let task_rows = rows.len().div_ceil(blocks).next_multiple_of(width);
    let wanted = rayon::current_num_threads() * TASKS_PER_THREAD;
    let task_outputs = outputs
        .div_ceil(wanted.div_ceil(blocks))
        .min(TASK_OUTPUTS)
        .next_multiple_of(S::TILE_SUMS);
    let columns = outputs.div_ceil(task_outputs);
    let tasks = columns * rows.len().div_ceil(task_rows);
    for_each_part(tasks, product.multiplications(), |i| {
        let first = i / columns * task_rows;
        let last = (first + task_rows).min(rows.len());
        let output = i % columns * task_outputs;
        let task = Task {
            product,
            rows: rows.start + first..rows.start + last,
            panels: &panels[first * product.shape.inputs..],
            outputs: output..(output + task_outputs).min(outputs),
            out,
        };
        let mut scratch = SCRATCH.take();
        simd.vectorize(TaskWith(task, &mut scratch));
        SCRATCH.set(scratch);
    });
}

/// A block of rows times a block of weight rows.
struct Task<'a, F: Format> {
    product: Product<'a, F>,
    rows: Range<usize>,
    /// The panels of `rows`, and maybe others.
    panels: &'a [f32],
    outputs: Range<usize>,
    out: Shared<'a>,
}

/// A task, and memory for its widened weights and its sums.
struct TaskWith<'a, F: Format>(Task<'a, F>, &'a mut [Buffer; 2]);

impl<F: Format> Kernel for TaskWith<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(task, [weights, sums]) = self;
        let inputs = task.product.shape.inputs;
        let columns = task.outputs.len().next_multiple_of(S::TILE_SUMS);
        let rows = task.rows.len().next_multiple_of(S::LANES);
        let weights = weights.get(columns * STRIDE);
        let sums = sums.get(columns * rows);
        for from in (0..inputs).step_by(DEPTH) {
            let depth = DEPTH.min(inputs - from);
            task.widen(simd, from, depth, weights);
            task.tiles(simd, from, depth, weights, sums);
        }
        task.write::<S>(sums, columns);
    }
}

impl<F: Format> Task<'_, F> {
    /// The panels of this task: their first row, counted from the task's, and their width.
    #[inline(always)]
    fn widths<S: Simd>(&self) -> impl Iterator<Item = (usize, usize)> + use<S, F> {
        let (rows, width) = (self.rows.len(), S::TILE_VECTORS * S::LANES);
        (0..rows)
            .step_by(width)
            .map(move |first| (first, width.min((rows - first).next_multiple_of(S::LANES))))
    }

    /// `[weight rows, STRIDE]` of `depth` inputs, filled up with rows of zeros.
    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, from: usize, depth: usize, weights: &mut [f32]) {
        let inputs = self.product.shape.inputs;
        let vectors = depth - depth % S::LANES;
        for (j, to) in weights.chunks_exact_mut(STRIDE).enumerate() {
            let to = &mut to[..depth];
            let output = self.outputs.start + j;
            if output >= self.outputs.end {
                to.fill(0.0);
                continue;
            }
            let stored = &self.product.weight[output * inputs + from..][..depth];
            for p in (0..vectors).step_by(S::LANES) {
                // SAFETY: `p + LANES <= depth`, the length of both.
                unsafe {
                    let value = F::load(simd, stored.as_ptr().add(p));
                    simd.store(to.as_mut_ptr().add(p), value);
                }
            }
            for p in vectors..depth {
                to[p] = F::widen(stored[p]);
            }
        }
    }

    /// Adds the products of `depth` inputs to `sums`, `[panel, weight rows, width]`.
    #[inline(always)]
    fn tiles<S: Simd>(
        &self,
        simd: S,
        from: usize,
        depth: usize,
        weights: &[f32],
        sums: &mut [f32],
    ) {
        let inputs = self.product.shape.inputs;
        let columns = weights.len() / STRIDE;
        for (first, width) in self.widths::<S>() {
            let x = &self.panels[first * inputs + from * width..][..depth * width];
            let sums = &mut sums[first * columns..][..columns * width];
            let vectors = width / S::LANES;
            let tile_outputs = S::TILE_SUMS / vectors;
            let weights = weights.chunks_exact(tile_outputs * STRIDE);
            for (weights, sums) in weights.zip(sums.chunks_exact_mut(tile_outputs * width)) {
                let tile = Tile {
                    depth,
                    x: x.as_ptr(),
                    weight: weights.as_ptr(),
                    sums: sums.as_mut_ptr(),
                    add: from > 0,
                };
                // SAFETY: the slices have these shapes.
                unsafe { simd.tile(vectors, tile) };
            }
        }
    }

    /// Writes `sums`, transposed and with the bias.
    #[inline(always)]
    fn write<S: Simd>(&self, sums: &[f32], columns: usize) {
        let Product { shape, bias, .. } = self.product;
        let Range { start, end } = self.outputs;
        for (first, width) in self.widths::<S>() {
            let sums = &sums[first * columns..][..columns * width];
            for r in 0..width.min(self.rows.len() - first) {
                let row = self.rows.start + first + r;
                // SAFETY: this task alone has these outputs of its rows, and parts die at once.
                let out = unsafe { self.out.part(row * shape.outputs + start, end - start) };
                let sums = sums[r..].iter().step_by(width);
                match bias {
                    Some(bias) => {
                        for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[start..end]) {
                            *out = sum + bias;
                        }
                    }
                    None => {
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out = *sum;
                        }
                    }
                }
            }
        }
    }
}
