//! What can go wrong in the layers.

use voxtral_checkpoint::CheckpointError;

/// An error of loading or running the layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A tensor could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The backend has no such storage.
    #[error("backend `{backend}` cannot hold {format} weights; choose f32")]
    UnsupportedPrecision {
        /// The backend's name.
        backend: String,
        /// The precision that was asked for.
        format: &'static str,
    },
    /// The device failed while a result was read from it.
    #[error("device failed: {0}")]
    Device(String),
    /// More positions than the cache was made for.
    #[error(
        "KV cache holds {capacity} positions, of which {used} are used: \
         {new} more do not fit"
    )]
    CacheFull {
        /// Positions that the cache was made for.
        capacity: usize,
        /// Positions written so far.
        used: usize,
        /// Positions that were to be added.
        new: usize,
    },
    /// More positions were taken back than can be.
    #[error(
        "KV cache cannot take back {count} positions, expected at most {claimed}, those of its last claim"
    )]
    TakenBack {
        /// Positions that were to be taken back.
        count: usize,
        /// Positions that can be.
        claimed: usize,
    },
    /// A ring was to keep its beginning.
    #[error("KV cache is a ring, which cannot be truncated: clear it and run the positions again")]
    RingTruncated,
    /// Attention is to be asked for behind the passes of a ring.
    #[error("KV cache is a ring, which tells no attention later, expected a plain one")]
    RingWatched,
    /// A decoder whose layers depend on the delay was run without one.
    #[error("decoder needs a delay, expected `Decoder::with_delay` before its first position")]
    DelayMissing,
    /// A sliding window where the model has none, or the reverse.
    #[error("{subject} attends to {found}, expected {expected}")]
    Mask {
        /// The stack of layers.
        subject: &'static str,
        /// Its mask.
        found: String,
        /// The mask that is needed.
        expected: &'static str,
    },
    /// A token that the embedding has no row for.
    #[error("token id {id} is outside the vocabulary of {vocab_size} entries")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// An input whose shape does not fit the layer.
    #[error("{subject} has shape {found:?}, expected {expected}")]
    Shape {
        /// What was given.
        subject: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the layer takes.
        expected: String,
    },
}
