//! ```text
//! h += attention(rms(h)) ; h += swiglu(rms(h))      for each layer, with rotary positions
//! logits = rms(h) W_headᵀ
//! ```

mod attention;

pub use attention::{AttentionRequest, Head};

use std::num::NonZeroUsize;
use std::ops::Range;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_checkpoint::config::{DecoderConfig, Mask, Mlp, Norm as NormKind};
use voxtral_nn::{
    Backend, Block, BlockConfig, Continuation, Embedding, KvCache, Linear, Loader, NnError, Norm,
    RingConfig, Rotary, Scope,
};

/// Positions that a ring turns back after where the checkpoint states no limit. The angles bear
/// far more; this keeps them in the range that every implementation computes well.
const MAX_POSITIONS: usize = 1 << 17;

/// Base of the frequencies that make a vector of a delay; part of the architecture.
const DELAY_THETA: f64 = 10_000.0;

/// The text decoder.
#[derive(Debug, Clone)]
pub struct Decoder<B: Backend> {
    embedding: Embedding<B>,
    blocks: Vec<Block<B>>,
    norm: Norm<B>,
    head: Linear<B>,
    config: DecoderConfig,
    device: B::Device,
    delay: Option<usize>,
}

impl<B: Backend> Decoder<B> {
    /// Loads every tensor below `decoder.`.
    ///
    /// # Errors
    /// A tensor is missing or misshapen, or the precision cannot be held.
    pub fn load(loader: &Loader<'_, B>, config: &DecoderConfig) -> Result<Self, NnError> {
        let width = config.hidden_size;
        let table = [config.vocab_size, width];
        let norm = NormKind::Rms {
            eps: config.norm_eps,
        };
        let block = BlockConfig {
            hidden_size: width,
            intermediate_size: config.intermediate_size,
            attention: config.attention,
            mask: config.mask,
            norm,
            mlp: Mlp::SwiGlu,
            bias: false,
            ada_norm: config.ada_norm,
        };
        let embedding = Embedding::load(loader, "decoder.embedding", table)?;
        let head = if config.tied_head {
            embedding.as_linear()
        } else {
            Linear::load(loader, "decoder.head", table, false)?
        };
        Ok(Self {
            embedding,
            blocks: (0..config.num_layers)
                .map(|i| Block::load(loader, &format!("decoder.layers.{i}"), &block))
                .collect::<Result<_, _>>()?,
            norm: Norm::load(loader, "decoder.norm", norm, width)?,
            head,
            config: config.clone(),
            device: loader.device().clone(),
            delay: None,
        })
    }

    /// The decoder for a delay of so many tokens: the same weights in the same memory, but for the
    /// norms that depend on the delay. One without such norms is returned as it is.
    ///
    /// The condition is the vector `[cos(t·w₀) …, sin(t·w₀) …]` of the delay t, with
    /// `wᵢ = 10000^(−2i/width)` for i below half the width.
    #[must_use]
    pub fn with_delay(&self, tokens: usize) -> Self {
        if self.config.ada_norm.is_none() {
            return self.clone();
        }
        let width = self.config.hidden_size;
        let half = width / 2;
        let angle = |i: usize| tokens as f64 * (-DELAY_THETA.ln() * i as f64 / half as f64).exp();
        let (cos, sin) = (
            (0..half).map(|i| angle(i).cos()),
            (0..half).map(|i| angle(i).sin()),
        );
        let condition: Vec<f32> = cos.chain(sin).map(|x| x as f32).collect();
        let data = TensorData::new(condition, [1, 1, width]);
        let condition = Tensor::from_data(data, (&self.device, DType::F32));
        Self {
            blocks: self
                .blocks
                .iter()
                .map(|block| block.conditioned(condition.clone()))
                .collect(),
            delay: Some(tokens),
            ..self.clone()
        }
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// An empty cache for `capacity` positions, all of which it keeps.
    pub fn new_cache(&self, capacity: usize) -> KvCache<B> {
        KvCache::new(
            self.config.num_layers,
            self.config.attention,
            capacity,
            self.cache_options(),
        )
    }

    /// An empty cache for a stream without an end: it keeps as many positions as the sliding
    /// window sees, and takes `step` new ones at once.
    ///
    /// # Errors
    /// The decoder has no sliding window.
    pub fn new_ring(&self, step: NonZeroUsize) -> Result<KvCache<B>, NnError> {
        let Mask::SlidingWindow(window) = self.config.mask else {
            return Err(NnError::Mask {
                subject: "decoder",
                found: format!("{:?}", self.config.mask),
                expected: "a sliding window, which bounds the cache of a stream",
            });
        };
        let config = RingConfig {
            window,
            step,
            rope_theta: self.config.rope_theta,
            max_positions: self.config.max_positions.unwrap_or(MAX_POSITIONS),
        };
        let (layers, attention) = (self.config.num_layers, self.config.attention);
        Ok(KvCache::ring(
            layers,
            attention,
            config,
            self.cache_options(),
        ))
    }

    /// The embeddings of these tokens, `[1, ids, width]`.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor<B, 3>, NnError> {
        self.embedding.forward(ids)
    }

    /// Runs new positions, `[1, new, width]`, after those in the cache, and adds them to it.
    /// Gives the residual stream, of the same shape.
    ///
    /// # Errors
    /// As for [`forward_batch`](Self::forward_batch).
    pub fn forward(
        &self,
        embeddings: Tensor<B, 3>,
        cache: &mut KvCache<B>,
    ) -> Result<Tensor<B, 3>, NnError> {
        self.forward_batch(vec![(embeddings, cache)])
    }

    /// Runs new positions of several sequences in one pass: of each, any number, `[1, new, width]`,
    /// after those in its cache, to which they are added. Gives the residual streams one behind
    /// another, `[1, Σ new, width]`.
    ///
    /// What weights are multiplied with is all rows at once; attention is of each sequence alone.
    ///
    /// # Errors
    /// A cache has no room or is of another decoder, a shape is another or has no position, there
    /// is no sequence, or the decoder needs a delay and was given none. No cache has changed then.
    pub fn forward_batch(
        &self,
        sequences: Vec<(Tensor<B, 3>, &mut KvCache<B>)>,
    ) -> Result<Tensor<B, 3>, NnError> {
        self.check_delay()?;
        for (embeddings, cache) in &sequences {
            self.check(embeddings, cache)?;
        }
        let (embeddings, caches): (Vec<_>, Vec<_>) = sequences.into_iter().unzip();
        if embeddings.is_empty() {
            return Err(self.shape_error("embeddings", 1, [0, 0, self.config.hidden_size]));
        }
        let mut parts = Vec::new();
        for (embeddings, cache) in embeddings.iter().zip(caches) {
            let claim = cache.claim(embeddings.dims()[1])?;
            let (head_dim, theta) = (self.config.attention.head_dim, self.config.rope_theta);
            let rotary = Rotary::new(claim.angles, head_dim, theta, &self.device);
            parts.push((claim.start, rotary, claim.layers));
        }
        let mut h = Tensor::cat(embeddings, 1);
        for (i, block) in self.blocks.iter().enumerate() {
            let continuations = parts
                .iter_mut()
                .map(|(start, rotary, layers)| Continuation {
                    start: *start,
                    rotary,
                    cache: &mut layers[i],
                    probe: None,
                });
            h = block.forward(h, Scope::Continuations(continuations.collect()));
        }
        Ok(h)
    }

    fn check_delay(&self) -> Result<(), NnError> {
        if self.config.ada_norm.is_some() && self.delay.is_none() {
            return Err(NnError::DelayMissing);
        }
        Ok(())
    }

    /// Whether a sequence can be run.
    fn check(&self, embeddings: &Tensor<B, 3>, cache: &KvCache<B>) -> Result<(), NnError> {
        let [batch, new, width] = embeddings.dims();
        if batch != 1 || new == 0 || width != self.config.hidden_size {
            return Err(self.shape_error("embeddings", 1, embeddings.dims()));
        }
        self.check_layers(cache)?;
        cache.check_room(new)
    }

    /// Whether a cache is one of this decoder.
    fn check_layers(&self, cache: &KvCache<B>) -> Result<(), NnError> {
        if cache.num_layers() != self.blocks.len() {
            return Err(NnError::Shape {
                subject: "KV cache",
                found: vec![cache.num_layers()],
                expected: format!("[{}], a layer for each of the decoder's", self.blocks.len()),
            });
        }
        Ok(())
    }

    /// Scores of every vocabulary entry after each of the `last` positions of `hidden`, which is
    /// `[1, positions, width]`; gives `[last, vocab_size]`, row by row.
    ///
    /// # Errors
    /// As for [`logits_of`](Self::logits_of).
    pub fn logits(&self, hidden: Tensor<B, 3>, last: usize) -> Result<Vec<f32>, NnError> {
        let positions = hidden.dims()[1];
        match positions.checked_sub(last) {
            Some(first) => self.logits_of(hidden, std::slice::from_ref(&(first..positions))),
            None => Err(self.shape_error("hidden", last, hidden.dims())),
        }
    }

    /// Scores of every vocabulary entry after each of these positions of `hidden`, which is `[1,
    /// positions, width]`, in this order; gives `[rows, vocab_size]`, row by row.
    ///
    /// # Errors
    /// There are fewer positions, none is asked for, or the device failed.
    pub fn logits_of(
        &self,
        hidden: Tensor<B, 3>,
        rows: &[Range<usize>],
    ) -> Result<Vec<f32>, NnError> {
        let positions = hidden.dims()[1];
        let end = rows.iter().map(|rows| rows.end).max().unwrap_or(0);
        let rows = rows.iter().filter(|rows| !rows.is_empty());
        let parts: Vec<_> = if end <= positions {
            rows.map(|rows| hidden.clone().slice_dim(1, rows.clone()))
                .collect()
        } else {
            Vec::new()
        };
        if parts.is_empty() {
            return Err(self.shape_error("hidden", end, hidden.dims()));
        }
        let logits = self.head.forward(self.norm.forward(Tensor::cat(parts, 1)));
        read(logits)
    }

    /// Where and how keys and values are held.
    fn cache_options(&self) -> (&B::Device, DType) {
        let dtype = self.blocks.first().map_or(DType::F32, Block::cache_dtype);
        (&self.device, dtype)
    }

    fn shape_error(&self, subject: &'static str, least: usize, found: [usize; 3]) -> NnError {
        let least = least.max(1);
        NnError::Shape {
            subject,
            found: found.to_vec(),
            expected: format!("[1, at least {least}, {}]", self.config.hidden_size),
        }
    }
}

/// The values of a tensor, read back from its device.
fn read<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<Vec<f32>, NnError> {
    x.try_into_data()
        .map_err(|error| NnError::Device(error.to_string()))?
        .into_vec()
        .map_err(|error| NnError::Device(format!("{error:?}")))
}
