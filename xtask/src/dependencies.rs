//! Which crate may use which, and under which licences.

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each library and the workspace crates that it may use. Leaf crates know nothing of each other,
/// and nothing points backwards. The one exception: checkpoints hold quantized matrices as the
/// kernels read them, so that layout is defined once, in `voxtral-kernels`.
const LAYERS: &[(&str, &[&str])] = &[
    ("voxtral-audio", &[]),
    ("voxtral-tokenizer", &[]),
    ("voxtral-kernels", &[]),
    ("voxtral-checkpoint", &["voxtral-kernels"]),
    ("voxtral-hub", &[]),
    ("voxtral-nn", &["voxtral-checkpoint", "voxtral-kernels"]),
    ("voxtral-encoder", &["voxtral-checkpoint", "voxtral-nn"]),
    ("voxtral-decoder", &["voxtral-checkpoint", "voxtral-nn"]),
    (
        "voxtral-pipeline",
        &[
            "voxtral-audio",
            "voxtral-checkpoint",
            "voxtral-decoder",
            "voxtral-encoder",
            "voxtral-hub",
            "voxtral-nn",
            "voxtral-tokenizer",
        ],
    ),
    ("voxtral-server", &["voxtral-audio", "voxtral-pipeline"]),
    (
        "voxtral-cli",
        &[
            "voxtral-audio",
            "voxtral-checkpoint",
            "voxtral-hub",
            "voxtral-kernels",
            "voxtral-pipeline",
            "voxtral-server",
        ],
    ),
];

/// Crates that nothing is built on, which may use anything.
const TOPS: [&str; 2] = ["voxtral-tests", "xtask"];

/// Crates that must stay usable without Burn.
const WITHOUT_BURN: [&str; 5] = [
    "voxtral-audio",
    "voxtral-tokenizer",
    "voxtral-checkpoint",
    "voxtral-hub",
    "voxtral-kernels",
];

/// Licences that a dependency may be under, as SPDX names.
const LICENCES: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new()
        .exec()
        .context("cannot read cargo metadata")?;
    let problems: Vec<String> = layers(&metadata).chain(licences(&metadata)).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Dependencies against the direction, of code that ships (tests may use what they need).
fn layers(metadata: &Metadata) -> impl Iterator<Item = String> + '_ {
    metadata
        .workspace_packages()
        .into_iter()
        .flat_map(|package| {
            let name = package.name.as_str();
            let allowed = LAYERS.iter().find(|(layer, _)| *layer == name);
            let known = allowed.is_some() || TOPS.contains(&name);
            let unknown = (!known).then(|| format!("crate `{name}` has no place in the layers"));
            let shipped = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development);
            let wrong = shipped
                .filter(move |dependency| {
                    let used = dependency.name.as_str();
                    let backwards = used.starts_with("voxtral-")
                        && allowed.is_some_and(|(_, allowed)| !allowed.contains(&used));
                    let burn = used.starts_with("burn") && WITHOUT_BURN.contains(&name);
                    backwards || burn
                })
                .map(move |dependency| {
                    format!("crate `{name}` must not use `{}`", dependency.name)
                });
            unknown.into_iter().chain(wrong)
        })
}

fn licences(metadata: &Metadata) -> impl Iterator<Item = String> + '_ {
    metadata.packages.iter().filter_map(licence_problem)
}

fn licence_problem(package: &Package) -> Option<String> {
    let Some(licence) = &package.license else {
        return Some(format!("`{}` states no licence", package.name));
    };
    let permitted =
        spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|requirement| LICENCES.contains(&requirement.to_string().as_str()))
        });
    (!permitted).then(|| {
        format!(
            "`{}` is under {licence}, which is not permitted",
            package.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_keeps_its_layers_and_licences() {
        check().unwrap();
    }

    #[test]
    fn layers_never_point_backwards() {
        for (i, (name, uses)) in LAYERS.iter().enumerate() {
            let before = &LAYERS[..i];
            for used in *uses {
                assert!(before.iter().any(|(b, _)| b == used), "{name} uses {used}");
            }
        }
    }
}
