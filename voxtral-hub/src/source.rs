//! What a model may be called: a folder, an alias, or a name on the Hub.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::HubError;

/// A short name for a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The short name.
    pub name: &'static str,
    /// The repository it stands for.
    pub repo: &'static str,
    /// What the model is good for, in one line.
    pub about: &'static str,
}

/// Every alias there is.
pub const ALIASES: &[Alias] = &[
    Alias {
        name: "mini",
        repo: "mistralai/Voxtral-Mini-3B-2507",
        about: "transcription and chat, 3 billion parameters, 9 GB",
    },
    Alias {
        name: "small",
        repo: "mistralai/Voxtral-Small-24B-2507",
        about: "transcription and chat, 24 billion parameters, 49 GB",
    },
    Alias {
        name: "realtime",
        repo: "mistralai/Voxtral-Mini-4B-Realtime-2602",
        about: "live transcription with word times, 4 billion parameters, 9 GB",
    },
];

/// Where a model comes from.
///
/// Read from text by these rules, the first that fits:
///
/// 1. an existing folder is that folder;
/// 2. text that starts with `.`, `/` or `~`, or is an absolute path, is a folder (that may be absent);
/// 3. one of the [`ALIASES`], with `@revision` if need be, is its repository;
/// 4. `org/name` or `org/name@revision` is that repository;
/// 5. anything else is an error that lists the aliases.
///
/// ```
/// use voxtral_hub::ModelSource;
///
/// let source: ModelSource = "mistralai/Voxtral-Mini-3B-2507@main".parse()?;
/// assert_eq!(
///     source,
///     ModelSource::Hub {
///         repo: "mistralai/Voxtral-Mini-3B-2507".to_owned(),
///         revision: Some("main".to_owned()),
///     }
/// );
/// # Ok::<(), voxtral_hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// A local folder.
    Folder(PathBuf),
    /// A repository on the Hub.
    Hub {
        /// The repository, `org/name`.
        repo: String,
        /// A branch, a tag or a commit; `main` if absent.
        revision: Option<String>,
    },
}

impl ModelSource {
    /// The source that `text` names, with `is_folder` telling which folders exist.
    fn read(text: &str, is_folder: impl Fn(&Path) -> bool) -> Result<Self, HubError> {
        let path = Path::new(text);
        if !text.is_empty()
            && (is_folder(path) || text.starts_with(['.', '/', '~']) || path.is_absolute())
        {
            return Ok(Self::Folder(path.to_owned()));
        }
        let unknown = || HubError::UnknownModel {
            name: text.to_owned(),
        };
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let repo = ALIASES
            .iter()
            .find(|a| a.name == name)
            .map_or(name, |a| a.repo);
        if !is_repo(repo) || !revision.is_none_or(is_revision) {
            return Err(unknown());
        }
        Ok(Self::Hub {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }
}

impl FromStr for ModelSource {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        Self::read(text, Path::is_dir)
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Hub {
                repo,
                revision: None,
            } => f.write_str(repo),
            Self::Hub {
                repo,
                revision: Some(revision),
            } => write!(f, "{repo}@{revision}"),
        }
    }
}

/// Whether `text` is `org/name`, with nothing in it that could leave a folder.
pub(crate) fn is_repo(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("--")
            && !part.contains("..")
    };
    text.len() <= 96
        && text
            .split_once('/')
            .is_some_and(|(org, name)| part(org) && part(name))
}

/// Whether `text` can be a branch, a tag or a commit, with nothing in it that could leave a folder.
pub(crate) fn is_revision(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    text.len() <= 255 && text.split('/').all(part)
}

/// Whether `text` is a whole commit hash, which names one state for ever.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ModelSource, HubError> {
        ModelSource::read(text, |path| {
            path == Path::new("here") || path == Path::new("org/here")
        })
    }

    fn hub(repo: &str, revision: Option<&str>) -> ModelSource {
        ModelSource::Hub {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
        }
    }

    #[test]
    fn aliases_are_unique_names_of_repositories() {
        for (at, alias) in ALIASES.iter().enumerate() {
            assert_eq!(read(alias.name).unwrap(), hub(alias.repo, None));
            assert!(
                ALIASES[at + 1..]
                    .iter()
                    .all(|other| other.name != alias.name)
            );
            assert!(!alias.about.is_empty());
        }
        assert_eq!(
            read("mini").unwrap(),
            hub("mistralai/Voxtral-Mini-3B-2507", None)
        );
        assert_eq!(
            read("small").unwrap(),
            hub("mistralai/Voxtral-Small-24B-2507", None)
        );
    }

    #[test]
    fn repositories_with_and_without_revision() {
        assert_eq!(read("org/name").unwrap(), hub("org/name", None));
        assert_eq!(
            read("org/name@v1.0").unwrap(),
            hub("org/name", Some("v1.0"))
        );
        assert_eq!(
            read("org/name@refs/pr/3").unwrap(),
            hub("org/name", Some("refs/pr/3"))
        );
        assert_eq!(
            read("mini@abc").unwrap(),
            hub("mistralai/Voxtral-Mini-3B-2507", Some("abc"))
        );
        assert_eq!(read("org/name@v1.0").unwrap().to_string(), "org/name@v1.0");
    }

    #[test]
    fn folders_by_existence_or_by_look() {
        for text in [
            "here",
            "org/here",
            "./mini",
            "../x",
            "/models/a",
            "~/models",
            ".",
        ] {
            assert_eq!(
                read(text).unwrap(),
                ModelSource::Folder(PathBuf::from(text))
            );
        }
    }

    #[test]
    fn anything_else_lists_the_aliases() {
        for text in [
            "",
            "medium",
            "a/b/c",
            "org/",
            "@x",
            "org/na me",
            "org/..",
            "org/a--b",
            "org/a..b",
            "org/name@",
            "org/name@../x",
            "org/name@a//b",
            "org/name@x@y",
            "a\\b",
            "org/näme",
            "-x/name",
        ] {
            let message = read(text).unwrap_err().to_string();
            for alias in ALIASES {
                assert!(message.contains(alias.name), "{text:?}: {message}");
            }
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn a_commit_is_forty_hexadecimal_digits() {
        assert!(is_commit(&"0a".repeat(20)));
        assert!(!is_commit("main"));
        assert!(!is_commit(&"0G".repeat(20)));
        assert!(!is_commit(&"0a".repeat(19)));
    }
}
