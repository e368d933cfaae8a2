//! Answers as server-sent events, while they are made.

use std::convert::Infallible;

use axum::response::{
    IntoResponse, Response,
    sse::{self, KeepAlive, Sse},
};
use futures_util::{StreamExt, stream};

use crate::{
    ServerError,
    engine::{Event, Job},
    error::{Dialect, Failure},
};

/// Tells the events of a job as they come. What fails before the first has a status of its own.
pub(crate) async fn streamed(
    mut job: Job,
    dialect: Dialect,
    mut tell: impl FnMut(Event) -> Vec<sse::Event> + Send + 'static,
) -> Response {
    let first = match job.events.recv().await {
        Some(Event::Failed(error)) => return Failure(dialect, error.into()).into_response(),
        Some(Event::Crashed) => return Failure(dialect, ServerError::Crashed).into_response(),
        None => return Failure(dialect, ServerError::Stopping).into_response(),
        first => first,
    };
    let events = stream::iter(first).chain(stream::unfold(job, |mut job| async {
        let event = job.events.recv().await?;
        Some((event, job))
    }));
    let messages = events.flat_map(move |event| {
        let messages = tell(event).into_iter().map(Ok::<_, Infallible>);
        stream::iter(messages)
    });
    Sse::new(messages)
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// What OpenAI's streams end with.
pub(crate) fn done() -> sse::Event {
    sse::Event::default().data("[DONE]")
}
