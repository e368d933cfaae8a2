//! Tests of voxtral-checkpoint through its public items, against files that transformers and the
//! safetensors library wrote (see `testdata/README.md`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

mod configs;
mod convert;
mod corrupt;
mod quantized;
mod random;
mod reading;
mod required;
