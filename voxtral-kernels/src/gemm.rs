//! Products of many rows, which are limited by arithmetic.
//!
//! The inputs are packed once, [`WORDS`] words of every row side by side. A task is a block of rows
//! and a block of panels. Chunk by chunk, it packs its weights, which dequantizes or widens them in
//! cache and turns them so that a vector holds the same input of 16 outputs, and adds up its tiles
//! into `[rows, outputs]`; in the end it writes those with the bias.
//!
//! Each sum is that of the sums of the chunks, both in order. It depends neither on the other rows
//! nor on the threads.

use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::{Buffer, Shared};
use crate::micro::{Micro, PANEL, PANEL_WORDS, ROW, STEP, Tile, WORDS};
use crate::product::Product;
use crate::simd::{Kernel, Simd};
use crate::source::Source;
use crate::threads::{for_each_part, threads};
use crate::word::Word;

/// Rows of a task: a chunk of them and their sums stay in the second-level cache.
const TASK_ROWS: usize = 384;

/// Panels of a task.
const TASK_PANELS: usize = 6;

/// Tasks for each thread, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;

/// Words of the input that are packed at once (32 MiB), whatever the number of rows.
const PACKED: usize = 1 << 23;

/// Rows that are packed as one part.
const PACK_ROWS: usize = 16;

thread_local! {
    /// The packed inputs of the thread that calls.
    static INPUTS: RefCell<Buffer> = RefCell::default();
    /// The packed weights and the sums of a task.
    static SCRATCH: RefCell<[Buffer; 2]> = RefCell::default();
}

/// Computes the whole product, on all threads.
pub(crate) fn gemm<M: Micro, W: Source<M::Word>>(
    micro: M,
    product: Product<'_>,
    weight: W,
    out: Shared<'_>,
) {
    let rows = product.shape.rows;
    let chunks = Chunks::of::<M>(product.shape.inputs);
    let block = (PACKED / ROW / chunks.count())
        .max(1)
        .next_multiple_of(M::ROWS);
    // Not borrowed: a part of a region may call another product.
    let mut buffer = INPUTS.take();
    for first in (0..rows).step_by(block) {
        let rows = first..(first + block).min(rows);
        let packed = Packed::new(micro, product, rows, chunks, &mut buffer);
        multiply(micro, product, &packed, weight, out);
    }
    INPUTS.set(buffer);
}

/// How the words of a row are divided.
#[derive(Clone, Copy)]
struct Chunks {
    /// Words of a row, a multiple of [`STEP`].
    words: usize,
}

impl Chunks {
    fn of<M: Micro>(inputs: usize) -> Self {
        let words = inputs.div_ceil(M::Word::INPUTS);
        Self {
            words: words.next_multiple_of(STEP),
        }
    }

    fn count(self) -> usize {
        self.words.div_ceil(WORDS)
    }

    /// The words of a chunk.
    #[inline(always)]
    fn words(self, chunk: usize) -> Range<usize> {
        chunk * WORDS..((chunk + 1) * WORDS).min(self.words)
    }
}

/// Rows of the input in words, `[chunks, rows, ROW]`.
struct Packed<'a> {
    rows: Range<usize>,
    chunks: Chunks,
    words: &'a [u32],
}

impl<'a> Packed<'a> {
    fn new<M: Micro>(
        micro: M,
        product: Product<'_>,
        rows: Range<usize>,
        chunks: Chunks,
        buffer: &'a mut Buffer,
    ) -> Self {
        let room = Self::room::<M>(rows.len());
        let words = buffer.words(chunks.count() * room * ROW);
        let shared = Shared::new(words);
        let parts = room.div_ceil(PACK_ROWS);
        let work = room.saturating_mul(product.shape.inputs);
        for_each_part(parts, work, |part| {
            micro.vectorize(Pack::<M> {
                micro,
                product,
                rows: rows.clone(),
                part: part * PACK_ROWS..((part + 1) * PACK_ROWS).min(room),
                room,
                chunks,
                words: shared,
            });
        });
        Self {
            rows,
            chunks,
            words,
        }
    }

    /// Rows with those that fill up the last tile.
    fn room<M: Micro>(rows: usize) -> usize {
        rows.next_multiple_of(M::ROWS)
    }
}

/// Packs some rows.
struct Pack<'a, M> {
    micro: M,
    product: Product<'a>,
    rows: Range<usize>,
    /// The rows to pack, counted from the first of `rows`.
    part: Range<usize>,
    room: usize,
    chunks: Chunks,
    words: Shared<'a, u32>,
}

impl<M: Micro> Kernel for Pack<'_, M> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let inputs = self.product.shape.inputs;
        for r in self.part.clone() {
            let row: &[f32] = match self.rows.start + r {
                row if row < self.rows.end => &self.product.x[row * inputs..][..inputs],
                _ => &[],
            };
            for chunk in 0..self.chunks.count() {
                let words = self.chunks.words(chunk);
                let start = (words.start * M::Word::INPUTS).min(row.len());
                let end = (words.end * M::Word::INPUTS).min(row.len());
                // SAFETY: every row is another part's.
                let to = unsafe { self.words.part((chunk * self.room + r) * ROW, ROW) };
                if start == end {
                    to.fill(0);
                } else {
                    M::Word::pack(&row[start..end], to);
                }
            }
        }
        let _ = self.micro;
    }
}

/// Multiplies packed rows.
fn multiply<M: Micro, W: Source<M::Word>>(
    micro: M,
    product: Product<'_>,
    packed: &Packed<'_>,
    weight: W,
    out: Shared<'_>,
) {
    let rows = packed.rows.len();
    let panels = product.shape.outputs.div_ceil(PANEL);
    let blocks = rows.div_ceil(TASK_ROWS);
    let task_rows = rows.div_ceil(blocks).next_multiple_of(M::ROWS);
    let wanted = threads() * TASKS_PER_THREAD;
    let task_panels = panels
        .div_ceil(wanted.div_ceil(blocks))
        .min(TASK_PANELS)
        .next_multiple_of(M::PANELS);
    let columns = panels.div_ceil(task_panels);
    let tasks = columns * rows.div_ceil(task_rows);
    for_each_part(tasks, product.multiplications(), |i| {
        let first = i / columns * task_rows;
        let panel = i % columns * task_panels;
        let mut scratch = SCRATCH.take();
        micro.vectorize(Task {
            micro,
            product,
            packed,
            rows: first..(first + task_rows).min(rows),
            panels: panel..(panel + task_panels).min(panels),
            weight,
            out,
            scratch: &mut scratch,
        });
        SCRATCH.set(scratch);
    });
}

/// A block of rows times a block of panels.
struct Task<'a, M, W> {
    micro: M,
    product: Product<'a>,
    packed: &'a Packed<'a>,
    /// Counted from the first packed row.
    rows: Range<usize>,
    panels: Range<usize>,
    weight: W,
    out: Shared<'a>,
    /// Memory for the packed weights and the sums.
    scratch: &'a mut [Buffer; 2],
}

impl<M: Micro, W: Source<M::Word>> Kernel for Task<'_, M, W> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Self {
            micro,
            packed,
            ref rows,
            ref panels,
            weight,
            ..
        } = self;
        let room = Packed::room::<M>(packed.rows.len());
        let columns = panels.len().next_multiple_of(M::PANELS);
        let height = rows.len().next_multiple_of(M::ROWS);
        let [weights, sums] = self.scratch;
        let weights = weights.words(columns * PANEL_WORDS);
        let sums = sums.get(height * columns * PANEL);
        for chunk in 0..packed.chunks.count() {
            let words = packed.chunks.words(chunk);
            for (panel, to) in weights.chunks_exact_mut(PANEL_WORDS).enumerate() {
                let panel = panels.start + panel;
                weight.pack(micro.simd(), panel, words.start, words.len(), to);
            }
            let inputs = &packed.words[(chunk * room + rows.start) * ROW..][..height * ROW];
            for (i, weights) in weights.chunks_exact(M::PANELS * PANEL_WORDS).enumerate() {
                for (j, inputs) in inputs.chunks_exact(M::ROWS * ROW).enumerate() {
                    let at = j * M::ROWS * columns * PANEL + i * M::PANELS * PANEL;
                    let tile = Tile {
                        words: words.len(),
                        inputs: inputs.as_ptr(),
                        weights: weights.as_ptr(),
                        sums: sums[at..].as_mut_ptr(),
                        sums_row: columns * PANEL,
                        add: chunk > 0,
                    };
                    // SAFETY: the slices have these shapes.
                    unsafe { micro.tile(tile) };
                }
            }
        }
        let (shape, bias) = (self.product.shape, self.product.bias);
        let outputs = panels.start * PANEL..(panels.end * PANEL).min(shape.outputs);
        for (r, sums) in rows.clone().zip(sums.chunks_exact(columns * PANEL)) {
            let start = (packed.rows.start + r) * shape.outputs + outputs.start;
            // SAFETY: this task alone has these rows and outputs.
            let out = unsafe { self.out.part(start, outputs.len()) };
            match bias {
                Some(bias) => {
                    for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[outputs.clone()]) {
                        *out = sum + bias;
                    }
                }
                None => out.copy_from_slice(&sums[..outputs.len()]),
            }
        }
    }
}
