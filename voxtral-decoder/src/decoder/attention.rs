//! What the decoder's heads attend to.

use std::ops::Range;

use burn_tensor::Tensor;
use voxtral_nn::{Backend, Continuation, KvCache, NnError, Probe, Rotary, Scope};

use super::{Decoder, read};

/// Positions whose attention is written down at once; bounds what is held of it.
const PROBED_POSITIONS: usize = 256;

/// A head of attention, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The layer.
    pub layer: usize,
    /// The query head in it.
    pub head: usize,
}

/// What is asked about attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionRequest<'a> {
    /// Of these heads, in their order.
    pub heads: &'a [Head],
    /// At these of the positions that are run, in their order.
    pub rows: &'a [usize],
    /// As far as it falls on these positions of the cache.
    pub keys: Range<usize>,
}

impl<B: Backend> Decoder<B> {
    /// Every head, layer by layer.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        let heads = self.config.attention.num_heads;
        (0..self.blocks.len())
            .flat_map(move |layer| (0..heads).map(move |head| Head { layer, head }))
    }

    /// Lets a cache keep, from now on, what is needed to tell what these heads attend to at the last
    /// position of each pass; see [`watched`](Self::watched).
    ///
    /// # Errors
    /// A head does not exist, or the cache is a ring or of another decoder.
    pub fn watch(&self, cache: &mut KvCache<B>, heads: &[Head]) -> Result<(), NnError> {
        self.check_heads(heads)?;
        for layer in 0..self.blocks.len() {
            let here = heads.iter().filter(|head| head.layer == layer);
            let here: Vec<usize> = here.map(|head| head.head).collect();
            cache.watch(layer, &here)?;
        }
        Ok(())
    }

    /// What the watched heads of a cache attended to at these positions, as far as it falls on these
    /// keys: calls `visit` for each of the heads, layer by layer, with `[positions, keys]`. Nothing is
    /// run. Tells whether there was anything to tell: heads are watched, and each of the positions was
    /// the last of a pass.
    ///
    /// # Errors
    /// A key does not exist, the cache is of another decoder, or the device failed.
    pub fn watched(
        &self,
        cache: &KvCache<B>,
        at: &[usize],
        keys: Range<usize>,
        mut visit: impl FnMut(Head, &[f32]),
    ) -> Result<bool, NnError> {
        self.check_layers(cache)?;
        check_keys(&keys, cache)?;
        let mut any = false;
        for (layer, block) in self.blocks.iter().enumerate() {
            let asked = (at, keys.clone());
            if let Some((heads, weights)) =
                block.watched(&cache.layers()[layer], cache.len(), asked)
            {
                any = true;
                each_head((layer, &heads), weights, &mut visit)?;
            }
        }
        Ok(any)
    }

    /// What heads attend to, of new positions, `[1, new, width]`, that follow those in the cache: the
    /// weights `softmax(q kᵀ / √d)` that fall on the keys asked about. The cache is left as it was
    /// found.
    ///
    /// Positions are run a few at a time, up to the last that is asked about, through the layers up
    /// to the last that is, of which no more is computed than its queries and keys. Each time,
    /// `visit` is called for every head, layer by layer, with its weights `[rows, keys]` for those
    /// rows that are among these positions, if any.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward); or a head, row or key does not exist, the cache is a ring,
    /// or the device failed.
    pub fn attention(
        &self,
        embeddings: Tensor<B, 3>,
        cache: &mut KvCache<B>,
        asked: &AttentionRequest<'_>,
        mut visit: impl FnMut(Head, &[f32]),
    ) -> Result<(), NnError> {
        self.check_delay()?;
        self.check(&embeddings, cache)?;
        self.check_request(asked, embeddings.dims()[1], cache)?;
        if asked.heads.is_empty() {
            return Ok(());
        }
        let len = cache.len();
        let end = asked.rows.iter().max().map_or(0, |last| last + 1);
        let mut run = || {
            (0..end).step_by(PROBED_POSITIONS).try_for_each(|first| {
                let block = first..end.min(first + PROBED_POSITIONS);
                let rows = asked.rows.iter().filter(|row| block.contains(row));
                let rows: Vec<usize> = rows.map(|row| row - first).collect();
                let h = embeddings.clone().slice_dim(1, block);
                self.probe(h, cache, asked, &rows, &mut visit)
            })
        };
        let outcome = run();
        cache.truncate(len)?;
        outcome
    }

    /// Runs positions through the layers that are asked about, and asks about these of them.
    fn probe(
        &self,
        mut h: Tensor<B, 3>,
        cache: &mut KvCache<B>,
        asked: &AttentionRequest<'_>,
        rows: &[usize],
        visit: &mut impl FnMut(Head, &[f32]),
    ) -> Result<(), NnError> {
        let claim = cache.claim(h.dims()[1])?;
        let (head_dim, theta) = (self.config.attention.head_dim, self.config.rope_theta);
        let rotary = Rotary::new(claim.angles, head_dim, theta, &self.device);
        let last = asked.heads.iter().map(|head| head.layer).max().unwrap_or(0);
        for (layer, block) in self.blocks[..=last].iter().enumerate() {
            let here = asked.heads.iter().filter(|head| head.layer == layer);
            let mut probe = Probe {
                heads: here.map(|head| head.head).collect(),
                rows: rows.to_vec(),
                keys: asked.keys.clone(),
                weights: None,
            };
            let cache = &mut claim.layers[layer];
            if layer == last {
                block.probe(h.clone(), (claim.start, &rotary), cache, &mut probe);
            } else {
                let continuation = Continuation {
                    start: claim.start,
                    rotary: &rotary,
                    cache,
                    probe: Some(&mut probe),
                };
                h = block.forward(h, Scope::Continuations(vec![continuation]));
            }
            if let Some(weights) = probe.weights {
                each_head((layer, &probe.heads), weights, visit)?;
            }
        }
        Ok(())
    }

    /// Whether these heads, rows and keys are there.
    fn check_request(
        &self,
        asked: &AttentionRequest<'_>,
        new: usize,
        cache: &KvCache<B>,
    ) -> Result<(), NnError> {
        self.check_heads(asked.heads)?;
        if let Some(row) = asked.rows.iter().find(|row| **row >= new) {
            return Err(NnError::Shape {
                subject: "row",
                found: vec![*row],
                expected: format!("less than [{new}], the positions that are run"),
            });
        }
        check_keys(&asked.keys, cache)
    }

    fn check_heads(&self, heads: &[Head]) -> Result<(), NnError> {
        let [layers, count] = [self.blocks.len(), self.config.attention.num_heads];
        let absent = |head: &&Head| head.layer >= layers || head.head >= count;
        match heads.iter().find(absent) {
            Some(Head { layer, head }) => Err(NnError::Shape {
                subject: "layer and head",
                found: vec![*layer, *head],
                expected: format!("less than [{layers}, {count}]"),
            }),
            None => Ok(()),
        }
    }
}

fn check_keys<B: Backend>(keys: &Range<usize>, cache: &KvCache<B>) -> Result<(), NnError> {
    if keys.is_empty() || keys.end > cache.len() {
        return Err(NnError::Shape {
            subject: "first and end of the keys",
            found: vec![keys.start, keys.end],
            expected: format!("some of the {} positions in the cache", cache.len()),
        });
    }
    Ok(())
}

/// Calls `visit` for each head of a layer with its part of `[heads, rows, keys]`.
fn each_head<B: Backend>(
    (layer, heads): (usize, &[usize]),
    weights: Tensor<B, 3>,
    visit: &mut impl FnMut(Head, &[f32]),
) -> Result<(), NnError> {
    let [_, rows, keys] = weights.dims();
    let weights = read(weights)?;
    for (&head, weights) in heads.iter().zip(weights.chunks_exact(rows * keys)) {
        visit(Head { layer, head }, weights);
    }
    Ok(())
}
