//! Queries that a cache keeps beside its keys: what a position attends to follows from its query and
//! the keys before it, at any time, so it costs a pass nothing to let it be asked for later.

use burn_tensor::Tensor;

use crate::{Backend, plain};

/// The queries of some heads of a layer, at the last position of each pass.
#[derive(Debug)]
pub(super) struct Watch<B: Backend> {
    heads: Vec<usize>,
    /// Positions in order, and the queries there, `[1, heads, 1, head_dim]`.
    queries: Vec<(usize, Tensor<B, 4>)>,
}

impl<B: Backend> Default for Watch<B> {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl<B: Backend> Watch<B> {
    pub(super) fn new(heads: &[usize]) -> Self {
        Self {
            heads: heads.to_vec(),
            queries: Vec::new(),
        }
    }

    /// Takes note of a pass that ends at this position.
    pub(super) fn pass(&mut self, last: usize, queries: &Tensor<B, 4>) {
        if self.heads.is_empty() {
            return;
        }
        let new = queries.dims()[2];
        let queries = queries.clone().slice_dim(2, new - 1..new);
        self.queries
            .push((last, plain::select(queries, 1, &self.heads)));
    }

    /// The heads, and their queries at these positions; nothing where not all were kept.
    pub(super) fn queries(&self, at: &[usize]) -> Option<(&[usize], Tensor<B, 4>)> {
        if self.heads.is_empty() || at.is_empty() {
            return None;
        }
        let kept = |position: &usize| {
            let found = self.queries.binary_search_by_key(position, |(at, _)| *at);
            found.ok().map(|index| self.queries[index].1.clone())
        };
        let queries: Option<Vec<_>> = at.iter().map(kept).collect();
        Some((&self.heads, Tensor::cat(queries?, 2)))
    }

    /// Forgets the positions from this one on.
    pub(super) fn forget_from(&mut self, len: usize) {
        self.queries.retain(|(at, _)| *at < len);
    }
}
