//! Where the elements of an operand lie, and what is refused.

/// Elements from one index to the next of a tensor `[batch, heads, time, d]`, whose last dimension
/// has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one sequence of a batch to the next.
    pub batch: usize,
    /// From one head to the next.
    pub heads: usize,
    /// From one position to the next.
    pub time: usize,
}

impl Strides {
    /// Of `[batch, heads, time, d]` as it stands in memory, like a cache.
    #[must_use]
    pub fn heads_first(heads: usize, time: usize, d: usize) -> Self {
        Self {
            batch: heads.saturating_mul(time).saturating_mul(d),
            heads: time.saturating_mul(d),
            time: d,
        }
    }

    /// Of what stands in memory as `[batch, time, heads, d]`, like the result of a projection.
    #[must_use]
    pub fn time_first(time: usize, heads: usize, d: usize) -> Self {
        Self {
            batch: time.saturating_mul(heads).saturating_mul(d),
            heads: d,
            time: heads.saturating_mul(d),
        }
    }

    /// The first element of a row.
    #[inline(always)]
    pub(crate) fn offset(self, batch: usize, head: usize, time: usize) -> usize {
        batch * self.batch + head * self.heads + time * self.time
    }

    /// The elements that a tensor `[batch, heads, time, d]` spans.
    fn span(self, [batch, heads, time, d]: [usize; 4]) -> Option<usize> {
        if batch == 0 || heads == 0 || time == 0 {
            return Some(0);
        }
        ((batch - 1).checked_mul(self.batch)?)
            .checked_add((heads - 1).checked_mul(self.heads)?)?
            .checked_add((time - 1).checked_mul(self.time)?)?
            .checked_add(d)
    }

    /// Whether no two rows of `[batch, heads, time, d]` share an element: every dimension steps
    /// over all that those of smaller strides span.
    fn are_apart(self, [batch, heads, time, d]: [usize; 4]) -> bool {
        let mut dimensions = [(self.batch, batch), (self.heads, heads), (self.time, time)];
        dimensions.sort_unstable();
        let mut span = d;
        for (stride, len) in dimensions {
            if len > 1 {
                if stride < span {
                    return false;
                }
                // It fits, since the whole tensor lies in a slice.
                span += (len - 1) * stride;
            }
        }
        true
    }
}

/// An operand `[batch, heads, time, d]`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<T> {
    /// From the first element on; there may be others after the last.
    pub elements: T,
    /// Where they lie.
    pub strides: Strides,
}

/// Operands that a layer cannot be computed of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// An operand has not the number of elements that the others ask for.
    #[error("`{operand}` has {found} elements, expected {expected}")]
    Length {
        /// The argument's name.
        operand: &'static str,
        /// Its number of elements.
        found: usize,
        /// The number that it must have.
        expected: usize,
    },
    /// An operand ends before its last row does.
    #[error("`{operand}` has {found} elements, expected at least {expected}")]
    Short {
        /// The argument's name.
        operand: &'static str,
        /// Its number of elements.
        found: usize,
        /// The number that its strides span, or the largest where that is no `usize`.
        expected: usize,
    },
    /// A dimension that cannot be.
    #[error("`{operand}` is {found}, expected {expected}")]
    Dimension {
        /// The dimension's name.
        operand: &'static str,
        /// Its value.
        found: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// Rows of the result share elements.
    #[error("`{operand}` has overlapping rows with strides {found:?}, expected rows apart")]
    Overlap {
        /// The argument's name.
        operand: &'static str,
        /// Its strides.
        found: Strides,
    },
}

/// Whether an operand has exactly as many elements.
pub(crate) fn check_len(
    operand: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), LayerError> {
    match found == expected {
        true => Ok(()),
        false => Err(LayerError::Length {
            operand,
            found,
            expected,
        }),
    }
}

/// Whether all rows of an operand are there.
pub(crate) fn check_input(
    operand: &'static str,
    found: usize,
    strides: Strides,
    shape: [usize; 4],
) -> Result<(), LayerError> {
    let expected = strides.span(shape).unwrap_or(usize::MAX);
    match expected <= found && expected < usize::MAX {
        true => Ok(()),
        false => Err(LayerError::Short {
            operand,
            found,
            expected,
        }),
    }
}

/// Whether all rows of a result are there, and are different ones.
pub(crate) fn check_output(
    operand: &'static str,
    found: usize,
    strides: Strides,
    shape: [usize; 4],
) -> Result<(), LayerError> {
    check_input(operand, found, strides, shape)?;
    match shape.contains(&0) || strides.are_apart(shape) {
        true => Ok(()),
        false => Err(LayerError::Overlap {
            operand,
            found: strides,
        }),
    }
}
