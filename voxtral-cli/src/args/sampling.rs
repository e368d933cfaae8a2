//! How tokens are chosen.

use std::collections::BTreeMap;

use clap::{Args, error::ErrorKind};
use voxtral_pipeline::{PipelineError, SamplingOptions};

/// The options of every command that makes tokens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0, which is usual for transcripts, takes the likeliest token; above it, tokens are drawn at
    /// random.
    #[arg(
        long,
        value_name = "T",
        value_parser = number(|options, value| options.temperature = value),
        allow_negative_numbers = true
    )]
    temperature: Option<f32>,
    /// Draw from the likeliest tokens that have this much probability together, up to 1.
    #[arg(
        long,
        value_name = "P",
        value_parser = number(|options, value| options.top_p = Some(value)),
        allow_negative_numbers = true
    )]
    top_p: Option<f32>,
    /// Draw from so many of the likeliest tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Draw from tokens at least this many times as likely as the likeliest, 0 to 1.
    #[arg(
        long,
        value_name = "P",
        value_parser = number(|options, value| options.min_p = Some(value)),
        allow_negative_numbers = true
    )]
    min_p: Option<f32>,
    /// Divide the scores of tokens that occurred, in the prompt too; 1 changes nothing.
    #[arg(
        long,
        value_name = "X",
        value_parser = number(|options, value| options.repetition_penalty = value),
        allow_negative_numbers = true
    )]
    repetition_penalty: Option<f32>,
    /// Take this off the scores of tokens that were written, -2 to 2.
    #[arg(
        long,
        value_name = "X",
        value_parser = number(|options, value| options.presence_penalty = value),
        allow_negative_numbers = true
    )]
    presence_penalty: Option<f32>,
    /// Take this off the score of a token for each time that it was written, -2 to 2.
    #[arg(
        long,
        value_name = "X",
        value_parser = number(|options, value| options.frequency_penalty = value),
        allow_negative_numbers = true
    )]
    frequency_penalty: Option<f32>,
    /// Seeds the draws of a temperature above 0.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// End at this text, which is left out; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Add to the score of a token, -100 to 100; may be given several times.
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Tell so many of the likeliest tokens in each place, up to 20, in `--format json`.
    #[arg(long, value_name = "N", value_parser = alternatives)]
    logprobs: Option<usize>,
}

impl SamplingArgs {
    /// Refuses what only JSON has a place for where that is not written.
    pub(crate) fn check(&self, writes_json: bool) -> Result<(), clap::Error> {
        if self.logprobs.is_some() && !writes_json {
            let message = "`--logprobs` has no place in this format: add `--format json`\n";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
        }
        Ok(())
    }

    /// The options, with those of `default` where none was given.
    ///
    /// Options that cannot go together are an error.
    pub(crate) fn options(&self, default: SamplingOptions) -> anyhow::Result<SamplingOptions> {
        let temperature = self.temperature.unwrap_or(default.temperature);
        let draws = temperature > 0.0;
        let options = SamplingOptions {
            temperature,
            // What nobody asked for does not stand in the way of temperature 0.
            top_p: self.top_p.or(default.top_p.filter(|_| draws)),
            top_k: self
                .top_k
                .map(|k| k as usize)
                .or(default.top_k.filter(|_| draws)),
            min_p: self.min_p.or(default.min_p.filter(|_| draws)),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed,
            logit_bias: self.biases()?,
            context_bias: default.context_bias,
            top_logprobs: self.logprobs.unwrap_or(default.top_logprobs),
            stop: self.stop.clone(),
            stop_ids: default.stop_ids,
        };
        options.check()?;
        Ok(options)
    }

    fn biases(&self) -> anyhow::Result<BTreeMap<u32, f32>> {
        let mut biases = BTreeMap::new();
        for (id, bias) in &self.logit_bias {
            if let Some(other) = biases.insert(*id, *bias) {
                anyhow::bail!("`--logit-bias` gives token {id} both {other} and {bias}: give one");
            }
        }
        Ok(biases)
    }
}

/// A parser of a number that the library takes in this place.
fn number(
    set: fn(&mut SamplingOptions, f32),
) -> impl Fn(&str) -> Result<f32, String> + Clone + Send + Sync + 'static {
    move |text| {
        // What is no number is not in the range either.
        let value = text.parse().unwrap_or(f32::NAN);
        checked(|options| set(options, value)).map(|()| value)
    }
}

fn alternatives(text: &str) -> Result<usize, String> {
    let count = text.parse().unwrap_or(usize::MAX);
    checked(|options| options.top_logprobs = count).map(|()| count)
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let parts = text.split_once('=').and_then(|(id, bias)| {
        let bias: f32 = bias.parse().ok()?;
        Some((id.parse().ok()?, bias))
    });
    let (id, bias) = parts.ok_or("expected the id of a token and a number, as in `1046=-5`")?;
    checked(|options| options.logit_bias = [(id, bias)].into()).map(|()| (id, bias))
}

/// Whether the library takes an option beside a temperature; if not, what it expects.
fn checked(set: impl FnOnce(&mut SamplingOptions)) -> Result<(), String> {
    let mut options = SamplingOptions {
        temperature: 1.0,
        ..Default::default()
    };
    set(&mut options);
    match options.check() {
        Ok(()) => Ok(()),
        Err(PipelineError::InvalidOption { expected, .. }) => Err(format!("expected {expected}")),
        Err(error) => Err(error.to_string()),
    }
}
