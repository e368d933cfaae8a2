//! Products of a few rows with a quantized weight, limited by the memory that it comes from.
//!
//! A part is a few panels, which are walked side by side so that memory is read in several streams.
//! Every panel is read once for all rows. A sum is that of the sums of the units, in order; it
//! depends neither on the other rows nor on the threads.

use std::cell::RefCell;
use std::ops::Range;

use crate::buffer::{Buffer, Shared};
use crate::micro::{PANEL, PANEL_WORDS, STEP, WORDS};
use crate::product::{PART_BYTES, Product};
use crate::simd::{Kernel, Simd};
use crate::source::{Panels, Source};
use crate::threads::for_each_part;
use crate::word::F32Word;

thread_local! {
    /// Widened weights.
    static WEIGHTS: RefCell<Buffer> = RefCell::default();
}

/// How a few rows are multiplied with a quantized weight.
pub(crate) trait Few: Copy + Send + Sync {
    /// Computes the whole product, on all threads.
    fn compute(self, product: Product<'_>, weight: Panels<'_>, out: Shared<'_>);
}

/// Panels that one part takes.
pub(crate) fn panels_per_part(weight: Panels<'_>, side_by_side: usize) -> usize {
    let together = side_by_side * weight.quant.panel_bytes(weight.inputs);
    (PART_BYTES / together.max(1)).max(1) * side_by_side
}

/// Writes the sums of a row's outputs in a panel, with the bias.
///
/// # Safety
///
/// No other thread has these outputs.
#[inline(always)]
pub(crate) unsafe fn write(
    product: Product<'_>,
    out: Shared<'_>,
    row: usize,
    panel: usize,
    sums: &[f32; PANEL],
) {
    let outputs = product.shape.outputs;
    let first = panel * PANEL;
    let count = PANEL.min(outputs - first);
    // SAFETY: the caller's, and the part dies at once.
    let out = unsafe { out.part(row * outputs + first, count) };
    match product.bias {
        Some(bias) => {
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&bias[first..]) {
                *out = sum + bias;
            }
        }
        None => out.copy_from_slice(&sums[..count]),
    }
}

/// Widens the weights in cache, chunk by chunk, and multiplies in `f32`.
#[derive(Clone, Copy)]
pub(crate) struct Widening<S>(pub(crate) S);

impl<S: Simd> Few for Widening<S> {
    fn compute(self, product: Product<'_>, weight: Panels<'_>, out: Shared<'_>) {
        let panels = product.shape.outputs.div_ceil(PANEL);
        let part = panels_per_part(weight, 1);
        for_each_part(panels.div_ceil(part), product.multiplications(), |i| {
            let mut buffer = WEIGHTS.take();
            self.0.vectorize(Widened {
                product,
                weight,
                panels: i * part..((i + 1) * part).min(panels),
                out,
                buffer: buffer.words(PANEL_WORDS),
            });
            WEIGHTS.set(buffer);
        });
    }
}

struct Widened<'a> {
    product: Product<'a>,
    weight: Panels<'a>,
    panels: Range<usize>,
    out: Shared<'a>,
    buffer: &'a mut [u32],
}

impl Kernel for Widened<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            product,
            weight,
            panels,
            out,
            buffer,
        } = self;
        let inputs = product.shape.inputs;
        let rows = product.shape.rows;
        for panel in panels {
            let mut sums = [[0.0; PANEL]; crate::product::FEW_ROWS];
            for from in (0..inputs).step_by(WORDS) {
                let count = WORDS.min(inputs - from);
                Source::<F32Word>::pack(
                    weight,
                    simd,
                    panel,
                    from,
                    count.next_multiple_of(STEP),
                    buffer,
                );
                for (r, sums) in sums.iter_mut().take(rows).enumerate() {
                    let x = &product.x[r * inputs + from..][..count];
                    accumulate(simd, x, buffer, sums);
                }
            }
            for (r, sums) in sums.iter().take(rows).enumerate() {
                // SAFETY: this part alone has the panel.
                unsafe { write(product, out, r, panel, sums) };
            }
        }
    }
}

/// Adds the products of one row and one widened panel, `[inputs, PANEL]`.
#[inline(always)]
fn accumulate<S: Simd>(simd: S, x: &[f32], weights: &[u32], sums: &mut [f32; PANEL]) {
    /// Sums that do not wait for each other.
    const CHAINS: usize = 4;
    let weights = &weights[..x.len() * PANEL];
    for first in (0..PANEL).step_by(S::LANES) {
        let mut chains = [simd.splat(0.0); CHAINS];
        for (p, x) in x.iter().enumerate() {
            // SAFETY: `LANES` values of row `p`.
            let weight = unsafe { simd.load(weights.as_ptr().add(p * PANEL + first).cast()) };
            let chain = &mut chains[p % CHAINS];
            *chain = simd.mul_add(simd.splat(*x), weight, *chain);
        }
        let [a, b, c, d] = chains;
        let sum = simd.add(simd.add(a, b), simd.add(c, d));
        // SAFETY: `LANES` of the sums.
        unsafe {
            let to = sums.as_mut_ptr().add(first);
            simd.store(to, simd.add(sum, simd.load(to)));
        }
    }
}
