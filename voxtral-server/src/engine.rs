//! The one thread that computes, and how requests reach it.
//!
//! ```text
//! handlers ──Work──▶ inbox ──▶ desk of the model ──┬─ live sessions, first of all
//!     ▲                                            ├─ batch: a pass for all requests together
//!     └──────────────── Event ◀────────────────────┴─ files for a model of streams, a piece each
//! ```
//!
//! A process drives one device, so one thread has it all: what is more urgent is computed first,
//! nothing waits longer than one pass. Handlers are asynchronous and know nothing of Burn.

mod desk;
#[cfg(test)]
mod faults;
mod live;

use std::collections::VecDeque;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    mpsc,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;
use voxtral_audio::Decoder;
use voxtral_pipeline::{
    Answer, Audio, Backend, Cancel, ChatOptions, LongOptions, Message, PipelineError, Segment,
    SessionOptions, Step, Transcript, Voxtral,
};

use crate::{ServerError, metrics::Metrics};
use desk::Desk;

/// Events of a live session that its client has not read, before it is given up.
const UNREAD_EVENTS: usize = 1024;

/// Pieces of sound of a live session that wait for the model, before its client has to wait.
const WAITING_PIECES: usize = 32;

/// How much work is taken.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Requests that are computed together.
    pub batch_size: usize,
    /// Tokens, of prompts and answers, that they may have together: the KV cache holds as many. A
    /// request that has more by itself is computed alone.
    pub batch_tokens: usize,
    /// Requests that may wait; those that come then are told to come again.
    pub queue: usize,
    /// Live sessions at once.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_size: 8,
            batch_tokens: 32_768,
            queue: 64,
            sessions: 16,
        }
    }
}

/// What handlers need of a model, beside what it computes.
pub(crate) trait Vocabulary: Send + Sync {
    /// The bytes of a token that is text.
    fn bytes(&self, id: u32) -> Option<Vec<u8>>;
    /// Reads a file as the model hears it.
    fn read(&self, decoder: Decoder) -> Result<Audio, PipelineError>;
    /// Whether a live session can have these options.
    fn check_session(&self, options: &SessionOptions) -> Result<(), PipelineError>;
    /// Refuses a conversation that cannot be answered, with all the work that this takes.
    fn check_chat(&self, messages: &[Message], options: &ChatOptions) -> Result<(), PipelineError>;
}

impl<B: Backend> Vocabulary for Voxtral<B> {
    fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.tokenizer().token_bytes(id).map(<[u8]>::to_vec)
    }

    fn read(&self, decoder: Decoder) -> Result<Audio, PipelineError> {
        self.read_decoder(decoder)
    }

    fn check_chat(&self, messages: &[Message], options: &ChatOptions) -> Result<(), PipelineError> {
        Voxtral::check_chat(self, messages, options).map(|_| ())
    }

    fn check_session(&self, options: &SessionOptions) -> Result<(), PipelineError> {
        Voxtral::check_session(self, options)
    }
}

/// A model that is served.
#[derive(Clone)]
pub struct ModelInfo {
    /// Its name, and others that it answers to.
    pub names: Vec<String>,
    /// Whether it takes streams.
    pub is_streaming: bool,
    /// Samples per second of its input.
    pub sample_rate: u32,
    /// The sound that each token of a stream stands for, where it takes streams.
    pub token: Option<Duration>,
    /// Positions of its context, where the checkpoint states them.
    pub context: Option<usize>,
    /// The longest sound that its context has room for, where it has an end and takes clips.
    pub longest: Option<Duration>,
    pub(crate) vocabulary: Arc<dyn Vocabulary>,
}

impl std::fmt::Debug for ModelInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelInfo")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    /// A file, written down.
    Transcribe {
        decoder: Box<Decoder>,
        options: Box<LongOptions>,
        /// Whether text is wanted token by token, where the file is one window.
        stream: bool,
    },
    /// A conversation, answered.
    Chat {
        messages: Vec<Message>,
        options: Box<ChatOptions>,
    },
}

impl Work {
    fn cancel(&self) -> &Cancel {
        match self {
            Self::Transcribe { options, .. } => &options.transcribe.cancel,
            Self::Chat { options, .. } => &options.cancel,
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Event {
    /// A token, or text of a window.
    Step(Step),
    Text(String),
    Segment(Segment),
    /// The end.
    Transcript(Box<Transcript>),
    Answer(Box<Answer>),
    Failed(PipelineError),
    /// The server is at fault.
    Crashed,
    /// A live stream was forgotten, and another begins.
    Begun,
}

/// Sound of a live session, and what is asked of it.
#[derive(Debug)]
pub(crate) enum Sound {
    /// At the session's rate.
    Samples(Vec<f32>),
    /// Brings out the words behind the delay.
    Flush,
    /// Ends the stream, which gives its transcript; a new one may begin.
    Finish,
    /// Forgets the stream, of which no transcript is wanted, and begins one with these options.
    Begin(Box<SessionOptions>),
}

/// A request on its way. Dropped, it is cancelled.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) events: channel::UnboundedReceiver<Event>,
    cancel: Cancel,
    inbox: mpsc::Sender<Command>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel.cancel();
        let _ = self.inbox.send(Command::Wake);
    }
}

/// A live session. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct LiveJob {
    pub(crate) events: channel::Receiver<Event>,
    sound: channel::Sender<Sound>,
    inbox: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// How a live session went on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Sound was taken.
    Taken,
    Event(Event),
    /// It is over, and has no more events.
    Over,
}

impl LiveJob {
    /// Gives the next piece of this sound once there is room for it, or the next event if that
    /// comes first. Dropped before it is ready, it has done nothing.
    pub(crate) async fn advance(&mut self, sound: &mut VecDeque<Sound>) -> Progress {
        let room = tokio::select! {
            biased;
            event = self.events.recv() => {
                return event.map_or(Progress::Over, Progress::Event);
            }
            room = self.sound.reserve(), if !sound.is_empty() => room,
        };
        match room {
            Ok(room) => {
                if let Some(piece) = sound.pop_front() {
                    room.send(piece);
                    let _ = self.inbox.send(Command::Wake);
                }
            }
            // The events tell why.
            Err(_) => sound.clear(),
        }
        Progress::Taken
    }
}

impl Drop for LiveJob {
    fn drop(&mut self) {
        self.events.close();
        self.shared.held.fetch_sub(1, Ordering::Relaxed);
        let _ = self.inbox.send(Command::Wake);
    }
}

enum Command {
    Work {
        model: usize,
        work: Work,
        events: channel::UnboundedSender<Event>,
        arrived: Instant,
    },
    Live {
        model: usize,
        options: Box<SessionOptions>,
        sound: channel::Receiver<Sound>,
        events: channel::Sender<Event>,
    },
    /// There is something new.
    Wake,
    Stop,
}

/// The way to the thread that computes. Clones share it.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Shared {
    models: Vec<ModelInfo>,
    limits: Limits,
    /// Requests that were taken and not begun.
    waiting: AtomicUsize,
    /// Requests and sessions that are computed.
    running: AtomicUsize,
    /// Live sessions that are computed.
    sessions: AtomicUsize,
    /// Live sessions that somebody holds.
    held: AtomicUsize,
    alive: AtomicBool,
    metrics: Metrics,
}

impl Shared {
    fn new(models: Vec<ModelInfo>, limits: Limits) -> Self {
        Self {
            models,
            limits,
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            alive: AtomicBool::new(true),
            metrics: Metrics::default(),
        }
    }
}

impl Engine {
    /// Starts the thread, for models that answer to these names besides their own.
    pub fn start<B: Backend>(
        models: Vec<(Voxtral<B>, Vec<String>)>,
        limits: Limits,
    ) -> (Self, JoinHandle<()>) {
        let shared_models = models
            .into_iter()
            .map(|(model, names)| (Arc::new(model), names));
        let models: Vec<(Arc<Voxtral<B>>, Vec<String>)> = shared_models.collect();
        let infos = models.iter().map(|(model, names)| ModelInfo {
            names: std::iter::once(model.name().to_owned())
                .chain(names.iter().cloned())
                .collect(),
            is_streaming: model.is_streaming(),
            sample_rate: model.sample_rate(),
            token: model.tokenizer().audio().map(|audio| {
                let samples = audio.samples_per_token() as f64;
                Duration::from_secs_f64(samples / f64::from(audio.sampling_rate))
            }),
            context: model.config().decoder.max_positions,
            longest: longest(model),
            vocabulary: Arc::clone(model) as Arc<dyn Vocabulary>,
        });
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::new(infos.collect(), limits));
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let models: Vec<Arc<Voxtral<B>>> = models.into_iter().map(|(model, _)| model).collect();
            compute(&models, &receiver, &theirs);
            theirs.alive.store(false, Ordering::Relaxed);
        });
        let engine = Self {
            shared,
            inbox: sender,
        };
        (engine, thread)
    }

    /// An engine that computes nothing, of a model of streams: for what reads requests alone.
    pub(crate) fn idle() -> Self {
        struct Nothing;
        impl Vocabulary for Nothing {
            fn bytes(&self, _: u32) -> Option<Vec<u8>> {
                None
            }
            fn read(&self, _: Decoder) -> Result<Audio, PipelineError> {
                Err(PipelineError::Cancelled)
            }
            fn check_session(&self, _: &SessionOptions) -> Result<(), PipelineError> {
                Ok(())
            }
            fn check_chat(&self, _: &[Message], _: &ChatOptions) -> Result<(), PipelineError> {
                Ok(())
            }
        }
        let model = ModelInfo {
            names: vec!["nothing".to_owned()],
            is_streaming: true,
            sample_rate: 16_000,
            context: None,
            longest: None,
            token: None,
            vocabulary: Arc::new(Nothing),
        };
        Self {
            shared: Arc::new(Shared::new(vec![model], Limits::default())),
            inbox: mpsc::channel().0,
        }
    }

    /// The models that are served.
    pub fn models(&self) -> &[ModelInfo] {
        &self.shared.models
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether the thread is there.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Relaxed)
    }

    /// Requests that wait, that are computed, and live sessions.
    pub(crate) fn load(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let shared = &self.shared;
        (
            read(&shared.waiting),
            read(&shared.running),
            read(&shared.sessions),
        )
    }

    /// The model of this name; the first of this kind where none is named.
    pub(crate) fn model(
        &self,
        name: Option<&str>,
        suits: impl Fn(&ModelInfo) -> bool,
    ) -> Result<usize, ServerError> {
        let models = &self.shared.models;
        let found = match name.filter(|name| !name.is_empty()) {
            Some(name) => models
                .iter()
                .position(|model| model.names.iter().any(|known| known == name)),
            None => models.iter().position(&suits).or(Some(0)),
        };
        found.ok_or_else(|| ServerError::UnknownModel {
            found: name.unwrap_or_default().to_owned(),
            known: models.iter().map(|model| model.names[0].clone()).collect(),
        })
    }

    /// Takes work, if there is room for it.
    pub(crate) fn submit(&self, model: usize, work: Work) -> Result<Job, ServerError> {
        let shared = &self.shared;
        let free = shared.limits.batch_size + shared.limits.queue;
        let (waiting, running, _) = self.load();
        if waiting + running >= free {
            shared.metrics.refused.inc();
            return Err(ServerError::Busy {
                retry_after: shared.metrics.usual_time().max(Duration::from_secs(1)),
            });
        }
        #[cfg(test)]
        let work = faults::inject(work);
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = channel::unbounded_channel();
        let cancel = work.cancel().clone();
        let command = Command::Work {
            model,
            work,
            events: sender,
            arrived: Instant::now(),
        };
        self.inbox
            .send(command)
            .map_err(|_| ServerError::Stopping)?;
        Ok(Job {
            events,
            cancel,
            inbox: self.inbox.clone(),
        })
    }

    /// Begins a live session, if there is room for it.
    pub(crate) fn listen(
        &self,
        model: usize,
        options: SessionOptions,
    ) -> Result<LiveJob, ServerError> {
        let shared = &self.shared;
        let taken = shared.held.fetch_add(1, Ordering::Relaxed);
        if taken >= shared.limits.sessions {
            shared.held.fetch_sub(1, Ordering::Relaxed);
            shared.metrics.refused.inc();
            return Err(ServerError::TooManySessions {
                limit: shared.limits.sessions,
            });
        }
        let (sound, waiting) = channel::channel(WAITING_PIECES);
        let (sender, events) = channel::channel(UNREAD_EVENTS);
        let job = LiveJob {
            events,
            sound,
            inbox: self.inbox.clone(),
            shared: Arc::clone(shared),
        };
        let command = Command::Live {
            model,
            options: Box::new(options),
            sound: waiting,
            events: sender,
        };
        self.inbox
            .send(command)
            .map_err(|_| ServerError::Stopping)?;
        Ok(job)
    }

    /// Ends the thread, and with it all that is still running.
    pub fn stop(&self) {
        let _ = self.inbox.send(Command::Stop);
    }
}

fn longest<B: Backend>(model: &Voxtral<B>) -> Option<Duration> {
    let context = model.config().decoder.max_positions?;
    let windows = context / model.tokens_per_window().ok()?;
    let window = model.window_duration().ok()?;
    window.checked_mul(u32::try_from(windows).ok()?)
}

/// Computes until told to stop.
fn compute<B: Backend>(
    models: &[Arc<Voxtral<B>>],
    inbox: &mpsc::Receiver<Command>,
    shared: &Shared,
) {
    let mut desks: Vec<Desk<'_, B>> = models
        .iter()
        .map(|model| Desk::new(model, shared))
        .collect();
    loop {
        let idle = desks.iter().all(Desk::is_idle);
        let mut next = match idle {
            true => inbox.recv().ok(),
            false => inbox.try_recv().ok(),
        };
        if idle && next.is_none() {
            return;
        }
        while let Some(command) = next {
            match command {
                Command::Work {
                    model,
                    work,
                    events,
                    arrived,
                } => desks[model].take(work, events, arrived),
                Command::Live {
                    model,
                    options,
                    sound,
                    events,
                } => desks[model].listen(&options, sound, events),
                Command::Wake => {}
                Command::Stop => return,
            }
            next = inbox.try_recv().ok();
        }
        // Whoever speaks goes first, as long as there is sound; a file that is sent as if it were
        // spoken goes with the others.
        let started = Instant::now();
        let mut urgent = false;
        for desk in &mut desks {
            urgent |= desk.hear();
        }
        if !urgent {
            for desk in &mut desks {
                desk.advance();
            }
        }
        shared.metrics.computed(started.elapsed());
        let running = desks.iter().map(Desk::running).sum();
        shared.running.store(running, Ordering::Relaxed);
        let sessions = desks.iter().map(Desk::sessions).sum();
        shared.sessions.store(sessions, Ordering::Relaxed);
    }
}
