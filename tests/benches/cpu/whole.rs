//! Loading, and whole transcriptions through the library.

use std::time::Duration;

use anyhow::{Context, bail};
use voxtral_checkpoint::{Checkpoint, config::Position};
use voxtral_encoder::STEM_STRIDE;
use voxtral_pipeline::{Audio, Demo, Timings, TranscribeOptions, Voxtral};
use voxtral_tokenizer::prompt;

use crate::{
    bench::{Bench, Times},
    common::{
        B,
        clock::time,
        layers::FILE_TOKENS,
        model::{Facts, Source, test_file},
        session,
        work::Work,
    },
    table::{Rate, Row},
};

/// Real speech of eleven seconds, and the tokens that are made of it: about as many as its words
/// have. Random weights would never end.
const CLIP: (&str, usize) = ("data/audio/jfk.wav", 27);

/// The same again and again for a minute, likewise.
const MINUTE: (usize, usize) = (60, 150);

/// Opens and loads the model, as any command does first.
pub(crate) fn load(bench: &mut Bench, source: &Source) -> anyhow::Result<f64> {
    let limits = bench.limits.part(4);
    let times = bench.turns("loading", limits, || {
        let (taken, model) = time(|| -> anyhow::Result<_> {
            let (checkpoint, tokenizer) = source.open(Demo::Clips)?;
            match tokenizer {
                Some(tokenizer) => source.whole("", &checkpoint, tokenizer).map(Some),
                None => Ok(None),
            }
        });
        model?.context(NO_TOKENIZER)?;
        Ok(taken)
    })?;
    bench.rows.push(Row {
        key: "load".to_owned(),
        name: "open and load".to_owned(),
        times,
        rate: None,
        work: None,
        note: None,
    });
    Ok(times.best)
}

pub(crate) const NO_TOKENIZER: &str = "the checkpoint has no tekken.json, which loading and clips \
    need: make one with `cargo xtask random-checkpoint --tekken demo`, or leave out the rows `load` \
    and `clips`";

/// Clips of eleven seconds and of a minute, from samples to text.
pub(crate) fn clips(
    bench: &mut Bench,
    model: &Facts,
    whole: &Voxtral<B>,
    loading: Option<f64>,
) -> anyhow::Result<()> {
    let (file, tokens) = CLIP;
    let clip = whole.read_audio(test_file(file))?;
    transcribe(bench, model, whole, &clip, tokens, loading)?;
    let (seconds, tokens) = MINUTE;
    let rate = clip.sample_rate();
    let samples = clip.samples().iter().copied().cycle();
    let samples = samples.take(seconds * rate as usize).collect();
    let minute = Audio::new(samples, rate)?;
    transcribe(bench, model, whole, &minute, tokens, loading)
}

fn transcribe(
    bench: &mut Bench,
    model: &Facts,
    whole: &Voxtral<B>,
    clip: &Audio,
    tokens: usize,
    loading: Option<f64>,
) -> anyhow::Result<()> {
    let seconds = clip.duration().as_secs_f64();
    let options = TranscribeOptions {
        // A Realtime model makes as many as the sound is long.
        max_new_tokens: (!model.streams()).then_some(tokens),
        ..Default::default()
    };
    let mut parts: Vec<Timings> = Vec::new();
    let (mut made, mut passes) = (0, 0);
    let name = format!("transcribe {seconds:.0} s");
    let times = bench.turns(&name, bench.limits, || {
        let (taken, transcript) = time(|| whole.transcribe(clip, &options));
        let transcript = transcript?;
        made = transcript.tokens.len();
        passes = transcript.timings.passes;
        parts.push(transcript.timings);
        Ok(taken)
    })?;
    let [encoder, prefill, decode] = demanded(model, whole, clip, made, passes)?;
    let real_time = |times: Times, key: &str, name: String, work, note| Row {
        key: format!("clip-{seconds:.0}{key}"),
        name,
        times,
        rate: Some(Rate::Sound(seconds)),
        work,
        note,
    };
    let with_loading = loading.map_or(String::new(), |loading| {
        format!(", {:.4} RTF with loading", (times.best + loading) / seconds)
    });
    bench.rows.push(real_time(
        times,
        "",
        name,
        Some(encoder + prefill + decode),
        Some(format!("{made} tokens{with_loading}")),
    ));
    let part =
        |taken: fn(&Timings) -> Duration| Times::of(&parts.iter().map(taken).collect::<Vec<_>>());
    for (key, name, times, work) in [
        ("-mel", "  log-mel", part(|parts| parts.features), None),
        (
            "-encoder",
            "  encoder",
            part(|parts| parts.encoder),
            Some(encoder),
        ),
        (
            "-prefill",
            "  prefill",
            part(|parts| parts.prefill),
            Some(prefill),
        ),
        (
            "-decode",
            "  decode steps",
            part(|parts| parts.decode),
            Some(decode),
        ),
    ] {
        let name = name.to_owned();
        bench.rows.push(real_time(times, key, name, work, None));
    }
    Ok(())
}

/// What encoder, prompt and steps of a clip demand.
fn demanded(
    model: &Facts,
    whole: &Voxtral<B>,
    clip: &Audio,
    made: usize,
    passes: usize,
) -> anyhow::Result<[Work; 3]> {
    let rate = u64::from(clip.sample_rate());
    let samples = clip.samples().len() as u64 * u64::from(whole.sample_rate()) / rate;
    if model.streams() {
        return session::demanded(model, whole, samples as usize, FILE_TOKENS, passes);
    }
    let demands = &model.demands;
    let Position::Table { max_positions } = model.config.encoder.position else {
        bail!("the encoder takes no windows");
    };
    let frames = max_positions * STEM_STRIDE;
    let windows = (samples as usize).div_ceil(frames * model.config.features.hop_length);
    let tokens = frames / model.token_frames();
    let prompt = prompt::transcription(whole.tokenizer(), windows * tokens, None)?.len();
    // The first token comes of the prompt; the last is not run.
    let steps = prompt..prompt + made.saturating_sub(1);
    Ok([
        demands.encoder(0..tokens).times(windows as f64),
        demands.decoder(0..prompt),
        steps.map(|at| demands.decoder(at..at + 1)).sum(),
    ])
}

/// Reads a byte of every page of the weights, so that no later row pays for it.
pub(crate) fn touch(checkpoint: &Checkpoint) -> anyhow::Result<()> {
    const PAGE: usize = 4096;
    for name in checkpoint.names() {
        let Some(info) = checkpoint.info(name) else {
            continue;
        };
        let view = checkpoint.tensor(name, &info.shape)?;
        let bytes = view.data.iter().step_by(PAGE);
        std::hint::black_box(bytes.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    }
    Ok(())
}
