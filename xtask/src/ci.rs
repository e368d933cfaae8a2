//! `cargo xtask ci`: everything that a change must pass.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{dependencies, progress::say};

/// Check formatting, dependencies, lints and docs, and run every test
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these steps alone [default: all, in order]
    #[arg(value_enum)]
    steps: Vec<Step>,
}

/// One thing to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt changes nothing
    Fmt,
    /// Crates depend on each other in one direction, and on permitted licences
    Dependencies,
    /// clippy with every backend and the microphone: type-checks what cannot run here
    Clippy,
    /// Docs build, without a broken link
    Doc,
    /// The tests of a plain checkout, on Flex and ndarray
    Test,
    /// What is not in a default build: the microphone, the program on ndarray, and the suites on
    /// wgpu, which need a Vulkan driver, of a GPU or mesa's lavapipe
    Backends,
    /// Clients of others against the server: Python's of OpenAI and Mistral, curl and Chromium
    Clients,
}

/// Every feature that compiles on this platform.
const FEATURES: &str = "voxtral-cli/ndarray,voxtral-cli/wgpu,voxtral-cli/vulkan,\
                        voxtral-cli/cuda,voxtral-cli/mic,voxtral-tests/wgpu,voxtral-tests/cuda";

pub(crate) fn run(args: &Args) -> Result<()> {
    let steps = if args.steps.is_empty() {
        Step::value_variants()
    } else {
        &args.steps
    };
    for step in steps {
        let started = Instant::now();
        let name = format!("{step:?}").to_lowercase();
        say(&format!("== {name}"));
        step.run().with_context(|| format!("{name} failed"))?;
        say(&format!(
            "== {name}: {:.0} s",
            started.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

impl Step {
    fn run(self) -> Result<()> {
        let all = ["--release", "--workspace", "--features", FEATURES];
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"], &[], &[]),
            Self::Dependencies => dependencies::check(),
            Self::Clippy => {
                let lints = ["--all-targets", "--", "-D", "warnings"];
                cargo(&["clippy"], &all, &lints)
            }
            Self::Doc => run_command(
                Command::new("cargo")
                    .args(["doc", "--no-deps"])
                    .args(all)
                    .env("RUSTDOCFLAGS", "-D warnings"),
            ),
            Self::Test => cargo(&["test", "--release", "--workspace"], &[], &[]),
            Self::Backends => {
                suite("voxtral-cli", "mic", "mic::")?;
                suite("voxtral-cli", "ndarray", "another_backend")?;
                suite("voxtral-tests", "wgpu", "wgpu::")
            }
            Self::Clients => clients(),
        }
    }
}

/// Installs the clients where the tests look for them, and lets them speak to the server.
fn clients() -> Result<()> {
    const FOLDER: &str = "target/clients";
    run_command(Command::new("python3").args(["-m", "venv", FOLDER]))?;
    let requirements = ["-r", "tools/clients/requirements.txt"];
    let mut install = Command::new(format!("{FOLDER}/bin/python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run_command(install.args(requirements))?;
    let tests = ["--test", "server", "--", "--ignored", "clients::"];
    cargo(&["test", "--release", "--workspace"], &tests, &[])
}

/// Runs the tests of a package that a feature brings, and fails if there are none.
fn suite(package: &str, feature: &str, filter: &str) -> Result<()> {
    let command = || {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--release", "--package", package])
            .args(["--features", feature, "--", filter])
            // On one wgpu device, a test that passes alone once failed beside others.
            .arg("--test-threads=1")
            // Tiny products, each tried with every kernel, would take longer than all else.
            .env("CUBECL_AUTOTUNE_LEVEL", "0");
        command
    };
    let listed = command().arg("--list").output()?;
    if !String::from_utf8_lossy(&listed.stdout).contains(": test") {
        bail!("`{package}` has no test `{filter}` with the feature `{feature}`");
    }
    run_command(&mut command())
}

fn cargo(command: &[&str], arguments: &[&str], more: &[&str]) -> Result<()> {
    let arguments = [command, arguments, more].concat();
    run_command(Command::new("cargo").args(arguments))
}

pub(crate) fn run_command(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{command:?} gave {status}");
    }
    Ok(())
}
