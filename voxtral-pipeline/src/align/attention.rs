//! What words attend to, and how well one place for each explains it.

/// Weights below this are nothing: at most `1 / LEAST` of a row's are kept.
const LEAST: f32 = 1e-3;

/// Positions on each side of a word's place that count as that place: a head rarely looks at one
/// position alone.
const REACH: usize = 2;

/// Attention of words to the positions of the audio, `[words, positions]`, without the weights
/// that are next to nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attention {
    positions: usize,
    /// For each word, the positions that it attends to, in order, and their weights.
    rows: Vec<Vec<(usize, f32)>>,
}

impl Attention {
    /// Of no words yet.
    pub(super) fn new(positions: usize) -> Self {
        Self {
            positions,
            rows: Vec::new(),
        }
    }

    /// Adds words with their weights on every position, `[words, positions]`.
    pub(super) fn extend(&mut self, weights: &[f32]) {
        let rows = weights.chunks_exact(self.positions);
        self.rows.extend(rows.map(|row| {
            let weights = row.iter().copied().enumerate();
            weights.filter(|(_, weight)| *weight >= LEAST).collect()
        }));
    }

    /// The mean of some, of the same words.
    pub(super) fn mean<'a>(positions: usize, all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let share = 1.0 / all.clone().count() as f32;
        let words = all.clone().map(|attention| attention.rows.len()).max();
        let mut mean = Self::new(positions);
        for word in 0..words.unwrap_or(0) {
            let mut sums = vec![0.0; positions];
            let rows = all.clone().filter_map(|attention| attention.rows.get(word));
            for &(position, weight) in rows.flatten() {
                sums[position] += weight * share;
            }
            mean.extend(&sums);
        }
        mean
    }

    /// For each word, the positions that it attends to, in order, and their weights.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The share of the words' attention that falls on the audio.
    pub(super) fn mass(&self) -> f32 {
        let weights = self.rows.iter().flatten().map(|(_, weight)| weight);
        weights.sum::<f32>() / self.rows.len().max(1) as f32
    }

    /// The place of each word: one position each, behind that of the word before (or the same,
    /// where there are more words than positions), so that the product of the weights on them is
    /// the largest.
    ///
    /// This is dynamic time warping with free ends, in which a word takes the time of one position
    /// and silence takes none. With `s(i, t)` the best sum of logarithms up to word i at position t,
    /// `s(i, t) = ln w(i, t) + max over t' < t of s(i − 1, t')`. One bit for each is enough to go
    /// back: whether that maximum is reached at t first.
    pub(super) fn path(&self) -> Vec<usize> {
        let step = usize::from(self.rows.len() <= self.positions);
        let mut reached: Vec<Vec<u64>> = Vec::new();
        let mut sums = vec![0.0_f32; self.positions];
        for (word, row) in self.rows.iter().enumerate() {
            if word > 0 {
                reached.push(best_until(&mut sums));
                sums.rotate_right(step);
                sums[..step].fill(f32::NEG_INFINITY);
            }
            sums.iter_mut().for_each(|sum| *sum += LEAST.ln());
            for &(position, weight) in row {
                sums[position] += weight.ln() - LEAST.ln();
            }
        }
        let last = (0..sums.len()).fold(0, |best, i| if sums[i] > sums[best] { i } else { best });
        let mut path = vec![last; self.rows.len().min(1)];
        let mut at = last;
        for first in reached.iter().rev() {
            at = at.saturating_sub(step);
            while at > 0 && first[at / 64] >> (at % 64) & 1 == 0 {
                at -= 1;
            }
            path.push(at);
        }
        path.reverse();
        path
    }

    /// How well these places explain the attention, at most 1: the mean weight of a word around
    /// its own place, less that of the other words around it. A head that looks at the same place
    /// all the time has 0, as has one without a pattern; with one word alone nothing can be said.
    pub(super) fn explained(&self, path: &[usize]) -> f32 {
        let count = self.rows.len();
        if count < 2 {
            return 0.0;
        }
        let mut totals = vec![0.0_f32; self.positions];
        for &(position, weight) in self.rows.iter().flatten() {
            totals[position] += weight;
        }
        let own_and_others = |(row, &at): (&Vec<(usize, f32)>, &usize)| {
            let around = at.saturating_sub(REACH)..(at + REACH + 1).min(self.positions);
            let near = row.iter().filter(|(position, _)| around.contains(position));
            let own: f32 = near.map(|(_, weight)| weight).sum();
            let all: f32 = totals[around].iter().sum();
            own - (all - own) / (count - 1) as f32
        };
        let sum: f32 = self.rows.iter().zip(path).map(own_and_others).sum();
        sum / count as f32
    }
}

/// Makes each sum the largest up to it; gives a bit for each that says whether it is the first so
/// large.
fn best_until(sums: &mut [f32]) -> Vec<u64> {
    let mut first = vec![0_u64; sums.len().div_ceil(64)];
    let mut best = f32::NEG_INFINITY;
    for (position, sum) in sums.iter_mut().enumerate() {
        if *sum > best {
            best = *sum;
            first[position / 64] |= 1 << (position % 64);
        }
        *sum = best;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(rows: &[&[f32]]) -> Attention {
        let mut attention = Attention::new(rows[0].len());
        rows.iter().for_each(|row| attention.extend(row));
        attention
    }

    /// The best of all monotone paths.
    fn brute_force(rows: &[Vec<f32>]) -> f64 {
        fn best(rows: &[Vec<f32>], from: usize, step: usize) -> f64 {
            let Some((row, rest)) = rows.split_first() else {
                return 0.0;
            };
            (from.min(row.len())..row.len())
                .map(|t| f64::from(row[t].max(LEAST)).ln() + best(rest, t + step, step))
                .fold(f64::NEG_INFINITY, f64::max)
        }
        best(rows, 0, usize::from(rows.len() <= rows[0].len()))
    }

    #[test]
    fn the_path_is_the_best_of_all_monotone_ones() {
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        for (tokens, positions) in [(1, 1), (1, 7), (4, 1), (3, 3), (3, 5), (5, 7), (4, 70)] {
            for _ in 0..20 {
                let rows: Vec<Vec<f32>> = (0..tokens)
                    .map(|_| (0..positions).map(|_| random().powi(8)).collect())
                    .collect();
                let mut attention = Attention::new(positions);
                rows.iter().for_each(|row| attention.extend(row));
                let path = attention.path();
                let behind = |pair: &[usize]| pair[0] + usize::from(tokens <= positions) <= pair[1];
                assert!(path.windows(2).all(behind), "{path:?}");
                let found = rows.iter().zip(&path);
                let found: f64 = found.map(|(r, &t)| f64::from(r[t].max(LEAST)).ln()).sum();
                let best = brute_force(&rows);
                assert!((found - best).abs() < 1e-4, "{found} instead of {best}");
            }
        }
    }

    #[test]
    fn a_mean_is_that_of_every_weight() {
        let one = attention(&[&[0.5, 0.5, 0.0], &[0.0, 0.2, 0.8]]);
        let other = attention(&[&[0.1, 0.0, 0.0], &[0.0, 0.6, 0.0]]);
        let mean = attention(&[&[0.3, 0.25, 0.0], &[0.0, 0.4, 0.4]]);
        let found = Attention::mean(3, [&one, &other].into_iter());
        assert_eq!(found.rows.len(), 2);
        for (found, mean) in found.rows.iter().flatten().zip(mean.rows.iter().flatten()) {
            assert_eq!(found.0, mean.0);
            assert!((found.1 - mean.1).abs() < 1e-6, "{found:?} for {mean:?}");
        }
    }

    #[test]
    fn a_head_that_goes_along_explains_the_text_and_others_do_not() {
        let along: [&[f32]; 3] = [
            &[0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            &[0.0, 0.0, 0.0, 0.0, 0.8, 0.0, 0.0, 0.0, 0.0],
            &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.5],
        ];
        let moving = attention(&along);
        assert_eq!(moving.path(), [0, 4, 8]);
        assert!((moving.explained(&moving.path()) - 0.8).abs() < 1e-6);
        assert!((moving.mass() - 0.8).abs() < 1e-6);
        let sink: [&[f32]; 3] = [&[0.9, 0.0, 0.0, 0.0]; 3];
        let sink = attention(&sink);
        assert!(sink.explained(&sink.path()).abs() < 1e-6);
        let backwards: [&[f32]; 3] = [along[2], along[1], along[0]];
        let backwards = attention(&backwards);
        assert!(backwards.explained(&backwards.path()) < 0.4);
        assert_eq!(attention(&along[..1]).explained(&[0]), 0.0);
    }
}
