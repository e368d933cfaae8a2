//! `POST /v1/audio/transcriptions`, in OpenAI's dialect and in Mistral's.

mod mistral;
mod openai;
mod request;

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, header::ACCEPT, header::CONTENT_TYPE},
    response::{IntoResponse, Response, sse::Event as Message},
};
use serde_json::Value;
use voxtral_pipeline::{Cancel, Decoder, LongOptions, TranscribeOptions, Transcript};

use crate::{
    ServerError,
    app::App,
    body,
    engine::{Event, Job, Work},
    error::{Dialect, Failure},
    files, sse,
};
pub(crate) use mistral::segment;
pub(crate) use openai::logprobs;
use request::{Asked, Shape, Source};

/// Windows of one file that are heard together, so that others have room.
const WINDOWS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// What these headers alone tell of the dialect: Mistral's client asks for events by `Accept`.
pub(crate) fn dialect_of(headers: &HeaderMap) -> Dialect {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    match accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        true => Dialect::Mistral,
        false => Dialect::OpenAi,
    }
}

/// Reads what a form asks for, and drops it.
pub(crate) fn understand(form: body::Form) -> Result<(), ServerError> {
    let dialect = request::dialect(&form, Dialect::OpenAi);
    Asked::read(form, dialect).map(drop)
}

/// Answers a request.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let dialect = dialect_of(request.headers());
    let form = match body::form(request, &app.config).await {
        Ok(form) => form,
        Err(error) => return Failure(dialect, error).into_response(),
    };
    let dialect = request::dialect(&form, dialect);
    let answered = async {
        let (asked, source) = Asked::read(form, dialect)?;
        answer(&app, asked, source).await
    };
    match answered.await {
        Ok(response) => response,
        Err(error) => Failure(dialect, error).into_response(),
    }
}

async fn answer(app: &App, asked: Asked, source: Source) -> Result<Response, ServerError> {
    let index = app.engine.model(asked.model.as_deref(), |_| true)?;
    let model = &app.engine.models()[index];
    let options = options(&asked, model.is_streaming)?;
    let decoder = open(app, source).await?;
    let work = Work::Transcribe {
        decoder: Box::new(decoder),
        options: Box::new(LongOptions {
            transcribe: options,
            batch_size: WINDOWS,
            ..LongOptions::default()
        }),
        stream: asked.stream,
    };
    let job = app.engine.submit(index, work)?;
    let reply = Reply {
        model: model.names[0].clone(),
        vocabulary: Arc::clone(&model.vocabulary),
        asked,
    };
    match reply.asked.stream {
        true => Ok(streamed(job, reply).await),
        false => whole(job, &reply).await,
    }
}

/// What is needed to answer.
struct Reply {
    model: String,
    vocabulary: Arc<dyn crate::engine::Vocabulary>,
    asked: Asked,
}

fn options(asked: &Asked, is_streaming: bool) -> Result<TranscribeOptions, ServerError> {
    if is_streaming && asked.language.is_some() {
        let reason = "a Realtime model finds out the language by itself: leave it out";
        return Err(ServerError::unable("language", reason));
    }
    Ok(TranscribeOptions {
        language: asked.language,
        sampling: asked.sampling.clone(),
        max_new_tokens: asked.max_new_tokens,
        word_times: asked.times,
        cancel: Cancel::new(),
        ..TranscribeOptions::default()
    })
}

/// Gets the file and finds out what kind it is, where waiting for the disk is no harm.
async fn open(app: &App, source: Source) -> Result<Decoder, ServerError> {
    let file = match source {
        Source::Upload(file) => file,
        Source::Url(url) => files::open_url(app, "file_url", &url).await?,
        Source::Stored(id) => files::open(app, id).await?,
    };
    let opened = tokio::task::spawn_blocking(move || Decoder::new(file)).await;
    let opened = opened.map_err(|_| ServerError::Crashed)?;
    opened.map_err(|error| ServerError::Pipeline(error.into()))
}

/// The end of a job.
async fn transcript(job: &mut Job) -> Result<Transcript, ServerError> {
    while let Some(event) = job.events.recv().await {
        match event {
            Event::Transcript(transcript) => return Ok(*transcript),
            Event::Failed(error) => return Err(error.into()),
            Event::Crashed => return Err(ServerError::Crashed),
            _ => {}
        }
    }
    Err(ServerError::Stopping)
}

async fn whole(mut job: Job, reply: &Reply) -> Result<Response, ServerError> {
    let transcript = transcript(&mut job).await?;
    let (content_type, text) = match reply.asked.shape {
        Shape::Mistral => return Ok(Json(mistral::object(&transcript, reply)).into_response()),
        Shape::Json => return Ok(Json(openai::object(&transcript, reply)).into_response()),
        Shape::Verbose => {
            return Ok(Json(openai::verbose(&transcript, reply)?).into_response());
        }
        Shape::Plain(format) => openai::plain(&transcript, format)?,
    };
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

/// Events as they come.
async fn streamed(job: Job, reply: Reply) -> Response {
    let dialect = reply.asked.dialect;
    let tell = move |event| {
        let objects = match dialect {
            Dialect::Mistral => mistral::events(event, &reply),
            Dialect::OpenAi => openai::events(event, &reply),
        };
        let messages = objects.into_iter();
        messages.map(|object| message(object, dialect)).collect()
    };
    sse::streamed(job, dialect, tell).await
}

/// Mistral names events twice; OpenAI within alone, and marks the end.
fn message(object: Option<Value>, dialect: Dialect) -> Message {
    let Some(object) = object else {
        return sse::done();
    };
    let message = Message::default().data(object.to_string());
    match (dialect, object["type"].as_str()) {
        (Dialect::Mistral, Some(name)) => message.event(name),
        _ => message,
    }
}
