//! `POST /v1/chat/completions`: conversations with sound, as OpenAI, Mistral and vLLM have them.

mod message;
mod request;
mod response;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use voxtral_audio::AudioError;
use voxtral_pipeline::{Answer, Audio, ChatOptions, Decoder, Message, Part, PipelineError};

use crate::{
    ModelInfo, ServerError,
    app::App,
    engine::{Event, Job, Work},
    error::{Dialect, Failure},
    files,
    json::{self, Object},
    sse, transcription,
};
use message::{Draft, Piece, Source};
use request::Asked;
use response::Reply;

/// The longest text of a conversation, in bytes: more than any context holds.
const LONGEST_TEXT: usize = 16 << 20;

/// Answers a request.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let dialect = transcription::dialect_of(request.headers());
    let body = match json::read(request, &app.config).await {
        Ok(body) => body,
        Err(error) => return Failure(dialect, error).into_response(),
    };
    let dialect = request::dialect(&body, dialect);
    match answer(&app, body, dialect).await {
        Ok(response) => response,
        Err(error) => Failure(dialect, error).into_response(),
    }
}

async fn answer(app: &App, body: Object, dialect: Dialect) -> Result<Response, ServerError> {
    // Base64 of a long file takes its time.
    let read = tokio::task::spawn_blocking(move || Asked::read(body, dialect)).await;
    let asked = read.map_err(|_| ServerError::Crashed)??;
    let index = app
        .engine
        .model(asked.model.as_deref(), |model| !model.is_streaming)?;
    let model = &app.engine.models()[index];
    if model.is_streaming {
        let reason = "this model takes streams, not conversations";
        return Err(ServerError::unable("model", reason));
    }
    let messages = hear(app, model, asked.messages).await?;
    let (messages, options) = check(model, messages, asked.options).await?;
    let work = Work::Chat {
        messages,
        options: Box::new(options),
    };
    let job = app.engine.submit(index, work)?;
    let mut reply = Reply::new(
        model.names[0].clone(),
        Arc::clone(&model.vocabulary),
        dialect,
    );
    (reply.usage, reply.logprobs) = (asked.usage, asked.logprobs);
    match asked.stream {
        true => Ok(sse::streamed(job, dialect, move |event| reply.events(event)).await),
        false => Ok(Json(reply.object(&whole(job).await?)).into_response()),
    }
}

/// Reads the sound of a conversation.
async fn hear(
    app: &App,
    model: &ModelInfo,
    drafts: Vec<Draft>,
) -> Result<Vec<Message>, ServerError> {
    let mut messages = Vec::new();
    let mut length = Duration::ZERO;
    for draft in drafts {
        let pieces = match draft {
            Draft::User(pieces) => pieces,
            Draft::Other(message) => {
                messages.push(message);
                continue;
            }
        };
        let mut parts = Vec::new();
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(text),
                Piece::Sound { field, source } => {
                    let clip = clip(app, model, &field, source).await?;
                    length += clip.duration();
                    if model.longest.is_some_and(|longest| length > longest) {
                        let reason = "with it there is more sound than the model's context holds";
                        return Err(ServerError::unable(field, reason));
                    }
                    Part::Audio(Arc::new(clip))
                }
            });
        }
        messages.push(Message::User(parts));
    }
    Ok(messages)
}

async fn clip(
    app: &App,
    model: &ModelInfo,
    field: &str,
    source: Source,
) -> Result<Audio, ServerError> {
    let open: Box<dyn FnOnce() -> Result<Decoder, AudioError> + Send> = match source {
        Source::Bytes(bytes) => Box::new(move || Decoder::new(Cursor::new(bytes))),
        Source::Url(url) => {
            let file = files::open_url(app, field, &url).await?;
            Box::new(move || Decoder::new(file))
        }
    };
    let vocabulary = Arc::clone(&model.vocabulary);
    let read = tokio::task::spawn_blocking(move || vocabulary.read(open()?));
    let read = read.await.map_err(|_| ServerError::Crashed)?;
    read.map_err(|error| ServerError::Sound {
        field: field.to_owned(),
        source: Box::new(error),
    })
}

/// Refuses what cannot be answered before it is queued: large texts and schemas take their time, for
/// which nobody else should have to wait.
async fn check(
    model: &ModelInfo,
    messages: Vec<Message>,
    options: ChatOptions,
) -> Result<(Vec<Message>, ChatOptions), ServerError> {
    let text: usize = messages.iter().map(text_length).sum();
    if text > LONGEST_TEXT {
        return Err(ServerError::TooLarge {
            subject: "text of the conversation",
            limit: format!("{LONGEST_TEXT} bytes"),
        });
    }
    let vocabulary = Arc::clone(&model.vocabulary);
    let checked = tokio::task::spawn_blocking(move || {
        vocabulary.check_chat(&messages, &options)?;
        Ok::<_, PipelineError>((messages, options))
    });
    Ok(checked.await.map_err(|_| ServerError::Crashed)??)
}

fn text_length(message: &Message) -> usize {
    match message {
        Message::System(text) | Message::Tool { content: text, .. } => text.len(),
        Message::Assistant { text, .. } => text.len(),
        Message::User(parts) => {
            let texts = parts.iter().map(|part| match part {
                Part::Text(text) => text.len(),
                Part::Audio(_) => 0,
            });
            texts.sum()
        }
    }
}

/// The end of a job.
async fn whole(mut job: Job) -> Result<Answer, ServerError> {
    while let Some(event) = job.events.recv().await {
        match event {
            Event::Answer(answer) => return Ok(*answer),
            Event::Failed(error) => return Err(error.into()),
            Event::Crashed => return Err(ServerError::Crashed),
            _ => {}
        }
    }
    Err(ServerError::Stopping)
}
