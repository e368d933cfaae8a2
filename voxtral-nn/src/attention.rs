//! Multi-head attention, of the encoder and of the decoder.

use std::ops::Range;

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::{AttentionConfig, Mask};

use crate::{Backend, LayerCache, Linear, Loader, NnError, Rotary, plain};

/// Which projections of an attention block have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// None (decoder).
    None,
    /// Queries, values and outputs, never keys (Whisper).
    AllButKeys,
}

/// What the queries of a pass attend to, as far as the mask lets them.
#[derive(Debug)]
pub enum Scope<'a, B: Backend> {
    /// Each entry of the batch to itself: nothing is kept. Queries and keys are rotated by these
    /// angles where there are any.
    Windows(Option<&'a Rotary<B>>),
    /// The batch has one entry, in whose time the new positions of some sequences follow each
    /// other. Those of each attend to its cache and to each other.
    Continuations(Vec<Continuation<'a, B>>),
}

/// New positions of a sequence, as one layer sees them.
#[derive(Debug)]
pub struct Continuation<'a, B: Backend> {
    /// The first of them, counted from the beginning of the sequence.
    pub start: usize,
    /// Their angles, which also tell how many they are.
    pub rotary: &'a Rotary<B>,
    /// Keys and values of the positions before them.
    pub cache: &'a mut LayerCache<B>,
    /// Where some of the layer's attention is to be written down.
    pub probe: Option<&'a mut Probe<B>>,
}

/// Writes down what some heads of a layer attend to. It changes nothing of the pass.
#[derive(Debug)]
pub struct Probe<B: Backend> {
    /// These query heads.
    pub heads: Vec<usize>,
    /// At these of the new positions.
    pub rows: Vec<usize>,
    /// As far as their attention falls on these positions of a plain cache.
    pub keys: Range<usize>,
    /// `[heads, rows, keys]`, once they are written down; see [`plain::attention_weights`].
    pub weights: Option<Tensor<B, 3>>,
}

/// `softmax(q kᵀ / √d) v` with grouped queries, between four projections.
#[derive(Debug, Clone)]
pub struct Attention<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
    config: AttentionConfig,
    mask: Mask,
}

impl<B: Backend> Attention<B> {
    /// Loads `{name}.wq`, `.wk`, `.wv` and `.wo` of a model of this width.
    pub fn load(
        loader: &Loader<'_, B>,
        name: &str,
        config: AttentionConfig,
        width: usize,
        mask: Mask,
        bias: AttentionBias,
    ) -> Result<Self, NnError> {
        let queries = config.num_heads * config.head_dim;
        let keys = config.num_kv_heads * config.head_dim;
        let bias = bias == AttentionBias::AllButKeys;
        let linear =
            |part: &str, shape, bias| Linear::load(loader, &format!("{name}.{part}"), shape, bias);
        Ok(Self {
            query: linear("wq", [queries, width], bias)?,
            key: linear("wk", [keys, width], false)?,
            value: linear("wv", [keys, width], bias)?,
            output: linear("wo", [width, queries], bias)?,
            config,
            mask,
        })
    }

    /// The precision of its keys and values in a cache, see [`Backend::cache_dtype`].
    pub fn cache_dtype(&self) -> DType {
        B::cache_dtype(self.output.dtype())
    }

    /// `[batch, time, width]` → the same shape.
    /// Continuations have as many positions together as `x`.
    pub fn forward(&self, x: Tensor<B, 3>, scope: Scope<'_, B>) -> Tensor<B, 3> {
        let [batch, time, _] = x.dims();
        let AttentionConfig {
            num_heads,
            num_kv_heads,
            head_dim,
        } = self.config;
        let q = self.heads(&self.query, &x, num_heads);
        let k = self.heads(&self.key, &x, num_kv_heads);
        let v = self.heads(&self.value, &x, num_kv_heads);
        let y = match scope {
            Scope::Windows(rotary) => self.windows(q, k, v, rotary),
            Scope::Continuations(parts) => self.continuations([q, k, v], parts),
        };
        let y = y
            .swap_dims(1, 2)
            .reshape([batch, time, num_heads * head_dim]);
        self.output.forward(y)
    }

    /// Writes down what `x`, `[1, time, width]`, attends to, and computes nothing else: the cache
    /// gets the keys of these positions without their values, so they must be taken back.
    pub fn probe(
        &self,
        x: &Tensor<B, 3>,
        (start, rotary): (usize, &Rotary<B>),
        cache: &mut LayerCache<B>,
        probe: &mut Probe<B>,
    ) {
        let q = rotary.rotate(self.heads(&self.query, x, self.config.num_heads));
        let k = rotary.rotate(self.heads(&self.key, x, self.config.num_kv_heads));
        let k = cache.append_keys(start, k);
        self.write_down(probe, q, k, start);
    }

    /// What the watched heads of a cache of so many positions attended to at some of them, as far as
    /// it falls on these keys; nothing where the queries of one were not kept. Gives the heads, and
    /// `[heads, positions, keys]`.
    pub fn watched(
        &self,
        cache: &LayerCache<B>,
        len: usize,
        (at, keys): (&[usize], Range<usize>),
    ) -> Option<(Vec<usize>, Tensor<B, 3>)> {
        let (heads, q) = cache.watched(at)?;
        let asked = (&*self.kv_heads(heads), keys);
        let weights = plain::attention_weights(q, cache.keys(len), self.mask, at, asked);
        Some((heads.to_vec(), weights))
    }

    /// The key heads of query heads.
    fn kv_heads(&self, heads: &[usize]) -> Vec<usize> {
        let group = self.config.num_heads / self.config.num_kv_heads;
        heads.iter().map(|head| head / group).collect()
    }

    /// `[batch, time, width]` → `[batch, heads, time, head_dim]`
    fn heads(&self, projection: &Linear<B>, x: &Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
        let [batch, time, _] = x.dims();
        projection
            .forward(x.clone())
            .reshape([batch, time, heads, self.config.head_dim])
            .swap_dims(1, 2)
    }

    /// Every window attends to itself.
    fn windows(
        &self,
        q: Tensor<B, 4>,
        k: Tensor<B, 4>,
        v: Tensor<B, 4>,
        rotary: Option<&Rotary<B>>,
    ) -> Tensor<B, 4> {
        let time = q.dims()[2];
        let rotate = |x| match rotary {
            Some(rotary) => rotary.rotate(x),
            None => x,
        };
        let dtype = self.cache_dtype();
        let (k, v) = (B::hold(rotate(k), dtype), B::hold(v, dtype));
        B::attend(rotate(q), k, v, self.mask, time)
    }

    /// Every sequence attends to its own cache, to which its keys and values are added before.
    fn continuations(
        &self,
        [q, k, v]: [Tensor<B, 4>; 3],
        parts: Vec<Continuation<'_, B>>,
    ) -> Tensor<B, 4> {
        let mut next = 0;
        let attended = parts.into_iter().map(|part| {
            let positions = next..next + part.rotary.positions();
            next = positions.end;
            let [q, k, v] = [&q, &k, &v].map(|x| slice(x, &positions));
            let (k, v) = part.cache.append(part.start, part.rotary.rotate(k), v);
            let end = part.start + positions.len();
            let q = part.rotary.rotate(q);
            part.cache.watch_pass(end - 1, &q);
            if let Some(probe) = part.probe {
                self.write_down(probe, q.clone(), k.clone(), part.start);
            }
            B::attend(q, k, v, self.mask, end)
        });
        Tensor::cat(attended.collect(), 2)
    }

    /// Writes down what new positions from `start` on attend to.
    fn write_down(&self, probe: &mut Probe<B>, q: Tensor<B, 4>, k: Tensor<B, 4>, start: usize) {
        if probe.heads.is_empty() || probe.rows.is_empty() {
            return;
        }
        let q = plain::select(plain::select(q, 2, &probe.rows), 1, &probe.heads);
        let at: Vec<usize> = probe.rows.iter().map(|row| start + row).collect();
        let asked = (&*self.kv_heads(&probe.heads), probe.keys.clone());
        probe.weights = Some(plain::attention_weights(q, k, self.mask, &at, asked));
    }
}

/// These positions of `[batch, heads, time, d]`.
fn slice<B: Backend>(x: &Tensor<B, 4>, positions: &Range<usize>) -> Tensor<B, 4> {
    let x = x.clone();
    // On most devices a slice is a copy.
    if positions.len() == x.dims()[2] {
        return x;
    }
    x.slice_dim(2, positions.clone())
}
