//! `cargo xtask goldens`: makes the fixtures anew from the oracles under `tools/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{ci::run_command, progress::say};

/// Make the test fixtures anew, through the Python under tools/goldens
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Python with tools/goldens/requirements.txt installed
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

/// Each script with its arguments; `tools/goldens/README.md` says what it makes.
const SCRIPTS: &[&[&str]] = &[
    &["models.py", "--out", "tests/data/models"],
    &["mel.py"],
    &["tokenizer.py", "--out", "voxtral-tokenizer/testdata"],
    &["chat.py", "--out", "voxtral-tokenizer/testdata"],
    &["checkpoint.py", "voxtral-checkpoint/testdata"],
    &["sampling.py", "--out", "voxtral-pipeline/testdata"],
];

pub(crate) fn run(args: &Args) -> Result<()> {
    for script in SCRIPTS {
        say(&format!("== {}", script[0]));
        run_command(
            Command::new(&args.python)
                .arg(format!("tools/goldens/{}", script[0]))
                .args(&script[1..]),
        )?;
    }
    say("== formats.sh");
    run_command(Command::new("bash").arg("tools/goldens/formats.sh"))
}
