//! The same weights in `transformers`, measured by `tools/bench/side_by_side.py` in the same run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    common::{
        model::test_file,
        text::{milliseconds, progress, rounded},
    },
    table::Measured,
};

/// What the script prints.
#[derive(Debug, Deserialize)]
struct Theirs {
    transformers: String,
    torch: String,
    threads: usize,
    /// By the keys of our rows.
    rows: BTreeMap<String, TheirRow>,
}

#[derive(Debug, Deserialize)]
struct TheirRow {
    best: f64,
    median: f64,
    /// Seconds of sound, where that is what passes are compared by.
    sound: Option<f64>,
}

/// Both, side by side.
#[derive(Debug, Serialize)]
pub(crate) struct SideBySide {
    versions: String,
    rows: Vec<Side>,
}

#[derive(Debug, Serialize)]
struct Side {
    name: String,
    /// Best times of a pass, or of a second of sound.
    ours: f64,
    theirs: f64,
    their_median: f64,
    per_second_of_sound: bool,
    /// Above 1 ours is faster.
    ratio: f64,
}

/// Runs the script on a checkpoint with as many threads as the kernels have.
pub(crate) fn measure(
    python: &Path,
    folder: &Path,
    budget: f64,
    rows: &[Measured],
) -> anyhow::Result<SideBySide> {
    let config = folder.join("config.json");
    ensure!(
        config.is_file(),
        "`{}` is not there: expected a checkpoint in the Hugging Face form, as `cargo xtask \
         convert` makes one; give its folder with --reference",
        config.display()
    );
    progress("transformers");
    let script = test_file("../tools/bench/side_by_side.py");
    let output = Command::new(python)
        .arg(script)
        .arg(folder)
        .args(["--threads", &voxtral_kernels::threads().to_string()])
        .args(["--budget", &budget.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| {
            format!(
                "cannot run `{}`: expected a Python with tools/bench/requirements.txt",
                python.display()
            )
        })?;
    ensure!(
        output.status.success(),
        "tools/bench/side_by_side.py gave {}: its message stands above",
        output.status
    );
    let theirs: Theirs = serde_json::from_slice(&output.stdout)
        .context("what tools/bench/side_by_side.py printed is no JSON of its kind")?;
    let sides = rows.iter().filter_map(|row| {
        let their = theirs.rows.get(&row.key)?;
        let (ours, sound) = match (their.sound, row.real_time_factor) {
            (Some(sound), Some(factor)) => (factor, sound),
            _ => (row.best, 1.0),
        };
        let best = their.best / sound;
        Some(Side {
            name: row.name.clone(),
            ours,
            theirs: best,
            their_median: their.median / sound,
            per_second_of_sound: their.sound.is_some(),
            ratio: best / ours,
        })
    });
    Ok(SideBySide {
        rows: sides.collect(),
        versions: format!(
            "transformers {}, torch {}, bfloat16, {} threads",
            theirs.transformers, theirs.torch, theirs.threads
        ),
    })
}

impl fmt::Display for SideBySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<68} {:>11} {:>11} {:>8}",
            format!("beside {}", self.versions),
            "ours",
            "theirs",
            "ratio"
        )?;
        self.rows.iter().try_for_each(|side| {
            let per = match side.per_second_of_sound {
                true => ", per second of sound",
                false => "",
            };
            let slower = if side.ratio < 1.0 { "  SLOWER" } else { "" };
            writeln!(
                f,
                "{:<68} {:>11} {:>11} {:>8}{slower}",
                format!("{}{per}", side.name),
                milliseconds(side.ours),
                milliseconds(side.theirs),
                rounded(side.ratio)
            )
        })
    }
}
