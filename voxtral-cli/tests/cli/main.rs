//! The `voxtral` program as people run it: its words, its messages, its exit codes and what it
//! leaves behind. All runs use the built-in demo models or a folder made from their files.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]

mod audio;
#[cfg(unix)]
mod interrupt;
#[cfg(unix)]
mod listen;
#[cfg(feature = "mic")]
mod mic;
mod model;
mod output;
mod quantize;
mod scene;
mod transcribe;
mod usage;
