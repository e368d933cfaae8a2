//! Bearer keys.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use subtle::{Choice, ConstantTimeEq};

use crate::ServerError;

/// Where a browser, which sets no headers of its own, puts the key of a WebSocket: a protocol of this
/// beginning, as with OpenAI.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// The keys of those who may ask.
#[derive(Clone, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// One key in each line; empty lines and those that begin with `#` are left out.
    pub fn from_lines(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(keys.map(str::to_owned).collect())
    }

    /// Whether there is none, so that everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether these headers have one of the keys.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ServerError> {
        if self.is_empty() {
            return Ok(());
        }
        let found = given(headers).ok_or(ServerError::Key { found: "missing" })?;
        // Every key is compared, so that time tells nothing.
        let mut known = Choice::from(0);
        for key in &self.0 {
            known |= key.as_bytes().ct_eq(found.as_bytes());
        }
        match bool::from(known) {
            true => Ok(()),
            false => Err(ServerError::Key { found: "wrong" }),
        }
    }
}

/// The key in these headers.
fn given(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim());
    }
    let protocols = headers.get("sec-websocket-protocol")?.to_str().ok()?;
    let mut protocols = protocols.split(',').map(str::trim);
    protocols.find_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL))
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_known_or_not() {
        let keys = Keys::from_lines("# ours\n\nsecret\n second \n");
        for (name, value, known) in [
            ("authorization", "Bearer secret", true),
            ("authorization", "bearer second", true),
            ("authorization", "Bearer secret2", false),
            ("authorization", "Bearer # ours", false),
            ("authorization", "Bearer ", false),
            ("authorization", "Basic secret", false),
            ("authorization", "secret", false),
            (
                "sec-websocket-protocol",
                "realtime, openai-insecure-api-key.secret",
                true,
            ),
            ("sec-websocket-protocol", "realtime", false),
        ] {
            assert_eq!(keys.check(&headers(name, value)).is_ok(), known, "{value}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        assert!(Keys::default().check(&HeaderMap::new()).is_ok());
        assert_eq!(format!("{keys:?}"), "2 keys");
    }
}
