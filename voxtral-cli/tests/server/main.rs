//! `voxtral serve` as programs of others meet it. Every test starts the real binary with the demo
//! models.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]

mod chat;
mod fetch;
mod files;
mod scene;
mod transcriptions;
