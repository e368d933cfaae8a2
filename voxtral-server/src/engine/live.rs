//! A live session among those of a model.

use std::collections::VecDeque;

use tokio::sync::mpsc as channel;
use voxtral_pipeline::{Backend, PipelineError, Session, Step, Voxtral};

use super::{Event, Sound, desk::alone};
use crate::metrics::Metrics;

pub(super) struct Live<'m, B: Backend> {
    model: &'m Voxtral<B>,
    session: Session<'m, B>,
    sound: channel::Receiver<Sound>,
    events: channel::Sender<Event>,
    /// What came and is not heard.
    pending: VecDeque<Sound>,
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
        }
    }

    /// Whether there is sound that is not heard, or nobody listens any more.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty() || !self.sound.is_empty() || self.events.is_closed()
    }

    /// Hears a piece, if there is one; whether the session goes on.
    pub(super) fn advance(&mut self, metrics: &Metrics) -> bool {
        if self.events.is_closed() {
            return false;
        }
        while self.pending.len() < 2
            && let Ok(sound) = self.sound.try_recv()
        {
            self.pending.push_back(sound);
        }
        let Some(sound) = self.pending.pop_front() else {
            // The other side is gone once nothing can come any more.
            return !(self.sound.is_closed() && self.sound.is_empty());
        };
        let heard = alone(|| self.hear(sound, metrics));
        let event = match heard {
            Ok(event) => event,
            Err(event) => {
                let steps = self.session.take_steps();
                self.tell(steps, metrics);
                let _ = self.events.try_send(event);
                return false;
            }
        };
        match event {
            Some(event) => self.events.try_send(event).is_ok(),
            None => !self.events.is_closed() && self.events.capacity() > 0,
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
                let steps = self.session.push(&samples)?;
                let rate = f64::from(self.session.sample_rate());
                metrics.heard(samples.len() as f64 / rate);
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
