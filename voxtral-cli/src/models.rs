//! `voxtral models`.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use indicatif::HumanBytes;
use voxtral_hub::{ALIASES, Hub};
use voxtral_pipeline::Demo;

use crate::output;

pub(crate) fn run() -> Result<ExitCode> {
    let mut text = String::from("short names\n");
    for demo in Demo::ALL {
        let about = match demo {
            Demo::Clips => "built in: spoken digits in four languages",
            Demo::Realtime => "built in: the same, live and with word times",
        };
        writeln!(text, "  {:14} {about}", demo.name())?;
    }
    for alias in ALIASES {
        writeln!(text, "  {:14} {} ({})", alias.name, alias.repo, alias.about)?;
    }
    text.push_str("in the cache\n");
    let cached = Hub::from_env()?.cached();
    if cached.is_empty() {
        text.push_str("  none\n");
    }
    for model in cached {
        let state = if model.complete { "" } else { ", incomplete" };
        writeln!(
            text,
            "  {}  {}{state}  {}",
            model.repo,
            HumanBytes(model.bytes),
            model.path.display()
        )?;
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
