//! Attention on every instruction set that this machine has, against its definition in `f64`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::num::NonZeroUsize;

use common::{kernels, noise, on_threads};
use half::bf16;
use voxtral_kernels::{
    AttentionShape, Cache, Isa, Kernels, KeysValues, LayerError, Mask, Strided, Strides,
};

fn window(positions: usize) -> Mask {
    Mask::SlidingWindow(NonZeroUsize::new(positions).unwrap())
}

/// Whether the key at one position is seen from another.
fn sees(mask: Mask, query: usize, key: usize) -> bool {
    match mask {
        Mask::Full => true,
        Mask::Causal => key <= query,
        Mask::SlidingWindow(window) => key <= query && key + window.get() > query,
    }
}

/// Operands, which stand in memory with gaps or in another order of dimensions where `views` says
/// so.
#[derive(Clone)]
struct Case {
    shape: AttentionShape,
    mask: Mask,
    end: usize,
    views: bool,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Room for more keys than are held.
const SPARE: usize = 3;

impl Case {
    fn new(shape: AttentionShape, mask: Mask, end: usize, views: bool) -> Self {
        let AttentionShape {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
        } = shape;
        let held = batch * kv_heads * (keys + SPARE) * head_dim;
        Self {
            shape,
            mask,
            end,
            views,
            q: noise(batch * heads * queries * head_dim, 1),
            keys: noise(held, 2),
            values: noise(held, 3),
        }
    }

    fn scaled(mut self, q: f32, values: f32) -> Self {
        self.q.iter_mut().for_each(|v| *v *= q);
        self.values.iter_mut().for_each(|v| *v *= values);
        self
    }

    fn asked(&self) -> Strides {
        let AttentionShape {
            heads,
            queries,
            head_dim,
            ..
        } = self.shape;
        match self.views {
            true => Strides::time_first(queries, heads, head_dim),
            false => Strides::heads_first(heads, queries, head_dim),
        }
    }

    fn held(&self) -> Strides {
        let AttentionShape {
            kv_heads,
            keys,
            head_dim,
            ..
        } = self.shape;
        match self.views {
            true => Strides::time_first(keys + SPARE, kv_heads, head_dim),
            false => Strides::heads_first(kv_heads, keys + SPARE, head_dim),
        }
    }

    /// The same with keys and values as bfloat16 has them.
    fn narrow(&self) -> (Self, Vec<u16>, Vec<u16>) {
        let narrow =
            |values: &[f32]| -> Vec<bf16> { values.iter().map(|&v| bf16::from_f32(v)).collect() };
        let (keys, values) = (narrow(&self.keys), narrow(&self.values));
        let widen = |values: &[bf16]| values.iter().map(|v| v.to_f32()).collect();
        let bits = |values: &[bf16]| values.iter().map(|v| v.to_bits()).collect();
        let widened = Self {
            keys: widen(&keys),
            values: widen(&values),
            ..self.clone()
        };
        (widened, bits(&keys), bits(&values))
    }

    /// The result, in memory that held something else.
    fn run_with(&self, kernels: Kernels, cache: Cache<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.q.len()];
        let strides = self.asked();
        let q = Strided {
            elements: &self.q[..],
            strides,
        };
        let to = Strided {
            elements: &mut out[..],
            strides,
        };
        kernels
            .attend(self.shape, q, cache, self.mask, self.end, to)
            .unwrap();
        out
    }

    fn run(&self, kernels: Kernels) -> Vec<f32> {
        let strides = self.held();
        let held = |elements| Strided { elements, strides };
        self.run_with(
            kernels,
            Cache::F32(KeysValues {
                keys: held(&self.keys[..]),
                values: held(&self.values[..]),
            }),
        )
    }

    fn run_narrow(&self, kernels: Kernels, keys: &[u16], values: &[u16]) -> Vec<f32> {
        let strides = self.held();
        let held = |elements| Strided { elements, strides };
        self.run_with(
            kernels,
            Cache::Bf16(KeysValues {
                keys: held(keys),
                values: held(values),
            }),
        )
    }

    /// In both formats.
    fn run_each(&self, kernels: Kernels) -> [Vec<f32>; 2] {
        let (_, keys, values) = self.narrow();
        [self.run(kernels), self.run_narrow(kernels, &keys, &values)]
    }

    /// The roundings of queries and weights where keys and values are bfloat16.
    fn narrow_roundings(&self, isa: Isa) -> [f64; 2] {
        let pairs = matches!(isa, Isa::Amx | Isa::Avx512Bf16);
        match pairs && self.shape.queries > 8 && self.shape.head_dim <= 512 {
            true => [BF16; 2],
            false => [0.0; 2],
        }
    }

    /// Compares with the definition in `f64`.
    ///
    /// A score is a sum of `d` products, whose error is at most `(d + 3) ε Σ|q||k| / √d` with that
    /// of its scaling and of taking the maximum off, which is at most as large (Higham 2002, §3.1,
    /// `ε` twice the unit roundoff). Weights are off by the exponential of that and its own few ε,
    /// in the numerator and in the denominator; and the sums of `n` weighted values, which are
    /// scaled once for each of `n / 64` blocks at most, by `n + n / 64 + 10` roundings.
    ///
    /// Where queries are rounded to bfloat16, by `u = 2⁻⁸` of each element at most, a score is off
    /// by another `u Σ|q||k| / √d`; where weights are, the numerator is by another `u Σ w|v|`.
    /// Products of pairs take what is subnormal as 0.
    #[track_caller]
    fn assert(&self, results: &[Found]) {
        let AttentionShape {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim: d,
        } = self.shape;
        let (asked, held) = (self.asked(), self.held());
        let eps = f64::from(f32::EPSILON);
        let row = |of: &[f32], strides: Strides, [b, h, t]: [usize; 3]| -> Vec<f64> {
            let start = b * strides.batch + h * strides.heads + t * strides.time;
            of[start..start + d].iter().map(|&v| f64::from(v)).collect()
        };
        for b in 0..batch {
            for h in 0..heads {
                let kv = h / (heads / kv_heads);
                for i in 0..queries {
                    let position = self.end - queries + i;
                    let q = row(&self.q, asked, [b, h, i]);
                    let (mut seen, mut size) = (Vec::new(), 0.0_f64);
                    for slot in 0..keys {
                        let key = self.end - 1 - (self.end - 1 - slot) % keys;
                        if sees(self.mask, position, key) {
                            let k = row(&self.keys, held, [b, kv, slot]);
                            let terms = || q.iter().zip(&k).map(|(q, k)| q * k / (d as f64).sqrt());
                            seen.push((slot, terms().sum::<f64>()));
                            size = size.max(terms().map(f64::abs).sum());
                        }
                    }
                    let maximum = seen.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = seen.iter().map(|s| (s.1 - maximum).exp()).sum();
                    let (mut expected, mut sizes) = (vec![0.0; d], vec![0.0; d]);
                    for (slot, score) in &seen {
                        let weight = (score - maximum).exp() / total;
                        let v = row(&self.values, held, [b, kv, *slot]);
                        for c in 0..d {
                            expected[c] += weight * v[c];
                            sizes[c] += weight * v[c].abs();
                        }
                    }
                    let n = seen.len() as f64;
                    let score = 2.0 * (d as f64 + 3.0) * eps * size + 4.0 * eps;
                    let rounding = (n + n / 64.0 + 10.0) * eps;
                    for Found {
                        what,
                        rounded: [of_queries, of_weights],
                        values,
                    } in results
                    {
                        let found = row(values, asked, [b, h, i]);
                        let weights = (2.0 * (score + of_queries * size)).exp_m1();
                        let weights = weights + of_weights * (1.0 + weights);
                        for c in 0..d {
                            let least = 1e-37 + n * f64::from(f32::MIN_POSITIVE);
                            let tolerance = (weights + rounding) * sizes[c] + least;
                            assert!(
                                (found[c] - expected[c]).abs() <= tolerance,
                                "{what}, {:?} {:?} end {}, batch {b}, head {h}, query {i}, \
                                 element {c}: {} instead of {}, tolerance {tolerance:e}",
                                self.shape,
                                self.mask,
                                self.end,
                                found[c],
                                expected[c],
                            );
                        }
                    }
                }
            }
        }
    }

    /// On every instruction set, in both formats.
    #[track_caller]
    fn check(&self) {
        let (mut widened, keys, values) = self.narrow();
        let exact = kernels().map(|kernels| Found {
            what: format!("{} f32", kernels.isa()),
            rounded: [0.0; 2],
            values: self.run(kernels),
        });
        self.assert(&exact.collect::<Vec<_>>());
        let narrow = kernels().map(|kernels| Found {
            what: format!("{} bf16", kernels.isa()),
            rounded: widened.narrow_roundings(kernels.isa()),
            values: widened.run_narrow(kernels, &keys, &values),
        });
        widened.assert(&narrow.collect::<Vec<_>>());
        // What is rounded hides small mistakes. Queries that are bfloat16 already are not, and
        // neither are weights that are all 1.
        for scale in [1.0, 0.0] {
            for q in &mut widened.q {
                *q = scale * bf16::from_f32(*q).to_f32();
            }
            let rounding = |kernels: &Kernels| widened.narrow_roundings(kernels.isa())[1];
            let narrow = kernels()
                .filter(|kernels| rounding(kernels) > 0.0)
                .map(|kernels| Found {
                    what: format!("{} bf16, queries times {scale}", kernels.isa()),
                    rounded: [0.0, f64::from(scale) * rounding(&kernels)],
                    values: widened.run_narrow(kernels, &keys, &values),
                });
            let narrow: Vec<_> = narrow.collect();
            if !narrow.is_empty() {
                widened.assert(&narrow);
            }
        }
    }
}

/// What a rounding to bfloat16 changes at most.
const BF16: f64 = 1.0 / 256.0;

/// A result.
struct Found {
    what: String,
    /// What queries and weights are rounded by at most.
    rounded: [f64; 2],
    values: Vec<f32>,
}

/// `[heads, kv_heads]` of one sequence.
fn shape(
    [heads, kv_heads]: [usize; 2],
    queries: usize,
    keys: usize,
    head_dim: usize,
) -> AttentionShape {
    AttentionShape {
        batch: 1,
        heads,
        kv_heads,
        queries,
        keys,
        head_dim,
    }
}

#[test]
fn every_shape_is_its_definition() {
    let groups = [[1, 1], [4, 2], [8, 2], [12, 2], [3, 3], [5, 1]];
    let sizes = [
        (1, 1_usize),
        (1, 2),
        (1, 9),
        (2, 130),
        (3, 3),
        (4, 129),
        (5, 600),
        (7, 40),
        (8, 1100),
        (9, 9),
        (10, 70),
        (17, 64),
        (33, 65),
        (50, 50),
        (70, 300),
    ];
    let mut turn = 0;
    for d in [1, 2, 4, 8, 24, 64, 96, 128, 130, 200] {
        for heads in groups {
            for (queries, keys) in sizes {
                turn += 1;
                // Every pair of dimensions comes together; all of them would take long.
                let work = heads[0] * queries * keys * d;
                if turn % 2 != 0 && work > 10_000 || turn % 16 != 0 && work > 200_000 {
                    continue;
                }
                let mask = match turn % 5 {
                    0 => Mask::Full,
                    1 => Mask::Causal,
                    2 => window(1),
                    3 => window(keys.div_ceil(2)),
                    _ => window(1000),
                };
                let mut shape = shape(heads, queries, keys, d);
                shape.batch = 1 + turn / 2 % 2;
                Case::new(shape, mask, keys, turn % 3 == 0).check();
            }
        }
    }
}

/// Slots in another order than positions, for few and for many queries.
#[test]
fn a_ring_that_has_gone_round_is_told_by_positions() {
    for (keys, queries) in [(7, 3), (40, 8), (130, 1), (700, 5), (75, 12), (300, 100)] {
        for end in [
            keys + 1,
            keys + keys / 2,
            2 * keys - 1,
            2 * keys,
            5 * keys + 3,
            100_003,
        ] {
            for mask in [
                Mask::Full,
                Mask::Causal,
                window(5),
                window(keys - queries + 1),
            ] {
                Case::new(shape([4, 2], queries, keys, 16), mask, end, false).check();
            }
        }
    }
}

/// Queries before the oldest key see nothing, and disturb nobody.
#[test]
fn a_query_without_keys_gives_zeros() {
    for (queries, keys) in [(6, 2), (40, 3)] {
        for mask in [Mask::Causal, window(2)] {
            let shape = shape([2, 1], queries, keys, 24);
            let case = Case::new(shape, mask, queries + 1, false);
            // The reference gives zeros there as well: nothing is added up.
            case.check();
        }
    }
}

/// Scores of 1e4 leave one key.
#[test]
fn large_scores_do_not_overflow() {
    for (queries, keys) in [(2, 300), (20, 300)] {
        for (d, scale) in [(4, 2e4), (64, 1e4), (64, 1e3), (64, 100.0)] {
            let shape = shape([4, 2], queries, keys, d);
            for mask in [Mask::Full, Mask::Causal] {
                Case::new(shape, mask, keys, false)
                    .scaled(scale, 1.0)
                    .check();
            }
        }
        // Scores of some 1e38, all alike, weigh as those of 0 do.
        let mut case = Case::new(shape([4, 2], queries, keys, 64), Mask::Causal, keys, false);
        case.keys.fill(1.0);
        case.q.fill(0.0);
        let equal: Vec<Vec<f32>> = kernels().map(|kernels| case.run(kernels)).collect();
        for value in [1.5e37, -1.5e37] {
            case.q.fill(value);
            for (kernels, equal) in kernels().zip(&equal) {
                assert!(case.run(kernels) == *equal, "{}", kernels.isa());
            }
        }
    }
}

#[test]
fn small_and_large_values_are_averaged() {
    for (queries, keys) in [(2, 300), (20, 300)] {
        for scale in [0.0, 1e-30, 1e30] {
            let shape = shape([4, 2], queries, keys, 64);
            Case::new(shape, Mask::Causal, keys, false)
                .scaled(3.0, scale)
                .check();
        }
    }
}

/// What is not a number spoils the query that it is in, and a key no earlier query.
#[test]
fn what_is_not_a_number_stays_where_it_is() {
    for queries in [5, 8, 40] {
        let (keys, d) = (200, 64);
        let mut case = Case::new(shape([4, 2], queries, keys, d), Mask::Causal, keys, false);
        let clean: Vec<_> = kernels().map(|kernels| case.run_each(kernels)).collect();
        let bad = 2;
        case.q[bad * d] = f32::NAN;
        // The key of the last position but one.
        case.keys[(keys - 2) * d + 1] = f32::NAN;
        for (kernels, clean) in kernels().zip(&clean) {
            let found = case.run_each(kernels).concat();
            let clean = clean.concat();
            for (row, (found, clean)) in found.chunks(d).zip(clean.chunks(d)).enumerate() {
                let row = row % (4 * queries);
                let (head, query) = (row / queries, row % queries);
                let spoiled = head == 0 && query == bad || head < 2 && query >= queries - 2;
                assert_eq!(
                    found.iter().all(|v| v.is_nan()),
                    spoiled,
                    "{}, {queries} queries, row {row}",
                    kernels.isa()
                );
                assert!(spoiled || found == clean);
            }
        }
    }
}

/// With few queries, a value that is hidden may be anything.
#[test]
fn hidden_values_do_not_matter_to_few_queries() {
    let (queries, keys, d) = (6, 300, 40);
    let mut case = Case::new(shape([3, 3], queries, keys, d), window(100), keys, false);
    let clean: Vec<Vec<f32>> = kernels().map(|kernels| case.run(kernels)).collect();
    for head in case.values.chunks_exact_mut((keys + SPARE) * d) {
        // Before the window of the third query, and after the fourth.
        head[..(keys - 3 - 100) * d].fill(f32::NAN);
        head[(keys - 2) * d..].fill(f32::INFINITY);
    }
    for (kernels, clean) in kernels().zip(&clean) {
        let found = case.run(kernels);
        for (row, (found, clean)) in found.chunks(d).zip(clean.chunks(d)).enumerate() {
            if row % queries == 3 {
                assert!(found == clean, "{}", kernels.isa());
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (queries, keys) in [(1, 3000), (5, 1500), (60, 300)] {
        let case = Case::new(shape([8, 4], queries, keys, 64), Mask::Causal, keys, false);
        for kernels in kernels() {
            // Few queries take both formats alike.
            let results = on_threads(|| match queries > 8 {
                true => case.run_each(kernels).concat(),
                false => case.run(kernels),
            });
            assert!(results.iter().all(|result| *result == results[0]));
        }
    }
}

/// The last queries of one call, computed one after the other while the cache grows, or round a
/// ring: what a decoder that guesses ahead compares.
#[test]
fn a_query_does_not_depend_on_the_others() {
    let d = 64;
    for (ring, mask) in [
        (None, Mask::Causal),
        (None, window(70)),
        (Some(960), window(880)),
    ] {
        for (end, counts) in [(1300, 1..9_usize), (1027, 1..9), (1300, 9..60)] {
            let (heads, kv_heads) = (8, 2);
            let most = counts.end - 1;
            let queries = noise(heads * most * d, 1);
            let (keys, values) = (noise(kv_heads * end * d, 2), noise(kv_heads * end * d, 3));
            // The last queries before `end` of the longest call, of which the first `count` are
            // asked at an earlier end.
            let call = |kernels: Kernels, first: usize, count: usize| {
                let end = end - most + first + count;
                let held = ring.unwrap_or(end).min(end);
                let shape = shape([heads, kv_heads], count, held, d);
                let mut case = Case::new(shape, mask, end, false);
                for (to, from) in case.q.chunks_mut(count * d).zip(queries.chunks(most * d)) {
                    to.copy_from_slice(&from[first * d..][..count * d]);
                }
                for (memory, all) in [(&mut case.keys, &keys), (&mut case.values, &values)] {
                    for (to, from) in memory
                        .chunks_mut((held + SPARE) * d)
                        .zip(all.chunks(all.len() / kv_heads))
                    {
                        for position in end - held..end {
                            let slot = position % held;
                            to[slot * d..][..d].copy_from_slice(&from[position * d..][..d]);
                        }
                    }
                }
                case.run_each(kernels)
            };
            for kernels in kernels() {
                let all = call(kernels, 0, most);
                for (first, count) in [
                    (0, counts.start),
                    (most - counts.start, counts.start),
                    (1, (counts.start + 2).min(most - 1)),
                ] {
                    let some = call(kernels, first, count);
                    for (format, head) in (0..2 * heads).map(|i| (i % 2, i / 2)) {
                        let (all, some) = (&all[format], &some[format]);
                        let all = &all[(head * most + first) * d..][..count * d];
                        let some = &some[head * count * d..][..count * d];
                        assert!(
                            some == all,
                            "{}, {mask:?}, queries {first} to {} of {most}",
                            kernels.isa(),
                            first + count
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn operands_of_other_shapes_are_refused() {
    let good = shape([4, 2], 3, 5, 8);
    let run = |shape: AttentionShape, end: usize, [q, keys, values, out]: [usize; 4], to| {
        let (q, mut out) = (vec![1.0; q], vec![7.0; out]);
        let (keys, values) = (vec![0; keys], vec![0; values]);
        let strides = Strides::heads_first(4, 3, 8);
        let held = Strides::heads_first(2, 5, 8);
        let result = Kernels::detect().attend(
            shape,
            Strided {
                elements: &q,
                strides,
            },
            Cache::Bf16(KeysValues {
                keys: Strided {
                    elements: &keys,
                    strides: held,
                },
                values: Strided {
                    elements: &values,
                    strides: held,
                },
            }),
            Mask::Causal,
            end,
            Strided {
                elements: &mut out,
                strides: to,
            },
        );
        assert!(result.is_ok() || out.iter().all(|&v| v == 7.0));
        result.err().map(|error| error.to_string())
    };
    let to = Strides::heads_first(4, 3, 8);
    let lens = [96, 80, 80, 96];
    let error = |text: &str| Some(text.to_owned());
    assert_eq!(run(good, 5, lens, to), None);
    let short = |operand: &str, found: usize, expected: usize| {
        Some(format!(
            "`{operand}` has {found} elements, expected at least {expected}"
        ))
    };
    assert_eq!(run(good, 5, [95, 80, 80, 96], to), short("q", 95, 96));
    assert_eq!(run(good, 5, [96, 79, 80, 96], to), short("keys", 79, 80));
    assert_eq!(run(good, 5, [96, 80, 0, 96], to), short("values", 0, 80));
    assert_eq!(run(good, 5, [96, 80, 80, 95], to), short("out", 95, 96));
    let with = |change: fn(&mut AttentionShape)| {
        let mut shape = good;
        change(&mut shape);
        run(shape, 5, lens, to)
    };
    assert_eq!(
        with(|s| s.kv_heads = 3),
        error("`heads` is 4, expected a multiple of `kv_heads`")
    );
    assert_eq!(
        with(|s| s.kv_heads = 0),
        error("`kv_heads` is 0, expected at least 1")
    );
    assert_eq!(
        with(|s| s.head_dim = 0),
        error("`head_dim` is 0, expected at least 1")
    );
    assert_eq!(
        with(|s| s.keys = 0),
        error("`keys` is 0, expected 1 to `end`")
    );
    assert_eq!(
        with(|s| s.keys = 6),
        error("`keys` is 6, expected 1 to `end`")
    );
    assert_eq!(
        with(|s| s.queries = 6),
        error("`queries` is 6, expected at most `end`")
    );
    assert_eq!(with(|s| s.queries = 0), None);
    assert_eq!(with(|s| s.batch = 0), None);
    // Two heads in the same place, and heads that begin within one another.
    for heads in [0, 8] {
        let error = run(good, 5, lens, Strides { heads, ..to }).unwrap();
        assert!(error.starts_with("`out` has overlapping rows"), "{error}");
    }
    let vast = Strides {
        heads: usize::MAX / 2,
        ..to
    };
    assert_eq!(run(good, 5, lens, vast), short("out", 96, usize::MAX));
    assert_eq!(
        LayerError::Dimension {
            operand: "d",
            found: 3,
            expected: "an even number"
        }
        .to_string(),
        "`d` is 3, expected an even number"
    );
}
