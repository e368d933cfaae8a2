//! `voxtral serve` as programs of others meet it. Every test starts the real binary with the demo
//! models.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]
#![allow(
    clippy::print_stderr,
    reason = "what a server tells helps where a test fails"
)]

mod chat;
mod fetch;
mod files;
mod scene;
mod transcriptions;
