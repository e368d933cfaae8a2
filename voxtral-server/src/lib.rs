//! An HTTP and WebSocket server for Voxtral models, in the dialects that existing clients speak:
//! OpenAI's and Mistral's transcription APIs, chat completions with audio, and the live APIs of vLLM,
//! OpenAI and Mistral.
//!
//! ```text
//! HTTP, WebSocket ─▶ dialect ─▶ request of ours ─▶ Engine (one thread, all requests in one batch)
//!        ◀──────────── dialect ◀─ events ◀─────────┘
//! ```
//!
//! An [`Engine`] is started with models; [`serve`] answers requests on a listener until it is told to
//! stop.

mod app;
mod auth;
mod body;
mod chat;
mod engine;
mod error;
mod fetch;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod json;
mod live;
mod metrics;
mod page;
mod sse;
mod system;
mod transcription;

use std::path::PathBuf;
use std::time::Duration;

pub use app::{run, serve};
pub use auth::Keys;
pub use engine::{Engine, Limits, ModelInfo};
pub use error::ServerError;

/// How the server behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Who may ask; nobody is kept out where there are none.
    pub keys: Keys,
    /// The largest body, in bytes.
    pub max_body: u64,
    /// How long a client may let the server wait for the next piece of its request.
    pub patience: Duration,
    /// Where files that are uploaded are kept; nowhere after the end, if no folder is named.
    pub data_dir: Option<PathBuf>,
    /// How long they are kept.
    pub file_life: Duration,
    /// Bytes that they may have together.
    pub max_stored: u64,
    /// Whether files may be fetched from this machine and the network behind it.
    pub allow_private_urls: bool,
    /// How long requests may go on behind the sign to stop.
    pub grace: Duration,
    /// How long a live client may be silent, without a message or sound that is being heard.
    pub session_idle: Duration,
    /// How long a live session may last.
    pub session_length: Duration,
    /// Time between two pings to a live client; one that leaves three unanswered is gone.
    pub ping: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            max_body: 512 << 20,
            patience: Duration::from_secs(30),
            data_dir: None,
            file_life: Duration::from_secs(24 * 3600),
            max_stored: 4 << 30,
            allow_private_urls: false,
            grace: Duration::from_secs(30),
            session_idle: Duration::from_secs(300),
            session_length: Duration::from_secs(4 * 3600),
            ping: Duration::from_secs(20),
        }
    }
}
