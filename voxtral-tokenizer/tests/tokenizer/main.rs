//! Tests of the public interface, on the genuine vocabulary and against mistral-common.

#![allow(
    clippy::unwrap_used,
    reason = "the lint spares tests, but not the functions that they share"
)]

/// What the tests share: the vocabulary and small files made on the spot.
mod support;

/// What models answer, and their calls.
mod answers;
/// Numbers of audio tokens, and the `audio` section.
mod audio;
/// Prompts of conversations, and which are refused.
mod chat;
/// Ids back to text, whole and in steps.
mod decode;
/// Text to ids.
mod encode;
/// Files that are not usable, and what is said about them.
mod load;
/// Prompts of the 2507 models.
mod prompts;
