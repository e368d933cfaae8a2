//! The command line.

mod chat;
mod sampling;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use voxtral_checkpoint::Quant;
use voxtral_pipeline::{Demo, Language, Precision, SubtitleFormat};

pub(crate) use chat::{AnswerFormat, ChatArgs};
pub(crate) use sampling::SamplingArgs;

/// Speech to text, and answers about sound, with Mistral's Voxtral models.
#[derive(Debug, Parser)]
#[command(
    name = "voxtral",
    version,
    after_help = "Examples:
  voxtral transcribe samples/digits-en.wav           the built-in demo model: spoken digits
  voxtral transcribe talk.mp3 --model mini           Voxtral Mini 3B, fetched on first use
  voxtral transcribe *.flac -f json --output-dir out several files, the model loaded once
  ffmpeg -i film.mkv -f wav - | voxtral transcribe - -m mini -l fr
  ffmpeg -i film.mkv -f wav - | voxtral listen --stdin -m realtime
  voxtral chat -m mini -a talk.mp3 'What is it about?'
  voxtral quantize mini --quant q4 --out mini-q4     a model of less than a third of the size
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
    /// Turn live sound into words while it is spoken.
    Listen(ListenArgs),
    /// Ask questions about sound, once or in a conversation.
    Chat(ChatArgs),
    /// Make a smaller model, of 8 or 4 bits a weight.
    Quantize(QuantizeArgs),
    /// Show what a model's files say: form, configuration, tensors, what is missing.
    Inspect(InspectArgs),
    /// List the models with short names, and those in the cache.
    Models,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// `mini`, `small`, `realtime`, `org/name[@revision]` on the Hugging Face Hub, a folder, or
    /// one of the built-in `demo` and `demo-realtime`, which is the default.
    #[arg(short, long, env = "VOXTRAL_MODEL", value_name = "MODEL")]
    model: Option<String>,
}

impl ModelArgs {
    /// The model's name. An empty one, as an emptied variable leaves it, counts as none.
    pub(crate) fn name_or(&self, demo: Demo) -> &str {
        match &self.model {
            Some(model) if !model.is_empty() => model,
            _ => demo.name(),
        }
    }
}

/// A delay in milliseconds.
fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(value) => Ok(Duration::from_millis(value.into())),
        Err(_) => Err("expected a whole number of milliseconds".to_owned()),
    }
}

/// `voxtral transcribe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral transcribe samples/digits-en.wav
  voxtral transcribe talk.mp3 -m mini -o talk.txt
  voxtral transcribe a.flac b.m4a -m mini -l fr -f json --output-dir out
  voxtral transcribe *.wav -m mini --batch-size 8
  ffmpeg -i film.mkv -f wav - | voxtral transcribe - -m mini
  voxtral transcribe lecture.mp3 -m realtime -f srt -o lecture.srt

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
    /// What to write; `srt`, `vtt` and `tsv` need a Realtime model, which tells times.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// How far the text follows the sound, of a Realtime model, in milliseconds: 80 to 1200 in
    /// steps of 80, or 2400. More is more accurate.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub(crate) delay: Option<Duration>,
    /// Write to this file instead of stdout, for one input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output: Option<PathBuf>,
    /// Write one file per input into this folder, which is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Transcribe up to this many files together, which takes much less time than one by one where
    /// reading the weights is what takes it, and the memory of as many caches. A Realtime model
    /// transcribes one by one all the same.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) batch_size: u16,
    /// At most this many tokens per file; by default 12.5 for every second of audio.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: Option<u32>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// `voxtral listen`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral listen samples/digits-stream-en.wav --pace
  ffmpeg -i https://radio.example/live -f wav - | voxtral listen --stdin -m realtime
  arecord -f S16_LE -r 16000 -t raw | voxtral listen --stdin --raw s16le --rate 16000
  voxtral listen --stdin -m realtime --delay 960 -f srt < talk.wav > talk.srt

Words are printed as they become known, a line for each sentence or pause, and never change. The
end of the sound, or Ctrl-C, brings out the words behind the delay.")]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(crate) struct ListenArgs {
    /// Listen to a file.
    #[arg(value_name = "FILE", group = "source")]
    pub(crate) file: Option<PathBuf>,
    /// Listen to stdin: WAV, FLAC, MP3 or Ogg as it comes, or raw samples with `--raw`.
    #[arg(long, group = "source")]
    pub(crate) stdin: bool,
    /// Listen to the microphone.
    #[cfg(feature = "mic")]
    #[arg(long, group = "source")]
    pub(crate) mic: bool,
    /// Hear a file as fast as it was spoken, not as fast as the machine can follow.
    #[arg(long, requires = "file", conflicts_with = "stdin")]
    pub(crate) pace: bool,
    /// The samples on stdin have no header; this is their format.
    #[arg(
        long,
        value_enum,
        requires = "stdin",
        requires = "rate",
        value_name = "FORMAT"
    )]
    pub(crate) raw: Option<RawFormat>,
    /// Samples per second of raw samples.
    #[arg(long, requires = "raw", value_name = "HZ", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Channels of raw samples, which are averaged.
    #[arg(
        long,
        requires = "raw",
        default_value_t = 1,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) channels: u16,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// How far the text follows the sound, in milliseconds: 80 to 1200 in steps of 80, or 2400.
    /// More is more accurate; by default the model's own, 480.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub(crate) delay: Option<Duration>,
    /// Spoken language; a Realtime model finds it out by itself.
    #[arg(short, long, value_name = "CODE")]
    pub(crate) language: Option<Language>,
    /// What to print: words as they come, an object for each word, or subtitles.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Where and how to compute.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: Device,
    /// Precision of the weights; `auto` keeps the stored one.
    #[arg(long, value_enum, default_value_t)]
    dtype: DtypeArg,
    /// Quantize the weights when they are loaded, to 8 or to 4 bits; `voxtral quantize` does it
    /// once and for all.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "dtype")]
    quant: Option<QuantArg>,
    /// Threads of the CPU; by default one for each of its cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

impl ComputeArgs {
    /// The precision to hold the weights in.
    pub(crate) fn precision(&self) -> Precision {
        match self.quant {
            Some(quant) => Precision::Quantized(quant.into()),
            None => self.dtype.into(),
        }
    }
}

/// Samples without a header, little-endian and interleaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RawFormat {
    /// Integers of 16 bits.
    S16le,
    /// Floats of 32 bits.
    F32le,
}

/// `voxtral quantize`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral quantize mini --quant q4 --out mini-q4
  voxtral quantize ./Voxtral-Small-24B-2507 --quant q8 --out ~/models/small-q8
  voxtral transcribe talk.mp3 --model ./mini-q4

The result is a folder that every command takes as `--model`: the Hugging Face form, with the matrices
in a layout of this program's own. Embedding and head keep 8 bits in either format; norms, biases and
convolutions keep what they have. Other programs refuse it, so keep the original for them.

Nothing is overwritten, and after an error or Ctrl-C nothing remains.")]
pub(crate) struct QuantizeArgs {
    /// A name of `voxtral models`, `org/name[@revision]`, which is fetched if it is not in the
    /// cache, or a folder.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Bits for each weight.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) quant: QuantArg,
    /// Folder to write, which must be absent or empty.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Threads of the CPU; by default all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

/// A format of quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuantArg {
    /// 8.25 bits a weight: about half of bf16.
    Q8,
    /// 4.5 bits a weight: less than a third of bf16, and less exact.
    Q4,
}

impl From<QuantArg> for Quant {
    fn from(quant: QuantArg) -> Self {
        match quant {
            QuantArg::Q8 => Self::Q8,
            QuantArg::Q4 => Self::Q4,
        }
    }
}

/// `voxtral inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A name of `voxtral models`, `org/name[@revision]`, or a folder.
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
}

/// What is written of a transcript.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The words.
    #[default]
    Text,
    /// One object per line: text, language, duration, model, words with their times where the
    /// model tells them, tokens, timings.
    Json,
    /// Subtitles, as SubRip writes them.
    Srt,
    /// Subtitles, WebVTT.
    Vtt,
    /// A table of segments: start and end in milliseconds, text.
    Tsv,
}

impl Format {
    /// The extension of an output file.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Tsv => "tsv",
        }
    }

    /// Whether it has room for the times of segments or words.
    pub(crate) fn has_times(self) -> bool {
        self == Self::Json || self.subtitles().is_some()
    }

    /// The format of subtitles that this is, if any.
    pub(crate) fn subtitles(self) -> Option<SubtitleFormat> {
        match self {
            Self::Text | Self::Json => None,
            Self::Srt => Some(SubtitleFormat::Srt),
            Self::Vtt => Some(SubtitleFormat::Vtt),
            Self::Tsv => Some(SubtitleFormat::Tsv),
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
