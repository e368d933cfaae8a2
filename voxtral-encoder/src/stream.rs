//! What an encoder remembers of a stream.

use std::num::NonZeroUsize;

use voxtral_checkpoint::config::{ConvPadding, Mask, Position};
use voxtral_nn::{Backend, KvCache, NnError, RingConfig};

use crate::{Encoder, stem::StemState};

/// The state of one stream: the convolutions' last inputs, and keys and values of as many frames
/// as the sliding window sees. Its memory does not grow.
#[derive(Debug)]
pub struct EncoderStream<B: Backend> {
    pub(crate) stem: StemState<B>,
    pub(crate) cache: KvCache<B>,
    pub(crate) theta: f64,
    step: NonZeroUsize,
}

impl<B: Backend> EncoderStream<B> {
    /// Positions after which the cached keys are turned back. The angles bear far more.
    pub const MAX_POSITIONS: usize = 1 << 16;

    /// The state at the beginning of a stream. At most `step` encoder frames, twice as many mel
    /// frames, can then be taken at once; no more than `max_positions` have an angle of their own
    /// before the cached keys are turned back (usually [`MAX_POSITIONS`](Self::MAX_POSITIONS)).
    ///
    /// # Errors
    /// The encoder takes windows of a fixed length, not streams.
    pub fn new(
        encoder: &Encoder<B>,
        step: NonZeroUsize,
        max_positions: usize,
    ) -> Result<Self, NnError> {
        let config = &encoder.config;
        let (Mask::SlidingWindow(window), Position::Rope { theta }, ConvPadding::Causal) =
            (config.mask, config.position, config.padding)
        else {
            return Err(NnError::Mask {
                subject: "encoder",
                found: format!(
                    "{:?} with {:?} and {:?} padding",
                    config.mask, config.position, config.padding
                ),
                expected: "a sliding window with rotary positions and causal padding",
            });
        };
        let ring = RingConfig {
            window,
            step,
            rope_theta: theta,
            max_positions,
        };
        Ok(Self {
            stem: encoder.stem.new_state(),
            cache: KvCache::ring(
                config.num_layers,
                config.attention,
                ring,
                encoder.cache_options(),
            ),
            theta,
            step,
        })
    }

    /// Encoder frames that can be computed at once.
    pub fn longest_step(&self) -> usize {
        self.step.get()
    }

    /// Back to the beginning of a stream, in the same memory.
    pub fn reset(&mut self, encoder: &Encoder<B>) {
        self.stem = encoder.stem.new_state();
        self.cache.clear();
    }
}
