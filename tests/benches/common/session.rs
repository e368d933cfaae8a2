//! A whole session: files, a live stream in small pieces, and what it holds.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use voxtral_pipeline::{Audio, Session, SessionOptions, Timings, TranscribeOptions, Voxtral};
use voxtral_tokenizer::StreamLayout;

use super::{
    B,
    clock::{median, quantile, time},
    layers::FILE_TOKENS,
    model::{Facts, Model},
    process::{forget_peak, peak, resident},
    work::Work,
};

/// Lengths of the pieces of a live stream.
const PIECES_MS: [u64; 2] = [80, 10];

/// Sessions that are opened to see how long that takes.
const OPENINGS: usize = 5;

/// What is known of sessions.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) opening: f64,
    /// With tokens that were guessed, and one token at a time.
    pub(crate) files: [Run; 2],
    pub(crate) live: Vec<Live>,
    pub(crate) memory: Option<Memory>,
}

/// A stream from beginning to end.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    /// From the first sample to the transcript.
    pub(crate) whole: Duration,
    pub(crate) timings: Timings,
    /// Of the stream with the silence around it.
    pub(crate) encoder: Work,
    pub(crate) prefill: Work,
    pub(crate) decode: Work,
}

/// A stream in pieces.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) run: Run,
    pub(crate) latency: Latency,
}

/// How long a token takes from the call of the push with the last sample that it needs to the
/// return of that push, which has the token. In seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Of a piece.
    pub(crate) piece: f64,
    /// Tokens that were measured: all but the first, with which the silence before the stream is
    /// computed, and those of its end.
    pub(crate) tokens: usize,
    pub(crate) first: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    /// The median of pushes that complete no token.
    pub(crate) push_without_token: Option<f64>,
    /// Sound that was there when a token came, at most, behind the sound of the token itself and
    /// the delay.
    pub(crate) look_ahead: f64,
}

/// Memory of the process, in bytes (`VmRSS` and `VmHWM` of Linux).
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// Resident before the session is opened, with the weights that were touched so far.
    pub(crate) before: u64,
    pub(crate) opened: u64,
    /// After the stream, in the open session.
    pub(crate) after: u64,
    /// The most there was meanwhile.
    pub(crate) peak: u64,
}

/// Measures sessions.
pub(crate) fn measure(
    model: &Model,
    whole: &Voxtral<B>,
    sound: Vec<f32>,
) -> anyhow::Result<Measured> {
    let options = SessionOptions {
        delay: model.delay,
        discard: true,
        ..Default::default()
    };
    let memory = memory(whole, &options, &sound)?;
    let openings = (0..OPENINGS)
        .map(|_| {
            let (taken, session) = time(|| whole.session(&options));
            session.map(|_| taken)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let live = PIECES_MS
        .map(|ms| live(model, whole, &options, &sound, ms))
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    Ok(Measured {
        opening: median(&openings),
        files: [
            file(model, whole, sound.clone(), false)?,
            file(model, whole, sound, true)?,
        ],
        live,
        memory,
    })
}

/// A file, as fast as it goes, with guesses or token by token.
fn file(
    model: &Model,
    whole: &Voxtral<B>,
    sound: Vec<f32>,
    one_by_one: bool,
) -> anyhow::Result<Run> {
    let samples = sound.len();
    let audio = Audio::new(sound, model.sample_rate())?;
    let options = TranscribeOptions {
        delay: model.delay,
        one_by_one,
        ..Default::default()
    };
    let (taken, transcript) = time(|| whole.transcribe(&audio, &options));
    let timings = transcript?.timings;
    let name = if one_by_one {
        "file, token by token"
    } else {
        "file"
    };
    run(
        model,
        whole,
        name.to_owned(),
        samples,
        FILE_TOKENS,
        (taken, timings),
    )
}

fn live(
    model: &Model,
    whole: &Voxtral<B>,
    options: &SessionOptions,
    sound: &[f32],
    ms: u64,
) -> anyhow::Result<Live> {
    let rate = u64::from(model.sample_rate());
    let piece = (ms * rate / 1000) as usize;
    let mut session = whole.session(options)?;
    let pushes = Pushes::of(&mut session, sound, piece)?;
    let (ending, transcript) = time(|| session.finish());
    let latency = pushes.latency(model, piece);
    let taken = pushes.0.iter().map(|push| push.taken).sum::<Duration>() + ending;
    let name = format!("live, pieces of {ms} ms");
    let timings = transcript?.timings;
    Ok(Live {
        run: run(model, whole, name, sound.len(), 1, (taken, timings))?,
        latency,
    })
}

/// What was measured, beside the work of a stream of so many samples whose encoder takes so many
/// tokens at a time.
fn run(
    model: &Model,
    whole: &Voxtral<B>,
    name: String,
    samples: usize,
    step: usize,
    (taken, timings): (Duration, Timings),
) -> anyhow::Result<Run> {
    let [encoder, prefill, decode] = demanded(model, whole, samples, step, timings.passes)?;
    Ok(Run {
        name,
        whole: taken,
        timings,
        encoder,
        prefill,
        decode,
    })
}

/// What encoder, prompt and steps of a stream of so many samples demand, whose encoder takes so
/// many tokens at a time and whose decoder makes so many passes.
pub(crate) fn demanded(
    model: &Facts,
    whole: &Voxtral<B>,
    samples: usize,
    step: usize,
    passes: usize,
) -> anyhow::Result<[Work; 3]> {
    let layout = layout(model, whole)?;
    let sound = samples.div_ceil(layout.samples_per_token);
    let tokens = layout.left_pad_tokens + sound + layout.right_pad_tokens;
    // The beginning, the silence and the delay.
    let prompt = 1 + layout.left_pad_tokens + layout.delay_tokens;
    let demands = &model.demands;
    let pieces = (0..tokens).step_by(step);
    Ok([
        pieces
            .map(|start| demands.encoder(start..tokens.min(start + step)))
            .sum(),
        demands.decoder(0..prompt),
        demands.decoder_passes(prompt..tokens, passes),
    ])
}

fn layout(model: &Facts, whole: &Voxtral<B>) -> anyhow::Result<StreamLayout> {
    let audio = whole.tokenizer().audio();
    let audio = audio.context("the tokenizer says nothing of the stream's layout")?;
    Ok(audio.stream(model.delay)?)
}

/// A push, and the tokens that it gave.
struct Push {
    taken: Duration,
    tokens: usize,
}

struct Pushes(Vec<Push>);

impl Pushes {
    /// Pushes sound in pieces, one behind the other.
    fn of(session: &mut Session<'_, B>, sound: &[f32], piece: usize) -> anyhow::Result<Self> {
        let pushes = sound.chunks(piece).map(|samples| {
            let (taken, steps) = time(|| session.push(samples));
            let tokens = steps?.len();
            Ok(Push { taken, tokens })
        });
        Ok(Self(pushes.collect::<anyhow::Result<_>>()?))
    }

    fn latency(&self, model: &Model, piece: usize) -> Latency {
        let mut of_tokens = Vec::new();
        let mut without = Vec::new();
        let mut look_ahead = 0.0_f64;
        let seconds = |samples: usize| samples as f64 / f64::from(model.sample_rate());
        for (i, push) in self.0.iter().enumerate() {
            // Before the first token, pushes encode the sound of the delay.
            if push.tokens == 0 && !of_tokens.is_empty() {
                without.push(push.taken.as_secs_f64());
            }
            for _ in 0..push.tokens {
                of_tokens.push(push.taken.as_secs_f64());
                let own = (of_tokens.len() + model.delay_tokens) * model.token_samples();
                let ahead = seconds((i + 1) * piece) - seconds(own);
                look_ahead = look_ahead.max(ahead);
            }
        }
        let (first, others) = match of_tokens.split_first() {
            Some((first, others)) => (*first, others),
            None => (f64::NAN, &[][..]),
        };
        Latency {
            piece: seconds(piece),
            tokens: others.len(),
            first,
            median: quantile(others, 0.5),
            p99: quantile(others, 0.99),
            push_without_token: (!without.is_empty()).then(|| quantile(&without, 0.5)),
            look_ahead,
        }
    }
}

/// Memory around a live stream, where the system tells it.
fn memory(
    whole: &Voxtral<B>,
    options: &SessionOptions,
    sound: &[f32],
) -> anyhow::Result<Option<Memory>> {
    // Other measurements held more; where the system refuses, the peak is theirs.
    forget_peak();
    let before = resident();
    let mut session = whole.session(options)?;
    let opened = resident();
    Pushes::of(&mut session, sound, whole.sample_rate() as usize / 10)?;
    let after = resident();
    let peak = peak();
    Ok((|| {
        Some(Memory {
            before: before?.all,
            opened: opened?.all,
            after: after?.all,
            peak: peak?,
        })
    })())
}
