//! What a checkpoint says.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use indicatif::HumanBytes;
use voxtral_checkpoint::{
    Checkpoint,
    config::{DecoderConfig, EncoderConfig, Fusion, Mask, ModelConfig, Position},
};
use voxtral_hub::{HubBuilder, HubError, ModelSource};
use voxtral_pipeline::Demo;

use crate::output;

/// Prints what the files say; fails if the checkpoint is not whole.
pub(super) fn run(model: &str) -> Result<ExitCode> {
    let (checkpoint, place) = open(model)?;
    let problems = problems(&checkpoint);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name:<11} {value}");
    line("model", model)?;
    line("files", &place)?;
    line("form", &checkpoint.form().to_string())?;
    for (name, value) in describe(checkpoint.config()) {
        line(name, &value)?;
    }
    line("tensors", &checkpoint.num_tensors().to_string())?;
    line("parameters", &checkpoint.num_parameters().to_string())?;
    let bytes = checkpoint.total_bytes();
    line("size", &format!("{} ({bytes} bytes)", HumanBytes(bytes)))?;
    line("precision", &precisions(&checkpoint))?;
    line("bits", &bits(&checkpoint))?;
    for problem in &problems {
        line("problem", problem)?;
    }
    if problems.is_empty() {
        line("missing", "nothing")?;
    }
    output::print(&text)?;
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => bail!("`{model}` cannot be used: mend the problem above"),
        count => bail!("`{model}` cannot be used: mend the {count} problems above"),
    }
}

/// Opens a checkpoint without fetching anything.
fn open(model: &str) -> Result<(Checkpoint, String)> {
    if let Some(demo) = Demo::named(model) {
        let (checkpoint, _) = demo.load()?;
        return Ok((checkpoint, "embedded in the program".to_owned()));
    }
    let source: ModelSource = model.parse()?;
    let hub = HubBuilder::from_env().offline(true).build()?;
    let folder = match hub.resolve(&source, &mut |_| {}) {
        Err(HubError::Offline { cache, lacks, .. }) => bail!(
            "`{source}` is not complete in the cache `{}`, which lacks `{}`: fetch it first, with \
             `voxtral transcribe FILE --model {model}`",
            cache.display(),
            lacks.join("`, `")
        ),
        resolved => resolved?,
    };
    Ok((Checkpoint::open(&folder)?, folder.display().to_string()))
}

/// Everything that keeps the checkpoint from being used.
fn problems(checkpoint: &Checkpoint) -> Vec<String> {
    let missing = checkpoint.missing().into_iter();
    let surplus = checkpoint.surplus().iter();
    let misshapen = checkpoint.misshapen().into_iter();
    let mut problems: Vec<String> = missing
        .map(|name| format!("tensor {name} is missing"))
        .chain(misshapen.map(|error| error.to_string()))
        .chain(surplus.map(|name| format!("tensor `{name}` belongs to no part of the model")))
        .collect();
    let tokenizer = checkpoint.dir().map(|dir| dir.join("tekken.json"));
    if tokenizer.is_some_and(|path: std::path::PathBuf| !Path::new(&path).is_file()) {
        problems.push("tekken.json, the tokenizer, is missing".to_owned());
    }
    problems
}

/// The configuration, a line for each part.
fn describe(config: &ModelConfig) -> Vec<(&'static str, String)> {
    let features = &config.features;
    let kind = match config.fusion {
        Fusion::Splice { .. } => "offline: audio takes the place of tokens in the prompt",
        Fusion::Sum { .. } => "streaming: audio is added at every step",
    };
    vec![
        ("kind", kind.to_owned()),
        (
            "features",
            format!(
                "{} mel bins at {} Hz, window {}, hop {}",
                features.num_mel_bins,
                features.sample_rate,
                features.window_size,
                features.hop_length
            ),
        ),
        ("encoder", describe_encoder(&config.encoder)),
        (
            "projector",
            format!(
                "{} frames to one embedding, {} to {}",
                config.projector.downsample,
                config.projector.input_size,
                config.projector.output_size
            ),
        ),
        ("decoder", describe_decoder(&config.decoder)),
    ]
}

fn describe_encoder(encoder: &EncoderConfig) -> String {
    let position = match encoder.position {
        Position::Table { max_positions } => format!("{max_positions} positions"),
        Position::Rope { theta } => format!("RoPE base {theta:e}"),
    };
    format!(
        "{} layers of width {}, {} heads of {}, MLP {}, {position}{}",
        encoder.num_layers,
        encoder.hidden_size,
        encoder.attention.num_heads,
        encoder.attention.head_dim,
        encoder.intermediate_size,
        window(encoder.mask),
    )
}

fn describe_decoder(decoder: &DecoderConfig) -> String {
    format!(
        "{} layers of width {}, {} heads of {} ({} for keys), MLP {}, vocabulary {}{}, \
         RoPE base {:e}, epsilon {:e}{}",
        decoder.num_layers,
        decoder.hidden_size,
        decoder.attention.num_heads,
        decoder.attention.head_dim,
        decoder.attention.num_kv_heads,
        decoder.intermediate_size,
        decoder.vocab_size,
        if decoder.tied_head { " (tied)" } else { "" },
        decoder.rope_theta,
        decoder.norm_eps,
        window(decoder.mask),
    )
}

fn window(mask: Mask) -> String {
    match mask {
        Mask::SlidingWindow(size) => format!(", sliding window {size}"),
        Mask::Full | Mask::Causal => String::new(),
    }
}

/// How many tensors and bytes are stored in each precision, what takes most first.
pub(crate) fn precisions(checkpoint: &Checkpoint) -> String {
    let parts = checkpoint.formats().into_iter().map(|share| {
        let (count, bytes) = (share.num_tensors, HumanBytes(share.bytes));
        let plural = if count == 1 { "" } else { "s" };
        format!("{} ({count} tensor{plural}, {bytes})", share.name)
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// What a weight takes on average.
pub(crate) fn bits(checkpoint: &Checkpoint) -> String {
    format!("{:.2} a weight", checkpoint.bits_per_parameter())
}
