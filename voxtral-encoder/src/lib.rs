//! The audio encoder of the Voxtral models: from log-mel features to audio embeddings.
//!
//! Three stages, each with its type:
//!
//! | stage | computes | shape (2507 models) |
//! |---|---|---|
//! | [`ConvStem`] | two GELU convolutions of kernel 3, the second of stride 2 | `[w, 128, 3000]` → `[w, 1500, 1280]` |
//! | [`Encoder`] | the stem, positions, transformer layers, a final norm | → `[w, 1500, 1280]` |
//! | [`Projector`] | stacks 4 frames, `linear → GELU → linear` | → `[w, 375, D]` |
//!
//! `w` windows of one or several clips are independent of each other. The shapes come from the
//! checkpoint's configuration; the mathematics is that of Whisper (Radford et al., 2022,
//! arXiv:2212.04356) for the 2507 models. The encoder of a Realtime model is causal (RMS norm,
//! SwiGLU, rotary positions, a sliding window; arXiv:2602.11298) and takes a stream as it comes,
//! with what it remembers in an [`EncoderStream`].
//!
//! ```no_run
//! use voxtral_encoder::{
//!     Backend, Checkpoint, Encoder, Loader, Precision, Projector, Tensor,
//! };
//!
//! fn embed<B: Backend>(mel: Tensor<B, 3>) -> Result<Tensor<B, 3>, Box<dyn std::error::Error>> {
//!     let checkpoint = Checkpoint::open("Voxtral-Mini-3B-2507")?;
//!     let loader = Loader::<B>::new(&checkpoint, mel.device(), Precision::Auto);
//!     let encoder = Encoder::load(&loader, &checkpoint.config().encoder)?;
//!     let projector = Projector::load(&loader, &checkpoint.config().projector)?;
//!     Ok(projector.forward(encoder.forward(mel)?)?)
//! }
//! ```

mod encoder;
mod projector;
mod stem;
mod stream;

pub use encoder::{Encoder, Encoding};
pub use projector::Projector;
pub use stem::{ConvStem, STEM_STRIDE};
pub use stream::EncoderStream;

pub use burn_tensor::Tensor;
pub use voxtral_checkpoint::Checkpoint;
pub use voxtral_nn::{Backend, Loader, NnError, Precision};
