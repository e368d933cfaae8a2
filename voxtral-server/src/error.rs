//! What can go wrong with a request, and how each dialect says so.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::json;
use voxtral_audio::AudioError;
use voxtral_pipeline::PipelineError;

/// An error of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A field of the request.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// Its name.
        field: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A field that the request needs.
    #[error("{field} is missing: {expected}")]
    Missing {
        /// Its name.
        field: &'static str,
        /// What is needed.
        expected: &'static str,
    },
    /// A field that asks for what the model or server cannot do.
    #[error("{field} is not possible here: {reason}")]
    Unable {
        /// Its name.
        field: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A body or message that is not what it should be.
    #[error("{subject} cannot be read: {reason}")]
    Malformed {
        /// The body, a message, a form.
        subject: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The model's work.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// No such model.
    #[error("model `{found}` is not served here, expected {}", quoted(known))]
    UnknownModel {
        /// The name.
        found: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// Nothing of this name.
    #[error("{subject} `{found}` does not exist")]
    NotFound {
        /// A file, a path.
        subject: &'static str,
        /// Its name.
        found: String,
    },
    /// The address of a file that was good for a time.
    #[error("address of file `{id}` has expired: ask for another at `/v1/files/{id}/url`")]
    Expired {
        /// The file.
        id: String,
    },
    /// A method that a path does not have.
    #[error("method {found} is not possible for this path")]
    Method {
        /// The method.
        found: String,
    },
    /// More than is taken.
    #[error("{subject} is larger than {limit}, the most that is taken here")]
    TooLarge {
        /// The body, a file, a message.
        subject: &'static str,
        /// The limit, with its unit.
        limit: String,
    },
    /// No key, or a wrong one.
    #[error("API key is {found}: send one of this server's keys as `Authorization: Bearer KEY`")]
    Key {
        /// Missing or wrong.
        found: &'static str,
    },
    /// The client was too slow.
    #[error("{subject} did not come within {limit:?}")]
    TooSlow {
        /// What was waited for.
        subject: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Sound in a conversation.
    #[error("{field} cannot be heard")]
    Sound {
        /// The field that has it.
        field: String,
        /// What is wrong with it.
        source: Box<PipelineError>,
    },
    /// A file elsewhere.
    #[error("`{url}` cannot be fetched: {reason}")]
    Fetch {
        /// The field that names it.
        field: String,
        /// Where it should be.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The queue is full.
    #[error("too much is waiting already: come again in {} s", retry_after.as_secs())]
    Busy {
        /// When there may be room.
        retry_after: Duration,
    },
    /// All live sessions are taken.
    #[error("all {limit} live sessions are taken: come again later")]
    TooManySessions {
        /// How many there are.
        limit: usize,
    },
    /// A message of a live client whose type is not known.
    #[error("event `{found}` is not known, expected {}", quoted(known))]
    UnknownEvent {
        /// Its type.
        found: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// A message of a live client that came too early.
    #[error("`{event}` came too early: {expected}")]
    Premature {
        /// Its type.
        event: &'static str,
        /// What has to come first.
        expected: &'static str,
    },
    /// Sound in a message that is not what was announced.
    #[error("audio cannot be read: {reason}")]
    Samples {
        /// What is wrong.
        reason: String,
    },
    /// A live client has said nothing for long.
    #[error("nothing came for {limit:?}: the session is over")]
    Idle {
        /// How long.
        limit: Duration,
    },
    /// A live session has lasted for long.
    #[error("the session has lasted {limit:?}, the most that is given here: connect again")]
    Lasting {
        /// How long.
        limit: Duration,
    },
    /// A live client does not read its events.
    #[error("events were not read in time: the session is over")]
    Unread,
    /// The server ends.
    #[error("server is stopping: come again later")]
    Stopping,
    /// A fault of the server.
    #[error("server failed at this request; others are not concerned")]
    Crashed,
    /// A file of the server's own.
    #[error("server cannot keep the file")]
    Storage(#[source] std::io::Error),
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(" or ")
}

impl ServerError {
    /// A field with a value that it cannot have.
    pub(crate) fn field(
        field: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Field {
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// A field that asks for what cannot be done.
    pub(crate) fn unable(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unable {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// Its status in HTTP, where a field that is wrong is 400.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Field { .. }
            | Self::Missing { .. }
            | Self::Unable { .. }
            | Self::Malformed { .. }
            | Self::UnknownEvent { .. }
            | Self::Premature { .. }
            | Self::Samples { .. }
            | Self::Fetch { .. } => StatusCode::BAD_REQUEST,
            Self::Pipeline(error) if is_clients(error) => StatusCode::BAD_REQUEST,
            Self::Sound { source, .. } if is_clients(source) => StatusCode::BAD_REQUEST,
            Self::Pipeline(_) | Self::Sound { .. } | Self::Crashed | Self::Storage(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::UnknownModel { .. } | Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Key { .. } => StatusCode::UNAUTHORIZED,
            Self::Expired { .. } => StatusCode::FORBIDDEN,
            Self::TooSlow { .. } | Self::Idle { .. } | Self::Lasting { .. } | Self::Unread => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::Busy { .. } | Self::TooManySessions { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The field that is at fault.
    pub(crate) fn param(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } | Self::Unable { field, .. } => Some(field),
            Self::Missing { field, .. } => Some(field),
            Self::Sound { field, .. } | Self::Fetch { field, .. } => Some(field),
            Self::UnknownEvent { .. } => Some("type"),
            Self::Samples { .. } => Some("audio"),
            Self::UnknownModel { .. } => Some("model"),
            Self::Pipeline(PipelineError::Audio(_)) => Some("file"),
            Self::Pipeline(PipelineError::LanguageUnsupported { .. }) => Some("language"),
            Self::Pipeline(PipelineError::InvalidOption { option, .. }) => field_of(option),
            Self::Pipeline(PipelineError::AnswerNotHeld { .. }) => Some("response_format"),
            Self::Pipeline(PipelineError::ToolNotStrict { .. }) => Some("tools"),
            _ => None,
        }
    }

    /// A word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "model_not_found",
            Self::Key { .. } => "invalid_api_key",
            Self::Busy { .. } | Self::TooManySessions { .. } => "rate_limit_exceeded",
            Self::TooLarge { .. } => "too_large",
            Self::NotFound { .. } => "not_found",
            Self::Stopping => "unavailable",
            Self::UnknownEvent { .. } => "unknown_event",
            Self::Idle { .. } | Self::Lasting { .. } => "session_expired",
            Self::Sound { .. } | Self::Samples { .. } | Self::Pipeline(PipelineError::Audio(_)) => {
                "invalid_audio"
            }
            Self::Pipeline(PipelineError::ContextOverflow { .. }) => "context_length_exceeded",
            _ if self.status().is_client_error() => "invalid_request",
            _ => "server_error",
        }
    }

    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// Everything that is known, the causes behind it included.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            message.push_str(&format!(": {error}"));
            source = error.source();
        }
        message
    }
}

/// The field that sets an option of the pipeline.
fn field_of(option: &str) -> Option<&'static str> {
    const FIELDS: [(&str, &str); 13] = [
        ("temperature", "temperature"),
        ("top-p", "top_p"),
        ("top-k", "top_k"),
        ("min-p", "min_p"),
        ("repetition penalty", "repetition_penalty"),
        ("presence penalty", "presence_penalty"),
        ("frequency penalty", "frequency_penalty"),
        ("logit bias", "logit_bias"),
        ("number of alternatives", "top_logprobs"),
        ("number of new tokens", "max_completion_tokens"),
        ("stop string", "stop"),
        ("stop id", "stop_token_ids"),
        ("tool choice", "tool_choice"),
    ];
    let mut fields = FIELDS.iter();
    fields
        .find(|(known, _)| *known == option)
        .map(|(_, field)| *field)
}

/// Whether the request is at fault.
fn is_clients(error: &PipelineError) -> bool {
    match error {
        PipelineError::Audio(AudioError::Read(_)) => false,
        PipelineError::Audio(_)
        | PipelineError::Tokenizer(_)
        | PipelineError::Unsupported { .. }
        | PipelineError::AudioTooLong { .. }
        | PipelineError::ContextOverflow { .. }
        | PipelineError::InvalidOption { .. }
        | PipelineError::PhraseUnwritable { .. }
        | PipelineError::ToolNotStrict { .. }
        | PipelineError::AnswerNotHeld { .. }
        | PipelineError::StrictTools { .. }
        | PipelineError::OptionUnsupported { .. }
        | PipelineError::NoTimes { .. }
        | PipelineError::LanguageUnsupported { .. }
        | PipelineError::NothingAllowed
        | PipelineError::CallCutOff { .. }
        | PipelineError::Cancelled => true,
        _ => false,
    }
}

/// Whose field names, events and errors a client understands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[default]
    OpenAi,
    Mistral,
}

/// An error, in a dialect.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Dialect, pub(crate) ServerError);

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self(Dialect::OpenAi, error)
    }
}

impl Failure {
    /// The error object.
    pub(crate) fn body(&self) -> serde_json::Value {
        let Self(dialect, error) = self;
        let message = error.message();
        match dialect {
            Dialect::OpenAi => json!({"error": {
                "message": message,
                "type": error.kind(),
                "param": error.param(),
                "code": error.code(),
            }}),
            Dialect::Mistral if self.status() == StatusCode::UNPROCESSABLE_ENTITY => json!({
                "detail": [{
                    "loc": ["body", error.param()],
                    "msg": message,
                    "type": error.code(),
                }]
            }),
            Dialect::Mistral => json!({
                "object": "error",
                "message": message,
                "type": error.kind(),
                "param": error.param(),
                "code": error.code(),
            }),
        }
    }

    /// Mistral says 422 where a field is wrong.
    pub(crate) fn status(&self) -> StatusCode {
        let names_field = matches!(
            self.1,
            ServerError::Field { .. } | ServerError::Missing { .. } | ServerError::Unable { .. }
        );
        match self.0 {
            Dialect::Mistral if names_field => StatusCode::UNPROCESSABLE_ENTITY,
            _ => self.1.status(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = self.1.message(), "request failed");
        }
        let mut response = (status, Json(self.body())).into_response();
        if let ServerError::Busy { retry_after } = self.1
            && let Ok(value) = HeaderValue::from_str(&retry_after.as_secs().to_string())
        {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}
