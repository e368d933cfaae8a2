//! The two layouts of a rotated projection, and the way between them.
//!
//! A rotary embedding rotates pairs of a head's elements. The native form pairs neighbours,
//! `(x[2j], x[2j+1])`; the Hugging Face form pairs halves, `(x[j], x[j + d/2])`. The same model in
//! the other layout is the same matrix with its output rows in another order, for each head `h` of
//! size `d`:
//!
//! ```text
//! halves[h·d + p·d/2 + j] = neighbours[h·d + 2·j + p]      p in {0, 1}, j in 0..d/2
//! ```
//!
//! Source: `permute_for_rope` in transformers' `convert_voxtral_weights_to_hf.py`. The canonical
//! layout of this crate is halves.

/// Which way to reorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the native layout to the canonical one.
    ToHalves,
    /// From the canonical layout to the native one.
    ToNeighbours,
}

/// Reorders the rows of `bytes`, `heads` heads of `rows / heads` rows each.
///
/// `rows` is a multiple of `2 · heads` and of whole rows, which the callers have checked.
pub(crate) fn permute_rows(
    bytes: &[u8],
    rows: usize,
    heads: usize,
    direction: Direction,
) -> Vec<u8> {
    let head_dim = rows / heads;
    let half = head_dim / 2;
    let row_bytes = bytes.len() / rows;
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for row in 0..head_dim {
            let from = match direction {
                Direction::ToHalves => 2 * (row % half) + row / half,
                Direction::ToNeighbours => (row % 2) * half + row / 2,
            };
            let start = (head * head_dim + from) * row_bytes;
            out.extend_from_slice(&bytes[start..start + row_bytes]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_heads_of_six() {
        let neighbours: Vec<u8> = (0..12).collect();
        let halves = permute_rows(&neighbours, 12, 2, Direction::ToHalves);
        assert_eq!(halves, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    proptest! {
        #[test]
        fn both_ways_is_the_identity(heads in 1usize..5, half in 1usize..9, row_bytes in 1usize..7) {
            let rows = heads * half * 2;
            let bytes: Vec<u8> = (0..rows * row_bytes).map(|i| (i * 31 % 251) as u8).collect();
            let there = permute_rows(&bytes, rows, heads, Direction::ToHalves);
            prop_assert_eq!(permute_rows(&there, rows, heads, Direction::ToNeighbours), bytes);
        }
    }
}
