//! What a server gets done for many at once, beside what it does for one.
//!
//! ```sh
//! cargo xtask bench server                                  # the built-in demo model
//! cargo xtask bench server --model mini --quant q4 --requests 1 --clip-requests 0
//! ```
//!
//! A server of this process answers clients of this process over HTTP. All is told beside the case of
//! one client, which was measured in the same run.

mod client;
#[path = "../common/mod.rs"]
mod common;

use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use serde::Serialize;
use voxtral_pipeline::Demo;
use voxtral_server::{Config, Engine, Limits};

use crate::{
    client::{Client, Reply},
    common::{model::Source, sound},
};

/// Clients at once.
const CLIENTS: [usize; 5] = [1, 2, 4, 8, 16];

/// Measure what a server gets done for many clients at once.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench server",
    bin_name = "cargo xtask bench server"
)]
struct Args {
    #[command(flatten)]
    source: Source,
    /// Questions of each client, in text alone; 0 leaves them out
    #[arg(long, default_value_t = 4, value_name = "N")]
    requests: usize,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 32, value_name = "N")]
    tokens: usize,
    /// Clips of each client; 0 leaves them out
    #[arg(long, default_value_t = 4, value_name = "N")]
    clip_requests: usize,
    /// Length of a clip
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: usize,
    /// Minutes of a file beside which questions on clips are asked; 0 leaves it out
    #[arg(long, default_value_t = 30, value_name = "N")]
    minutes: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A number of clients.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    clients: usize,
    requests: usize,
    /// Tokens a second, of all together.
    tokens: f64,
    /// The same beside one client.
    gain: f64,
    /// Seconds until the half, and nearly all, had their answer.
    median: f64,
    p99: f64,
}

/// A question on a clip alone, and beside a long file.
#[derive(Debug, Serialize)]
struct Fairness {
    minutes: usize,
    /// Seconds until the answer, the median.
    alone: f64,
    beside: f64,
    /// Seconds more for each of its tokens, of which each takes a pass.
    delay: f64,
}

#[allow(clippy::print_stdout, reason = "the result of the command")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Arc::new(serve(&args)?);
    let clip = wav(args.seconds, client.sample_rate);
    let mut rows = Vec::new();
    for clients in CLIENTS.into_iter().filter(|_| args.requests > 0) {
        let ask = |i| client.ask(i, args.tokens);
        rows.push(row("answers", clients, args.requests, rows.first(), ask)?);
    }
    let mut clips = Vec::new();
    for clients in CLIENTS.into_iter().filter(|_| args.clip_requests > 0) {
        let send = |_| client.transcribe(&clip);
        clips.push(row(
            "clips",
            clients,
            args.clip_requests,
            clips.first(),
            send,
        )?);
    }
    rows.extend(clips);
    let fairness = match args.minutes {
        0 => None,
        minutes => Some(fairness(&client, &clip, args.tokens, minutes)?),
    };
    if args.json {
        let report = serde_json::json!({"rows": rows, "fairness": fairness});
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("work     clients  requests  tokens/s   gain  median ms   p99 ms");
    for row in rows {
        println!(
            "{:8} {:7}  {:8}  {:8.1}  {:4.2}x  {:9.1}  {:7.1}",
            row.work,
            row.clients,
            row.requests,
            row.tokens,
            row.gain,
            1e3 * row.median,
            1e3 * row.p99,
        );
    }
    if let Some(found) = fairness {
        println!(
            "a question on a clip takes {:.1} ms alone and {:.1} ms beside a file of {} minutes: {:.2}x, \
             {:.1} ms more for each token",
            1e3 * found.alone,
            1e3 * found.beside,
            found.minutes,
            found.beside / found.alone,
            1e3 * found.delay,
        );
    }
    Ok(())
}

/// Starts a server, which ends with the process.
fn serve(args: &Args) -> anyhow::Result<Client> {
    let name = args.source.name(Demo::Clips);
    let (checkpoint, tokenizer) = args.source.open(Demo::Clips)?;
    let tokenizer = tokenizer.context("the model has no tekken.json")?;
    let model = args.source.whole(&name, &checkpoint, tokenizer)?;
    ensure!(!model.is_streaming(), "{name} takes streams, not questions");
    let sample_rate = model.sample_rate();
    let mut limits = Limits::default();
    limits.batch_size = CLIENTS[CLIENTS.len() - 1];
    let (engine, _thread) = Engine::start(vec![(model, Vec::new())], limits);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || voxtral_server::run(listener, engine, Config::default()));
    Ok(Client::new(url, sample_rate))
}

/// So many clients, each with so many requests, one behind another.
fn row(
    work: &'static str,
    clients: usize,
    each: usize,
    one: Option<&Row>,
    request: impl Fn(usize) -> anyhow::Result<Reply> + Sync,
) -> anyhow::Result<Row> {
    // Once for what is made when it is first needed.
    request(usize::MAX)?;
    let (sender, replies) = mpsc::channel();
    let started = Instant::now();
    thread::scope(|scope| {
        for i in 0..clients {
            let (sender, request) = (sender.clone(), &request);
            scope.spawn(move || {
                for j in 0..each {
                    let began = Instant::now();
                    let reply = request(i * each + j);
                    let _ = sender.send(reply.map(|reply| (reply.tokens, began.elapsed())));
                }
            });
        }
    });
    let taken = started.elapsed().as_secs_f64();
    drop(sender);
    let replies = replies.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let tokens: usize = replies.iter().map(|(tokens, _)| tokens).sum();
    let mut times: Vec<Duration> = replies.into_iter().map(|(_, time)| time).collect();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize].as_secs_f64();
    let rate = tokens as f64 / taken;
    Ok(Row {
        work,
        clients,
        requests: clients * each,
        tokens: rate,
        gain: one.map_or(1.0, |one| rate / one.tokens),
        median: at(0.5),
        p99: at(0.99),
    })
}

/// The median of some questions on a clip, alone and while a long file is heard, which need not end:
/// where weights are random, its text is heard again in every way.
fn fairness(
    client: &Arc<Client>,
    clip: &[u8],
    tokens: usize,
    minutes: usize,
) -> anyhow::Result<Fairness> {
    let median = || {
        let times = (0..5).map(|_| {
            let began = Instant::now();
            let reply = client.ask_about(clip, tokens)?;
            Ok((began.elapsed().as_secs_f64(), reply.tokens))
        });
        let mut times = times.collect::<anyhow::Result<Vec<_>>>()?;
        times.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        anyhow::Ok(times[times.len() / 2])
    };
    let (alone, _) = median()?;
    let long = wav(60 * minutes, client.sample_rate);
    let theirs = Arc::clone(client);
    let file = thread::spawn(move || theirs.transcribe(&long));
    while client.running()? == 0 {
        ensure!(
            !file.is_finished(),
            "the file was done before a clip could be sent"
        );
        thread::sleep(Duration::from_millis(2));
    }
    let (beside, tokens) = median()?;
    ensure!(
        !file.is_finished(),
        "the file was done before the clips: make it longer"
    );
    Ok(Fairness {
        minutes,
        alone,
        beside,
        delay: (beside - alone) / tokens.max(1) as f64,
    })
}

/// A WAV file of speech-like sound.
fn wav(seconds: usize, sample_rate: u32) -> Vec<u8> {
    let sound = sound::sound(seconds, sample_rate);
    let data: Vec<u8> = sound
        .iter()
        .flat_map(|sample| ((sample * 32767.0) as i16).to_le_bytes())
        .collect();
    let mut file = Vec::with_capacity(44 + data.len());
    file.extend(b"RIFF");
    let length = data.len() as u32;
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(sample_rate.to_le_bytes());
    file.extend((2 * sample_rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(length.to_le_bytes());
    file.extend(data);
    file
}
