//! `voxtral serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, builder::RangedU64ValueParser};

use super::ComputeArgs;

/// `voxtral serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  voxtral serve                                      both demo models, on this machine only
  voxtral serve -m mini --quant q4
  voxtral serve -m mini -m realtime --host 0.0.0.0 --api-key-file keys.txt
  voxtral serve -m mini --served-model-name whisper-1

  curl localhost:8080/v1/audio/transcriptions -F file=@talk.mp3 -F model=mini
  OPENAI_BASE_URL=http://localhost:8080/v1 OPENAI_API_KEY=none python my_program.py

Programs for OpenAI's and Mistral's transcription and chat APIs, and live clients of vLLM, OpenAI and
Mistral, speak to it as they are. A page at `/` tries it out. SIGTERM and Ctrl-C end it once what
runs is done.")]
pub(crate) struct ServeArgs {
    /// `mini`, `small`, `realtime`, `org/name[@revision]` on the Hugging Face Hub, a folder, `demo`
    /// or `demo-realtime`; may be given several times. By default both demo models.
    #[arg(short, long = "model", env = "VOXTRAL_MODEL", value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Another name that the first model answers to, such as `whisper-1`; may be given several
    /// times.
    #[arg(long = "served-model-name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Address to listen on. Others than this machine's own need keys, or `--insecure`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
    /// Port to listen on; 0 takes a free one, which stderr tells.
    #[arg(short, long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Who may ask, and for what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// File with the keys of those who may ask, one in each line; those of the variable
    /// VOXTRAL_API_KEYS, with commas between them, count too.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Let everybody in who reaches the address.
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// Files of clients.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    /// Folder for files that are uploaded to `/v1/files`; by default a temporary one, which is
    /// removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Seconds that they are kept.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = seconds)]
    pub(crate) file_expiry: Duration,
    /// What they may take together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub(crate) max_stored: u64,
    /// Fetch `file_url` and `audio_url` from this machine and the network behind it too, not from
    /// public addresses alone.
    #[arg(long)]
    pub(crate) allow_private_urls: bool,
}

/// How much is taken.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Requests that are computed together.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one())]
    pub(crate) max_batch_size: usize,
    /// Tokens that they may have together, of prompts and answers.
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = at_least_one())]
    pub(crate) max_batch_tokens: usize,
    /// Requests that may wait; others are told to come again later.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) max_queue: usize,
    /// Live sessions at once.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) max_sessions: usize,
    /// Seconds that a live client may be silent before its session ends.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) session_idle: Duration,
    /// Seconds that a live session may last.
    #[arg(long, value_name = "SECONDS", default_value = "14400", value_parser = seconds)]
    pub(crate) session_length: Duration,
    /// Seconds between two pings to live clients; who leaves three unanswered is gone.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = a_while)]
    pub(crate) ping: Duration,
    /// Largest file that is taken, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub(crate) max_upload: u64,
    /// Seconds that a client may let the server wait in the middle of a request.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) patience: Duration,
    /// Seconds that what runs may go on after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) grace: Duration,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// More than no time at all.
fn a_while(text: &str) -> Result<Duration, String> {
    let found = seconds(text)?;
    match found.is_zero() {
        true => Err("expected more than 0 seconds".to_owned()),
        false => Ok(found),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let found = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    found.ok_or_else(|| "expected a number of seconds".to_owned())
}
