//! The table, and the same as JSON.

use std::fmt;

use serde::Serialize;

use crate::common::{
    ceilings::{Machine, Rates},
    layers::Stage,
    model::Model,
    session::{Latency, Measured, Memory, Run},
    text::{milliseconds, percent},
    work::Work,
};

/// All that was measured. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: String,
    sound: usize,
    delay: f64,
    token: f64,
    machine: Machine,
    layers: Vec<Row>,
    session: Option<SessionReport>,
}

/// A stage.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    passes: Option<usize>,
    /// The time of a pass, or of the whole stream.
    seconds: f64,
    /// Seconds for a second of sound: 1 is real time.
    real_time: f64,
    /// What the mathematics asks for, and the share of the time that its arithmetic takes at
    /// the machine's peak, and its bytes at that of reading memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<Bounds>,
}

#[derive(Debug, Serialize)]
struct Bounds {
    work: Work,
    arithmetic_share: f64,
    read_share: f64,
}

#[derive(Debug, Serialize)]
struct SessionReport {
    opening: f64,
    streams: Vec<Row>,
    latency: Vec<Latency>,
    memory: Option<Memory>,
}

impl Report {
    pub(crate) fn new(
        model: &Model,
        sound: usize,
        machine: Machine,
        stages: &[Stage],
        session: Option<Measured>,
    ) -> Self {
        let rates = machine.median;
        let token = model.token_seconds();
        let mut layers: Vec<Row> = stages
            .iter()
            .map(|stage| {
                let sound = stage.tokens as f64 * token;
                let passes = Some(stage.passes);
                Row::new(
                    &rates,
                    stage.name.clone(),
                    passes,
                    stage.seconds,
                    sound,
                    stage.work,
                )
            })
            .collect();
        let live = || stages.iter().filter(|stage| stage.live);
        let seconds = live().map(|stage| stage.seconds).sum();
        let work = live().filter_map(|stage| stage.work).sum();
        let name = "a live token: log-mel, encoder, decode step".to_owned();
        layers.push(Row::new(&rates, name, None, seconds, token, Some(work)));
        Self {
            model: model.name.clone(),
            sound,
            delay: model.delay_tokens as f64 * token,
            token,
            layers,
            session: session.map(|session| SessionReport::new(&rates, sound as f64, session)),
            machine,
        }
    }
}

impl Row {
    /// A stage that takes so many seconds for that much sound.
    fn new(
        rates: &Rates,
        name: String,
        passes: Option<usize>,
        seconds: f64,
        sound: f64,
        work: Option<Work>,
    ) -> Self {
        Self {
            name,
            passes,
            seconds,
            real_time: seconds / sound,
            bounds: work.map(|work| Bounds {
                work,
                arithmetic_share: rates.arithmetic(work) / seconds,
                read_share: rates.reading(work) / seconds,
            }),
        }
    }
}

impl SessionReport {
    fn new(rates: &Rates, sound: f64, session: Measured) -> Self {
        let mut streams = Vec::new();
        for file in &session.files {
            streams.extend(stream(rates, sound, file));
        }
        let mut latency = Vec::new();
        for live in session.live {
            streams.extend(stream(rates, sound, &live.run));
            latency.push(live.latency);
        }
        Self {
            opening: session.opening,
            streams,
            latency,
            memory: session.memory,
        }
    }
}

/// The rows of a stream: the whole of it, and its parts.
fn stream(rates: &Rates, sound: f64, run: &Run) -> Vec<Row> {
    let timings = &run.timings;
    let all = run.encoder + run.prefill + run.decode;
    [
        (run.name.clone(), None, run.whole, Some(all)),
        ("  log-mel".to_owned(), None, timings.features, None),
        (
            "  encoder".to_owned(),
            None,
            timings.encoder,
            Some(run.encoder),
        ),
        (
            "  prefill".to_owned(),
            None,
            timings.prefill,
            Some(run.prefill),
        ),
        (
            "  decode steps".to_owned(),
            Some(timings.passes),
            timings.decode,
            Some(run.decode),
        ),
    ]
    .map(|(name, passes, taken, work)| {
        Row::new(rates, name, passes, taken.as_secs_f64(), sound, work)
    })
    .into()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} s of sound, a delay of {:.0} ms",
            self.model,
            self.sound,
            self.delay * 1e3
        )?;
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "arithmetic, read: share of the time that the operations would take at the peak, and \
             one reading of weights and keys at the rate of memory; both medians"
        )?;
        head(f, "layers, median of the passes", "a pass")?;
        self.layers
            .iter()
            .try_for_each(|row| writeln!(f, "{row}"))?;
        match &self.session {
            Some(session) => session.write(f, self.token),
            None => writeln!(f, "\nno tekken.json: no session"),
        }
    }
}

fn head(f: &mut fmt::Formatter<'_>, title: &str, time: &str) -> fmt::Result {
    writeln!(
        f,
        "\n{title:<48} {:>6} {time:>11} {:>12} {:>10} {:>8}",
        "passes", "of real time", "arithmetic", "read"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passes = self.passes.map_or(String::new(), |n| n.to_string());
        let (arithmetic, read) = match &self.bounds {
            Some(bounds) => (percent(bounds.arithmetic_share), percent(bounds.read_share)),
            None => Default::default(),
        };
        let line = format!(
            "{:<48} {passes:>6} {:>11} {:>12} {arithmetic:>10} {read:>8}",
            self.name,
            milliseconds(self.seconds),
            percent(self.real_time),
        );
        f.write_str(line.trim_end())
    }
}

impl SessionReport {
    fn write(&self, f: &mut fmt::Formatter<'_>, token: f64) -> fmt::Result {
        head(f, "a session, with the silence around a stream", "in all")?;
        self.streams
            .iter()
            .try_for_each(|row| writeln!(f, "{row}"))?;
        writeln!(
            f,
            "\n{:<48} {:>6} {:>20} {:>20} {:>11} {:>11}",
            "a token, from its last sample to its text",
            "tokens",
            "median, of a token",
            "p99, of a token",
            "first",
            "look-ahead"
        )?;
        self.latency
            .iter()
            .try_for_each(|latency| latency.write(f, token))?;
        writeln!(f, "\nopening a session: {}", milliseconds(self.opening))?;
        match &self.memory {
            Some(memory) => writeln!(f, "{memory}"),
            None => Ok(()),
        }
    }
}

impl Latency {
    fn write(&self, f: &mut fmt::Formatter<'_>, token: f64) -> fmt::Result {
        let shared = |seconds| format!("{}, {}", milliseconds(seconds), percent(seconds / token));
        writeln!(
            f,
            "{:<48} {:>6} {:>20} {:>20} {:>11} {:>11}",
            format!("pieces of {}", milliseconds(self.piece)),
            self.tokens,
            shared(self.median),
            shared(self.p99),
            milliseconds(self.first),
            milliseconds(self.look_ahead)
        )?;
        match self.push_without_token {
            Some(seconds) => writeln!(
                f,
                "  a push that completes no token: {}",
                milliseconds(seconds)
            ),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "resident: {:.1} MiB, {:.1} with a session, {:.1} behind its stream; at most {:.1}",
            mebibytes(self.before),
            mebibytes(self.opened),
            mebibytes(self.after),
            mebibytes(self.peak)
        )
    }
}
