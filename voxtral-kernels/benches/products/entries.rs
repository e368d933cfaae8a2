//! The products that are measured.

use std::hint::black_box;
use std::rc::Rc;

use voxtral_kernels::{Kernels, Shape, Weight};

use crate::seconds;

/// What bounds a product.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Arithmetic,
}

/// A weight of a product.
enum Stored {
    Floats(Rc<[f32]>),
    Halves(Vec<u16>),
}

#[derive(Clone, Copy)]
enum Format {
    F32,
    Bf16,
    F16,
}

/// A product, and the best of its times.
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) seconds: f64,
    /// Of the `gemm` crate, with the weight in `f32`.
    pub(crate) gemm_seconds: f64,
    shape: Shape,
    format: Format,
    x: Vec<f32>,
    out: Vec<f32>,
    /// Several, together beyond what a cache holds, used in turns.
    weights: Vec<Stored>,
    next: usize,
    /// What the `gemm` crate multiplies with, where the weights are not `f32`.
    widened: Rc<[f32]>,
}

/// Memory of the weights of a product that is bound by memory.
const WEIGHT_BYTES: usize = 200 << 20;

pub(crate) fn all() -> Vec<Entry> {
    let wide = values(3072 * 8192);
    let few = |rows, format| Entry::new(Kind::Memory, [rows, 3072, 8192], format, &wide);
    let mut entries = vec![
        few(1, Format::F32),
        few(1, Format::Bf16),
        few(1, Format::F16),
        few(4, Format::Bf16),
        few(8, Format::Bf16),
    ];
    for rows in [9, 16, 64] {
        let shape = [rows, 3072, 8192];
        entries.push(Entry::new(Kind::Arithmetic, shape, Format::Bf16, &wide));
    }
    for (inputs, outputs) in [(1280, 5120), (5120, 1280), (1280, 1280)] {
        let weight = values(inputs * outputs);
        for format in [Format::F32, Format::Bf16, Format::F16] {
            let shape = [1500, inputs, outputs];
            entries.push(Entry::new(Kind::Arithmetic, shape, format, &weight));
        }
    }
    entries
}

/// Normal numbers.
fn values(len: usize) -> Rc<[f32]> {
    (0..len).map(|i| (i % 17) as f32 / 17.0 - 0.51).collect()
}

impl Entry {
    fn new(
        kind: Kind,
        [rows, inputs, outputs]: [usize; 3],
        format: Format,
        widened: &Rc<[f32]>,
    ) -> Self {
        let len = inputs * outputs;
        let weight = match format {
            Format::F32 => Stored::Floats(widened.clone()),
            // Around 1 as bfloat16 and as binary16.
            Format::Bf16 => Stored::Halves((0..len).map(|i| 0x3f00 + (i % 256) as u16).collect()),
            Format::F16 => Stored::Halves((0..len).map(|i| 0x3a00 + (i % 1024) as u16).collect()),
        };
        let copies = match kind {
            Kind::Memory => WEIGHT_BYTES.div_ceil(weight.bytes()),
            Kind::Arithmetic => 1,
        };
        Self {
            kind,
            seconds: f64::INFINITY,
            gemm_seconds: f64::INFINITY,
            shape: Shape {
                rows,
                inputs,
                outputs,
            },
            format,
            x: values(rows * inputs).to_vec(),
            out: vec![0.0; rows * outputs],
            weights: (0..copies).map(|_| weight.copied()).collect(),
            next: 0,
            widened: widened.clone(),
        }
    }

    pub(crate) fn name(&self) -> String {
        let Shape {
            rows,
            inputs,
            outputs,
        } = self.shape;
        let format = match self.format {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::F16 => "f16",
        };
        format!("[{rows}, {inputs}] × [{outputs}, {inputs}]ᵀ {format}")
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.weights[0].bytes() as f64
    }

    pub(crate) fn multiplications(&self) -> f64 {
        let Shape {
            rows,
            inputs,
            outputs,
        } = self.shape;
        rows as f64 * inputs as f64 * outputs as f64
    }

    pub(crate) fn turn(&mut self, kernels: Kernels) {
        for _ in 0..self.weights.len().max(2) {
            let weight = match (&self.weights[self.next % self.weights.len()], self.format) {
                (Stored::Floats(values), _) => Weight::F32(values),
                (Stored::Halves(bits), Format::F16) => Weight::F16(bits),
                (Stored::Halves(bits), _) => Weight::Bf16(bits),
            };
            self.next += 1;
            let out = &mut self.out;
            let time = seconds(|| {
                let done = kernels.project(self.shape, &self.x, weight, None, out);
                assert!(done.is_ok());
            });
            black_box(&self.out);
            self.seconds = self.seconds.min(time);
        }
        for i in 0..self.weights.len().max(2) {
            let weight = match &self.weights[i % self.weights.len()] {
                Stored::Floats(values) => values,
                Stored::Halves(_) => &self.widened,
            };
            let time = seconds(|| gemm(self.shape, &self.x, weight, &mut self.out));
            self.gemm_seconds = self.gemm_seconds.min(time);
        }
    }
}

impl Stored {
    fn bytes(&self) -> usize {
        match self {
            Self::Floats(values) => size_of_val(&values[..]),
            Self::Halves(bits) => size_of_val(&bits[..]),
        }
    }

    /// The same in other memory.
    fn copied(&self) -> Self {
        match self {
            Self::Floats(values) => Self::Floats(values[..].into()),
            Self::Halves(bits) => Self::Halves(bits.clone()),
        }
    }
}

/// The product by the `gemm` crate.
fn gemm(shape: Shape, x: &[f32], weight: &[f32], out: &mut [f32]) {
    let Shape {
        rows,
        inputs,
        outputs,
    } = shape;
    let stride = |len: usize| len as isize;
    // SAFETY: the strides are those of row-major `[rows, outputs]`, `[rows, inputs]` and
    // `[outputs, inputs]`, the last one transposed.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out.as_mut_ptr(),
            1,
            stride(outputs),
            false,
            x.as_ptr(),
            1,
            stride(inputs),
            weight.as_ptr(),
            stride(inputs),
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
