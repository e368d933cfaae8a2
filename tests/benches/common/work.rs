//! What the mathematics asks for, whatever the code: operations, and bytes of weights and keys that
//! have to be read once a pass.
//!
//! * A matrix `[out, in]` and n rows: `2 · out · in · n` operations, and its bytes as it is held,
//!   once. A convolution of the stem counts as a matrix whose rows are its output frames.
//! * Attention over queries that see `s` keys in all: `4 · heads · head size · s` operations, half
//!   of them for the scores and half for the values, in every layer; and from a cache
//!   `2 · key heads · head size · keys` numbers. An encoder without a cache has no bytes of that.
//! * Norms, activations and rotations are not counted: less than one in a hundred of the rest.

use std::iter::Sum;
use std::ops::{Add, Range};

use serde::Serialize;
use voxtral_checkpoint::{Checkpoint, Quant, TensorSpec, config, tensors};
use voxtral_encoder::STEM_STRIDE;

/// Of one pass, or of several. Operations are multiplications and additions.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Work {
    /// Operations with weights that are multiplied in `f32`, and those of attention.
    pub(crate) float: f64,
    /// Operations with weights in bfloat16.
    pub(crate) narrow: f64,
    /// Operations with quantized weights.
    pub(crate) coded: f64,
    /// Bytes of weights as they are held, and of cached keys and values.
    pub(crate) bytes: f64,
}

impl Work {
    /// For a part of it.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            float: self.float * factor,
            narrow: self.narrow * factor,
            coded: self.coded * factor,
            bytes: self.bytes * factor,
        }
    }

    /// Operations in all.
    pub(crate) fn operations(self) -> f64 {
        self.float + self.narrow + self.coded
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            float: self.float + other.float,
            narrow: self.narrow + other.narrow,
            coded: self.coded + other.coded,
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
struct Weights(Work);

/// A stack of layers.
#[derive(Debug)]
struct Stack {
    weights: Weights,
    layers: usize,
    attention: config::AttentionConfig,
    mask: config::Mask,
    /// Bytes of a number in the cache.
    cached: usize,
}

impl Demands {
    /// Of a checkpoint whose matrices are quantized when they are loaded if `quant` is given, and
    /// whose caches hold numbers of so many bytes.
    pub(crate) fn new(checkpoint: &Checkpoint, quant: Option<Quant>, cached: usize) -> Self {
        let config = checkpoint.config();
        let specs = tensors(config);
        let below = |prefix: &str| Weights::below(checkpoint, &specs, quant, prefix);
        let (encoder, decoder) = (&config.encoder, &config.decoder);
        let first = below("encoder.conv1.").0;
        // The first convolution runs at the rate of the features.
        let first = Work {
            bytes: first.bytes,
            ..first.times(STEM_STRIDE as f64)
        };
        Self {
            stem: Weights(first + below("encoder.conv2.").0),
            encoder: Stack {
                weights: below("encoder.layers."),
                layers: encoder.num_layers,
                attention: encoder.attention,
                mask: encoder.mask,
                cached,
            },
            projector: below("projector."),
            decoder: Stack {
                weights: below("decoder.layers."),
                layers: decoder.num_layers,
                attention: decoder.attention,
                mask: decoder.mask,
                cached,
            },
            head: below(if decoder.tied_head {
                "decoder.embedding."
            } else {
                "decoder.head."
            }),
            frames: config.projector.downsample.get(),
        }
    }

    /// Encoder and projector over these tokens of a stream, or over all of a window's, in one pass.
    pub(crate) fn encoder(&self, tokens: Range<usize>) -> Work {
        let frames = tokens.start * self.frames..tokens.end * self.frames;
        self.stem.over(frames.len()) + self.encoder.over(frames) + self.projector.over(tokens.len())
    }

    /// The decoder over these positions in one pass, and the scores of the last.
    pub(crate) fn decoder(&self, positions: Range<usize>) -> Work {
        self.decoder.over(positions) + self.head.over(1)
    }

    /// The decoder over these positions of each of so many sequences in one pass, and the scores of
    /// the last of each.
    pub(crate) fn decoder_batch(&self, positions: Range<usize>, sequences: usize) -> Work {
        self.decoder.of_each(positions, sequences) + self.head.over(sequences)
    }

    /// The decoder over these positions in so many passes, and the scores of all.
    pub(crate) fn decoder_passes(&self, positions: Range<usize>, passes: usize) -> Work {
        let at = |pass: usize| positions.start + positions.len() * pass / passes;
        (0..passes)
            .map(|pass| {
                let positions = at(pass)..at(pass + 1);
                let rows = positions.len();
                self.decoder.over(positions) + self.head.over(rows)
            })
            .sum()
    }

    /// Encoder frames that a query sees.
    pub(crate) fn encoder_window(&self) -> usize {
        self.encoder.window()
    }
}

impl Weights {
    /// The matrices and kernels whose canonical names begin like this, but for those of the
    /// delay's norms, which no pass over a stream uses.
    fn below(
        checkpoint: &Checkpoint,
        specs: &[TensorSpec],
        quant: Option<Quant>,
        prefix: &str,
    ) -> Self {
        let all = specs
            .iter()
            .filter(|spec| spec.shape().len() > 1)
            .map(|spec| (spec.name(), spec))
            .filter(|(name, _)| name.starts_with(prefix) && !name.contains(".ada_norm."))
            .filter_map(|(name, spec)| row(checkpoint, &name, spec, quant));
        Self(all.sum())
    }

    /// For so many rows at once.
    fn over(&self, rows: usize) -> Work {
        Work {
            bytes: self.0.bytes,
            ..self.0.times(rows as f64)
        }
    }
}

/// What a row and a tensor demand.
fn row(
    checkpoint: &Checkpoint,
    name: &str,
    spec: &TensorSpec,
    quant: Option<Quant>,
) -> Option<Work> {
    let info = checkpoint.info(name)?;
    let operations = 2.0 * spec.num_elements() as f64;
    // What is quantized already stays as it is stored.
    let quantized = info
        .quant
        .or(quant.and_then(|quant| spec.quantized_as(quant)));
    Some(match (quantized, spec.shape()) {
        (Some(quant), &[outputs, inputs]) => Work {
            coded: operations,
            bytes: quant.bytes(outputs, inputs)? as f64,
            ..Work::default()
        },
        (None, [_, _]) if info.dtype == voxtral_checkpoint::Dtype::BF16 => Work {
            narrow: operations,
            bytes: info.bytes as f64,
            ..Work::default()
        },
        (None, [_, _]) => Work {
            float: operations,
            bytes: info.bytes as f64,
            ..Work::default()
        },
        // Convolutions are held in `f32`.
        _ => Work {
            float: operations,
            bytes: (spec.num_elements() * size_of::<f32>()) as f64,
            ..Work::default()
        },
    })
}

impl Stack {
    /// All layers over these positions in one pass, behind those before them.
    fn over(&self, positions: Range<usize>) -> Work {
        self.of_each(positions, 1)
    }

    /// The same of each of so many sequences, in one pass.
    fn of_each(&self, positions: Range<usize>, sequences: usize) -> Work {
        let rows = positions.len() * sequences;
        self.weights.over(rows) + self.attention(positions).times(sequences as f64)
    }

    /// Attention of one sequence.
    fn attention(&self, positions: Range<usize>) -> Work {
        let heads = |count: usize| (count * self.attention.head_dim * self.layers) as f64;
        let (seen, held) = match self.mask {
            // Nothing is cached: a window is whole.
            config::Mask::Full => (positions.len() * positions.len(), 0),
            _ => {
                let seen = |position: usize| self.window().min(position + 1);
                // Keys and values that any of the positions sees.
                let held = self.window().saturating_add(positions.len().max(1) - 1);
                (positions.clone().map(seen).sum(), positions.end.min(held))
            }
        };
        let cache = 2.0 * heads(self.attention.num_kv_heads) * held as f64;
        Work {
            float: 4.0 * heads(self.attention.num_heads) * seen as f64,
            bytes: cache * self.cached as f64,
            ..Work::default()
        }
    }

    fn window(&self) -> usize {
        match self.mask {
            config::Mask::SlidingWindow(window) => window.get(),
            config::Mask::Full | config::Mask::Causal => usize::MAX,
        }
    }
}
