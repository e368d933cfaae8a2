//! ```text
//! h += attention(rms(h)) ; h += swiglu(rms(h))      for each layer, with rotary positions
//! logits = rms(h) W_headᵀ
//! ```

use burn_tensor::Tensor;
use voxtral_checkpoint::config::{DecoderConfig, Mlp, Norm as NormKind};
use voxtral_nn::{
    Backend, Block, BlockConfig, Embedding, KvCache, Linear, Loader, NnError, Norm, Rotary,
};

/// The text decoder.
#[derive(Debug, Clone)]
pub struct Decoder<B: Backend> {
    embedding: Embedding<B>,
    blocks: Vec<Block<B>>,
    norm: Norm<B>,
    head: Linear<B>,
    config: DecoderConfig,
    device: B::Device,
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
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// An empty cache for `capacity` positions.
    pub fn new_cache(&self, capacity: usize) -> KvCache<B> {
        KvCache::new(
            self.config.num_layers,
            self.config.attention,
            capacity,
            &self.device,
        )
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
    /// The cache is full, or the shape is another, or has no position.
    pub fn forward(
        &self,
        embeddings: Tensor<B, 3>,
        cache: &mut KvCache<B>,
    ) -> Result<Tensor<B, 3>, NnError> {
        let [batch, new, width] = embeddings.dims();
        if batch != 1 || new == 0 || width != self.config.hidden_size {
            return Err(self.shape_error("embeddings", embeddings.dims()));
        }
        let (start, layers) = cache.claim(new)?;
        let rotary = Rotary::new(
            start..start + new,
            self.config.attention.head_dim,
            self.config.rope_theta,
            &self.device,
        );
        let mut h = embeddings;
        for (block, layer) in self.blocks.iter().zip(layers) {
            h = block.forward(h, Some(&rotary), Some((start, layer)));
        }
        Ok(h)
    }

    /// Scores of every vocabulary entry after the last position of `hidden`, which is
    /// `[1, positions, width]`.
    ///
    /// # Errors
    /// There is no position, or the device failed.
    pub fn logits(&self, hidden: Tensor<B, 3>) -> Result<Vec<f32>, NnError> {
        let Some(last) = hidden.dims()[1].checked_sub(1) else {
            return Err(self.shape_error("hidden", hidden.dims()));
        };
        let hidden = hidden.slice_dim(1, last..last + 1);
        let logits = self.head.forward(self.norm.forward(hidden));
        logits
            .try_into_data()
            .map_err(|error| NnError::Device(error.to_string()))?
            .into_vec()
            .map_err(|error| NnError::Device(format!("{error:?}")))
    }

    fn shape_error(&self, subject: &'static str, found: [usize; 3]) -> NnError {
        NnError::Shape {
            subject,
            found: found.to_vec(),
            expected: format!("[1, at least 1, {}]", self.config.hidden_size),
        }
    }
}
