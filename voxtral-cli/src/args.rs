//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use voxtral_pipeline::{Language, Precision};

/// Speech to text with Mistral's Voxtral models.
#[derive(Debug, Parser)]
#[command(
    name = "voxtral",
    version,
    after_help = "Examples:
  voxtral transcribe samples/digits-en.wav           the built-in demo model: spoken digits
  voxtral transcribe talk.mp3 --model mini           Voxtral Mini 3B, fetched on first use
  voxtral transcribe *.flac -f json --output-dir out several files, the model loaded once
  ffmpeg -i film.mkv -f wav - | voxtral transcribe - -m mini -l fr
  voxtral inspect mini                               what a model's files say
  voxtral models                                     which models there are and which are here"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print nothing but results and errors.
    #[arg(short, long, global = true, help_heading = "Messages")]
    pub(crate) quiet: bool,
    /// Print what happens; twice for more.
    #[arg(
        short,
        long,
        global = true,
        action = ArgAction::Count,
        conflicts_with = "quiet",
        help_heading = "Messages"
    )]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn audio files into text.
    Transcribe(TranscribeArgs),
    /// Show what a model's files say: form, configuration, tensors, what is missing.
    Inspect(InspectArgs),
    /// List the models with short names, and those in the cache.
    Models,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// `demo`, `mini`, `small`, `org/name[@revision]` on the Hugging Face Hub, or a folder.
    #[arg(short, long, env = "VOXTRAL_MODEL", default_value = DEMO, value_name = "MODEL")]
    model: String,
}

impl ModelArgs {
    /// The model's name. An empty one, as an emptied variable leaves it, counts as none.
    pub(crate) fn name(&self) -> &str {
        if self.model.is_empty() {
            DEMO
        } else {
            &self.model
        }
    }
}

/// The name of the built-in model.
pub(crate) const DEMO: &str = "demo";

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a finite number of at least 0".to_owned()),
    }
}

/// `voxtral transcribe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral transcribe samples/digits-en.wav
  voxtral transcribe talk.mp3 -m mini -o talk.txt
  voxtral transcribe a.flac b.m4a -m mini -l fr -f json --output-dir out
  ffmpeg -i film.mkv -f wav - | voxtral transcribe - -m mini

Models of the Hub are kept where every Hugging Face program keeps them. HF_HOME, HF_TOKEN,
HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there.")]
pub(crate) struct TranscribeArgs {
    /// Audio or film files of any common format; `-` reads one from stdin.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Spoken language by its two-letter code, such as `en`; detected if not given.
    #[arg(short, long, value_name = "CODE")]
    pub(crate) language: Option<Language>,
    /// What to write.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Write to this file instead of stdout, for one input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output: Option<PathBuf>,
    /// Write one file per input into this folder, which is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: Device,
    /// Precision of the weights; `auto` keeps the stored one.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: DtypeArg,
    /// 0 takes the likeliest token; above it, tokens are drawn at random.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "T",
        value_parser = temperature,
        allow_negative_numbers = true
    )]
    pub(crate) temperature: f32,
    /// Seeds the draws of a temperature above 0.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
    /// At most this many tokens per file; by default 12.5 for every second of audio.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: Option<u32>,
    /// Threads of the CPU; by default all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

/// `voxtral inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `demo`, a name of `voxtral models`, `org/name[@revision]`, or a folder.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
}

/// What is written of a transcript.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The words.
    #[default]
    Text,
    /// One object per line: text, language, duration, model, tokens, timings.
    Json,
}

impl Format {
    /// The extension of an output file.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
        }
    }
}

/// Where to compute, among the backends that were compiled in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// CUDA, else Metal or Vulkan, else wgpu, else the CPU.
    #[default]
    Auto,
    /// The CPU, through Burn's Flex backend.
    Cpu,
    /// The CPU, through ndarray.
    Ndarray,
    /// Any GPU, through WebGPU.
    Wgpu,
    /// A GPU through Vulkan.
    Vulkan,
    /// An Apple GPU.
    Metal,
    /// An NVIDIA GPU.
    Cuda,
}

/// Precision of the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    /// As stored.
    #[default]
    Auto,
    /// 32 bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16 bit floats.
    F16,
}

impl From<DtypeArg> for Precision {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::Auto => Self::Auto,
            DtypeArg::F32 => Self::F32,
            DtypeArg::Bf16 => Self::BF16,
            DtypeArg::F16 => Self::F16,
        }
    }
}
