//! Norms, activations and rotations on every instruction set that this machine has, against their
//! definitions in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{kernels, noise, on_threads};
use half::bf16;
use voxtral_kernels::{Kernels, LayerError, Strided, Strides};

const EPS: f64 = f32::EPSILON as f64;

/// `erf(x)` to some 1e-16, for `|x| < 6`: its Taylor series where that does not cancel, else the
/// continued fraction of the rest (Abramowitz & Stegun, 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    let (sign, x) = (x.signum(), x.abs());
    if x >= 6.0 {
        return sign;
    }
    let scale = 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp();
    if x < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return sign * scale * sum;
    }
    let rest = (1..=60)
        .rev()
        .fold(x, |rest, n| x + 0.5 * f64::from(n) / rest);
    sign * (1.0 - 0.5 * scale / rest)
}

/// Every exponent and both signs, more where something happens, and what is special.
fn floats() -> Vec<f32> {
    let mut all: Vec<f32> = (0..u32::MAX / 9973)
        .map(|i| f32::from_bits(i * 9973))
        .filter(|v| v.is_finite())
        .collect();
    all.extend((-140_000..140_000).map(|i| i as f32 / 1000.0));
    all.extend([f32::MIN, f32::MAX, -0.0, 1e-45, -1e-45, 13.1, -13.1]);
    all
}

#[test]
fn the_reference_knows_erf() {
    // Abramowitz & Stegun, table 7.1.
    for (x, expected) in [
        (0.5, 0.520_499_877_8),
        (1.0, 0.842_700_792_9),
        (2.0, 0.995_322_265_0),
        (2.9, 0.999_958_902_1),
        (3.0, 0.999_977_909_5),
        (3.5, 0.999_999_256_9),
    ] {
        assert!((erf(x) - expected).abs() < 2e-9, "{x}: {}", erf(x));
        assert_eq!(erf(-x), -erf(x));
    }
}

#[test]
fn gelu_is_its_definition() {
    let x = floats();
    for kernels in kernels() {
        let mut found = x.clone();
        kernels.gelu(&mut found);
        for (&x, &found) in x.iter().zip(&found) {
            let x = f64::from(x);
            let expected = 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt()));
            let error = (f64::from(found) - expected).abs();
            assert!(
                error <= 2e-7 * x.abs().max(1.0),
                "{}: {x} gives {found} instead of {expected}",
                kernels.isa()
            );
            assert!(
                x > -13.2 || found == 0.0,
                "{}: {x} gives {found}",
                kernels.isa()
            );
        }
    }
}

#[test]
fn swiglu_is_its_definition() {
    let gate = floats();
    for up in [1.0_f32, -3.7] {
        let ups = vec![up; gate.len()];
        for kernels in kernels() {
            let mut found = gate.clone();
            kernels.swiglu(&mut found, &ups).unwrap();
            for (&gate, &found) in gate.iter().zip(&found) {
                let x = f64::from(gate);
                let expected = x / (1.0 + (-x).exp()) * f64::from(up);
                if expected.abs() > f64::from(f32::MAX) {
                    assert!(found.is_infinite());
                    continue;
                }
                let error = (f64::from(found) - expected).abs();
                // Below −87 the result may be 0, and subnormals have fewer digits.
                let tolerance = match gate < -87.0 {
                    true => 2e-36 * f64::from(up).abs(),
                    false => 6e-7 * expected.abs() + 2e-45 * f64::from(1.0 + up.abs()),
                };
                assert!(
                    error <= tolerance,
                    "{}: {gate} · {up} gives {found} instead of {expected}",
                    kernels.isa()
                );
            }
        }
    }
}

#[test]
fn activations_have_limits() {
    for kernels in kernels() {
        // In whole vectors, and in what is left of one.
        for len in [4, 64, 67] {
            let place = len - 2;
            let run = |value: f32| {
                let mut x = vec![1.0; len];
                x[place] = value;
                let mut gate = x.clone();
                kernels.gelu(&mut x);
                kernels.swiglu(&mut gate, &vec![2.0; len]).unwrap();
                assert!(x[len - 1] > 0.84 && gate[len - 1] > 1.46);
                (x[place], gate[place])
            };
            assert_eq!(run(f32::INFINITY), (f32::INFINITY, f32::INFINITY));
            assert_eq!(run(f32::NEG_INFINITY), (0.0, 0.0));
            let (x, gate) = run(f32::NAN);
            assert!(x.is_nan() && gate.is_nan());
        }
    }
}

/// An element does not depend on where it stands, nor on the threads.
#[test]
fn elements_do_not_depend_on_the_others() {
    let x = noise(40_003, 1);
    for kernels in kernels() {
        let run = |x: &[f32]| {
            let mut out = [x.to_vec(), x.to_vec()];
            kernels.gelu(&mut out[0]);
            kernels.swiglu(&mut out[1], x).unwrap();
            out
        };
        let all = run(&x);
        for (start, len) in [(0, 1), (5, 17), (33, 200), (39_990, 13)] {
            let some = run(&x[start..start + len]);
            for (some, all) in some.iter().zip(&all) {
                assert!(some[..] == all[start..start + len], "{}", kernels.isa());
            }
        }
        assert!(on_threads(|| run(&x)).iter().all(|found| *found == all));
    }
}

/// Sums of `n` terms in `f32` are off by `n ε` of the sizes of the terms at most (Higham 2002,
/// §4.2), which the square root of the mean halves, and the rest by a few roundings.
#[test]
fn norms_are_their_definitions() {
    for width in [1, 2, 5, 16, 31, 64, 100, 1280, 3072, 5001] {
        for (rows, scale, offset, eps) in [
            (1, 1.0, 0.0, 1e-5),
            (3, 1e-4, 0.0, 1e-5),
            (2, 1e15, 0.0, 1e-6),
            (5, 1.0, 30.0, 1e-5),
            (20, 0.0, 0.0, 1e-5),
        ] {
            let x: Vec<f32> = noise(rows * width, 2)
                .iter()
                .map(|v| v * scale + offset)
                .collect();
            let (weight, bias) = (noise(width, 3), noise(width, 4));
            for kernels in kernels() {
                let mut rms = vec![f32::NAN; x.len()];
                kernels.rms_norm(&x, &weight, eps, &mut rms).unwrap();
                let mut layer = vec![f32::NAN; x.len()];
                kernels
                    .layer_norm(&x, &weight, &bias, eps, &mut layer)
                    .unwrap();
                for (row, x) in x.chunks(width).enumerate() {
                    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                    let n = width as f64;
                    let square =
                        |centre: f64| x.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / n;
                    let mean = x.iter().sum::<f64>() / n;
                    let size = x.iter().map(|v| v.abs()).sum::<f64>() / n;
                    let (by_square, by_variance) = (
                        1.0 / (square(0.0) + eps).sqrt(),
                        1.0 / (square(mean) + eps).sqrt(),
                    );
                    for i in 0..width {
                        let (weight, bias) = (f64::from(weight[i]), f64::from(bias[i]));
                        let expected = x[i] * by_square * weight;
                        let found = f64::from(rms[row * width + i]);
                        let tolerance = (n / 2.0 + 4.0) * EPS * expected.abs() + 1e-40;
                        assert!(
                            (found - expected).abs() <= tolerance,
                            "{}, rms, width {width}, offset {offset}: {found} instead of {expected}",
                            kernels.isa()
                        );
                        let centred = (x[i] - mean) * by_variance * weight;
                        let expected = centred + bias;
                        let found = f64::from(layer[row * width + i]);
                        // The mean's error moves all values, and adds its square to the variance.
                        let shift = (n + 2.0) * EPS * size * by_variance;
                        let tolerance = (n / 2.0 + 4.0) * EPS * (centred.abs() + bias.abs())
                            + shift * weight.abs()
                            + shift * shift * centred.abs();
                        assert!(
                            (found - expected).abs() <= tolerance + 1e-40,
                            "{}, layer, width {width}, offset {offset}: {found} instead of {expected}",
                            kernels.isa()
                        );
                    }
                }
            }
        }
    }
}

/// Of values that are all alike there is nothing left, not what the rounding of the mean leaves
/// times 1 / √eps.
#[test]
fn a_norm_of_a_constant_is_the_bias() {
    for kernels in kernels() {
        for width in [64, 1280] {
            let (x, weight, bias) = (vec![3.0; width], vec![1.0; width], noise(width, 5));
            let mut out = vec![f32::NAN; width];
            kernels
                .layer_norm(&x, &weight, &bias, 1e-5, &mut out)
                .unwrap();
            assert_eq!(out, bias);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_nor_on_the_threads() {
    let (rows, width) = (97, 515);
    let (x, weight) = (noise(rows * width, 6), noise(width, 7));
    for kernels in kernels() {
        let run = |x: &[f32]| {
            let mut out = [vec![0.0; x.len()], vec![0.0; x.len()]];
            kernels.rms_norm(x, &weight, 1e-5, &mut out[0]).unwrap();
            kernels
                .layer_norm(x, &weight, &weight, 1e-5, &mut out[1])
                .unwrap();
            out
        };
        let all = run(&x);
        for row in [0, 1, 50, 96] {
            let range = row * width..(row + 1) * width;
            let alone = run(&x[range.clone()]);
            for (alone, all) in alone.iter().zip(&all) {
                assert!(alone[..] == all[range.clone()]);
            }
        }
        assert!(on_threads(|| run(&x)).iter().all(|found| *found == all));
    }
}

/// Two products and a sum.
#[test]
fn a_rotation_is_its_definition() {
    for d in [2, 4, 6, 24, 64, 96, 128, 130] {
        for [batch, heads, time] in [[1, 1, 1], [2, 3, 5], [1, 32, 90]] {
            let shape = [batch, heads, time, d];
            let x = noise(batch * heads * time * d, 8);
            for positions in [1, time] {
                let (cos, sin) = (noise(positions * d / 2, 9), noise(positions * d / 2, 10));
                let (from, to) = (
                    Strides::time_first(time, heads, d),
                    // With a gap after every head, like a cache that is not full.
                    Strides::heads_first(heads, time + 2, d),
                );
                for kernels in kernels() {
                    let mut out = vec![f32::NAN; batch * heads * (time + 2) * d];
                    let (source, target) = (
                        Strided {
                            elements: &x[..],
                            strides: from,
                        },
                        Strided {
                            elements: &mut out[..],
                            strides: to,
                        },
                    );
                    kernels.rotate(shape, source, &cos, &sin, target).unwrap();
                    let mut written = 0;
                    for (b, h, t) in (0..batch)
                        .flat_map(|b| (0..heads).map(move |h| (b, h)))
                        .flat_map(|(b, h)| (0..time).map(move |t| (b, h, t)))
                    {
                        let x = &x[b * from.batch + h * from.heads + t * from.time..][..d];
                        let out = &out[b * to.batch + h * to.heads + t * to.time..][..d];
                        let angle = if positions == 1 { 0 } else { t * d / 2 };
                        for i in 0..d / 2 {
                            let [a, b, cos, sin] =
                                [x[i], x[d / 2 + i], cos[angle + i], sin[angle + i]].map(f64::from);
                            for (found, [p, q]) in [
                                (out[i], [a * cos, -b * sin]),
                                (out[d / 2 + i], [b * cos, a * sin]),
                            ] {
                                let tolerance = EPS * (p.abs() + q.abs());
                                assert!((f64::from(found) - (p + q)).abs() <= tolerance);
                            }
                        }
                        written += d;
                    }
                    let kept = out.iter().filter(|v| v.is_nan()).count();
                    assert_eq!(kept + written, out.len());
                }
            }
        }
    }
}

#[test]
fn narrowing_rounds_to_the_nearest() {
    let mut x = floats();
    // Halfway between neighbours, and around the largest.
    x.extend((0..1_000).map(|i| f32::from_bits(0x3f80_8000 + (i << 16))));
    x.extend([
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::from_bits(0x7f7f_7fff),
    ]);
    x.extend([0x7f80_0001, 0xffff_ffff, 0x7fff_ffff, 0xff80_0001].map(f32::from_bits));
    // So many that threads share them.
    while x.len() < 30_000 {
        x.extend_from_within(..);
    }
    for kernels in kernels() {
        for count in [x.len(), 17, 3, 0] {
            let x = &x[x.len() - count..];
            let mut found = vec![7; x.len()];
            kernels.narrow(x, &mut found).unwrap();
            for (&x, &found) in x.iter().zip(&found) {
                let found = bf16::from_bits(found);
                let expected = bf16::from_f32(x);
                assert!(
                    found.to_bits() == expected.to_bits() || x.is_nan() && found.is_nan(),
                    "{}: {x:e} gives {found:e}",
                    kernels.isa()
                );
            }
        }
    }
}

#[test]
fn operands_of_other_lengths_are_refused() {
    let kernels = Kernels::detect();
    let text = |result: Result<(), LayerError>| result.err().map(|error| error.to_string());
    let error = |text: &str| Some(text.to_owned());
    let (six, mut out) = ([1.0_f32; 6], [7.0_f32; 6]);
    assert_eq!(
        text(kernels.swiglu(&mut out, &six[..5])),
        error("`up` has 5 elements, expected 6")
    );
    assert_eq!(
        text(kernels.rms_norm(&six, &six[..4], 0.0, &mut out)),
        error("`x` has 6 elements, expected 4")
    );
    assert_eq!(
        text(kernels.rms_norm(&six, &six[..3], 0.0, &mut out[..3])),
        error("`out` has 3 elements, expected 6")
    );
    assert_eq!(
        text(kernels.layer_norm(&six, &six[..3], &six[..2], 0.0, &mut out)),
        error("`bias` has 2 elements, expected 3")
    );
    assert_eq!(
        text(kernels.rms_norm(&six, &[], 0.0, &mut out)),
        error("`x` has 6 elements, expected 0")
    );
    assert_eq!(text(kernels.rms_norm(&[], &[], 0.0, &mut [])), None);
    assert_eq!(text(kernels.rms_norm(&[], &six, 0.0, &mut [])), None);
    assert_eq!(
        text(kernels.narrow(&six, &mut [0; 5])),
        error("`out` has 5 elements, expected 6")
    );
    kernels.gelu(&mut []);

    let mut rotate = |shape: [usize; 4], cos: usize, sin: usize, len: usize| {
        let strides = Strides::heads_first(1, 3, 2);
        let x = Strided {
            elements: &six[..],
            strides,
        };
        let out = Strided {
            elements: &mut out[..len],
            strides,
        };
        text(kernels.rotate(shape, x, &six[..cos], &six[..sin], out))
    };
    assert_eq!(
        rotate([1, 1, 3, 3], 3, 3, 6),
        error("`d` is 3, expected an even number")
    );
    assert_eq!(
        rotate([1, 2, 3, 2], 3, 3, 6),
        error("`x` has 6 elements, expected at least 12")
    );
    assert_eq!(
        rotate([1, 1, 3, 2], 2, 2, 6),
        error("`cos` has 2 elements, expected 3")
    );
    assert_eq!(
        rotate([1, 1, 3, 2], 3, 1, 6),
        error("`sin` has 1 elements, expected 3")
    );
    assert_eq!(
        rotate([1, 1, 3, 2], 1, 1, 5),
        error("`out` has 5 elements, expected at least 6")
    );
    assert_eq!(rotate([1, 0, 3, 2], 1, 1, 0), None);
    assert_eq!(out, [7.0; 6]);
}
