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

mod bad_input;
mod chat;
mod clients;
mod fetch;
mod files;
mod live;
mod load;
mod scene;
mod system;
mod transcriptions;
