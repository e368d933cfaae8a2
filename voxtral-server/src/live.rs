//! Live transcription over WebSockets: `GET /v1/realtime` in the dialects of vLLM and OpenAI,
//! `GET /v1/audio/transcriptions/realtime` in Mistral's.
//!
//! ```text
//! messages ──▶ Protocol ──▶ Talk ──▶ Engine       what is said, in one of three ways
//!    ◀──────── Protocol ◀── events ◀──┘
//! ```
//!
//! A message that cannot be followed is answered with an error and changes nothing: the connection
//! goes on. Text is read from a client only as fast as the model hears it, and events that a client
//! does not read end its session.

mod encoding;
mod line;
mod message;
mod mistral;
mod openai;
mod realtime;
mod talk;
mod vllm;

use std::sync::Arc;

use axum::{
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    ServerError,
    app::App,
    engine::Event,
    error::{Dialect, Failure},
};
use message::Fields;
use talk::Talk;

/// The largest message, in bytes: 15 MiB of sound, which is what OpenAI takes, in base64.
const LARGEST_MESSAGE: usize = 21 << 20;

/// How a dialect speaks.
trait Protocol: Send + Sync {
    /// What is said first.
    fn greet(&mut self, talk: &mut Talk) -> Result<Vec<Value>, ServerError>;

    /// Follows a message, and answers it.
    fn follow(&mut self, message: Fields, talk: &mut Talk) -> Result<Vec<Value>, ServerError>;

    /// Tells of an event of the utterance of this id.
    fn tell(&mut self, event: Event, utterance: &str, talk: &mut Talk) -> Vec<Value>;

    /// Tells of an error.
    fn fail(&self, error: ServerError) -> Value;
}

/// `GET /v1/realtime`.
pub(crate) async fn realtime(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let protocol = realtime::Realtime::new(&uri, &headers);
    open(app, upgrade, Dialect::OpenAi, Box::new(protocol))
}

/// `GET /v1/audio/transcriptions/realtime`.
pub(crate) async fn mistral(
    State(app): State<Arc<App>>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let protocol = mistral::Mistral::new(query(&uri, "model"));
    open(app, upgrade, Dialect::Mistral, Box::new(protocol))
}

/// Follows messages in every dialect, each as one conversation.
pub(crate) fn understand(app: &Arc<App>, messages: &[&str]) {
    let older = Uri::from_static("/v1/realtime?intent=transcription");
    let uri = Uri::from_static("/v1/realtime");
    let protocols: [Box<dyn Protocol>; 3] = [
        Box::new(realtime::Realtime::new(&uri, &HeaderMap::new())),
        Box::new(realtime::Realtime::new(&older, &HeaderMap::new())),
        Box::new(mistral::Mistral::new(None)),
    ];
    for mut protocol in protocols {
        let mut talk = Talk::new(Arc::clone(app));
        let _ = protocol.greet(&mut talk);
        for message in messages {
            let _ = Fields::read(message).and_then(|fields| protocol.follow(fields, &mut talk));
        }
    }
}

/// Switches to a WebSocket, if there is a place for it.
fn open(
    app: Arc<App>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    dialect: Dialect,
    protocol: Box<dyn Protocol>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let error = ServerError::field("upgrade", "missing", "the handshake of a WebSocket");
        return Failure(dialect, error).into_response();
    };
    let place = match app.connect() {
        Ok(place) => place,
        Err(error) => return Failure(dialect, error).into_response(),
    };
    let span = tracing::Span::current();
    upgrade
        .protocols([realtime::PROTOCOL])
        .max_message_size(LARGEST_MESSAGE)
        .max_frame_size(LARGEST_MESSAGE)
        .on_upgrade(move |socket| {
            let talking = async move {
                line::hold(socket, protocol, app).await;
                drop(place);
            };
            tracing::Instrument::instrument(talking, span)
        })
}

/// The value of a parameter of the query.
fn query(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut pairs = form_urlencoded::parse(query);
    pairs.find_map(|(found, value)| (found == name).then(|| value.into_owned()))
}

/// A new id, beginning with this.
fn new_id(kind: &str) -> String {
    format!("{kind}{}", Uuid::new_v4().simple())
}
