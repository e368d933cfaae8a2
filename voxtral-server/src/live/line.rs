//! A connection: what comes in, what goes out, and when it ends.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::{LARGEST_MESSAGE, Protocol, message::Fields, talk::Talk};
use crate::{ServerError, app::App, engine::Event};

/// Pings that a client may leave unanswered.
const UNANSWERED: u32 = 3;

/// The longest reason of a close frame, in bytes (RFC 6455, 5.5).
const LONGEST_REASON: usize = 123;

/// How long a client has to answer that it closes too.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection ends.
enum End {
    /// The client is not there any more.
    Gone,
    /// The client says so.
    Closed,
    /// The server says so.
    Over(ServerError),
}

/// A message that came in.
enum Heard {
    Message(Result<Fields, ServerError>),
    /// A sign of life.
    Nothing,
    End(End),
}

/// A connection.
struct Line {
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    app: Arc<App>,
}

/// Talks until one side ends it.
pub(super) async fn hold(socket: WebSocket, mut protocol: Box<dyn Protocol>, app: Arc<App>) {
    let (sink, stream) = socket.split();
    let mut talk = Talk::new(Arc::clone(&app));
    let mut line = Line { sink, stream, app };
    let end = match protocol.greet(&mut talk) {
        Ok(greeting) => match line.say(greeting).await {
            Ok(()) => line.talk(&mut *protocol, &mut talk).await,
            Err(end) => end,
        },
        Err(error) => End::Over(error),
    };
    // The session is over before the last words are said: they may take a while.
    drop(talk);
    match end {
        End::Gone => tracing::debug!("live client is gone"),
        End::Closed => tracing::debug!("live client has closed"),
        End::Over(error) => line.hang_up(&*protocol, error).await,
    }
}

impl Line {
    /// Answers messages and tells of events.
    async fn talk(&mut self, protocol: &mut dyn Protocol, talk: &mut Talk) -> End {
        let config = self.app.config.clone();
        let app = Arc::clone(&self.app);
        let over = sleep_until(Instant::now() + config.session_length);
        let stopped = app.stopped();
        tokio::pin!(over, stopped);
        let mut pings = interval_at(Instant::now() + config.ping, config.ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0;
        let mut active = Instant::now();
        loop {
            let said = tokio::select! {
                heard = hear(&mut self.stream), if talk.has_room() => {
                    unanswered = 0;
                    match heard {
                        Heard::Message(message) => {
                            active = Instant::now();
                            answer(message, protocol, talk)
                        }
                        Heard::Nothing => continue,
                        Heard::End(end) => return end,
                    }
                }
                progress = talk.advance() => {
                    active = Instant::now();
                    match progress {
                        None => continue,
                        Some(Ok((event, id))) => tell(event, &id, protocol, talk),
                        Some(Err(error)) => return End::Over(error),
                    }
                }
                _ = pings.tick() => {
                    // Who is not listened to cannot answer.
                    unanswered += u32::from(talk.has_room());
                    if unanswered > UNANSWERED || self.send(Message::Ping(Default::default())).await.is_err() {
                        return End::Gone;
                    }
                    continue;
                }
                () = sleep_until(active + config.session_idle) => {
                    return self.finish(protocol, talk, ServerError::Idle { limit: config.session_idle }).await;
                }
                () = &mut over => {
                    return self.finish(protocol, talk, ServerError::Lasting { limit: config.session_length }).await;
                }
                () = &mut stopped => {
                    return self.finish(protocol, talk, ServerError::Stopping).await;
                }
            };
            if let Err(end) = self.say(said).await {
                return end;
            }
        }
    }

    /// Brings out what was said before this end, as long as the server's grace goes.
    async fn finish(
        &mut self,
        protocol: &mut dyn Protocol,
        talk: &mut Talk,
        error: ServerError,
    ) -> End {
        let grace = self.app.config.grace;
        let rest = async {
            if talk.is_heard()
                && let Err(error) = talk.finish()
            {
                return Err(End::Over(error));
            }
            while !talk.is_silent() {
                match talk.advance().await {
                    None => {}
                    Some(Ok((event, id))) => {
                        let said = tell(event, &id, protocol, talk);
                        self.say(said).await?;
                    }
                    Some(Err(error)) => return Err(End::Over(error)),
                }
            }
            Ok(())
        };
        match timeout(grace, rest).await {
            Ok(Err(end)) => end,
            Ok(Ok(())) | Err(_) => End::Over(error),
        }
    }

    /// Says all of this; a client that does not listen for long is gone.
    async fn say(&mut self, objects: Vec<Value>) -> Result<(), End> {
        if objects.is_empty() {
            return Ok(());
        }
        let patience = self.app.config.patience;
        let sink = &mut self.sink;
        let all = async {
            for object in objects {
                sink.feed(Message::Text(object.to_string().into())).await?;
            }
            sink.flush().await
        };
        match timeout(patience, all).await {
            Ok(said) => said.map_err(|_| End::Gone),
            Err(_) => Err(End::Gone),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.app.config.patience, self.sink.send(message)).await {
            Ok(sent) => sent.map_err(|_| End::Gone),
            Err(_) => Err(End::Gone),
        }
    }

    /// Says why it ends, and waits for the client to close too.
    async fn hang_up(mut self, protocol: &dyn Protocol, error: ServerError) {
        let message = error.message();
        tracing::info!(reason = message, "live session ends");
        let code = close_code(&error);
        let stopping = matches!(error, ServerError::Stopping);
        if !stopping && self.say(vec![protocol.fail(error)]).await.is_err() {
            return;
        }
        let mut reason = message;
        reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        if self.send(Message::Close(Some(frame))).await.is_ok() {
            let farewell = async { while let Some(Ok(_)) = self.stream.next().await {} };
            // Who does not answer is left.
            let _ = timeout(FAREWELL, farewell).await;
        }
    }
}

/// The code of a close frame (RFC 6455, 7.4.1).
fn close_code(error: &ServerError) -> u16 {
    match error {
        ServerError::Stopping => close_code::AWAY,
        ServerError::TooLarge { .. } => close_code::SIZE,
        ServerError::Malformed { .. } => close_code::INVALID,
        error if error.status().is_client_error() => close_code::POLICY,
        _ => close_code::ERROR,
    }
}

fn answer(
    message: Result<Fields, ServerError>,
    protocol: &mut dyn Protocol,
    talk: &mut Talk,
) -> Vec<Value> {
    let answered = message.and_then(|message| protocol.follow(message, talk));
    answered.unwrap_or_else(|error| vec![protocol.fail(error)])
}

fn tell(event: Event, id: &str, protocol: &mut dyn Protocol, talk: &mut Talk) -> Vec<Value> {
    protocol.tell(event, id, talk)
}

/// The next message.
async fn hear(stream: &mut SplitStream<WebSocket>) -> Heard {
    let malformed = |reason: &str| ServerError::Malformed {
        subject: "message",
        reason: reason.to_owned(),
    };
    match stream.next().await {
        Some(Ok(Message::Text(text))) => Heard::Message(Fields::read(&text)),
        Some(Ok(Message::Binary(_))) => {
            let reason = "a binary frame, expected JSON in a text frame, with sound in base64";
            Heard::Message(Err(malformed(reason)))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Heard::Nothing,
        Some(Ok(Message::Close(_))) => Heard::End(End::Closed),
        None => Heard::End(End::Gone),
        Some(Err(error)) => {
            let error = error.into_inner();
            Heard::End(match error.downcast_ref() {
                Some(tungstenite::Error::Capacity(_)) => End::Over(ServerError::TooLarge {
                    subject: "message",
                    limit: format!("{LARGEST_MESSAGE} bytes"),
                }),
                Some(tungstenite::Error::Utf8(_)) => End::Over(malformed("not UTF-8")),
                _ => End::Gone,
            })
        }
    }
}
