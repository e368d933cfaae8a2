//! The position table of Whisper's encoder, which the native form does not store.
//!
//! For width `n` and `i` in `0..n/2`, sines first, then cosines:
//!
//! ```text
//! w[i] = exp(−i · ln(10000) / (n/2 − 1))
//! table[t, i] = sin(t · w[i])      table[t, n/2 + i] = cos(t · w[i])
//! ```
//!
//! Source: `sinusoids` in openai/whisper `model.py` and in transformers' `modeling_whisper.py`.
//! Both work in single precision throughout, and so does this: the angle is a product of two
//! singles, which at position 1 500 is up to 10⁻⁴ away from the exact one.

/// The longest period, in the equation's logarithm.
const MAX_TIMESCALE: f64 = 10_000.0;

/// How far a table computed elsewhere may be from ours. PyTorch's `exp` may differ in the last
/// place, which position 1 500 magnifies to 6·10⁻⁵ on a CPU; a GPU's is no better, and an exact
/// table is 10⁻⁴ away.
pub(crate) const TOLERANCE: f32 = 2.5e-4;

/// The table, `[positions, width]`, row by row. An odd width would have no defined table.
pub(crate) fn sinusoid(positions: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let increment = MAX_TIMESCALE.ln() / (half as f64 - 1.0);
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let exponent = (-increment) as f32 * i as f32;
            f64::from(exponent).exp() as f32
        })
        .collect();
    let mut table = Vec::with_capacity(positions * width);
    for position in 0..positions {
        let angle = |w: &f32| f64::from(position as f32 * w);
        table.extend(frequencies.iter().map(|w| angle(w).sin() as f32));
        table.extend(frequencies.iter().map(|w| angle(w).cos() as f32));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `transformers.models.whisper.modeling_whisper.sinusoids(1500, 1280)` of transformers
    /// 5.23.0, in single precision on a CPU.
    const TORCH: [(usize, usize, f32); 9] = [
        (0, 0, 0.0),
        (0, 640, 1.0),
        (1, 0, 0.841_471),
        (1, 639, 1e-4),
        (1, 900, 0.999_722_1),
        (700, 3, -0.938_101_5),
        (1499, 7, -0.895_879_6),
        (1499, 650, -0.952_198_6),
        (1499, 1279, 0.988_786_04),
    ];

    #[test]
    fn agrees_with_transformers() {
        let table = sinusoid(1500, 1280);
        for (row, column, expected) in TORCH {
            let found = table[row * 1280 + column];
            assert!(
                (found - expected).abs() < 1e-4,
                "[{row}, {column}]: {found}, expected {expected}"
            );
        }
    }
}
