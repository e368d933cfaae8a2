//! Formats of ggml, by their published description: what a weight becomes, not the bytes.

use half::f16;

/// Values of a superblock of Q4_K.
const SUPERBLOCK: usize = 256;

/// Values of a block of any format here.
const BLOCK: usize = 32;

/// The largest code of Q4_K.
const TOP: f32 = 15.0;

/// The largest scale or minimum of a block of Q4_K, in units of the superblock's.
const TOP_PART: f32 = 63.0;

/// Q8_0, 8.5 bits: blocks of 32, an f16 scale, codes from -127 to 127.
pub(crate) fn q8_0(values: &[f32]) -> Vec<f32> {
    by_block(values, |block| {
        let largest = block.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let scale = largest / 127.0;
        let inverse = inverse(scale);
        let stored = rounded(scale);
        block
            .iter()
            .map(|x| stored * (x * inverse).round())
            .collect()
    })
}

/// Q4_0, 4.5 bits: blocks of 32, an f16 scale, codes from -8 to 7, of which -8 is the value of
/// largest magnitude.
pub(crate) fn q4_0(values: &[f32]) -> Vec<f32> {
    by_block(values, |block| {
        let largest = block
            .iter()
            .fold(0.0_f32, |max, &x| if x.abs() > max.abs() { x } else { max });
        let scale = largest / -8.0;
        let inverse = inverse(scale);
        let stored = rounded(scale);
        let code = |x: &f32| (x * inverse + 8.5).floor().min(15.0) - 8.0;
        block.iter().map(|x| stored * code(x)).collect()
    })
}

/// Q4_K, 4.5 bits, as its reference quantizer finds it: superblocks of 8 blocks of 32; a value is
/// `d s q − m t` with the superblock's f16 `d` and `m`, the block's 6-bit `s` and `t`, and a code
/// `q` from 0 to 15. Errors count more for values that are far from zero.
pub(crate) fn q4_k(values: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for values in values.chunks_exact(SUPERBLOCK) {
        let lines = values.chunks_exact(BLOCK).map(|block| {
            let square: f32 = block.iter().map(|x| x * x).sum();
            let mean = (square / BLOCK as f32).sqrt();
            let weights: Vec<f32> = block.iter().map(|x| mean + x.abs()).collect();
            Line::search(block, &weights, (0..=20).map(|i| -1.0 + 0.1 * i as f32))
        });
        let superblock = Superblock::new(&lines.collect::<Vec<_>>());
        out.extend(superblock.decoded(values));
    }
    out
}

/// Q4_K with what is stored chosen for the least square error: every error counts the same, more
/// lines are tried, then neighbours of the 6-bit numbers and f16 numbers by least squares, in turn.
/// A search that may stop short of the best, as ours may.
pub(crate) fn q4_k_least_squares(values: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for values in values.chunks_exact(SUPERBLOCK) {
        let lines = values.chunks_exact(BLOCK).map(|block| {
            let tries = (0..=120).map(|i| -3.0 + 0.05 * i as f32);
            Line::search(block, &[1.0; BLOCK], tries)
        });
        let mut superblock = Superblock::new(&lines.collect::<Vec<_>>());
        for _ in 0..4 {
            superblock.improve_parts(values);
            superblock.improve_units(values);
        }
        superblock.improve_parts(values);
        out.extend(superblock.decoded(values));
    }
    out
}

fn by_block(values: &[f32], block: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f32> {
    values.chunks_exact(BLOCK).flat_map(block).collect()
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn rounded(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// A block of Q4_K before its numbers are stored: a value is `scale q − minimum`.
struct Line {
    scale: f32,
    minimum: f32,
}

impl Line {
    /// The line of least weighted square error among those that fit the codes of some scales: of
    /// the one that spans the values, and of those with as many more codes as `tries` says.
    fn search(x: &[f32], weights: &[f32], tries: impl Iterator<Item = f32>) -> Self {
        let weighted =
            |f: &dyn Fn(usize) -> f32| -> f32 { (0..x.len()).map(|i| weights[i] * f(i)).sum() };
        let lowest = x.iter().copied().fold(0.0, f32::min);
        let highest = x.iter().copied().fold(f32::MIN, f32::max);
        let mut line = Self {
            scale: 0.0,
            minimum: -lowest,
        };
        if highest <= lowest {
            return line;
        }
        let codes = |inverse: f32, lowest: f32| -> Vec<f32> {
            let code = |x: &f32| (inverse * (x - lowest)).round_ties_even().clamp(0.0, TOP);
            x.iter().map(code).collect()
        };
        let error = |line: &Self, q: &[f32]| {
            weighted(&|i| (line.scale * q[i] - line.minimum - x[i]).powi(2))
        };
        line.scale = (highest - lowest) / TOP;
        let mut least = error(&line, &codes(1.0 / line.scale, lowest));
        let (sum, sum_x) = (weighted(&|_| 1.0), weighted(&|i| x[i]));
        for more in tries {
            // From the best minimum so far, as the reference does.
            let lowest = -line.minimum;
            let q = codes((TOP + more) / (highest - lowest), lowest);
            let (sum_q, sum_qq) = (weighted(&|i| q[i]), weighted(&|i| q[i] * q[i]));
            let sum_qx = weighted(&|i| q[i] * x[i]);
            let determinant = sum * sum_qq - sum_q * sum_q;
            if determinant <= 0.0 {
                continue;
            }
            let mut fitted = Self {
                scale: (sum * sum_qx - sum_x * sum_q) / determinant,
                minimum: (sum_q * sum_qx - sum_qq * sum_x) / determinant,
            };
            if fitted.minimum < 0.0 {
                fitted = Self {
                    scale: sum_qx / sum_qq,
                    minimum: 0.0,
                };
            }
            let found = error(&fitted, &q);
            if found < least {
                (least, line) = (found, fitted);
            }
        }
        line
    }
}

/// What Q4_K stores of 256 values, but for the codes, which are the nearest.
struct Superblock {
    scale: f32,
    minimum: f32,
    /// Scale and minimum of each block, whole numbers from 0 to 63.
    parts: Vec<(f32, f32)>,
}

impl Superblock {
    fn new(lines: &[Line]) -> Self {
        let scale = lines.iter().map(|line| line.scale).fold(0.0, f32::max);
        let minimum = lines.iter().map(|line| line.minimum).fold(0.0, f32::max);
        let part = |x: f32, largest: f32| {
            (TOP_PART * inverse(largest) * x)
                .round_ties_even()
                .min(TOP_PART)
        };
        let parts = lines
            .iter()
            .map(|line| (part(line.scale, scale), part(line.minimum, minimum)));
        Self {
            parts: parts.collect(),
            scale: rounded(scale / TOP_PART),
            minimum: rounded(minimum / TOP_PART),
        }
    }

    /// The codes of a block.
    fn codes(&self, part: (f32, f32), block: &[f32]) -> Vec<f32> {
        let inverse = inverse(self.scale * part.0);
        let minimum = self.minimum * part.1;
        let code = |x: &f32| ((x + minimum) * inverse).round_ties_even().clamp(0.0, TOP);
        block.iter().map(code).collect()
    }

    fn decoded_block(&self, part: (f32, f32), block: &[f32]) -> Vec<f32> {
        let value = |q| self.scale * part.0 * q - self.minimum * part.1;
        self.codes(part, block).into_iter().map(value).collect()
    }

    fn decoded(&self, values: &[f32]) -> Vec<f32> {
        let blocks = values.chunks_exact(BLOCK).zip(&self.parts);
        blocks
            .flat_map(|(block, &part)| self.decoded_block(part, block))
            .collect()
    }

    /// Moves each block's numbers to the best of their neighbours, as long as one is better.
    fn improve_parts(&mut self, values: &[f32]) {
        for (b, block) in values.chunks_exact(BLOCK).enumerate() {
            let error = |part: (f32, f32)| -> f32 {
                let decoded = self.decoded_block(part, block);
                decoded
                    .iter()
                    .zip(block)
                    .map(|(x, y)| (x - y).powi(2))
                    .sum()
            };
            let mut best = (error(self.parts[b]), self.parts[b]);
            loop {
                let (_, from) = best;
                for i in 0..25 {
                    let near = |x: f32, by: i32| (x + (by - 2) as f32).clamp(0.0, TOP_PART);
                    let part = (near(from.0, i % 5), near(from.1, i / 5));
                    let found = error(part);
                    if found < best.0 {
                        best = (found, part);
                    }
                }
                if best.1 == from {
                    break;
                }
            }
            self.parts[b] = best.1;
        }
    }

    /// Fits the superblock's two numbers to the codes.
    fn improve_units(&mut self, values: &[f32]) {
        let [mut aa, mut ab, mut bb, mut ax, mut bx] = [0.0_f64; 5];
        for (block, &part) in values.chunks_exact(BLOCK).zip(&self.parts) {
            for (q, &x) in self.codes(part, block).into_iter().zip(block) {
                let (a, b, x) = (f64::from(part.0 * q), f64::from(-part.1), f64::from(x));
                aa += a * a;
                ab += a * b;
                bb += b * b;
                ax += a * x;
                bx += b * x;
            }
        }
        let determinant = aa * bb - ab * ab;
        if determinant > 0.0 {
            self.scale = rounded(((ax * bb - bx * ab) / determinant) as f32);
            self.minimum = rounded(((bx * aa - ax * ab) / determinant) as f32);
        }
    }
}
