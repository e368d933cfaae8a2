//! What the server says of itself.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{ModelInfo, app::App, error::Failure};

/// The format of Prometheus with units, which its library writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let models = app.engine.models().iter();
    let names = models.flat_map(|model| model.names.iter().map(move |name| (name, model)));
    let data: Vec<Value> = names
        .map(|(name, model)| record(&app, name, model))
        .collect();
    Json(json!({"object": "list", "data": data}))
}

/// `GET /v1/models/{model}`.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let at = app.engine.model(Some(&name), |_| true)?;
    Ok(Json(record(&app, &name, &app.engine.models()[at])))
}

fn record(app: &App, name: &str, model: &ModelInfo) -> Value {
    json!({
        "id": name,
        "object": "model",
        "type": "base",
        "created": app.started,
        "owned_by": "mistralai",
        "root": model.names[0],
        "max_model_len": model.context,
        "max_context_length": model.context,
        "capabilities": {
            "audio": !model.is_streaming,
            "completion_chat": !model.is_streaming,
            "function_calling": !model.is_streaming,
            "audio_transcription": true,
            "audio_transcription_realtime": model.is_streaming,
        },
    })
}

/// `GET /health`: the process answers, and computes.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.engine.is_alive() {
        true => Json(json!({"status": "ok"})).into_response(),
        false => unavailable("the thread that computes has ended"),
    }
}

/// `GET /ready`: models are loaded, and new requests are taken.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.engine.is_alive() && !app.is_stopping() {
        true => Json(json!({"status": "ready"})).into_response(),
        false => unavailable("stopping"),
    }
}

fn unavailable(status: &str) -> Response {
    let body = Json(json!({"status": status}));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.engine.metrics().text(app.engine.load());
    ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}
