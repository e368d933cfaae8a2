//! The `voxtral` program as people run it: its words, its messages, its exit codes and what it
//! leaves behind. All runs use the built-in demo models or a folder made from their files.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]

mod audio;
mod chat;
mod chat_input;
mod chat_lines;
mod chat_meaning;
mod context;
mod formats;
mod inspect;
#[cfg(unix)]
mod interrupt;
#[cfg(unix)]
mod listen;
mod long;
#[cfg(feature = "mic")]
mod mic;
mod model;
mod output;
mod png;
mod quantize;
mod scene;
#[cfg(target_os = "linux")]
mod terminal;
mod transcribe;
mod usage;
