//! What the benchmarks share: a model, its layers one by one and in sessions, what they demand, and
//! what the machine can do at most.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod ceilings;
pub(crate) mod clock;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod layers;
pub(crate) mod model;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod sound;
pub(crate) mod text;
pub(crate) mod work;

/// The backend that is measured.
pub(crate) type B = burn_flex::Flex;
