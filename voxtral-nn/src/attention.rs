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
    /// As far as their attention falls on these positions of a plain cache.
    pub keys: Range<usize>,
    /// For each of the heads, `[new, keys]`; see [`plain::attention_weights`].
    pub weights: Vec<Tensor<B, 2>>,
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
        let heads = |projection: &Linear<B>, heads| {
            projection
                .forward(x.clone())
                .reshape([batch, time, heads, head_dim])
                .swap_dims(1, 2)
        };
        let q = heads(&self.query, num_heads);
        let k = heads(&self.key, num_kv_heads);
        let v = heads(&self.value, num_kv_heads);
        let y = match scope {
            Scope::Windows(rotary) => self.windows(q, k, v, rotary),
            Scope::Continuations(parts) => self.continuations([q, k, v], parts),
        };
        let y = y
            .swap_dims(1, 2)
            .reshape([batch, time, num_heads * head_dim]);
        self.output.forward(y)
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
            if let Some(probe) = part.probe {
                let weights = |&head: &usize| {
                    let (q, k, keys) = (q.clone(), k.clone(), probe.keys.clone());
                    plain::attention_weights(q, k, self.mask, end, (head, keys))
                };
                probe.weights = probe.heads.iter().map(weights).collect();
            }
            B::attend(q, k, v, self.mask, end)
        });
        Tensor::cat(attended.collect(), 2)
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
