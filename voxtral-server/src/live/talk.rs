//! What is under way between a client and the engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use voxtral_audio::Activity;
use voxtral_pipeline::{ContextBias, SamplingOptions, SessionOptions};

use super::{encoding::Encoding, new_id};
use crate::{
    ServerError,
    app::App,
    engine::{Event, LiveJob, ModelInfo, Progress, Sound},
};

/// What the sound is like, and how it is heard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setup {
    pub(super) encoding: Encoding,
    /// Samples per second.
    pub(super) rate: u32,
    /// How far the text follows the sound; the model's own where it is not said.
    pub(super) delay: Option<Duration>,
    pub(super) bias: Option<ContextBias>,
}

impl Setup {
    /// 16 bits at this rate.
    pub(super) fn at(rate: u32) -> Self {
        Self {
            encoding: Encoding::I16,
            rate,
            delay: None,
            bias: None,
        }
    }

    fn options(&self) -> SessionOptions {
        SessionOptions {
            delay: self.delay,
            sample_rate: Some(self.rate),
            sampling: SamplingOptions {
                context_bias: self.bias.clone(),
                ..SamplingOptions::default()
            },
            ..SessionOptions::default()
        }
    }
}

/// Phrases of a field, which may have commas between them.
pub(super) fn bias(field: &str, phrases: &[String]) -> Result<Option<ContextBias>, ServerError> {
    if phrases.is_empty() {
        return Ok(None);
    }
    let phrases = phrases.iter().flat_map(|list| list.split(','));
    let bias = ContextBias::new(phrases, ContextBias::DEFAULT_STRENGTH);
    bias.map(Some)
        .map_err(|error| ServerError::unable(field, error.to_string()))
}

/// Sound from its first sample to its transcript.
#[derive(Debug)]
struct Utterance {
    id: String,
    /// Whether it has any sound.
    heard: bool,
    /// Its samples that are kept, and how many came before them.
    kept: VecDeque<f32>,
    dropped: usize,
    /// Whether nobody wants to know of it any more.
    forgotten: bool,
}

impl Utterance {
    fn new() -> Self {
        Self {
            id: new_id("item_"),
            heard: false,
            kept: VecDeque::new(),
            dropped: 0,
            forgotten: false,
        }
    }
}

/// A client's side of a live session.
#[derive(Debug)]
pub(super) struct Talk {
    app: Arc<App>,
    model: Option<usize>,
    setup: Setup,
    job: Option<LiveJob>,
    /// Sound that the engine has no room for yet.
    sound: VecDeque<Sound>,
    /// Those that are not written down yet, and behind them the one that sound comes for.
    utterances: VecDeque<Utterance>,
    /// The sound that was cut off before the last of them.
    passed: Duration,
    /// Whether sound is kept, so that utterances can be cut.
    keeps: bool,
}

impl Talk {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self {
            app,
            model: None,
            setup: Setup::at(16_000),
            job: None,
            sound: VecDeque::new(),
            utterances: VecDeque::from([Utterance::new()]),
            passed: Duration::ZERO,
            keeps: false,
        }
    }

    /// The model, once it is chosen.
    pub(super) fn model(&self) -> Option<&ModelInfo> {
        self.model.map(|at| &self.app.engine.models()[at])
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The model of this name, or the first that takes streams, which is then heard with.
    fn find(&self, name: Option<&str>) -> Result<usize, ServerError> {
        let engine = &self.app.engine;
        let at = engine.model(name, |model| model.is_streaming)?;
        let model = &engine.models()[at];
        if !model.is_streaming {
            let reason = format!(
                "`{}` takes whole files, not live sound: name a Realtime model",
                name.unwrap_or(&model.names[0])
            );
            return Err(ServerError::unable("model", reason));
        }
        Ok(at)
    }

    /// Chooses a model and how it hears, both at once or neither.
    pub(super) fn choose(&mut self, name: Option<&str>, setup: Setup) -> Result<(), ServerError> {
        let at = self.find(name)?;
        if self.model == Some(at) && self.setup == setup {
            return Ok(());
        }
        if self.is_heard() || (self.model != Some(at) && self.utterances.len() > 1) {
            return Err(ServerError::Premature {
                event: "session.update",
                expected: "end the utterance first, and wait for its transcript",
            });
        }
        let options = setup.options();
        let vocabulary = &self.app.engine.models()[at].vocabulary;
        vocabulary.check_session(&options)?;
        if self.model != Some(at) {
            self.hang_up();
        }
        self.model = Some(at);
        self.setup = setup;
        self.begin();
        Ok(())
    }

    /// Leaves the engine.
    fn hang_up(&mut self) {
        self.job = None;
        self.sound.clear();
        self.utterances = VecDeque::from([Utterance::new()]);
    }

    /// Lets what comes be a stream of its own.
    fn begin(&mut self) {
        if self.job.is_some() {
            let options = Box::new(self.setup.options());
            self.sound.push_back(Sound::Begin(options));
            if let Some(last) = self.utterances.back_mut() {
                last.forgotten = true;
            }
            self.utterances.push_back(Utterance::new());
        }
    }

    /// The way to the engine, which begins with what is said first.
    fn call(&mut self) -> Result<(), ServerError> {
        if self.job.is_none() {
            let model = match self.model {
                Some(model) => model,
                None => self.find(None)?,
            };
            self.model = Some(model);
            let options = self.setup.options();
            self.job = Some(self.app.engine.listen(model, options)?);
        }
        Ok(())
    }

    /// Takes sound, in base64.
    pub(super) fn hear(&mut self, audio: &str) -> Result<(), ServerError> {
        let samples = self.setup.encoding.decode(audio)?;
        if samples.is_empty() {
            return Ok(());
        }
        self.call()?;
        self.push(&samples);
        Ok(())
    }

    /// Adds samples to the utterance.
    fn push(&mut self, samples: &[f32]) {
        // A second at once, so that what waits for the model is little.
        let pieces = samples.chunks(self.setup.rate as usize);
        self.sound
            .extend(pieces.map(|piece| Sound::Samples(piece.to_vec())));
        if let Some(last) = self.utterances.back_mut() {
            last.heard |= !samples.is_empty();
            if self.keeps {
                last.kept.extend(samples);
            } else {
                last.dropped += samples.len();
            }
        }
    }

    /// Whether sound is kept, so that [`cut`](Self::cut) can be called.
    pub(super) fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    fn samples(&self, time: Duration) -> usize {
        (time.as_secs_f64() * f64::from(self.setup.rate)) as usize
    }

    /// Keeps no sound of the utterance before this time in it.
    pub(super) fn drop_before(&mut self, time: Duration) {
        let until = self.samples(time);
        if let Some(last) = self.utterances.back_mut() {
            let count = until.saturating_sub(last.dropped).min(last.kept.len());
            last.kept.drain(..count);
            last.dropped += count;
        }
    }

    /// The middle of a pause in the utterance's sound: one of this length at least, which is there until
    /// behind `written` and has lasted as long at `now`.
    pub(super) fn pause(
        &mut self,
        written: Duration,
        now: Duration,
        length: Duration,
    ) -> Option<Duration> {
        let rate = self.setup.rate;
        let [written, now, length] = [written, now, length].map(|time| self.samples(time));
        let last = self.utterances.back_mut()?;
        let samples = last.kept.make_contiguous();
        let activity = Activity::of(samples, rate);
        let ends = activity.sound().iter().map(|sound| sound.start);
        let starts = activity.sound().iter().map(|sound| sound.end);
        let pauses = std::iter::once(0)
            .chain(starts)
            .zip(ends.chain([samples.len()]))
            .map(|(start, end)| (last.dropped + start, last.dropped + end));
        let suits = |(start, end): &(usize, usize)| {
            end - start >= length && *end > written && start + length <= now
        };
        let (start, _) = pauses.filter(suits).last()?;
        let cut = (start + length / 2) as f64 / f64::from(rate);
        Some(Duration::from_secs_f64(cut))
    }

    /// Ends the utterance at this time in it, up to which it is written: no more is told of it, and
    /// the sound behind is heard as the next.
    pub(super) fn cut(&mut self, time: Duration) {
        self.drop_before(time);
        let rest = self
            .utterances
            .back_mut()
            .map(|last| std::mem::take(&mut last.kept));
        // What the engine has not got is kept too.
        self.sound.clear();
        self.begin();
        self.push(rest.unwrap_or_default().make_contiguous());
        self.passed += time;
    }

    /// Brings out the words behind the delay.
    pub(super) fn flush(&mut self) -> Result<(), ServerError> {
        if self.is_heard() {
            self.sound.push_back(Sound::Flush);
        }
        Ok(())
    }

    /// Ends the utterance, whose transcript will come, and gives its id.
    pub(super) fn finish(&mut self) -> Result<String, ServerError> {
        self.call()?;
        self.sound.push_back(Sound::Finish);
        self.pass();
        let id = self.id().to_owned();
        self.utterances.push_back(Utterance::new());
        Ok(id)
    }

    /// Forgets the utterance.
    pub(super) fn clear(&mut self) {
        if self.is_heard() {
            self.pass();
            self.begin();
        }
    }

    /// Counts the sound of an utterance that ends.
    fn pass(&mut self) {
        if let Some(last) = self.utterances.back_mut() {
            let samples = last.dropped + std::mem::take(&mut last.kept).len();
            self.passed += Duration::from_secs_f64(samples as f64 / f64::from(self.setup.rate));
        }
    }

    /// The id of the utterance that sound comes for.
    pub(super) fn id(&self) -> &str {
        self.utterances.back().map_or("", |last| &last.id)
    }

    /// The sound before the utterance that sound comes for.
    pub(super) fn passed(&self) -> Duration {
        self.passed
    }

    /// Whether there is sound that was not ended.
    pub(super) fn is_heard(&self) -> bool {
        self.utterances.back().is_some_and(|last| last.heard)
    }

    /// Whether more may be said.
    pub(super) fn has_room(&self) -> bool {
        self.sound.is_empty()
    }

    /// Whether nothing is heard and no transcript is awaited.
    pub(super) fn is_silent(&self) -> bool {
        self.utterances.len() == 1 && !self.is_heard()
    }

    /// Gives sound to the engine or an event of it; the id is that of the event's utterance.
    /// Dropped before it is ready, it has done nothing.
    pub(super) async fn advance(&mut self) -> Option<Result<(Event, String), ServerError>> {
        let Some(job) = &mut self.job else {
            return std::future::pending().await;
        };
        let event = match job.advance(&mut self.sound).await {
            Progress::Taken => return None,
            Progress::Event(event) => event,
            Progress::Over => {
                self.hang_up();
                return Some(Err(match self.app.engine.is_alive() {
                    true => ServerError::Unread,
                    false => ServerError::Stopping,
                }));
            }
        };
        let id = self.utterances.front().map(|first| first.id.clone());
        let forgotten = self.utterances.front().is_some_and(|first| first.forgotten);
        match event {
            Event::Transcript(_) | Event::Begun => drop(self.utterances.pop_front()),
            Event::Failed(_) | Event::Crashed => self.hang_up(),
            _ if forgotten => return None,
            _ => {}
        }
        Some(Ok((event, id.unwrap_or_default())))
    }
}
