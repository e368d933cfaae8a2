//! The text decoder of the Voxtral models: Mistral's transformer, from embeddings to logits.
//!
//! [`Decoder::embed`] looks tokens up, [`Decoder::forward`] runs any number of new positions
//! against a [`KvCache`], and [`Decoder::logits`] scores the vocabulary for
//! the last of them. Where the embeddings come from is the caller's business: audio embeddings take
//! the place of tokens, or are added to them.
//!
//! ```no_run
//! use voxtral_decoder::{Backend, Checkpoint, Decoder, Loader, Precision};
//!
//! fn next<B: Backend>(device: B::Device) -> Result<u32, Box<dyn std::error::Error>> {
//!     let checkpoint = Checkpoint::open("Voxtral-Mini-3B-2507")?;
//!     let loader = Loader::<B>::new(&checkpoint, device, Precision::Auto);
//!     let decoder = Decoder::load(&loader, &checkpoint.config().decoder)?;
//!     let mut cache = decoder.new_cache(16);
//!     let hidden = decoder.forward(decoder.embed(&[1, 3, 4])?, &mut cache)?;
//!     let logits = decoder.logits(hidden, 1)?;
//!     let best = logits.iter().zip(0..).max_by(|a, b| a.0.total_cmp(b.0));
//!     Ok(best.map_or(0, |(_, id)| id))
//! }
//! ```

mod decoder;

pub use decoder::{AttentionRequest, Decoder, Head};

pub use burn_tensor::Tensor;
pub use voxtral_checkpoint::Checkpoint;
pub use voxtral_nn::{Backend, KvCache, Loader, NnError, Precision};
