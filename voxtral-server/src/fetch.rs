//! Files that a request names by their URL.
//!
//! A server can reach what its clients cannot: its own machine and the network behind it. So names
//! are resolved here, for the first address and for each that it redirects to, and a connection is
//! made to nothing but the public addresses that were found.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use ureq::{
    Agent,
    config::Config as AgentConfig,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use crate::{Config, ServerError};

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(120);

/// How many times a server may send us elsewhere.
const REDIRECTS: u32 = 5;

/// The longest URL, in bytes.
const LONGEST_URL: usize = 8192;

/// Files that are fetched at once; others wait.
const AT_ONCE: usize = 16;

/// Fetches files.
#[derive(Debug)]
pub(crate) struct Fetcher {
    agent: Agent,
    limit: u64,
    places: Arc<Semaphore>,
}

impl Fetcher {
    pub(crate) fn new(config: &Config) -> Self {
        let patience = Some(config.patience);
        let agent = Agent::config_builder()
            .timeout_global(Some(LONGEST))
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .max_redirects(REDIRECTS)
            .max_idle_connections(0)
            .accept_encoding("identity")
            .user_agent(concat!("voxtral/", env!("CARGO_PKG_VERSION")))
            // A proxy would resolve names by itself.
            .proxy(None)
            .build();
        let resolver = Public {
            system: DefaultResolver::default(),
            all: config.allow_private_urls,
        };
        Self {
            agent: Agent::with_parts(agent, DefaultConnector::default(), resolver),
            limit: config.max_body,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Fetches the file at a URL, which stands in this field, to where it is gone once it is closed.
    pub(crate) async fn fetch(&self, field: &str, url: &str) -> Result<File, ServerError> {
        check(field, url)?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        let (agent, limit, address) = (self.agent.clone(), self.limit, url.to_owned());
        let fetched = tokio::task::spawn_blocking(move || {
            let _place = place;
            download(&agent, &address, limit)
        });
        let fetched = fetched.await.map_err(|_| ServerError::Crashed)?;
        fetched.map_err(|fault| match fault {
            Fault::Remote(reason) => ServerError::Fetch {
                field: field.to_owned(),
                url: url.to_owned(),
                reason,
            },
            Fault::TooLarge => ServerError::TooLarge {
                subject: "file at the URL",
                limit: format!("{limit} bytes"),
            },
            Fault::Storage(error) => ServerError::Storage(error),
        })
    }
}

/// Whether this is the URL of something that is fetched.
pub(crate) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.len() < 16 && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn check(field: &str, url: &str) -> Result<(), ServerError> {
    let expected = "a URL of at most 8192 characters that begins with `http://` or `https://`";
    if url.len() > LONGEST_URL {
        let found = format!("{} characters long", url.len());
        return Err(ServerError::field(field, found, expected));
    }
    let scheme = url.parse::<Uri>().ok().and_then(|uri| {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        uri.host().map(|_| scheme)
    });
    match scheme.as_deref() {
        Some("http" | "https") => Ok(()),
        _ => Err(ServerError::field(field, format!("`{url}`"), expected)),
    }
}

/// What went wrong, and where.
enum Fault {
    Remote(String),
    TooLarge,
    Storage(std::io::Error),
}

fn download(agent: &Agent, url: &str, limit: u64) -> Result<File, Fault> {
    let response = agent.get(url).call();
    let mut response = response.map_err(|error| Fault::Remote(reason(&error)))?;
    let body = response.body_mut();
    if body.content_length().is_some_and(|length| length > limit) {
        return Err(Fault::TooLarge);
    }
    let mut body = body.with_config().limit(u64::MAX).reader().take(limit + 1);
    let mut file = tempfile::tempfile().map_err(Fault::Storage)?;
    let mut piece = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let count = body.read(&mut piece);
        let count = count.map_err(|error| Fault::Remote(reason(&error.into())))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        std::io::Write::write_all(&mut file, &piece[..count]).map_err(Fault::Storage)?;
    }
    if bytes > limit {
        return Err(Fault::TooLarge);
    }
    file.seek(SeekFrom::Start(0)).map_err(Fault::Storage)?;
    Ok(file)
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(status) => format!("its server answers with status {status}"),
        ureq::Error::Timeout(_) => "its server takes too long".to_owned(),
        ureq::Error::HostNotFound => "its server is not found".to_owned(),
        ureq::Error::TooManyRedirects => format!("it redirects more than {REDIRECTS} times"),
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// Finds public addresses; all, if it is permitted.
#[derive(Debug)]
struct Public {
    system: DefaultResolver,
    all: bool,
}

impl Resolver for Public {
    fn resolve(
        &self,
        uri: &Uri,
        config: &AgentConfig,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in found.iter().filter(|it| self.all || is_public(it.ip())) {
            kept.push(*address);
        }
        if kept.is_empty() {
            let reason = "its address is not public, and others are not permitted here";
            return Err(ureq::Error::Io(std::io::Error::other(reason)));
        }
        Ok(kept)
    }
}

/// Whether an address is that of a machine in the open network: none of IANA's registries of
/// special purposes (RFC 6890 and those that updated it).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, carriers' own networks, protocols, 6to4 relays, tests.
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] => {
            true
        }
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

/// All that is handed out lies in `2000::/3`, which leaves out the addresses that stand for those of
/// version 4, and loopback, local and multicast ones.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let special = match segments {
        // Protocols (Teredo too), documentation, 6to4, documentation again.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x2002, ..] => true,
        [0x3fff, 0..=0x0fff, ..] => true,
        _ => false,
    };
    segments[0] & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_told_from_others() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("1.1.1.1", true),
            ("172.32.0.1", true),
            ("100.128.0.1", true),
            ("198.20.0.1", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.1.1", false),
            ("198.19.0.1", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("3ffe::1", true),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", false),
            ("64:ff9b::7f00:1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("3fff::1", false),
            ("fc00::1", false),
            ("fd12:3456::1", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in [
            "ftp://a/b",
            "file:///etc/passwd",
            "http://",
            "/etc/passwd",
            "a b",
            "",
        ] {
            assert!(check("file_url", url).is_err(), "{url}");
        }
        check("file_url", "HTTP://example.com/a.wav").unwrap();
        assert!(check("file_url", &format!("http://a/{}", "b".repeat(9000))).is_err());
    }
}
