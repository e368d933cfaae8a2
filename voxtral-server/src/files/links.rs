//! Addresses under which a file is read without a key, until they expire.
//!
//! Mistral's clients upload a file, ask for its address and name that as the sound of a request. So an
//! address made here is known again there, and the file is read where it lies: the address of a
//! server of one's own is rarely public, and is not [fetched](crate::fetch) for that reason.
//!
//! They are signed (HMAC with SHA-256, RFC 2104) with a secret of the process, and so end with it.

use axum::http::Uri;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{hmac, rand::SystemRandom};

use crate::{ServerError, app::unix_time};

/// Makes addresses, and knows them again.
#[derive(Debug)]
pub(crate) struct Links {
    secret: hmac::Key,
}

impl Links {
    pub(crate) fn new() -> std::io::Result<Self> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let secret = secret.map_err(|_| std::io::Error::other("the system has no random bytes"))?;
        Ok(Self { secret })
    }

    /// The path and query of a file's content until this second of Unix time.
    pub(super) fn of(&self, id: &str, expires: u64) -> String {
        let signature = hmac::sign(&self.secret, signed(id, expires).as_bytes());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
        format!("/v1/files/{id}/content?expires={expires}&signature={signature}")
    }

    /// The id of the file of an address that was made here; the host does not matter.
    ///
    /// # Errors
    /// It was made here and has expired.
    pub(crate) fn id<'u>(&self, address: &'u Uri) -> Result<Option<&'u str>, ServerError> {
        let Some((id, expires)) = self.read(address) else {
            return Ok(None);
        };
        match unix_time() < expires {
            true => Ok(Some(id)),
            false => Err(ServerError::Expired { id: id.to_owned() }),
        }
    }

    /// What an address says that was signed here.
    fn read<'u>(&self, address: &'u Uri) -> Option<(&'u str, u64)> {
        let id = address.path().strip_prefix("/v1/files/")?;
        let id = id.strip_suffix("/content")?;
        let (expires, signature) = address.query()?.split_once("&signature=")?;
        let expires = expires.strip_prefix("expires=")?.parse().ok()?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let known = hmac::verify(&self.secret, signed(id, expires).as_bytes(), &signature);
        known.is_ok().then_some((id, expires))
    }
}

/// What is signed: an id has no space.
fn signed(id: &str, expires: u64) -> String {
    format!("{id} {expires}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_here_is_known() {
        let links = Links::new().unwrap();
        let later = unix_time() + 60;
        let link = links.of("file-1", later);
        let id = |link: &str| {
            let address: Uri = link.parse().unwrap();
            links.id(&address).map(|id| id.map(str::to_owned))
        };
        for host in ["", "http://localhost:8080", "https://a.example"] {
            let found = id(&format!("{host}{link}")).unwrap();
            assert_eq!(found.as_deref(), Some("file-1"));
        }
        for other in [
            link.replace("file-1", "file-2"),
            link.replace(&later.to_string(), &(later + 1).to_string()),
            link.replace("/content", ""),
            link.replace("signature=", "signature=A"),
            link[..link.len() - 1].to_owned(),
            format!("{link}A"),
            format!("{link}&x=1"),
            Links::new().unwrap().of("file-1", later),
            "/v1/files/file-1/content".to_owned(),
            "/v1/files/file-1/content?expires=99999999999999999999&signature=".to_owned(),
        ] {
            assert!(matches!(id(&other), Ok(None)), "{other}");
        }
        let past = links.of("file-1", unix_time() - 1);
        assert!(matches!(id(&past), Err(ServerError::Expired { .. })));
    }
}
