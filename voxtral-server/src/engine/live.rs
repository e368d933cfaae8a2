//! A live session among those of a model.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as channel;
use voxtral_pipeline::{Backend, PipelineError, Session, Step, Voxtral};

use super::{Event, Sound, desk::alone};
use crate::metrics::Metrics;

/// By how much the sound of a session may be ahead of the clock while it is heard before everything
/// else: sound that comes faster than anybody speaks is that of a file.
const AHEAD: Duration = Duration::from_secs(2);

pub(super) struct Live<'m, B: Backend> {
    model: &'m Voxtral<B>,
    session: Session<'m, B>,
    sound: channel::Receiver<Sound>,
    events: channel::Sender<Event>,
    /// What came and is not heard.
    pending: VecDeque<Sound>,
    /// By how much its sound was ahead of the clock, when it was heard last.
    ahead: Duration,
    heard: Instant,
}

/// What a session did in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its sound is encoded: what is said in it can be written.
    Prepared,
    Done,
    Over,
}

impl<'m, B: Backend> Live<'m, B> {
    pub(super) fn new(
        model: &'m Voxtral<B>,
        session: Session<'m, B>,
        sound: channel::Receiver<Sound>,
        events: channel::Sender<Event>,
    ) -> Self {
        Self {
            model,
            session,
            sound,
            events,
            pending: VecDeque::new(),
            ahead: Duration::ZERO,
            heard: Instant::now(),
        }
    }

    /// Whether there is sound that is not heard, or nobody listens any more.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty() || !self.sound.is_empty() || self.events.is_closed()
    }

    /// Whether there is sound that was spoken just now.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_behind() && self.ahead.saturating_sub(self.heard.elapsed()) < AHEAD
    }

    pub(super) fn session(&mut self) -> &mut Session<'m, B> {
        &mut self.session
    }

    /// Hears a piece, if there is one.
    pub(super) fn advance(&mut self, metrics: &Metrics) -> Turn {
        if self.events.is_closed() {
            return Turn::Over;
        }
        while self.pending.len() < 2
            && let Ok(sound) = self.sound.try_recv()
        {
            self.pending.push_back(sound);
        }
        let Some(sound) = self.pending.pop_front() else {
            // The other side is gone once nothing can come any more.
            return match self.sound.is_closed() && self.sound.is_empty() {
                true => Turn::Over,
                false => Turn::Done,
            };
        };
        let is_sound = matches!(sound, Sound::Samples(_));
        let heard = alone(|| self.hear(sound, metrics));
        match self.told(heard, metrics) {
            false => Turn::Over,
            true if is_sound => Turn::Prepared,
            true => Turn::Done,
        }
    }

    /// Takes the steps that it has written together with others; whether it goes on.
    pub(super) fn wrote(&mut self, steps: Result<Vec<Step>, Event>, metrics: &Metrics) -> bool {
        let steps = steps.map(|steps| {
            self.tell(steps, metrics);
            None
        });
        self.told(steps, metrics)
    }

    /// Tells of an event, or of the end; whether it goes on.
    fn told(&mut self, outcome: Result<Option<Event>, Event>, metrics: &Metrics) -> bool {
        match outcome {
            Ok(Some(event)) => self.events.try_send(event).is_ok(),
            Ok(None) => !self.events.is_closed() && self.events.capacity() > 0,
            Err(event) => {
                let steps = self.session.take_steps();
                self.tell(steps, metrics);
                let _ = self.events.try_send(event);
                false
            }
        }
    }

    /// At most as much as is computed at once; the rest waits in front of everything else.
    fn hear(&mut self, sound: Sound, metrics: &Metrics) -> Result<Option<Event>, PipelineError> {
        match sound {
            Sound::Samples(mut samples) => {
                let piece = self.session.samples_per_pass();
                if samples.len() > piece {
                    let rest = samples.split_off(piece);
                    self.pending.push_front(Sound::Samples(rest));
                }
                let steps = self.session.prepare(&samples)?;
                let rate = f64::from(self.session.sample_rate());
                let length = Duration::from_secs_f64(samples.len() as f64 / rate);
                metrics.heard(length.as_secs_f64());
                self.ahead = self.ahead.saturating_sub(self.heard.elapsed()) + length;
                self.heard = Instant::now();
                self.tell(steps, metrics);
            }
            Sound::Flush => {
                let steps = self.session.flush()?;
                self.tell(steps, metrics);
            }
            Sound::Finish => {
                let transcript = self.session.finish();
                let steps = self.session.take_steps();
                self.tell(steps, metrics);
                let transcript = transcript?;
                self.session.reset()?;
                return Ok(Some(Event::Transcript(Box::new(transcript))));
            }
            Sound::Begin(options) => {
                self.session = self.model.session(&options)?;
                return Ok(Some(Event::Begun));
            }
        }
        Ok(None)
    }

    fn tell(&mut self, steps: Vec<Step>, metrics: &Metrics) {
        metrics.generated(steps.len());
        for step in steps {
            // One that is not read is noticed by its full channel.
            let _ = self.events.try_send(Event::Step(step));
        }
    }
}
