//! What a checkpoint says of its model: one [`ModelConfig`] for every variant.
//!
//! Every dimension, epsilon, base and window is read from the checkpoint's own files; nothing
//! falls back to a number of ours. The readers of both forms fill the same types, so the layers
//! never ask which form or which model a checkpoint has: a variant is data.

use std::num::NonZeroUsize;

/// Everything that the layers need to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The log-mel front-end.
    pub features: FeatureConfig,
    /// The audio encoder.
    pub encoder: EncoderConfig,
    /// The projector from encoder frames to decoder embeddings.
    pub projector: ProjectorConfig,
    /// The text decoder.
    pub decoder: DecoderConfig,
    /// How audio embeddings reach the decoder.
    pub fusion: Fusion,
}

/// The log-mel front-end, `window → |rfft|² → mel → log10 → clamp → scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureConfig {
    /// Samples per second of the model's input.
    pub sample_rate: u32,
    /// Mel channels.
    pub num_mel_bins: usize,
    /// Samples between two frames.
    pub hop_length: usize,
    /// Samples per frame, also the FFT's length.
    pub window_size: usize,
    /// The fixed maximum of the logarithm's range; the clip's own maximum where it is `None`.
    pub log_mel_max: Option<f32>,
}

/// The audio encoder: a convolutional stem, then transformer layers.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Mel channels at the input.
    pub num_mel_bins: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Heads and their size.
    pub attention: AttentionConfig,
    /// Normalisation before each block and at the end.
    pub norm: Norm,
    /// Shape of the feed-forward block.
    pub mlp: Mlp,
    /// Where positions enter.
    pub position: Position,
    /// How both convolutions are padded.
    pub padding: ConvPadding,
    /// What a query may attend to.
    pub mask: Mask,
}

/// Stacks `downsample` encoder frames and maps them to the decoder's width:
/// `linear → GELU → linear`, without biases.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectorConfig {
    /// Encoder frames per audio embedding.
    pub downsample: NonZeroUsize,
    /// Width of one stacked input: `downsample · encoder.hidden_size`.
    pub input_size: usize,
    /// Width of an audio embedding, the decoder's width.
    pub output_size: usize,
}

/// The text decoder (Mistral/Llama).
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block (SwiGLU).
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Heads and their size.
    pub attention: AttentionConfig,
    /// Epsilon of every RMS norm.
    pub norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// What a query may attend to: [`Mask::Causal`] or [`Mask::SlidingWindow`].
    pub mask: Mask,
    /// Whether the head is the embedding itself.
    pub tied_head: bool,
    /// Width of the delay conditioning's bottleneck, where the model has one.
    pub ada_norm: Option<usize>,
    /// Positions that the checkpoint declares, where it does.
    pub max_positions: Option<usize>,
}

/// Heads of an attention block. `num_heads · head_dim` need not be the model's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionConfig {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` consecutive query heads.
    pub num_kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
}

/// The kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `(x − mean) / √(var + eps) · weight + bias`.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
    /// `x / √(mean(x²) + eps) · weight`.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

/// The shape of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `gelu(x Wᵤᵀ + bᵤ) W_dᵀ + b_d`.
    Gelu,
    /// `(silu(x W_gᵀ) ⊙ (x Wᵤᵀ)) W_dᵀ + b_d`.
    SwiGlu,
}

/// Where positions enter an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Position {
    /// A table of `max_positions` rows added after the stem; the sinusoid where it is not stored.
    /// The encoder takes exactly this many frames at a time.
    Table {
        /// Rows of the table.
        max_positions: usize,
    },
    /// Rotary embeddings of queries and keys.
    Rope {
        /// Base of the angles.
        theta: f64,
    },
}

/// How a convolution of kernel `k` and stride `s` is padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvPadding {
    /// `k / 2` on both sides.
    Symmetric,
    /// `k − s` on the left alone.
    Causal,
}

/// What a query at position `i` may attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Every key.
    Full,
    /// Keys `j ≤ i`.
    Causal,
    /// Keys `i − window < j ≤ i`.
    SlidingWindow(NonZeroUsize),
}

/// How audio embeddings reach the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fusion {
    /// They replace the embeddings of the audio placeholder token, one each (2507).
    Splice {
        /// The placeholder's id, where the configuration states it (otherwise it is the
        /// tokenizer's `[AUDIO]`).
        audio_token_id: Option<u32>,
    },
    /// They are added to the token embedding at every position (Realtime).
    Sum {
        /// The checkpoint's own delay in tokens, where it states one.
        default_delay_tokens: Option<usize>,
    },
}
