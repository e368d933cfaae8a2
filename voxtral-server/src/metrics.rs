//! Figures for Prometheus, in its text format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use voxtral_pipeline::{Answer, Transcript};

/// Which requests a count is of.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Route {
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) status: u16,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Route, Counter>,
    pub(crate) refused: Counter,
    audio: Counter<f64, AtomicU64>,
    tokens: Counter,
    computed: Counter<f64, AtomicU64>,
    waits: Histogram,
    times: Histogram,
    pub(crate) first_byte: Histogram,
    real_time_factor: Histogram,
    queue: Gauge,
    running: Gauge,
    sessions: Gauge,
    /// Milliseconds that a request takes, of late.
    usual: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::with_prefix("voxtral"),
            requests: Family::default(),
            refused: Counter::default(),
            audio: Counter::default(),
            tokens: Counter::default(),
            computed: Counter::default(),
            waits: seconds(),
            times: seconds(),
            first_byte: seconds(),
            real_time_factor: Histogram::new(exponential_buckets(0.002, 2.0, 16)),
            queue: Gauge::default(),
            running: Gauge::default(),
            sessions: Gauge::default(),
            usual: AtomicU64::new(0),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests that were answered",
            self.requests.clone(),
        );
        registry.register(
            "refused",
            "Requests for which there was no room",
            self.refused.clone(),
        );
        registry.register_with_unit(
            "audio",
            "Length of the audio that was heard",
            Unit::Seconds,
            self.audio.clone(),
        );
        registry.register("tokens", "Tokens that were generated", self.tokens.clone());
        registry.register_with_unit(
            "computing",
            "Time that the model was at work",
            Unit::Seconds,
            self.computed.clone(),
        );
        registry.register_with_unit(
            "wait",
            "Time from the arrival of a request to its beginning",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register_with_unit(
            "request",
            "Time from the arrival of a request to its end",
            Unit::Seconds,
            self.times.clone(),
        );
        registry.register_with_unit(
            "response_start",
            "Time from the first byte of a request to the first of its answer",
            Unit::Seconds,
            self.first_byte.clone(),
        );
        registry.register(
            "real_time_factor",
            "Time that a transcription took, by the length of its audio",
            self.real_time_factor.clone(),
        );
        registry.register("queue", "Requests that wait", self.queue.clone());
        registry.register(
            "running",
            "Requests that are computed",
            self.running.clone(),
        );
        registry.register("sessions", "Live sessions", self.sessions.clone());
    }

    /// A request's wait is over.
    pub(crate) fn waited(&self, wait: Duration) {
        self.waits.observe(wait.as_secs_f64());
    }

    /// A request is done with.
    pub(crate) fn finished(&self, taken: Duration) {
        self.times.observe(taken.as_secs_f64());
        let (old, new) = (self.usual.load(Ordering::Relaxed), taken.as_millis() as u64);
        let mean = if old == 0 { new } else { (7 * old + new) / 8 };
        self.usual.store(mean, Ordering::Relaxed);
    }

    /// How long a request takes, of late.
    pub(crate) fn usual_time(&self) -> Duration {
        Duration::from_millis(self.usual.load(Ordering::Relaxed))
    }

    pub(crate) fn computed(&self, time: Duration) {
        self.computed.inc_by(time.as_secs_f64());
    }

    pub(crate) fn transcribed(&self, transcript: &Transcript) {
        let length = transcript.duration.as_secs_f64();
        self.heard(length);
        self.generated(transcript.tokens.len());
        let timings = &transcript.timings;
        let taken = timings.features + timings.encoder + timings.prefill + timings.decode;
        if length > 0.0 {
            self.real_time_factor.observe(taken.as_secs_f64() / length);
        }
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        self.heard(answer.usage.audio.as_secs_f64());
        self.generated(answer.usage.completion_tokens);
    }

    /// Audio in seconds.
    pub(crate) fn heard(&self, seconds: f64) {
        self.audio.inc_by(seconds);
    }

    pub(crate) fn generated(&self, tokens: usize) {
        self.tokens.inc_by(tokens as u64);
    }

    /// All of it, with how many wait, are computed and speak.
    pub(crate) fn text(&self, (queue, running, sessions): (usize, usize, usize)) -> String {
        self.queue.set(queue as i64);
        self.running.set(running as i64);
        self.sessions.set(sessions as i64);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
