//! Parity, end-to-end and conformance tests across the crates, in one binary.
//!
//! The suites that run the model are written once and run on every backend that is compiled in:
//! Flex and ndarray always, wgpu and CUDA with the features of those names.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error has failed"
)]

mod backends;
mod batch;
mod chat;
mod context;
mod conversations;
mod demo;
mod demo_realtime;
mod draft;
mod goldens;
mod language;
mod long;
mod parity;
mod pipeline;
mod precision;
mod random;
mod realtime;
mod reference;
mod sampling;
mod stream;
mod word_times;
