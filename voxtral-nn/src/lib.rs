//! The layers that the Voxtral encoder and decoder share, on [Burn](https://burn.dev) tensors.
//!
//! One definition of each: [`Linear`], [`Norm`], [`Attention`], [`Mlp`], [`Block`] (a pre-norm
//! transformer layer of them), [`Rotary`] embeddings and the [`KvCache`]. What differs between
//! models is data in [`voxtral_checkpoint::config`].
//!
//! Layers are generic over [`Backend`], which adds to Burn's own backend trait the few operations
//! that decide speed. Each has a default body in plain Burn operations (module [`plain`]), so any
//! Burn backend works, and that body is the oracle of a faster one.
//!
//! Activations are `f32` everywhere. Matrices stay in the precision that [`Precision`] chose, by
//! default the stored one; a product widens them or rounds its input, as the backend prefers.
//!
//! Activations have the shape `[batch, time, width]`; matrices are `[out, in]`, as stored.

mod attention;
mod backend;
mod block;
mod cache;
mod error;
#[cfg(feature = "flex")]
mod flex;
mod linear;
mod loader;
mod mlp;
mod norm;
pub mod plain;
mod rotary;
mod weight;

pub use attention::{Attention, AttentionBias, Continuation, Probe, Scope};
pub use backend::Backend;
pub use block::{Block, BlockConfig};
pub use cache::{Claim, KvCache, LayerCache, RingConfig};
pub use error::NnError;
pub use linear::{Embedding, Linear};
pub use loader::{Loader, Precision};
pub use mlp::Mlp;
pub use norm::Norm;
pub use rotary::Rotary;
pub use weight::{Quantized, Weight};
