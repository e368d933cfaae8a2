//! What the mathematics asks for, whatever the code: operations, and bytes of weights and keys that
//! have to be read once a pass.

use std::iter::Sum;
use std::ops::{Add, Range};

use serde::Serialize;
use voxtral_checkpoint::{Checkpoint, TensorSpec, config, tensors};
use voxtral_encoder::STEM_STRIDE;

/// Of one pass, or of several.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Work {
    /// Multiplications and additions.
    pub(crate) flops: f64,
    /// Bytes of weights as they are stored, and of keys and values in `f32`.
    pub(crate) bytes: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            flops: self.flops + other.flops,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// What a model demands.
#[derive(Debug)]
pub(crate) struct Demands {
    stem: Weights,
    encoder: Stack,
    projector: Weights,
    decoder: Stack,
    head: Weights,
    /// Encoder frames of a token.
    frames: usize,
}

/// Weights that a row is multiplied with.
#[derive(Debug, Default)]
struct Weights {
    /// Multiplications of a row.
    products: f64,
    bytes: f64,
}

/// A stack of layers with a sliding window.
#[derive(Debug)]
struct Stack {
    weights: Weights,
    layers: usize,
    attention: config::AttentionConfig,
    window: usize,
}

impl Demands {
    pub(crate) fn new(checkpoint: &Checkpoint) -> Self {
        let config = checkpoint.config();
        let specs = tensors(config);
        let below = |prefix: &str| Weights::below(checkpoint, &specs, prefix);
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        let mut first = below("encoder.conv1.");
        // The first convolution runs at the rate of the features.
        first.products *= STEM_STRIDE as f64;
        Self {
            stem: first.and(&below("encoder.conv2.")),
            encoder: Stack {
                weights: below("encoder.layers."),
                layers: encoder.num_layers,
                attention: encoder.attention,
                window: window(encoder.mask),
            },
            projector: below("projector."),
            decoder: Stack {
                weights: below("decoder.layers."),
                layers: decoder.num_layers,
                attention: decoder.attention,
                window: window(decoder.mask),
            },
            head: below(if decoder.tied_head {
                "decoder.embedding."
            } else {
                "decoder.head."
            }),
            frames: config.projector.downsample.get(),
        }
    }

    /// Encoder and projector over these tokens of a stream, in one pass.
    pub(crate) fn encoder(&self, tokens: Range<usize>) -> Work {
        let frames = tokens.start * self.frames..tokens.end * self.frames;
        self.stem.times(frames.len())
            + self.encoder.over(frames)
            + self.projector.times(tokens.len())
    }

    /// The decoder over these positions in one pass, and the scores of the last.
    pub(crate) fn decoder(&self, positions: Range<usize>) -> Work {
        self.decoder.over(positions) + self.head.times(1)
    }

    /// The decoder over these positions in so many passes, and the scores of all.
    pub(crate) fn decoder_passes(&self, positions: Range<usize>, passes: usize) -> Work {
        let at = |pass: usize| positions.start + positions.len() * pass / passes;
        (0..passes)
            .map(|pass| {
                let positions = at(pass)..at(pass + 1);
                let rows = positions.len();
                self.decoder.over(positions) + self.head.times(rows)
            })
            .sum()
    }

    /// Encoder frames that a query sees.
    pub(crate) fn encoder_window(&self) -> usize {
        self.encoder.window
    }
}

impl Weights {
    /// The matrices and kernels whose canonical names begin like this, but for those of the
    /// delay's norms, which no pass over a stream uses.
    fn below(checkpoint: &Checkpoint, specs: &[TensorSpec], prefix: &str) -> Self {
        specs
            .iter()
            .filter(|spec| spec.shape().len() > 1)
            .map(|spec| (spec.name(), spec))
            .filter(|(name, _)| name.starts_with(prefix) && !name.contains(".ada_norm."))
            .fold(Self::default(), |sum, (name, spec)| {
                let bytes = checkpoint.info(&name).map_or(0, |info| info.bytes);
                sum.and(&Self {
                    products: spec.num_elements() as f64,
                    bytes: bytes as f64,
                })
            })
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            products: self.products + other.products,
            bytes: self.bytes + other.bytes,
        }
    }

    /// For so many rows at once.
    fn times(&self, rows: usize) -> Work {
        Work {
            flops: 2.0 * self.products * rows as f64,
            bytes: self.bytes,
        }
    }
}

impl Stack {
    /// All layers over these positions in one pass, behind those before them.
    fn over(&self, positions: Range<usize>) -> Work {
        let heads = |count: usize| (count * self.attention.head_dim * self.layers) as f64;
        let seen: usize = positions
            .clone()
            .map(|position| self.window.min(position + 1))
            .sum();
        // Keys and values that any of the positions sees.
        let held = positions.end.min(self.window + positions.len() - 1);
        let cache = 2.0 * heads(self.attention.num_kv_heads) * held as f64;
        let attention = Work {
            flops: 4.0 * heads(self.attention.num_heads) * seen as f64,
            bytes: cache * size_of::<f32>() as f64,
        };
        self.weights.times(positions.len()) + attention
    }
}

fn window(mask: config::Mask) -> usize {
    match mask {
        config::Mask::SlidingWindow(window) => window.get(),
        config::Mask::Full | config::Mask::Causal => usize::MAX,
    }
}
