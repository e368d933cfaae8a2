//! The command line.

mod chat;
mod context;
mod layout;
mod long;
mod sampling;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use clap::{
    ArgAction, Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use voxtral_checkpoint::Quant;
use voxtral_pipeline::{Demo, Format, Language, Precision};

use crate::destination::Template;

pub(crate) use chat::{AnswerFormat, ChatArgs};
pub(crate) use context::ContextArgs;
pub(crate) use layout::{LayoutArgs, names as format_names};
pub(crate) use long::LongArgs;
pub(crate) use sampling::SamplingArgs;
pub(crate) use serve::ServeArgs;

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
  voxtral serve -m mini -m realtime                  for programs that speak OpenAI's or Mistral's API
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
    /// Answer the programs of others over HTTP and WebSocket.
    Serve(ServeArgs),
    /// Make a smaller model, of 8 or 4 bits a weight.
    Quantize(QuantizeArgs),
    /// Show what a model's files say, or what is in an audio file.
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
  voxtral transcribe film.mkv -m realtime -f vtt,json --output-dir out --max-line-width 42 \\
      --max-line-count 2
  voxtral transcribe talk.mp3 -m mini --translate fr

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
    /// What to write, also several, as `srt,json`.
    #[arg(
        short,
        long = "format",
        value_name = "FORMAT",
        value_delimiter = ',',
        default_value = "text",
        value_parser = format_parser(&Format::ALL)
    )]
    pub(crate) formats: Vec<Format>,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    /// Write in this language what is said, by its two-letter code; not with a Realtime model, and
    /// without times.
    #[arg(long, value_name = "CODE", conflicts_with_all = [
        "language", "delay", "vad", "window", "resume", "json_progress", "word_timestamps",
    ])]
    pub(crate) translate: Option<Language>,
    /// How far the text follows the sound, of a Realtime model, in milliseconds: 80 to 1200 in
    /// steps of 80, or 2400. More is more accurate.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub(crate) delay: Option<Duration>,
    /// Write to this file instead of stdout, for one input.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["output_dir", "output_template"])]
    pub(crate) output: Option<PathBuf>,
    /// Write a file for each input and format into this folder, which is made if it does not exist:
    /// `talk.srt` of `talk.mp3`.
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Name those files otherwise, as `{stem}.{model}.{ext}`; also {format} and {date}.
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) output_template: Option<Template>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Transcribe up to this many files, or windows of a long one, together, which takes much less time than one by one where
    /// reading the weights is what takes it, and the memory of as many caches. A Realtime model
    /// transcribes one by one all the same.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) batch_size: u16,
    /// At most this many tokens per window; by default 12.5 for every second of it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_new_tokens: Option<u32>,
    #[command(flatten)]
    pub(crate) long: LongArgs,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
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
    /// What to print: words as they come, an object for each word, subtitles or a table.
    #[arg(
        short,
        long,
        default_value_t,
        value_name = "FORMAT",
        value_parser = format_parser(&Format::ALL[..6])
    )]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
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
#[command(after_help = "Examples:
  voxtral inspect mini
  voxtral inspect talk.wav
  voxtral inspect talk.wav --plot talk.png --model demo-realtime

The picture shows the waveform, the log-mel features that the model hears, and, where the model tells
times, each word in the colour of its confidence.")]
pub(crate) struct InspectArgs {
    /// An audio file; or a model: a name of `voxtral models`, `org/name[@revision]`, or a folder.
    #[arg(value_name = "FILE|MODEL")]
    pub(crate) subject: String,
    /// Transcribe the audio file and draw what is heard, as a PNG.
    #[arg(long, value_name = "PNG")]
    pub(crate) plot: Option<PathBuf>,
    /// Draw which word is heard when, too.
    #[arg(long, requires = "plot")]
    pub(crate) alignment: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Reads one of these formats by its name.
fn format_parser(formats: &[Format]) -> impl TypedValueParser<Value = Format> {
    let value = |format: &Format| PossibleValue::new(format.name()).help(about(*format));
    PossibleValuesParser::new(formats.iter().map(value)).try_map(|name| name.parse::<Format>())
}

/// What help says of a format.
fn about(format: Format) -> &'static str {
    match format {
        Format::Text => "The words",
        Format::Json => {
            "One object per line: Whisper's verbose shape, with all that is known besides"
        }
        Format::Srt => "Subtitles, as SubRip writes them",
        Format::Vtt => "Subtitles, WebVTT",
        Format::Tsv => "A table of segments: start and end in milliseconds, text",
        Format::Csv => "The same with commas and quotes, and the confidence",
        _ => "A document for people, Markdown: paragraphs with their times",
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
