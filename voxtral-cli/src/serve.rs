//! `voxtral serve`.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{Backend, Demo};
use voxtral_server::{Config, Engine, Keys, Limits};

use crate::{
    args::ServeArgs,
    backend::{Task, on_device},
    load, notice,
};

/// Keys with commas between them.
const KEYS: &str = "VOXTRAL_API_KEYS";

pub(crate) fn run(args: &ServeArgs, quiet: bool) -> Result<ExitCode> {
    let keys = keys(args)?;
    if keys.is_empty() && !args.host.is_loopback() && !args.access.insecure {
        bail!(
            "`--host {}` lets others in: name their keys with `--api-key-file`, or say `--insecure`",
            args.host
        );
    }
    let address = SocketAddr::new(args.host, args.port);
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    load::set_threads(args.compute.threads)?;
    let announce = |device: &str| notice(quiet, format_args!("device: {device}"));
    let work = Work {
        args,
        keys,
        listener,
        quiet,
    };
    on_device(args.compute.device, announce, work)
}

fn keys(args: &ServeArgs) -> Result<Keys> {
    let mut keys = Keys::default();
    if let Some(path) = &args.access.api_key_file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the keys in `{}`", path.display()))?;
        keys = Keys::from_lines(&text);
        if keys.is_empty() {
            bail!(
                "`{}` has no keys: expected one in each line",
                path.display()
            );
        }
    }
    if let Ok(list) = std::env::var(KEYS) {
        keys.extend(Keys::from_lines(&list.replace(',', "\n")));
    }
    Ok(keys)
}

/// A server, before its backend is known.
struct Work<'a> {
    args: &'a ServeArgs,
    keys: Keys,
    listener: TcpListener,
    quiet: bool,
}

impl Task for Work<'_> {
    type Output = ExitCode;

    fn run<B: Backend>(self, device: B::Device) -> Result<ExitCode> {
        let args = self.args;
        let demos = [Demo::Clips, Demo::Realtime].map(|demo| demo.name().to_owned());
        let given: Vec<String> = args
            .models
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        let names = if given.is_empty() {
            demos.to_vec()
        } else {
            given
        };
        let mut models = Vec::new();
        for (at, name) in names.iter().enumerate() {
            load::tell_demo(name, self.quiet);
            let precision = args.compute.precision();
            let model = load::open::<B>(name, device.clone(), precision, self.quiet)?;
            let others = if at == 0 {
                args.names.clone()
            } else {
                Vec::new()
            };
            models.push((model, others));
        }
        let limits = &args.limits;
        let (engine, thread) = Engine::start(models, self.limits());
        let mut config = Config::default();
        config.keys = self.keys;
        config.max_body = limits.max_upload << 20;
        config.patience = limits.patience;
        config.grace = limits.grace;
        config.data_dir = args.files.data_dir.clone();
        config.file_life = args.files.file_expiry;
        config.max_stored = args.files.max_stored << 20;
        config.allow_private_urls = args.files.allow_private_urls;
        config.session_idle = limits.session_idle;
        config.session_length = limits.session_length;
        config.ping = limits.ping;
        let address = self.listener.local_addr().context("cannot tell the port")?;
        notice(self.quiet, format_args!("listening on http://{address}"));
        voxtral_server::run(self.listener, engine.clone(), config).context("server failed")?;
        notice(self.quiet, format_args!("stopped"));
        engine.stop();
        if thread.join().is_err() {
            bail!("the thread that computes ended in a panic");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Work<'_> {
    fn limits(&self) -> Limits {
        let given = &self.args.limits;
        let mut limits = Limits::default();
        limits.batch_size = given.max_batch_size;
        limits.batch_tokens = given.max_batch_tokens;
        limits.queue = given.max_queue;
        limits.sessions = given.max_sessions;
        limits
    }
}
