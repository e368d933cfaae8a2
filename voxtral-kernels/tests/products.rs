//! Products on every instruction set that this machine has, against their definition in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use half::{bf16, f16};
use voxtral_kernels::{Isa, Kernels, Shape, ShapeError, Weight};

const ROWS: [usize; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 31, 64, 129];
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
}

/// A weight in its format, and the same values in `f32`.
struct Matrix {
    format: Format,
    bits: Vec<u16>,
    values: Vec<f32>,
}

impl Matrix {
    const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::F16];

    fn new(values: &[f32], format: Format) -> Self {
        let bits: Vec<u16> = match format {
            Format::F32 => Vec::new(),
            Format::Bf16 => values
                .iter()
                .map(|&v| bf16::from_f32(v).to_bits())
                .collect(),
            Format::F16 => values.iter().map(|&v| f16::from_f32(v).to_bits()).collect(),
        };
        let values = match format {
            Format::F32 => values.to_vec(),
            Format::Bf16 => bits.iter().map(|&b| bf16::from_bits(b).to_f32()).collect(),
            Format::F16 => bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect(),
        };
        Self {
            format,
            bits,
            values,
        }
    }

    fn weight(&self) -> Weight<'_> {
        match self.format {
            Format::F32 => Weight::F32(&self.values),
            Format::Bf16 => Weight::Bf16(&self.bits),
            Format::F16 => Weight::F16(&self.bits),
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
/// covers the terms of higher order), and half the smallest subnormal for each operation.
#[track_caller]
fn assert_product(
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
            let tolerance =
                (k + 1) as f64 * (f64::from(f32::EPSILON) * size + f64::from(f32::from_bits(1)));
            let found = f64::from(found[row * shape.outputs + output]);
            assert!(
                (found - expected).abs() <= tolerance,
                "{what}, {shape:?}, row {row}, output {output}: {found} instead of {expected}, \
                 tolerance {tolerance}"
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
                let weight = Matrix::new(&values, Matrix::FORMATS[(i + j + l) % 3]);
                for kernels in kernels() {
                    let found = project(kernels, shape, &x, &weight, bias);
                    let what = format!("{} {:?}", kernels.isa(), weight.format);
                    assert_product(&found, shape, &x, &weight, bias, &what);
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
        (1100, 300, 103),
    ] {
        let shape = Shape {
            rows,
            inputs,
            outputs,
        };
        let (x, bias) = (noise(rows * inputs, 4), noise(outputs, 5));
        let values = noise(outputs * inputs, 6);
        for format in Matrix::FORMATS {
            let weight = Matrix::new(&values, format);
            for kernels in kernels() {
                let found = project(kernels, shape, &x, &weight, Some(&bias));
                let what = format!("{} {format:?}", kernels.isa());
                assert_product(&found, shape, &x, &weight, Some(&bias), &what);
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
            for format in [Format::F32, Format::Bf16] {
                let weight = Matrix::new(&values, format);
                for kernels in kernels() {
                    let found = project(kernels, shape, &x, &weight, None);
                    let what = format!("{} {format:?} {scale_x:e} {scale_weight:e}", kernels.isa());
                    assert_product(&found, shape, &x, &weight, None, &what);
                }
            }
        }
        // Subnormal and the largest binary16.
        for scale in [1e-6, 65_504.0] {
            let values: Vec<f32> = noisy_weight.iter().map(|v| v * scale).collect();
            let weight = Matrix::new(&values, Format::F16);
            for kernels in kernels() {
                let found = project(kernels, shape, &noisy_x, &weight, None);
                let what = format!("{} F16 {scale:e}", kernels.isa());
                assert_product(&found, shape, &noisy_x, &weight, None, &what);
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
            for format in Matrix::FORMATS {
                let mut x = noise(rows * inputs, 9);
                let mut values: Vec<f32> = noise(11 * inputs, 10).iter().map(|v| v + 2.0).collect();
                let (bad_row, bad_output) = (rows / 2, 4);
                x[bad_row * inputs + inputs - 1] = value;
                let clean = Matrix::new(&values, format);
                values[bad_output * inputs] = f32::NAN;
                let spoiled = Matrix::new(&values, format);
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

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for rows in [1, 3, 8, 9, 40, 700] {
        let shape = Shape {
            rows,
            inputs: 1000,
            outputs: 1003,
        };
        let x = noise(rows * shape.inputs, 11);
        let weight = Matrix::new(&noise(shape.outputs * shape.inputs, 12), Format::Bf16);
        for kernels in kernels() {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| project(kernels, shape, &x, &weight, None))
            };
            let alone = on(1);
            for threads in [2, 3, 7] {
                assert!(on(threads) == alone, "{}, {rows} rows", kernels.isa());
            }
        }
    }
}

/// Few rows and many rows are added up in two ways, and within each a row does not know of the
/// others.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let (inputs, outputs) = (777, 130);
    let weight = Matrix::new(&noise(outputs * inputs, 13), Format::Bf16);
    for kernels in kernels() {
        for range in [1..9, 9..200] {
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
                assert!(
                    rows_of(rows) == all[..rows * outputs],
                    "{}, {rows}",
                    kernels.isa()
                );
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
        let nothing = Matrix::new(&[], Format::F32);
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
