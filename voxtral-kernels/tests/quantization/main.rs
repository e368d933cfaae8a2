//! How far quantized weights are from what was quantized: on numbers of known distributions, beside
//! the formats of ggml, and on rows that a quantizer might stumble over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ggml;
mod samples;

use half::f16;
use voxtral_kernels::{PANEL, Quant, UNIT, dequantize, quantize};

use samples::Distribution;

/// The quantized weight and what it stands for.
fn round_trip(quant: Quant, inputs: usize, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let rows = values.len() / inputs;
    let mut data = vec![0xa5; quant.bytes(rows, inputs).unwrap()];
    quantize(quant, inputs, values, &mut data);
    let mut back = vec![f32::NAN; values.len()];
    dequantize(quant, inputs, &data, 0..rows, &mut back);
    (data, back)
}

fn decoded(quant: Quant, inputs: usize, values: &[f32]) -> Vec<f32> {
    round_trip(quant, inputs, values).1
}

/// The root of the mean square error, relative to that of the values.
fn error(values: &[f32], decoded: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let errors: f64 = values.iter().zip(decoded).map(|(x, y)| square(x - y)).sum();
    let values: f64 = values.iter().map(|&x| square(x)).sum();
    (errors / values).sqrt()
}

/// Prints the table of `docs/quantization.md`.
#[test]
fn quantization_errors() {
    const INPUTS: usize = 1024;
    const ROWS: usize = 1024;
    type Decoded = Box<dyn Fn(&[f32]) -> Vec<f32>>;
    let ours = |quant: Quant| {
        let bits = (8 * quant.bytes(ROWS, INPUTS).unwrap()) as f64 / (ROWS * INPUTS) as f64;
        let decoded: Decoded = Box::new(move |values| decoded(quant, INPUTS, values));
        (quant.name(), bits, decoded)
    };
    let schemes: [(&str, f64, Decoded); 6] = [
        ours(Quant::Q8),
        ("ggml's Q8_0", 8.5, Box::new(ggml::q8_0)),
        ours(Quant::Q4),
        ("ggml's Q4_K", 4.5, Box::new(ggml::q4_k)),
        (
            "Q4_K, least squares",
            4.5,
            Box::new(ggml::q4_k_least_squares),
        ),
        ("ggml's Q4_0", 4.5, Box::new(ggml::q4_0)),
    ];
    let samples = Distribution::ALL.map(|distribution| distribution.sample(ROWS, INPUTS, 1));
    let names = Distribution::ALL.map(Distribution::name);
    println!("| weights | bits | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(names.len()));
    let errors = schemes.each_ref().map(|(name, bits, decoded)| {
        let errors = samples
            .each_ref()
            .map(|values| error(values, &decoded(values)));
        let cells = errors.map(|error| format!("{error:.5}"));
        println!("| {name} | {bits:.2} | {} |", cells.join(" | "));
        errors
    });
    let [q8, _, q4, reference, least_squares, q4_0] = errors;
    assert!(schemes[0].1 <= 8.6 && schemes[2].1 <= schemes[3].1);
    for (i, name) in names.into_iter().enumerate() {
        assert!(q8[i] < 0.01, "q8 of {name}");
        assert!(
            q4[i] < reference[i],
            "{name}: {} and {}",
            q4[i],
            reference[i]
        );
        assert!(
            q4[i] < least_squares[i],
            "{name}: {} and {}",
            q4[i],
            least_squares[i]
        );
        assert!(
            reference[i] < q4_0[i],
            "Q4_K of {name} is not as it should be"
        );
    }
}

/// Every weight is as near as its unit's largest allows, whatever the shape.
#[test]
fn what_was_quantized_is_near() {
    for (rows, inputs) in [
        (1, 1),
        (1, 63),
        (3, 64),
        (16, 65),
        (17, 130),
        (40, 200),
        (33, 16),
    ] {
        for distribution in Distribution::ALL {
            let values = distribution.sample(rows, inputs, 2);
            for quant in Quant::ALL {
                let back = decoded(quant, inputs, &values);
                let rows = values.chunks(inputs).zip(back.chunks(inputs));
                for (x, y) in rows.flat_map(|(x, y)| x.chunks(UNIT).zip(y.chunks(UNIT))) {
                    assert_near(quant, x, y);
                }
            }
        }
    }
}

/// Half of the widest gap between levels; a cut-off largest weight of Q4 pays for itself elsewhere.
fn assert_near(quant: Quant, x: &[f32], y: &[f32]) {
    let largest = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let bound = largest
        * match quant {
            Quant::Q8 => 0.51 / 127.0,
            Quant::Q4 => 0.3,
        };
    for (x, y) in x.iter().zip(y) {
        assert!(
            (x - y).abs() <= bound,
            "{quant}: {x} became {y}, {largest} the largest"
        );
    }
}

#[test]
fn zeros_stay_zeros() {
    for quant in Quant::ALL {
        let mut values = Distribution::StudentT.sample(5, 100, 3);
        values[..100].fill(0.0);
        values[164..200].fill(-0.0);
        values.iter_mut().step_by(3).for_each(|x| *x = 0.0);
        let back = decoded(quant, 100, &values);
        for (x, y) in values.iter().zip(&back) {
            assert!(*x != 0.0 || *y == 0.0, "{quant}: 0 became {y}");
        }
    }
}

#[test]
fn equal_values_are_met_as_well_as_f16_can() {
    for quant in Quant::ALL {
        for value in [1.0, -0.037, 3e-3, -5e4] {
            for y in decoded(quant, 64, &[value; 128]) {
                assert!(
                    (y / value - 1.0).abs() < 1e-3,
                    "{quant}: {value} became {y}"
                );
            }
        }
    }
}

#[test]
fn one_value_among_zeros_is_met() {
    for quant in Quant::ALL {
        for i in 0..64 {
            let mut values = [0.0; 64];
            values[i] = if i % 2 == 0 { 0.7 } else { -0.7 };
            let back = decoded(quant, 64, &values);
            assert!(error(&values, &back) < 1e-3, "{quant}: {back:?}");
        }
    }
}

/// Where an f16 scale is subnormal, and then too small for any.
#[test]
fn tiny_values_are_as_near_as_f16_can() {
    let sample = Distribution::Gaussian.sample(1, 64, 4);
    for quant in Quant::ALL {
        for exponent in 0..150 {
            let scale = 0.5_f64.powi(exponent) as f32;
            let values: Vec<f32> = sample.iter().map(|x| x * scale).collect();
            let back = decoded(quant, 64, &values);
            let relative = error(&values, &back);
            // The codes of one scale of 2⁻²⁴ are that far apart.
            let coarse = match quant {
                Quant::Q8 => f64::from(scale) < 1e-5,
                Quant::Q4 => f64::from(scale) < 1e-6,
            };
            let limit = match quant {
                _ if coarse => 1.0,
                Quant::Q8 => 0.05,
                Quant::Q4 => 0.12,
            };
            assert!(
                scale == 0.0 || relative.is_nan() || relative <= limit,
                "{quant}: {scale}, {relative}"
            );
            assert!(
                back.iter()
                    .all(|x| x.abs() <= 4.0 * scale.max(f32::from(f16::MIN_POSITIVE_SUBNORMAL)))
            );
        }
    }
}

#[test]
fn what_is_too_large_becomes_the_largest() {
    for quant in Quant::ALL {
        let largest = quant.largest();
        for huge in [largest, 1.5 * largest, 1e30, f32::MAX, f32::INFINITY] {
            let mut values = vec![0.0; 64];
            // A block of Q4 with both would reach only as far as its smaller side for one of them.
            (values[3], values[20], values[21], values[40]) = (huge, -huge, 0.2 * largest, huge);
            let back = decoded(quant, 64, &values);
            assert!(back.iter().all(|x| x.is_finite()));
            let expected: Vec<f32> = values.iter().map(|x| x.clamp(-largest, largest)).collect();
            assert!(error(&expected, &back) < 0.15, "{quant}: {huge} {back:?}");
            assert!(back[20] < 0.0 && back[0] == 0.0);
        }
    }
}

#[test]
fn nan_is_zero() {
    for quant in Quant::ALL {
        let values = Distribution::Gaussian.sample(2, 64, 5);
        let (mut with_nan, mut with_zero) = (values.clone(), values);
        for i in [0, 17, 63, 100] {
            with_nan[i] = if i % 2 == 0 { f32::NAN } else { -f32::NAN };
            with_zero[i] = 0.0;
        }
        assert_eq!(
            round_trip(quant, 64, &with_nan),
            round_trip(quant, 64, &with_zero)
        );
        assert_eq!(decoded(quant, 64, &[f32::NAN; 64]), [0.0; 64]);
    }
}

#[test]
fn pieces_and_threads_change_nothing() {
    const INPUTS: usize = 150;
    let values = Distribution::Columns.sample(50, INPUTS, 6);
    for quant in Quant::ALL {
        let (whole, back) = round_trip(quant, INPUTS, &values);
        let mut pieces = Vec::new();
        for rows in values.chunks(2 * PANEL * INPUTS) {
            pieces.extend(round_trip(quant, INPUTS, rows).0);
        }
        assert_eq!(whole, pieces);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            assert_eq!(whole, pool.install(|| round_trip(quant, INPUTS, &values).0));
        }
        for row in [0, 15, 16, 49] {
            let mut out = [0.0; INPUTS];
            dequantize(quant, INPUTS, &whole, row..row + 1, &mut out);
            assert_eq!(out, back[row * INPUTS..][..INPUTS]);
        }
    }
}
