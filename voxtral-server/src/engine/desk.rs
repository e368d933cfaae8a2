//! A model and all that is asked of it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;
use voxtral_pipeline::{
    Backend, Batch, BatchEvent, Cancel, LongEvent, PipelineError, Session, SessionOptions,
    Transcription, Voxtral,
};

use super::{
    Event, Shared, Sound, Work,
    live::{Live, Turn},
};

/// Tokens of an answer that a request is expected to need where it does not limit them.
const USUAL_ANSWER: usize = 1024;

/// How long a file for a model of streams has the machine before it is another's turn.
const TURN: Duration = Duration::from_millis(100);

/// A request.
struct Request {
    events: channel::UnboundedSender<Event>,
    cancel: Cancel,
    arrived: Instant,
    /// Tokens that it may have.
    tokens: usize,
}

/// A request that waits.
struct Waiting {
    request: Request,
    work: Work,
}

pub(super) struct Desk<'m, B: Backend> {
    model: &'m Voxtral<B>,
    shared: &'m Shared,
    waiting: VecDeque<Waiting>,
    batch: Batch<'m, B>,
    /// Those in the batch and the files, by their numbers.
    running: HashMap<usize, Request>,
    /// Files for a model of streams.
    files: VecDeque<(usize, Transcription<'m, B>)>,
    live: Vec<Live<'m, B>>,
    next: usize,
}

impl<'m, B: Backend> Desk<'m, B> {
    pub(super) fn new(model: &'m Voxtral<B>, shared: &'m Shared) -> Self {
        Self {
            model,
            shared,
            waiting: VecDeque::new(),
            batch: model.batch(),
            running: HashMap::new(),
            files: VecDeque::new(),
            live: Vec::new(),
            next: 0,
        }
    }

    /// Whether there is nothing to compute before something new comes.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && !self.live.iter().any(Live::is_behind)
    }

    /// Requests that are computed.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Live sessions.
    pub(super) fn sessions(&self) -> usize {
        self.live.len()
    }

    /// Takes a request; one that can never be computed is told so at once.
    pub(super) fn take(
        &mut self,
        work: Work,
        events: channel::UnboundedSender<Event>,
        arrived: Instant,
    ) {
        let cancel = work.cancel().clone();
        match alone(|| self.tokens(&work)) {
            Ok(tokens) => self.waiting.push_back(Waiting {
                request: Request {
                    events,
                    cancel,
                    arrived,
                    tokens,
                },
                work,
            }),
            Err(event) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                let _ = events.send(event);
            }
        }
    }

    /// Tokens that a request may have, of its prompts and answers.
    fn tokens(&self, work: &Work) -> Result<usize, PipelineError> {
        match work {
            Work::Chat { messages, options } => {
                let size = self.model.prompt_size(messages, &options.tools)?;
                Ok(size.tokens + options.max_new_tokens.unwrap_or(USUAL_ANSWER))
            }
            Work::Transcribe { .. } if self.model.is_streaming() => Ok(0),
            // A window's text has at most as many tokens as its sound.
            Work::Transcribe { options, .. } => {
                let window = 2 * self.model.tokens_per_window()?;
                Ok(window * options.batch_size.get())
            }
        }
    }

    pub(super) fn listen(
        &mut self,
        options: &SessionOptions,
        sound: channel::Receiver<Sound>,
        events: channel::Sender<Event>,
    ) {
        match alone(|| self.model.session(options)) {
            Ok(session) => self
                .live
                .push(Live::new(self.model, session, sound, events)),
            Err(event) => {
                let _ = events.try_send(event);
            }
        }
    }

    /// Hears what live sessions have, and writes it together; whether there is more that was spoken
    /// just now.
    pub(super) fn hear(&mut self) -> bool {
        let metrics = &self.shared.metrics;
        let turns = self.live.iter_mut().map(|live| live.advance(metrics));
        let mut turns: Vec<Turn> = turns.collect();
        self.write(&mut turns);
        let mut turns = turns.into_iter();
        self.live.retain(|_| turns.next() != Some(Turn::Over));
        self.live.iter().any(Live::is_urgent)
    }

    /// Writes what was prepared, in passes that the sessions share.
    fn write(&mut self, turns: &mut [Turn]) {
        let prepared = |turn: &Turn| *turn == Turn::Prepared;
        let live = self.live.iter_mut().zip(&*turns);
        let mut sessions: Vec<_> = live
            .filter(|(_, turn)| prepared(turn))
            .map(|(live, _)| live.session())
            .collect();
        if sessions.is_empty() {
            return;
        }
        let written = catch_unwind(AssertUnwindSafe(|| Session::write_together(&mut sessions)));
        let written = written.unwrap_or_else(|_| {
            tracing::error!("a pass panicked: all live sessions in it end");
            Vec::new()
        });
        let mut written = written.into_iter();
        let live = self.live.iter_mut().zip(turns);
        for (live, turn) in live.filter(|(_, turn)| prepared(turn)) {
            let steps = match written.next() {
                Some(steps) => steps.map_err(Event::Failed),
                None => Err(Event::Crashed),
            };
            if !live.wrote(steps, &self.shared.metrics) {
                *turn = Turn::Over;
            }
        }
    }

    /// Begins what there is room for, and advances all that was begun.
    pub(super) fn advance(&mut self) {
        self.admit();
        if !self.batch.is_empty() {
            self.pass();
        }
        if let Some((number, file)) = self.files.pop_front() {
            self.read_on(number, file);
        }
    }

    /// Begins requests in their order, while there is room.
    fn admit(&mut self) {
        let limits = &self.shared.limits;
        self.waiting.retain(|waiting| {
            let wanted = !waiting.request.cancel.is_cancelled();
            if !wanted {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            wanted
        });
        while let Some(first) = self.waiting.front() {
            let held: usize = self.running.values().map(|request| request.tokens).sum();
            let fits = held + first.request.tokens <= limits.batch_tokens;
            let alone = self.running.is_empty();
            if self.running.len() >= limits.batch_size || !(fits || alone) {
                return;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                self.begin(waiting);
            }
        }
    }

    fn begin(&mut self, Waiting { request, work }: Waiting) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.waited(request.arrived.elapsed());
        let number = self.next;
        self.next += 1;
        let begun = alone(|| match work {
            Work::Chat { messages, options } => self.batch.ask(number, &messages, &options),
            Work::Transcribe {
                decoder, options, ..
            } if self.model.is_streaming() => {
                let file = self.model.start_decoder(*decoder, &options.transcribe)?;
                self.files.push_back((number, file));
                Ok(())
            }
            Work::Transcribe {
                decoder,
                options,
                stream,
            } => {
                let window = self.model.window_duration()?;
                if stream && decoder.duration().is_some_and(|length| length <= window) {
                    let audio = self.model.read_decoder(*decoder)?;
                    return self.batch.add(number, audio, &options.transcribe);
                }
                let recording = self.model.recording(*decoder, &options, None)?;
                self.batch.transcribe(number, recording);
                Ok(())
            }
        });
        match begun {
            Ok(()) => drop(self.running.insert(number, request)),
            Err(event) => drop(request.events.send(event)),
        }
    }

    /// A pass of the batch.
    fn pass(&mut self) {
        let batch = &mut self.batch;
        let Ok(events) = catch_unwind(AssertUnwindSafe(|| batch.advance())) else {
            tracing::error!("a pass panicked: all requests in it fail, and a new batch begins");
            self.batch = self.model.batch();
            let files: Vec<usize> = self.files.iter().map(|(number, _)| *number).collect();
            self.running.retain(|number, request| {
                let kept = files.contains(number);
                if !kept {
                    let _ = request.events.send(Event::Crashed);
                }
                kept
            });
            return;
        };
        for (number, event) in events {
            self.tell(number, event);
        }
        // Whoever went away is not worth another pass.
        let batch = &mut self.batch;
        let files = &self.files;
        self.running.retain(|number, request| {
            let gone =
                request.cancel.is_cancelled() && !files.iter().any(|(file, _)| file == number);
            if gone {
                batch.remove(*number);
            }
            !gone
        });
    }

    fn tell(&mut self, number: usize, event: BatchEvent) {
        let event = match event {
            BatchEvent::Step(step) => Event::Step(step),
            BatchEvent::Recording(LongEvent::Text(text)) => Event::Text(text),
            BatchEvent::Recording(LongEvent::Segment(segment)) => Event::Segment(segment),
            BatchEvent::Transcript(transcript) => Event::Transcript(transcript),
            BatchEvent::Answer(answer) => Event::Answer(answer),
            BatchEvent::Failed(error) => Event::Failed(error),
            _ => return,
        };
        self.send(number, event);
    }

    /// Tells a request; at its end, it leaves.
    fn send(&mut self, number: usize, event: Event) {
        let metrics = &self.shared.metrics;
        let ended = match &event {
            Event::Transcript(transcript) => {
                metrics.transcribed(transcript);
                true
            }
            Event::Answer(answer) => {
                metrics.answered(answer);
                true
            }
            Event::Failed(_) | Event::Crashed => true,
            _ => false,
        };
        if let Some(request) = self.running.get(&number) {
            let _ = request.events.send(event);
            if ended {
                metrics.finished(request.arrived.elapsed());
            }
        }
        if ended {
            self.running.remove(&number);
        }
    }

    /// Reads a file for a model of streams, for a short time.
    fn read_on(&mut self, number: usize, mut file: Transcription<'m, B>) {
        let started = Instant::now();
        let went_on = alone(|| {
            for step in file.by_ref() {
                self.send(number, Event::Step(step?));
                if started.elapsed() >= TURN {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        let event = match went_on {
            Ok(true) => return self.files.push_back((number, file)),
            Ok(false) => match alone(|| file.finish()) {
                Ok(transcript) => Event::Transcript(Box::new(transcript)),
                Err(event) => event,
            },
            Err(event) => event,
        };
        self.send(number, event);
    }
}

/// Does work of one request; an error or a panic concerns nobody else.
pub(super) fn alone<T>(work: impl FnOnce() -> Result<T, PipelineError>) -> Result<T, Event> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Event::Failed),
        Err(_) => Err(Event::Crashed),
    }
}
