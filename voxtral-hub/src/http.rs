//! The Hub's protocol: the list of a repository's files, a file's description, a file's bytes.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/models/{repo}/revision/{revision}?blobs=true` | JSON: commit, files with their sizes |
//! | `HEAD /{repo}/resolve/{commit}/{file}` | entity tag, size, where the bytes are |
//! | `GET` that place, with `Range` | the bytes, or those from a position on |
//!
//! The access token goes to the endpoint's own origin only. Large files live elsewhere, at
//! addresses that are signed and valid for a short time.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::{Hub, HubError};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(20);
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How many times a server may send us elsewhere.
const REDIRECTS: u32 = 8;
/// The longest list of files that is read.
const LISTING: u64 = 64 << 20;

/// A connection to the server, for one repository.
pub(crate) struct Client<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: Option<&'a str>,
    repo: &'a str,
}

/// The files of a repository at one commit.
pub(crate) struct Listing {
    pub(crate) commit: String,
    files: Vec<Sibling>,
}

impl Listing {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.rfilename == name)
    }

    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        let file = self.files.iter().find(|file| file.rfilename == name)?;
        file.lfs.as_ref().and_then(|lfs| lfs.size).or(file.size)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files
            .iter()
            .map(|file| file.rfilename.clone())
            .collect()
    }
}

/// A file as the server describes it.
pub(crate) struct Described {
    /// Where the bytes are.
    pub(crate) url: String,
    /// The content's identity; of a large file, its SHA-256.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    size: Option<u64>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(hub: &'a Hub, repo: &'a str) -> Result<Self, HubError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .accept_encoding("identity")
            .user_agent(concat!(
                env!("CARGO_PKG_NAME"),
                "/",
                env!("CARGO_PKG_VERSION")
            ));
        if is_this_machine(&hub.endpoint) {
            config = config.proxy(None);
        }
        if let Some(file) = &hub.certificates {
            let pem = std::fs::read(file).map_err(HubError::io("read", file))?;
            let found: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                return Err(HubError::BadCertificates { path: file.clone() });
            }
            let roots = RootCerts::Specific(Arc::new(found));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint: &hub.endpoint,
            token: hub.token.as_deref(),
            repo,
        })
    }

    /// The repository's files at `revision`.
    pub(crate) fn list(&self, revision: &str) -> Result<Listing, HubError> {
        let mut url = format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.endpoint,
            self.repo,
            escape(revision)
        );
        let response = self.follow(Method::Get, &mut url)?.0;
        if !response.status().is_success() {
            return Err(self.refusal(&response, &url, Asked::Revision(revision)));
        }
        let body = response
            .into_body()
            .into_with_config()
            .limit(LISTING)
            .reader();
        let info: Info =
            serde_json::from_reader(std::io::BufReader::new(body)).map_err(|error| {
                if error.is_io() {
                    self.unreachable(error)
                } else {
                    HubError::BadAnswer {
                        url: url.clone(),
                        what: format!("is no list of files ({error})"),
                    }
                }
            })?;
        if !is_name(&info.sha) {
            return Err(HubError::BadAnswer {
                url,
                what: "names no commit".to_owned(),
            });
        }
        Ok(Listing {
            commit: info.sha,
            files: info.siblings,
        })
    }

    /// The description of a file.
    pub(crate) fn describe(&self, commit: &str, file: &str) -> Result<Described, HubError> {
        let mut url = format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint,
            self.repo,
            escape(commit),
            escape(file)
        );
        let asked = url.clone();
        let (response, first) = self.follow(Method::Head, &mut url)?;
        let status = response.status();
        if !status.is_success() && !status.is_redirection() {
            return Err(self.refusal(&response, &url, Asked::File(file)));
        }
        let wrong = |what: &str| HubError::BadAnswer {
            url: asked.clone(),
            what: what.to_owned(),
        };
        let last = response.headers();
        let etag = header(&first, "x-linked-etag")
            .or_else(|| header(last, "x-linked-etag"))
            .or_else(|| header(last, "etag"))
            .or_else(|| header(&first, "etag"))
            .ok_or_else(|| wrong("has no entity tag"))?;
        let etag = etag
            .strip_prefix("W/")
            .unwrap_or(etag)
            .trim_matches('"')
            .to_owned();
        if !is_name(&etag) {
            return Err(wrong("has an entity tag that cannot name a file"));
        }
        let linked = header(&first, "x-linked-size").or_else(|| header(last, "x-linked-size"));
        let own = if status.is_success() {
            header(last, "content-length")
        } else {
            None
        };
        let size = match linked.or(own) {
            Some(size) => Some(
                size.parse()
                    .map_err(|_| wrong("has a size that is no number"))?,
            ),
            None => None,
        };
        if status.is_redirection() {
            url = header(last, "location")
                .ok_or_else(|| wrong("refers to no address"))?
                .to_owned();
            if self.is_ours(&url) {
                return Err(wrong("goes round in circles"));
            }
        }
        Ok(Described { url, etag, size })
    }

    /// The bytes of `file` from position `from` on. The caller looks at the status: 200 is the
    /// whole file, 206 the part, 416 that there is nothing from there on.
    pub(crate) fn get(&self, url: &str, file: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = self.token.filter(|_| self.is_ours(url)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        // The agent drops the token where it is sent elsewhere.
        let response = request
            .config()
            .max_redirects(REDIRECTS)
            .build()
            .call()
            .map_err(|error| self.unreachable(error))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            _ => Err(self.refusal(&response, url, Asked::File(file))),
        }
    }

    /// Sends the request with the token, and again wherever the answer refers to within the
    /// endpoint's own origin. `url` is in the end the one that answered; the headers are those
    /// of the first answer.
    fn follow(
        &self,
        method: Method,
        url: &mut String,
    ) -> Result<(Response<Body>, HeaderMap), HubError> {
        let mut first = None;
        for _ in 0..=REDIRECTS {
            let mut request = match method {
                Method::Get => self.agent.get(&*url),
                Method::Head => self.agent.head(&*url),
            };
            if let Some(token) = self.token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request
                .config()
                .max_redirects(0)
                .build()
                .call()
                .map_err(|error| self.unreachable(error))?;
            let first = first.get_or_insert_with(|| response.headers().clone());
            let next = match header(response.headers(), "location") {
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    Some(format!("{}{path}", origin(self.endpoint)))
                }
                Some(other) if self.is_ours(other) => Some(other.to_owned()),
                _ => None,
            };
            match next {
                Some(next) if response.status().is_redirection() => *url = next,
                _ => return Ok((response, first.clone())),
            }
        }
        Err(HubError::BadAnswer {
            url: url.clone(),
            what: "goes round in circles".to_owned(),
        })
    }

    fn is_ours(&self, url: &str) -> bool {
        origin(url) == origin(self.endpoint)
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HubError {
        HubError::Unreachable {
            endpoint: self.endpoint.to_owned(),
            repo: self.repo.to_owned(),
            source: source.into(),
        }
    }

    /// The error that a status stands for. The Hub says more in `X-Error-Code`.
    fn refusal(&self, response: &Response<Body>, url: &str, asked: Asked<'_>) -> HubError {
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let repo = self.repo.to_owned();
        let page = format!("{}/{}", self.endpoint, self.repo);
        let token = self.token.is_some();
        match (response.status().as_u16(), code, asked) {
            (401 | 403, "GatedRepo", _) | (403, _, _) if self.is_ours(url) => {
                HubError::Gated { repo, page, token }
            }
            (401, _, _) if self.is_ours(url) => HubError::Unauthorized { repo, page, token },
            (404, "RevisionNotFound", Asked::Revision(revision)) => HubError::NotFound {
                repo,
                revision: Some(revision.to_owned()),
                page,
            },
            (404, _, Asked::Revision(_)) => HubError::NotFound {
                repo,
                revision: None,
                page,
            },
            (404, _, Asked::File(file)) => HubError::NoFile {
                repo,
                file: file.to_owned(),
            },
            // Without its query, which may hold a signature.
            (status, _, _) => HubError::Status {
                status,
                url: url.split('?').next().unwrap_or(url).to_owned(),
            },
        }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

#[derive(Clone, Copy)]
enum Asked<'a> {
    Revision(&'a str),
    File(&'a str),
}

/// A header's value as text.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..]
        .find(['/', '?', '#'])
        .map_or(url, |end| &url[..start + end])
}

/// Whether the address is one of this machine's own.
fn is_this_machine(url: &str) -> bool {
    url.parse::<Uri>().ok().and_then(|uri| {
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        Some(
            host == "localhost"
                || host
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback()),
        )
    }) == Some(true)
}

/// Whether the text can be the name of a file in the cache.
fn is_name(text: &str) -> bool {
    text.len() <= 200
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// The text as one segment of an address.
fn escape(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("https://h.co"), "https://h.co");
        assert_eq!(origin("https://h.co/a/b?c"), "https://h.co");
        assert_eq!(origin("http://h:80?x"), "http://h:80");
        assert_ne!(origin("https://h.co.evil/a"), origin("https://h.co/a"));
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(escape("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(escape("v1.0-a_b"), "v1.0-a_b");
    }

    #[test]
    fn this_machine() {
        for url in [
            "http://127.0.0.1:80/x",
            "http://localhost",
            "http://[::1]:9",
        ] {
            assert!(is_this_machine(url), "{url}");
        }
        assert!(!is_this_machine("https://huggingface.co"));
    }

    #[test]
    fn names_of_blobs_cannot_leave_the_folder() {
        assert!(is_name("d41d8cd98f00b204"));
        for name in ["", "..", "../a", "a/b", "a.b", "a\\b", ".a"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
