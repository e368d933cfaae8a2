//! Which files make a model: the two forms, and what a loader needs of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::HubError;

const CONFIG: &str = "config.json";
const PARAMS: &str = "params.json";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const CONSOLIDATED: &str = "consolidated.safetensors";
pub(crate) const TOKENIZER: &str = "tekken.json";

/// Small files of the Hugging Face form that a loader uses where they exist.
const OPTIONAL: [&str; 3] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// The two forms in which a model is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    HuggingFace,
    Native,
}

/// In order of preference.
const FORMS: [Form; 2] = [Form::HuggingFace, Form::Native];

impl Form {
    /// The preferred form among the files that `has` knows.
    pub(crate) fn choose(has: impl Fn(&str) -> bool) -> Option<Self> {
        FORMS.into_iter().find(|form| match form {
            Self::HuggingFace => has(CONFIG) && (has(INDEX) || has(SINGLE)),
            Self::Native => has(PARAMS) && has(CONSOLIDATED),
        })
    }

    /// The form that the folder holds whole, the preferred one if it holds both.
    pub(crate) fn in_folder(folder: &Path) -> Option<Self> {
        FORMS.into_iter().find(|form| form.lacks(folder).is_empty())
    }

    /// The small files that are needed, and those that are taken where they exist.
    pub(crate) fn small(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::HuggingFace => (&[CONFIG, TOKENIZER], &OPTIONAL),
            Self::Native => (&[PARAMS, TOKENIZER], &[]),
        }
    }

    /// Whether an index says which the weights' files are.
    pub(crate) fn is_indexed(self, has: impl Fn(&str) -> bool) -> bool {
        self == Self::HuggingFace && has(INDEX)
    }

    /// The file of weights, for lack of an index.
    pub(crate) fn single(self) -> &'static str {
        match self {
            Self::HuggingFace => SINGLE,
            Self::Native => CONSOLIDATED,
        }
    }

    /// The files that the folder lacks to be whole in this form.
    fn lacks(self, folder: &Path) -> Vec<String> {
        // `is_file` follows links, so a link to nowhere counts as absent.
        let has = |name: &str| folder.join(name).is_file();
        let (needed, _) = self.small();
        let mut wanted: Vec<String> = needed.iter().map(|&name| name.to_owned()).collect();
        if self.is_indexed(has) {
            match std::fs::read(folder.join(INDEX))
                .ok()
                .and_then(|index| shards(&index, INDEX).ok())
            {
                Some(shards) => wanted.extend(shards),
                None => return vec![format!("{INDEX} (a valid one)")],
            }
        } else {
            wanted.push(self.single().to_owned());
        }
        wanted.retain(|name| !has(name));
        wanted
    }
}

/// The files that the folder lacks to be a model, by the form that is nearest; none if it is whole.
pub(crate) fn lacks(folder: &Path) -> Vec<String> {
    FORMS
        .into_iter()
        .map(|form| form.lacks(folder))
        .min_by_key(Vec::len)
        .unwrap_or_default()
}

/// The files that an index of weights names, sorted, each once.
pub(crate) fn shards(index: &[u8], label: &str) -> Result<Vec<String>, HubError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(index).map_err(|source| HubError::BadIndex {
        index: label.to_owned(),
        source,
    })?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(HubError::EmptyIndex {
            index: label.to_owned(),
        });
    }
    if let Some(shard) = names.iter().find(|name| !is_shard(name)) {
        return Err(HubError::BadShardName {
            index: label.to_owned(),
            shard: shard.clone(),
        });
    }
    Ok(names.into_iter().collect())
}

/// Whether the name is that of a file of weights directly in the model's folder.
fn is_shard(name: &str) -> bool {
    name.ends_with(".safetensors")
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hugging_face_form_is_preferred_where_it_is_whole() {
        let choose = |names: &[&str]| Form::choose(|name| names.contains(&name));
        assert_eq!(
            choose(&[CONFIG, INDEX, PARAMS, CONSOLIDATED]),
            Some(Form::HuggingFace)
        );
        assert_eq!(choose(&[CONFIG, SINGLE]), Some(Form::HuggingFace));
        assert_eq!(choose(&[CONFIG, PARAMS, CONSOLIDATED]), Some(Form::Native));
        assert_eq!(choose(&[INDEX, SINGLE, CONSOLIDATED]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn shards_are_sorted_and_named_once() {
        let index = br#"{"metadata":{"total_size":3},"weight_map":
            {"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#;
        assert_eq!(
            shards(index, INDEX).unwrap(),
            ["m-1.safetensors", "m-2.safetensors"]
        );
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "../evil.safetensors",
            "/evil.safetensors",
            "a/b.safetensors",
            "..\\\\evil.safetensors",
            ".safetensors",
            "weights.bin",
            "",
            "c:evil.safetensors",
        ] {
            let index = format!(r#"{{"weight_map":{{"t":"{name}"}}}}"#);
            assert!(
                matches!(
                    shards(index.as_bytes(), INDEX),
                    Err(HubError::BadShardName { .. })
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn an_index_without_shards_is_refused() {
        assert!(matches!(
            shards(br#"{"weight_map":{}}"#, INDEX),
            Err(HubError::EmptyIndex { .. })
        ));
        assert!(matches!(
            shards(b"{}", INDEX),
            Err(HubError::BadIndex { .. })
        ));
        assert!(matches!(
            shards(b"<html>", INDEX),
            Err(HubError::BadIndex { .. })
        ));
    }
}
