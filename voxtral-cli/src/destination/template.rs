//! Names of output files, with places for what differs.
//!
//! A template names a file below the output folder and cannot leave it: neither by its own text,
//! nor by what is filled in.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use voxtral_pipeline::Format;

/// A name with placeholders.
#[derive(Debug, Clone)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Placeholder),
}

/// What differs from file to file or from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    /// The input's name without its extension.
    Stem,
    /// The extension of the format.
    Ext,
    /// The format.
    Format,
    /// The model.
    Model,
    /// The day.
    Date,
}

impl Placeholder {
    const ALL: [(&str, Self); 5] = [
        ("stem", Self::Stem),
        ("ext", Self::Ext),
        ("format", Self::Format),
        ("model", Self::Model),
        ("date", Self::Date),
    ];
}

/// What is the same for all files of a run.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    model: String,
    /// As in 2026-01-31, by the machine's own calendar.
    date: String,
}

impl Values {
    pub(crate) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            date: jiff::Zoned::now().date().to_string(),
        }
    }
}

impl Default for Template {
    /// As Whisper names files: `talk.srt`.
    fn default() -> Self {
        Self(vec![
            Part::Place(Placeholder::Stem),
            Part::Text(".".to_owned()),
            Part::Place(Placeholder::Ext),
        ])
    }
}

impl Template {
    /// The file for an input, below the output folder.
    pub(crate) fn fill(&self, input: &Path, format: Format, values: &Values) -> PathBuf {
        let stem = match input.file_stem() {
            Some(stem) if stem != "-" => stem.to_string_lossy(),
            _ => "stdin".into(),
        };
        let value = |placeholder| match placeholder {
            Placeholder::Stem => stem.to_string(),
            Placeholder::Ext => format.extension().to_owned(),
            Placeholder::Format => format.name().to_owned(),
            Placeholder::Model => values.model.clone(),
            Placeholder::Date => values.date.clone(),
        };
        let name: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Place(placeholder) => harmless(&value(*placeholder)),
            })
            .collect();
        PathBuf::from(name)
    }
}

/// A value that is part of a name: it opens no folder and is none.
fn harmless(value: &str) -> String {
    let value = value.replace(['/', '\\', ':'], "-");
    match value.chars().all(|c| c == '.') {
        true => "_".repeat(value.len().max(1)),
        false => value,
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let after = &rest[open + 1..];
            let close = after.find('}').filter(|_| rest[open..].starts_with('{'));
            let close = close.ok_or_else(|| {
                format!("a brace stands alone, expected placeholders as {}", known())
            })?;
            let name = &after[..close];
            let found = Placeholder::ALL.iter().find(|(known, _)| *known == name);
            let (_, placeholder) = found
                .ok_or_else(|| format!("unknown placeholder {{{name}}}, expected {}", known()))?;
            parts.push(Part::Text(rest[..open].to_owned()));
            parts.push(Part::Place(*placeholder));
            rest = &after[close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        let template = Self(parts);
        template.check()?;
        Ok(template)
    }
}

impl Template {
    /// Fails unless this names a file below the folder.
    fn check(&self) -> Result<(), String> {
        let place = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(_) => "x".to_owned(),
        };
        let name: String = self.0.iter().map(place).collect();
        if name.is_empty() || name.ends_with(std::path::is_separator) {
            return Err("expected the name of a file, as `{stem}.{ext}`".to_owned());
        }
        let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&name).components().all(stays) {
            return Err(
                "it leads out of the folder: name that with `--output-dir`, and here a file in it"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// `{stem}, {ext}, …`
fn known() -> String {
    let names = Placeholder::ALL.map(|(name, _)| format!("{{{name}}}"));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, input: &str, format: Format) -> String {
        let values = Values {
            model: "mistralai/Voxtral-Mini-3B-2507".to_owned(),
            date: "2026-01-31".to_owned(),
        };
        let template: Template = template.parse().unwrap();
        let path = template.fill(Path::new(input), format, &values);
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn placeholders_are_filled() {
        let all = "{date}/{model}/{stem}-{format}.{ext}";
        assert_eq!(
            fill(all, "a/talk.one.mp3", Format::Text),
            "2026-01-31/mistralai-Voxtral-Mini-3B-2507/talk.one-text.txt"
        );
        assert_eq!(fill("x", "-", Format::Srt), "x");
        assert_eq!(fill("{stem}{stem}", "-", Format::Srt), "stdinstdin");
    }

    #[test]
    fn no_value_leads_out_of_the_folder() {
        for name in ["...", "..", ".", "/", ""] {
            let path = fill("{stem}/{ext}", name, Format::Srt);
            assert!(
                Path::new(&path)
                    .components()
                    .all(|part| matches!(part, Component::Normal(_))),
                "{name}: {path}"
            );
        }
        assert_eq!(fill("{stem}/{ext}", "...", Format::Srt), "__/srt");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, word) in [
            ("{stem}.{lang}", "{lang}"),
            ("{Stem}", "{Stem}"),
            ("{}", "{stem}, {ext}, {format}, {model}, {date}"),
            ("{stem", "brace"),
            ("stem}", "brace"),
            ("{{stem}}", "{{stem}"),
            ("", "name of a file"),
            ("out/", "name of a file"),
            ("../{stem}", "--output-dir"),
            ("a/../../{stem}", "--output-dir"),
            ("/tmp/{stem}", "--output-dir"),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(word), "{template}: {error}");
        }
    }
}
