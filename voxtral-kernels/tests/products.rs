//! Products on every instruction set that this machine has, against their definition in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use half::{bf16, f16};
use std::process::Command;

use voxtral_kernels::{
    Isa, Kernels, PANEL, Quant, Shape, ShapeError, UNIT, Weight, dequantize, quantize, set_threads,
};

const ROWS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 16, 17, 31, 64, 129];
const INPUTS: [usize; 14] = [1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 4096 + 3];
const OUTPUTS: [usize; 8] = [1, 3, 7, 8, 9, 17, 31, 100];

fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().map(|isa| Kernels::new(isa).unwrap())
}

/// Numbers without a pattern, in [-1, 1) (xorshift64*, Vigna 2016).
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    F32,
    Bf16,
    F16,
    Quantized(Quant),
}

/// The largest number of rows that is a few beside this format.
fn few_rows(format: Format) -> usize {
    match format {
        Format::Quantized(_) => 8,
        Format::F32 | Format::Bf16 | Format::F16 => 16,
    }
}

/// How exact a product is, besides the rounding of `f32`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arithmetic {
    /// Not at all otherwise.
    Exact,
    /// Inputs, and weights that are no bfloat16, are rounded to bfloat16, each by `2^-8` at most;
    /// subnormal numbers count as zeros.
    Pairs,
    /// Inputs are rounded to 127ths of the largest of their unit.
    Bytes,
}

/// What an instruction set computes such a product with.
fn arithmetic(isa: Isa, format: Format, rows: usize) -> Arithmetic {
    let few = rows <= few_rows(format);
    match (isa, format) {
        (_, Format::F32 | Format::F16) => Arithmetic::Exact,
        (_, Format::Quantized(_)) if few => Arithmetic::Bytes,
        (Isa::Avx512Bf16 | Isa::Avx512Vnni, Format::Quantized(_)) => Arithmetic::Bytes,
        (Isa::Amx | Isa::Avx512Bf16, _) if !few => Arithmetic::Pairs,
        _ => Arithmetic::Exact,
    }
}

/// A weight in its format, and the same values in `f32`.
struct Matrix {
    format: Format,
    bits: Vec<u16>,
    codes: Vec<u8>,
    values: Vec<f32>,
}

impl Matrix {
    const FORMATS: [Format; 5] = [
        Format::F32,
        Format::Bf16,
        Format::F16,
        Format::Quantized(Quant::Q8),
        Format::Quantized(Quant::Q4),
    ];

    /// `values` is `[rows, inputs]`.
    fn new(values: &[f32], inputs: usize, format: Format) -> Self {
        let mut matrix = Self {
            format,
            bits: Vec::new(),
            codes: Vec::new(),
            values: values.to_vec(),
        };
        match format {
            Format::F32 => {}
            Format::Bf16 => {
                let narrow: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                matrix.values = narrow.iter().map(|v| v.to_f32()).collect();
                matrix.bits = narrow.iter().map(|v| v.to_bits()).collect();
            }
            Format::F16 => {
                let narrow: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                matrix.values = narrow.iter().map(|v| v.to_f32()).collect();
                matrix.bits = narrow.iter().map(|v| v.to_bits()).collect();
            }
            Format::Quantized(quant) => {
                let rows = values.len().checked_div(inputs).unwrap_or(0);
                matrix.codes = vec![0; quant.bytes(rows, inputs).unwrap()];
                quantize(quant, inputs, values, &mut matrix.codes);
                dequantize(quant, inputs, &matrix.codes, 0..rows, &mut matrix.values);
            }
        }
        matrix
    }

    /// What a level of a unit of Q4 is worth.
    fn level(&self, output: usize, inputs: usize, unit: usize) -> f64 {
        let Format::Quantized(quant @ Quant::Q4) = self.format else {
            return 0.0;
        };
        let bytes = quant.bytes(PANEL, inputs).unwrap();
        let units = inputs.div_ceil(UNIT);
        // Codes of half a byte, then the scales of each unit, 4 bytes a row.
        let at = output / PANEL * bytes + units * UNIT * PANEL / 2 + unit * 4 * PANEL;
        let scale = &self.codes[at + 2 * (output % PANEL)..][..2];
        f16::from_le_bytes([scale[0], scale[1]]).to_f64().abs()
    }

    fn weight(&self) -> Weight<'_> {
        match self.format {
            Format::F32 => Weight::F32(&self.values),
            Format::Bf16 => Weight::Bf16(&self.bits),
            Format::F16 => Weight::F16(&self.bits),
            Format::Quantized(quant) => Weight::Quantized(quant, &self.codes),
        }
    }
}

/// The result, in memory that held something else.
fn project(
    kernels: Kernels,
    shape: Shape,
    x: &[f32],
    weight: &Matrix,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; shape.rows * shape.outputs];
    kernels
        .project(shape, x, weight.weight(), bias, &mut out)
        .unwrap();
    out
}

/// Compares with the definition in `f64`. However the sum of `k` products and a bias is ordered,
/// with or without fused multiplication, its error is at most `(k + 1) ε Σ|x||w|` with the
/// bias among the terms (Higham 2002, §3.1, `ε` the spacing at 1, twice the unit roundoff, which
/// covers the terms of higher order), and half the smallest subnormal for each operation. To that
/// comes what the arithmetic rounds.
#[track_caller]
fn assert_product(
    kernels: Kernels,
    found: &[f32],
    shape: Shape,
    x: &[f32],
    weight: &Matrix,
    bias: Option<&[f32]>,
    what: &str,
) {
    let k = shape.inputs;
    for row in 0..shape.rows {
        for output in 0..shape.outputs {
            let terms = (0..k)
                .map(|p| f64::from(x[row * k + p]) * f64::from(weight.values[output * k + p]));
            let bias = bias.map_or(0.0, |bias| f64::from(bias[output]));
            let (mut expected, mut size) = (bias, bias.abs());
            for term in terms {
                expected += term;
                size += term.abs();
            }
            let mut tolerance =
                (k + 1) as f64 * (f64::from(f32::EPSILON) * size + f64::from(f32::from_bits(1)));
            let x = &x[row * k..][..k];
            let weights = &weight.values[output * k..][..k];
            tolerance += match arithmetic(kernels.isa(), weight.format, shape.rows) {
                Arithmetic::Exact => 0.0,
                Arithmetic::Pairs => {
                    let sums = x.iter().chain(weights).map(|&v| f64::from(v.abs()));
                    size / 128.0 + (sums.sum::<f64>() + k as f64) * f64::from(f32::MIN_POSITIVE)
                }
                Arithmetic::Bytes => {
                    let units = x.chunks(UNIT).zip(weights.chunks(UNIT));
                    let rounding = units.enumerate().map(|(unit, (x, weights))| {
                        let step = x.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
                        let sum: f64 = weights.iter().map(|&w| f64::from(w.abs())).sum();
                        // A step below the smallest normal number counts as zero.
                        let half = f64::from(step) * 0.501 + 128.0 * f64::from(f32::MIN_POSITIVE);
                        // A few rows take the levels of Q4 before they are rounded.
                        let inputs: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
                        half * sum + 0.51 * weight.level(output, k, unit) * inputs
                    });
                    rounding.sum()
                }
            };
            let found = f64::from(found[row * shape.outputs + output]);
            assert!(
                (found - expected).abs() <= tolerance,
                "{} {:?} {what}, {shape:?}, row {row}, output {output}: {found} instead of {expected}, \
                 tolerance {tolerance}",
                kernels.isa(),
                weight.format
            );
        }
    }
}

#[test]
fn every_shape_is_its_definition() {
    for (i, rows) in ROWS.into_iter().enumerate() {
        for (j, inputs) in INPUTS.into_iter().enumerate() {
            for (l, outputs) in OUTPUTS.into_iter().enumerate() {
                // Long sums are slow in the reference: a few of them do.
                if inputs > 1000 && (i + j + l) % 3 > 0 {
                    continue;
                }
                let shape = Shape {
                    rows,
                    inputs,
                    outputs,
                };
                let x = noise(rows * inputs, 1);
                let values = noise(outputs * inputs, 2);
                let bias = noise(outputs, 3);
                let bias = (i + j + l).is_multiple_of(2).then_some(&bias[..]);
                let weight = Matrix::new(&values, inputs, Matrix::FORMATS[(i + j + l) % 5]);
                for kernels in kernels() {
                    let found = project(kernels, shape, &x, &weight, bias);
                    assert_product(kernels, &found, shape, &x, &weight, bias, "");
                }
            }
        }
    }
}

/// Blocks of inputs, of outputs, of rows, and panels beside each other, on all threads.
#[test]
fn every_format_is_its_definition_over_many_blocks() {
    for (rows, inputs, outputs) in [
        (1, 700, 901),
        (5, 513, 600),
        (9, 769, 300),
        (17, 769, 300),
        (800, 300, 103),
    ] {
        let shape = Shape {
            rows,
            inputs,
            outputs,
        };
        let (x, bias) = (noise(rows * inputs, 4), noise(outputs, 5));
        let values = noise(outputs * inputs, 6);
        for format in Matrix::FORMATS {
            let weight = Matrix::new(&values, inputs, format);
            for kernels in kernels() {
                let found = project(kernels, shape, &x, &weight, Some(&bias));
                assert_product(kernels, &found, shape, &x, &weight, Some(&bias), "");
            }
        }
    }
}

#[test]
fn zeros_subnormals_and_huge_values_are_kept() {
    for rows in [1, 3, 20] {
        let shape = Shape {
            rows,
            inputs: 150,
            outputs: 37,
        };
        let noisy_x = noise(rows * shape.inputs, 7);
        let noisy_weight = noise(shape.outputs * shape.inputs, 8);
        for (scale_x, scale_weight) in [
            (0.0, 1.0),
            (1.0, 0.0),
            (1e-40, 1.0),
            // Weights of 2^-133 are subnormal bfloat16 as well, and products are normal again.
            (1e30, 1.0 / 1e20_f32 / 1e20),
            (1e-20, 1e-20),
            (1e30, 1e5),
            (1e-30, 3e38),
        ] {
            let x: Vec<f32> = noisy_x.iter().map(|v| v * scale_x).collect();
            let values: Vec<f32> = noisy_weight.iter().map(|v| v * scale_weight).collect();
            // The scales of quantized weights are binary16.
            let quantized = (scale_weight < 1e6).then_some(Format::Quantized(Quant::Q8));
            for format in [Format::F32, Format::Bf16].into_iter().chain(quantized) {
                let weight = Matrix::new(&values, shape.inputs, format);
                for kernels in kernels() {
                    let found = project(kernels, shape, &x, &weight, None);
                    let what = format!("{scale_x:e} {scale_weight:e}");
                    assert_product(kernels, &found, shape, &x, &weight, None, &what);
                }
            }
        }
        // Subnormal and the largest binary16.
        for scale in [1e-6, 65_504.0] {
            let values: Vec<f32> = noisy_weight.iter().map(|v| v * scale).collect();
            let weight = Matrix::new(&values, shape.inputs, Format::F16);
            for kernels in kernels() {
                let found = project(kernels, shape, &noisy_x, &weight, None);
                let what = format!("{scale:e}");
                assert_product(kernels, &found, shape, &noisy_x, &weight, None, &what);
            }
        }
    }
}

/// What is not finite spoils its own row, or its own output, and no other.
#[test]
fn what_is_not_finite_reaches_its_own_results_only() {
    for (rows, inputs) in [(1, 5), (3, 40), (8, 33), (12, 40), (40, 300)] {
        let shape = Shape {
            rows,
            inputs,
            outputs: 11,
        };
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for format in [Format::F32, Format::Bf16, Format::F16] {
                let mut x = noise(rows * inputs, 9);
                let mut values: Vec<f32> = noise(11 * inputs, 10).iter().map(|v| v + 2.0).collect();
                let (bad_row, bad_output) = (rows / 2, 4);
                x[bad_row * inputs + inputs - 1] = value;
                let clean = Matrix::new(&values, inputs, format);
                values[bad_output * inputs] = f32::NAN;
                let spoiled = Matrix::new(&values, inputs, format);
                for kernels in kernels() {
                    let what = format!("{} {format:?} {shape:?}", kernels.isa());
                    let found = project(kernels, shape, &x, &clean, None);
                    let spoiled = project(kernels, shape, &x, &spoiled, None);
                    for row in 0..rows {
                        for output in 0..11 {
                            let i = row * 11 + output;
                            match row == bad_row {
                                true if value.is_nan() => assert!(found[i].is_nan(), "{what}"),
                                true => assert_eq!(found[i], value, "{what}"),
                                false => assert!(found[i].is_finite(), "{what}"),
                            }
                            let expected = found[i].is_nan() || output == bad_output;
                            assert_eq!(spoiled[i].is_nan(), expected, "{what}");
                        }
                    }
                }
            }
        }
    }
}

/// What [`products_of_some_threads`] reads.
const THREADS: &str = "VOXTRAL_TEST_THREADS";

/// The number of threads is fixed for a process: another one computes the same with others.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let on = |threads: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "products_of_some_threads",
                "--nocapture",
            ])
            .env(THREADS, threads)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let sums: Vec<String> = text
            .lines()
            .filter(|l| l.contains("sum "))
            .map(String::from)
            .collect();
        assert!(sums.len() >= 25, "{text}");
        sums
    };
    let alone = on("1");
    for threads in ["2", "3", "7"] {
        assert_eq!(on(threads), alone, "{threads} threads");
    }
}

#[test]
#[ignore = "a part of `results_do_not_depend_on_the_number_of_threads`"]
fn products_of_some_threads() {
    let threads = std::env::var(THREADS).unwrap().parse().unwrap();
    set_threads(threads).unwrap();
    for rows in [1, 3, 8, 9, 16, 40] {
        let shape = Shape {
            rows,
            inputs: 700,
            outputs: 403,
        };
        let x = noise(rows * shape.inputs, 11);
        let values = noise(shape.outputs * shape.inputs, 12);
        for format in Matrix::FORMATS {
            let weight = Matrix::new(&values, shape.inputs, format);
            for kernels in kernels() {
                let out = project(kernels, shape, &x, &weight, None);
                let sum = out.iter().fold(0_u64, |sum, v| {
                    sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(v.to_bits())
                });
                println!("sum {} {format:?} {rows} {sum:x}", kernels.isa());
            }
        }
    }
}

/// Few rows and many rows are added up in two ways, and within each a row does not know of the
/// others.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let (inputs, outputs) = (777, 130);
    let values = noise(outputs * inputs, 13);
    for format in Matrix::FORMATS {
        let weight = Matrix::new(&values, inputs, format);
        for kernels in kernels() {
            let few = few_rows(format);
            for range in [1..few + 1, few + 1..200] {
                let longest = noise((range.end - 1) * inputs, 14);
                let rows_of = |rows: usize| {
                    let shape = Shape {
                        rows,
                        inputs,
                        outputs,
                    };
                    project(kernels, shape, &longest[..rows * inputs], &weight, None)
                };
                let all = rows_of(range.end - 1);
                for rows in [range.start, range.start + 1, range.start + 4, range.end - 2] {
                    let found = rows_of(rows);
                    let isa = kernels.isa();
                    assert!(found == all[..rows * outputs], "{isa} {format:?} {rows}");
                }
            }
        }
    }
}

#[test]
fn a_product_without_terms_is_the_bias() {
    for rows in [0, 1, 20] {
        let shape = Shape {
            rows,
            inputs: 0,
            outputs: 2,
        };
        let nothing = Matrix::new(&[], 0, Format::F32);
        for kernels in kernels() {
            let found = project(kernels, shape, &[], &nothing, Some(&[1.0, 2.0]));
            assert_eq!(found, [1.0, 2.0].repeat(rows));
            assert_eq!(
                project(kernels, shape, &[], &nothing, None),
                vec![0.0; 2 * rows]
            );
        }
    }
}

#[test]
fn operands_of_other_shapes_are_refused() {
    let shape = Shape {
        rows: 2,
        inputs: 3,
        outputs: 4,
    };
    let kernels = Kernels::detect();
    let run = |shape, x: usize, weight: usize, bias: usize, out: usize| {
        let (x, bias, weight) = (vec![1.0; x], vec![1.0; bias], vec![0; weight]);
        let mut out = vec![7.0; out];
        let error = kernels
            .project(shape, &x, Weight::Bf16(&weight), Some(&bias), &mut out)
            .err();
        assert!(error.is_none() || out.iter().all(|&v| v == 7.0));
        error
    };
    let error = |operand, found, expected| {
        Some(ShapeError {
            operand,
            found,
            expected,
        })
    };
    assert_eq!(run(shape, 6, 12, 4, 8), None);
    assert_eq!(run(shape, 5, 12, 4, 8), error("x", 5, [2, 3]));
    assert_eq!(run(shape, 6, 13, 4, 8), error("weight", 13, [4, 3]));
    assert_eq!(run(shape, 6, 12, 1, 8), error("bias", 1, [1, 4]));
    assert_eq!(run(shape, 6, 12, 4, 0), error("out", 0, [2, 4]));
    let message = run(shape, 6, 13, 4, 8).unwrap().to_string();
    assert_eq!(message, "`weight` has 13 elements, expected 4 × 3 = 12");
    // A product of dimensions that overflows is no small number.
    let vast = Shape {
        rows: usize::MAX / 2 + 1,
        inputs: 2,
        outputs: 4,
    };
    assert_eq!(run(vast, 0, 8, 4, 0).unwrap().operand, "x");
}

#[test]
fn an_instruction_set_that_is_missing_is_refused() {
    for isa in Isa::ALL {
        match isa.is_available() {
            true => assert_eq!(Kernels::new(isa).unwrap().isa(), isa),
            false => assert!(Kernels::new(isa).is_err()),
        }
    }
}
