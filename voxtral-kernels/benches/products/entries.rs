//! The products that are measured.

use std::hint::black_box;
use std::rc::Rc;

use voxtral_kernels::{Kernels, Quant, Shape, Weight, quantize};

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
    Codes(Vec<u8>),
}

#[derive(Clone, Copy)]
enum Format {
    F32,
    Bf16,
    F16,
    Quantized(Quant),
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

/// Those whose names have `filter`.
pub(crate) fn all(filter: &str) -> Vec<Entry> {
    let (q8, q4) = (Format::Quantized(Quant::Q8), Format::Quantized(Quant::Q4));
    let narrow = [Format::Bf16, q8, q4];
    let every = [Format::F32, Format::Bf16, Format::F16, q8, q4];
    let mut shapes: Vec<(Kind, [usize; 3], &[Format])> =
        vec![(Kind::Memory, [1, 3072, 8192], &every)];
    shapes.extend([4, 8].map(|rows| (Kind::Memory, [rows, 3072, 8192], &narrow[..])));
    let more = [9, 16, 64, 400].map(|rows| [rows, 3072, 8192]);
    shapes.extend(more.map(|shape| (Kind::Arithmetic, shape, &narrow[..])));
    let encoder = [(1280, 5120), (5120, 1280), (1280, 1280)];
    shapes.extend(encoder.map(|(k, n)| (Kind::Arithmetic, [1500, k, n], &every[..])));
    let mut entries = Vec::new();
    for (kind, shape, formats) in shapes {
        let mut weight = None;
        for &format in formats {
            if name(shape, format).contains(filter) {
                let weight = weight.get_or_insert_with(|| values(shape[1] * shape[2]));
                entries.push(Entry::new(kind, shape, format, weight));
            }
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
            Format::Quantized(quant) => {
                let bytes = quant.bytes(outputs, inputs).unwrap_or_default();
                let mut codes = vec![0; bytes];
                quantize(quant, inputs, widened, &mut codes);
                Stored::Codes(codes)
            }
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
        name([rows, inputs, outputs], self.format)
    }

    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.format, Format::Quantized(_))
    }

    pub(crate) fn is_narrow(&self) -> bool {
        matches!(self.format, Format::Bf16)
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
                (Stored::Codes(codes), Format::Quantized(quant)) => Weight::Quantized(quant, codes),
                (Stored::Codes(_), _) => unreachable!("codes are quantized"),
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
                Stored::Halves(_) | Stored::Codes(_) => &self.widened,
            };
            let time = seconds(|| gemm(self.shape, &self.x, weight, &mut self.out));
            self.gemm_seconds = self.gemm_seconds.min(time);
        }
    }
}

fn name([rows, inputs, outputs]: [usize; 3], format: Format) -> String {
    let format = match format {
        Format::F32 => "f32",
        Format::Bf16 => "bf16",
        Format::F16 => "f16",
        Format::Quantized(quant) => quant.name(),
    };
    format!("[{rows}, {inputs}] × [{outputs}, {inputs}]ᵀ {format}")
}

impl Stored {
    fn bytes(&self) -> usize {
        match self {
            Self::Floats(values) => size_of_val(&values[..]),
            Self::Halves(bits) => size_of_val(&bits[..]),
            Self::Codes(codes) => size_of_val(&codes[..]),
        }
    }

    /// The same in other memory.
    fn copied(&self) -> Self {
        match self {
            Self::Floats(values) => Self::Floats(values[..].into()),
            Self::Halves(bits) => Self::Halves(bits.clone()),
            Self::Codes(codes) => Self::Codes(codes.clone()),
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
