//! A pre-norm transformer layer.

use std::ops::Range;

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config;

use crate::{
    Attention, Backend, LayerCache, Linear, Loader, Mlp, NnError, Norm, Probe, Rotary, Scope,
    attention::AttentionBias,
};

/// `h += attention(norm(h)); h += mlp(norm(h))`, of the encoder and of the decoder.
#[derive(Debug, Clone)]
pub struct Block<B: Backend> {
    attention_norm: Norm<B>,
    attention: Attention<B>,
    mlp_norm: Norm<B>,
    mlp: Mlp<B>,
    ada: Option<AdaNorm<B>>,
}

/// Makes the gain of the norm before the feed-forward block depend on a condition c, which is
/// constant over a stream: `gain · (1 + gelu(c W_downᵀ) W_upᵀ)`.
#[derive(Debug, Clone)]
struct AdaNorm<B: Backend> {
    down: Linear<B>,
    up: Linear<B>,
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
    /// Inner width of the condition's projections, where the layer has them.
    pub ada_norm: Option<usize>,
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
        let ada = |part: &str, shape| {
            Linear::load(loader, &format!("{name}.ada_norm.{part}"), shape, false)
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
            ada: match config.ada_norm {
                Some(inner) => Some(AdaNorm {
                    down: ada("down", [inner, width])?,
                    up: ada("up", [width, inner])?,
                }),
                None => None,
            },
        })
    }

    /// The layer for this condition, `[1, 1, width]`: the same weights but for one norm. A layer
    /// without a condition is returned as it is.
    #[must_use]
    pub fn conditioned(&self, condition: Tensor<B, 3>) -> Self {
        let mut block = self.clone();
        if let Some(ada) = &self.ada {
            let shift = ada.up.forward(B::gelu_erf(ada.down.forward(condition)));
            let [_, _, width] = shift.dims();
            block.mlp_norm = self.mlp_norm.scaled(shift.reshape([width]).add_scalar(1.0));
        }
        block
    }

    /// See [`Attention::cache_dtype`].
    pub fn cache_dtype(&self) -> DType {
        self.attention.cache_dtype()
    }

    /// Writes down what `h` attends to and computes nothing else; see [`Attention::probe`].
    pub fn probe(
        &self,
        h: Tensor<B, 3>,
        place: (usize, &Rotary<B>),
        cache: &mut LayerCache<B>,
        probe: &mut Probe<B>,
    ) {
        let normed = self.attention_norm.forward(h);
        self.attention.probe(&normed, place, cache, probe);
    }

    /// See [`Attention::watched`].
    pub fn watched(
        &self,
        cache: &LayerCache<B>,
        len: usize,
        asked: (&[usize], Range<usize>),
    ) -> Option<(Vec<usize>, Tensor<B, 3>)> {
        self.attention.watched(cache, len, asked)
    }

    /// `[batch, time, width]` → the same shape; see [`Attention::forward`].
    pub fn forward(&self, h: Tensor<B, 3>, scope: Scope<'_, B>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(h.clone());
        let h = h + self.attention.forward(normed, scope);
        let fed = self.mlp.forward(self.mlp_norm.forward(h.clone()));
        h + fed
    }
}
