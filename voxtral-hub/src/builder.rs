//! Settings: given one by one, or read from the environment as Hugging Face's own libraries do.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Hub, HubError};

const ENDPOINT: &str = "https://huggingface.co";

/// Settings of a [`Hub`].
#[derive(Clone)]
pub struct HubBuilder {
    cache: Option<PathBuf>,
    endpoint: String,
    token: Option<String>,
    certificates: Option<PathBuf>,
    offline: bool,
    retries: u32,
}

impl HubBuilder {
    /// The cache in the folder `cache`, the public Hub, no token, online.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: Some(cache.into()),
            ..Self::blank()
        }
    }

    fn blank() -> Self {
        Self {
            cache: None,
            endpoint: ENDPOINT.to_owned(),
            token: None,
            certificates: None,
            offline: false,
            retries: 4,
        }
    }

    /// What the process's environment says (the table in the crate's documentation), with the
    /// token read from its file.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| {
            env::var_os(name).or_else(|| match name {
                "HOME" => env::home_dir().map(PathBuf::into_os_string),
                _ => None,
            })
        })
    }

    /// As [`from_env`](Self::from_env), with `lookup` in the place of the environment.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let home = lookup("HOME").map(PathBuf::from);
        let text = |name: &str| lookup(name)?.into_string().ok();
        let path = |name: &str| Some(expand(PathBuf::from(lookup(name)?), home.as_deref()));
        let flag = |name: &str| {
            text(name)
                .is_some_and(|v| matches!(&*v.to_ascii_uppercase(), "1" | "ON" | "YES" | "TRUE"))
        };

        let hf_home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(home.as_ref()?.join(".cache").join("huggingface")));
        let token = || {
            let from_file = || {
                let file =
                    path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")))?;
                std::fs::read_to_string(file).ok()
            };
            [text("HF_TOKEN"), text("HUGGING_FACE_HUB_TOKEN")]
                .into_iter()
                .flatten()
                .chain(from_file())
                .map(|token| token.trim().to_owned())
                .find(|token| !token.is_empty())
        };
        Self {
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| Some(hf_home.as_ref()?.join("hub"))),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            token: if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                token()
            },
            certificates: ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]
                .into_iter()
                .find_map(path),
            offline: match lookup("HF_HUB_OFFLINE") {
                Some(_) => flag("HF_HUB_OFFLINE"),
                None => flag("TRANSFORMERS_OFFLINE"),
            },
            ..Self::blank()
        }
    }

    /// The folder of the cache.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// The server's address, with `http` or `https`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// The access token. It is sent to the endpoint only, never to the storage that it refers to.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// A PEM file of certificates to trust instead of the built-in ones.
    pub fn certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificates = Some(file.into());
        self
    }

    /// Whether to make no request at all.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// How often a broken download is taken up again without any new byte; 4 if not set.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The hub with these settings. Nothing is read, written or sent yet.
    pub fn build(self) -> Result<Hub, HubError> {
        let endpoint = self.endpoint.trim().trim_end_matches('/');
        let host = endpoint
            .strip_prefix("https://")
            .or_else(|| endpoint.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(HubError::BadEndpoint {
                endpoint: self.endpoint,
            });
        }
        if self
            .token
            .as_ref()
            .is_some_and(|t| t.is_empty() || !t.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(HubError::BadToken);
        }
        Ok(Hub {
            cache: self.cache.ok_or(HubError::NoCacheFolder)?,
            endpoint: endpoint.to_owned(),
            token: self.token,
            certificates: self.certificates,
            offline: self.offline,
            retries: self.retries,
        })
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("certificates", &self.certificates)
            .field("offline", &self.offline)
            .field("retries", &self.retries)
            .finish()
    }
}

/// The path with a leading `~` replaced by the home folder.
pub(crate) fn expand(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Result<Hub, HubError> {
        HubBuilder::from_lookup(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| OsString::from(value))
        })
        .build()
    }

    #[test]
    fn the_cache_folder_is_where_the_other_libraries_have_it() {
        let mut variables = vec![("HOME", "/h")];
        for (variable, expected) in [
            (("HOME", "/h"), "/h/.cache/huggingface/hub"),
            (("XDG_CACHE_HOME", "/x"), "/x/huggingface/hub"),
            (("HF_HOME", "~/hf"), "/h/hf/hub"),
            (("HUGGINGFACE_HUB_CACHE", "/old"), "/old"),
            (("HF_HUB_CACHE", "/new"), "/new"),
        ] {
            variables.push(variable);
            assert_eq!(hub(&variables).unwrap().cache, Path::new(expected));
        }
        assert!(matches!(hub(&[]), Err(HubError::NoCacheFolder)));
        assert_eq!(
            hub(&[("HOME", "/h"), ("HF_HOME", "")]).unwrap().cache,
            Path::new("/h/.cache/huggingface/hub")
        );
    }

    #[test]
    fn the_token_is_taken_from_the_environment_and_then_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let other = folder.path().join("other");
        let other = other.to_str().unwrap();
        let token = |more: &[(&str, &str)]| {
            let mut variables = vec![("HF_HOME", home)];
            variables.extend(more);
            hub(&variables).unwrap().token
        };
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(
            token(&[("HF_TOKEN_PATH", other)]).as_deref(),
            Some("hf_other")
        );
        assert_eq!(
            token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]).as_deref(),
            Some("hf_old")
        );
        assert_eq!(
            token(&[("HF_TOKEN", " hf_env\n")]).as_deref(),
            Some("hf_env")
        );
        assert_eq!(token(&[("HF_TOKEN", "  ")]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert!(matches!(
            hub(&[("HF_HOME", home), ("HF_TOKEN", "a b")]),
            Err(HubError::BadToken)
        ));
    }

    #[test]
    fn endpoint_offline_and_certificates() {
        let hub = |more: &[(&str, &str)]| {
            let mut variables = vec![("HOME", "/h")];
            variables.extend(more);
            hub(&variables)
        };
        assert_eq!(hub(&[]).unwrap().endpoint, ENDPOINT);
        assert_eq!(
            hub(&[("HF_ENDPOINT", "http://localhost:1/hf/")])
                .unwrap()
                .endpoint,
            "http://localhost:1/hf"
        );
        for endpoint in ["huggingface.co", "https://", "ftp://x", "http://a b"] {
            assert!(matches!(
                hub(&[("HF_ENDPOINT", endpoint)]),
                Err(HubError::BadEndpoint { .. })
            ));
        }
        assert!(!hub(&[]).unwrap().offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert!(hub(&[("HF_HUB_OFFLINE", "1")]).unwrap().offline);
        assert!(hub(&[("TRANSFORMERS_OFFLINE", "yes")]).unwrap().offline);
        let both = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert!(!hub(&both).unwrap().offline);
        assert_eq!(
            hub(&[("SSL_CERT_FILE", "/c.pem")]).unwrap().certificates,
            Some(PathBuf::from("/c.pem"))
        );
    }

    #[test]
    fn the_token_is_not_printed() {
        let builder = HubBuilder::new("/c").token("hf_secret");
        assert!(!format!("{builder:?}").contains("secret"));
        assert!(!format!("{:?}", builder.build().unwrap()).contains("secret"));
    }
}
