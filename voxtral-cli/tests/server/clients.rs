//! The programs of others, unmodified, against the real binary.
//!
//! `cargo xtask ci clients` installs them, and runs these tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::{ENGLISH, Server, sample};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script of `tools/clients` against a server.
fn drive(script: &str) {
    let server = Server::with(&["--allow-private-urls"]);
    let python = workspace().join("target/clients/bin/python");
    let output = Command::new(&python)
        .arg("-B")
        .arg(workspace().join("tools/clients").join(script))
        .arg(format!("http://{}", server.address))
        .arg(workspace().join("samples"))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: cargo xtask ci clients", python.display()));
    let told = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{told}");
}

#[test]
#[ignore = "needs the Python packages of tools/clients: cargo xtask ci clients"]
fn openai_and_mistral() {
    drive("rest.py");
}

#[test]
#[ignore = "needs the Python packages of tools/clients: cargo xtask ci clients"]
fn live_sessions() {
    drive("live.py");
}

#[test]
#[ignore = "needs Chromium and the Python packages of tools/clients: cargo xtask ci clients"]
fn the_page_in_a_browser() {
    drive("browser.py");
}

#[test]
#[ignore = "needs curl: cargo xtask ci clients"]
fn curl() {
    let server = Server::start();
    let file = format!("file=@{}", sample("digits-en.wav").display());
    let url = format!("http://{}/v1/audio/transcriptions", server.address);
    let arguments = ["-sS", "--fail-with-body", &url, "-F", &file];
    let text = ["-F", "model=demo", "-F", "response_format=text"];
    let output = Command::new("curl")
        .args(arguments)
        .args(text)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{ENGLISH}\n")
    );
}
