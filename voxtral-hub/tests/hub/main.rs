//! Fetching from a hub on the loopback interface. Every setting is given explicitly, so nothing
//! of the developer's environment, cache or token takes part.

#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions only, not their helpers"
)]

mod cache;
mod forms;
mod mock;
mod refusals;
mod scene;
mod transfer;
