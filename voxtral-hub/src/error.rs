//! What can go wrong between a model's name and its folder.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::ALIASES;

/// The error of every operation of this crate: what is wrong, what was found and what was
/// expected, and how to mend it. Messages are fragments of one line, made to follow
/// `failed to load model: `; a cause is the [`source`](Error::source) and not repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The text names no model.
    #[error(
        "`{name}` names no model: give a folder, {}, or a name on the Hub such as `{}`",
        Quoted(&ALIASES.iter().map(|a| a.name).collect::<Vec<_>>()), ALIASES[0].repo
    )]
    UnknownModel {
        /// The text.
        name: String,
    },

    /// The folder does not exist, or is a file.
    #[error("`{}` is not a folder: give the folder that holds the model's files", path.display())]
    NotAFolder {
        /// The path that was given.
        path: PathBuf,
    },

    /// No cache folder was given, and none follows from the environment.
    #[error("no folder for the model cache: set HF_HOME or HOME")]
    NoCacheFolder,

    /// The server's address is not one.
    #[error("HF_ENDPOINT is `{endpoint}`, expected an address such as `https://huggingface.co`")]
    BadEndpoint {
        /// The address that was given.
        endpoint: String,
    },

    /// The access token has a blank or another character that no token has.
    #[error(
        "the access token (HF_TOKEN or the token file) holds a character that no token has: copy it again"
    )]
    BadToken,

    /// The file of trusted certificates holds none.
    #[error("`{}` holds no certificate in PEM form: correct SSL_CERT_FILE or REQUESTS_CA_BUNDLE", path.display())]
    BadCertificates {
        /// The file.
        path: PathBuf,
    },

    /// Offline, and the cache does not hold the model.
    #[error(
        "`{repo}` is not complete in the cache `{}`, which lacks {}, and HF_HUB_OFFLINE forbids \
         fetching it: unset HF_HUB_OFFLINE or give a folder that holds the model",
        cache.display(), Quoted(lacks)
    )]
    Offline {
        /// The repository, with the revision if one was asked for.
        repo: String,
        /// The cache folder.
        cache: PathBuf,
        /// The files that are absent.
        lacks: Vec<String>,
    },

    /// The server cannot be reached, and the cache does not hold the model.
    #[error(
        "cannot reach `{endpoint}` to fetch `{repo}`: check the network, HTTPS_PROXY and HF_ENDPOINT, \
         or give a folder that holds the model"
    )]
    Unreachable {
        /// The server's address.
        endpoint: String,
        /// The repository.
        repo: String,
        /// What the connection said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// The repository is gated.
    #[error(
        "`{repo}` is gated: accept its terms at {page}, then {}",
        if *token { "retry (HF_TOKEN must belong to the account that accepted)" }
        else { "set HF_TOKEN to an access token of your account" }
    )]
    Gated {
        /// The repository.
        repo: String,
        /// The page where the terms can be accepted.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },

    /// The server does not know who asks, or that there is such a repository.
    #[error(
        "`{repo}` cannot be fetched from {page}: {}",
        if *token { "the server refuses the access token: renew HF_TOKEN (or unset it, if the repository is public)" }
        else { "no such repository, or a private or gated one: check the name, or set HF_TOKEN to an access token" }
    )]
    Unauthorized {
        /// The repository.
        repo: String,
        /// The repository's page.
        page: String,
        /// Whether a token was sent.
        token: bool,
    },

    /// The server has no such repository, or none with this revision.
    #[error(
        "`{repo}` {}: check the name (there is no local folder of that name either)",
        match revision {
            Some(revision) => format!("has no revision `{revision}` at {page}"),
            None => format!("does not exist at {page}"),
        }
    )]
    NotFound {
        /// The repository.
        repo: String,
        /// The absent revision, if the repository is known.
        revision: Option<String>,
        /// The repository's page.
        page: String,
    },

    /// The server lists a file that it does not have.
    #[error("`{file}` of `{repo}` is listed but not found on the server: retry later")]
    NoFile {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
    },

    /// The server answers with a status that is none of the above.
    #[error(
        "server answered {status} for `{url}`{}",
        if *status >= 500 || *status == 429 { ": retry later" } else { "" }
    )]
    Status {
        /// The HTTP status.
        status: u16,
        /// The address that was asked for.
        url: String,
    },

    /// The server's answer is not the one that the protocol asks for.
    #[error("server's answer for `{url}` {what}: check HF_ENDPOINT")]
    BadAnswer {
        /// The address that was asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },

    /// The repository holds no weights in a form that is known.
    #[error(
        "`{repo}` holds no model in a known form: found {}, expected `config.json` with \
         `model.safetensors.index.json` or `model.safetensors`, or `params.json` with \
         `consolidated.safetensors`",
        Quoted(found)
    )]
    NoModel {
        /// The repository.
        repo: String,
        /// The files that it holds.
        found: Vec<String>,
    },

    /// The repository holds no tokenizer.
    #[error(
        "`{repo}` holds no `tekken.json`, the tokenizer that every Voxtral model needs: choose another repository"
    )]
    NoTokenizer {
        /// The repository.
        repo: String,
    },

    /// The index of the weights is not JSON, or not the JSON that is expected.
    #[error("`{index}` is not a valid index of weights")]
    BadIndex {
        /// The index.
        index: String,
        /// Where and why it does not parse.
        #[source]
        source: serde_json::Error,
    },

    /// The index names no shard at all.
    #[error("`{index}` names no file of weights: its `weight_map` is empty")]
    EmptyIndex {
        /// The index.
        index: String,
    },

    /// The index names a shard that cannot be one.
    #[error(
        "`{index}` names the file `{shard}`, expected a plain name that ends in `.safetensors`"
    )]
    BadShardName {
        /// The index.
        index: String,
        /// The name.
        shard: String,
    },

    /// The index names a shard that the repository does not hold.
    #[error("`{index}` names the file `{shard}`, which the repository does not hold")]
    MissingShard {
        /// The index.
        index: String,
        /// The absent shard.
        shard: String,
    },

    /// The connection ended before the file did.
    #[error(
        "download of `{file}` stopped at {found} of {expected} bytes: run again to continue from there"
    )]
    Interrupted {
        /// The file.
        file: String,
        /// The bytes that have arrived.
        found: u64,
        /// The bytes that were stated.
        expected: u64,
        /// What the connection said.
        #[source]
        source: std::io::Error,
    },

    /// The file has another length than stated.
    #[error(
        "download of `{file}` has {found} bytes, expected {expected}: run again to fetch it anew"
    )]
    Length {
        /// The file.
        file: String,
        /// The bytes that the server sent.
        found: u64,
        /// The bytes that were stated.
        expected: u64,
    },

    /// The file's content is not the one that was stated.
    #[error(
        "download of `{file}` has SHA-256 {found}, expected {expected}: run again to fetch it anew"
    )]
    Content {
        /// The file.
        file: String,
        /// The hash of what arrived.
        found: String,
        /// The hash that was stated.
        expected: String,
    },

    /// A file of the cache could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted: `read`, `write`, `create`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

impl HubError {
    /// Whether the same request may well succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            _ => false,
        }
    }

    /// Whether a copy in the cache serves instead: the server, not the request, is to blame.
    pub(crate) fn may_use_cache(&self) -> bool {
        self.is_transient()
            || matches!(
                self,
                Self::Unauthorized { .. } | Self::Gated { .. } | Self::BadAnswer { .. }
            )
    }

    /// A closure that wraps what the operating system said.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Names in backticks, at most a handful, with how many more there are.
struct Quoted<'a, T>(&'a [T]);

impl<T: AsRef<str>> fmt::Display for Quoted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (at, name) in self.0.iter().take(SHOWN).enumerate() {
            write!(
                f,
                "{}`{}`",
                if at == 0 { "" } else { ", " },
                name.as_ref().escape_debug()
            )?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}
