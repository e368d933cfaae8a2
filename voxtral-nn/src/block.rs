//! A pre-norm transformer layer.

use burn_tensor::Tensor;
use voxtral_checkpoint::config;

use crate::{
    Attention, Backend, LayerCache, Loader, Mlp, NnError, Norm, Rotary, attention::AttentionBias,
};

/// `h += attention(norm(h)); h += mlp(norm(h))`, of the encoder and of the decoder.
#[derive(Debug, Clone)]
pub struct Block<B: Backend> {
    attention_norm: Norm<B>,
    attention: Attention<B>,
    mlp_norm: Norm<B>,
    mlp: Mlp<B>,
}

/// What the layers of a stack have in common.
#[derive(Debug, Clone, Copy)]
pub struct BlockConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Heads and their size.
    pub attention: config::AttentionConfig,
    /// What a query may attend to.
    pub mask: config::Mask,
    /// The kind of both norms.
    pub norm: config::Norm,
    /// The shape of the feed-forward block.
    pub mlp: config::Mlp,
    /// Whether projections have biases, as Whisper's have.
    pub bias: bool,
}

impl<B: Backend> Block<B> {
    /// Loads the layer `{name}`.
    pub fn load(loader: &Loader<'_, B>, name: &str, config: &BlockConfig) -> Result<Self, NnError> {
        let width = config.hidden_size;
        let norm = |part: &str| Norm::load(loader, &format!("{name}.{part}"), config.norm, width);
        let bias = if config.bias {
            AttentionBias::AllButKeys
        } else {
            AttentionBias::None
        };
        Ok(Self {
            attention_norm: norm("attention_norm")?,
            attention: Attention::load(
                loader,
                &format!("{name}.attention"),
                config.attention,
                width,
                config.mask,
                bias,
            )?,
            mlp_norm: norm("mlp_norm")?,
            mlp: Mlp::load(
                loader,
                &format!("{name}.mlp"),
                config.mlp,
                [width, config.intermediate_size],
                config.bias,
            )?,
        })
    }

    /// `[batch, time, width]` → the same shape; see [`Attention::forward`].
    pub fn forward(
        &self,
        h: Tensor<B, 3>,
        rotary: Option<&Rotary<B>>,
        cache: Option<(usize, &mut LayerCache<B>)>,
    ) -> Tensor<B, 3> {
        let attended =
            self.attention
                .forward(self.attention_norm.forward(h.clone()), rotary, cache);
        let h = h + attended;
        let fed = self.mlp.forward(self.mlp_norm.forward(h.clone()));
        h + fed
    }
}
