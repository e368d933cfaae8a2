//! Multi-head attention, of the encoder and of the decoder.

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::{AttentionConfig, Mask};

use crate::{Backend, LayerCache, Linear, Loader, NnError, Rotary};

/// Which projections of an attention block have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// None (decoder).
    None,
    /// Queries, values and outputs, never keys (Whisper).
    AllButKeys,
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
    ///
    /// Queries and keys are rotated where `rotary` is given, for these positions. With a cache,
    /// the new keys and values are written from position `start` on, and the queries see those
    /// before them too, as far as the mask lets them.
    pub fn forward(
        &self,
        x: Tensor<B, 3>,
        rotary: Option<&Rotary<B>>,
        cache: Option<(usize, &mut LayerCache<B>)>,
    ) -> Tensor<B, 3> {
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
        let rotate = |x| match rotary {
            Some(rotary) => rotary.rotate(x),
            None => x,
        };
        let q = rotate(heads(&self.query, num_heads));
        let k = rotate(heads(&self.key, num_kv_heads));
        let v = heads(&self.value, num_kv_heads);
        let (k, v, end) = match cache {
            Some((start, cache)) => {
                let (k, v) = cache.append(start, k, v);
                (k, v, start + time)
            }
            None => {
                let dtype = self.cache_dtype();
                (B::hold(k, dtype), B::hold(v, dtype), time)
            }
        };
        let y = B::attend(q, k, v, self.mask, end).swap_dims(1, 2).reshape([
            batch,
            time,
            num_heads * head_dim,
        ]);
        self.output.forward(y)
    }
}
