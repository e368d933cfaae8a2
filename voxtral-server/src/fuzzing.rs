//! Entrances for fuzzing and random tests: what reads the bytes of clients must never panic.

use axum::{body::Body, http::Request, http::header::CONTENT_TYPE};

use crate::{Config, body, transcription};

/// Reads a form of this type and what it asks for.
pub fn form(content_type: &str, bytes: &[u8]) {
    let request = Request::post("/v1/audio/transcriptions").header(CONTENT_TYPE, content_type);
    // A type that no header can have never gets here.
    let Ok(request) = request.body(Body::from(bytes.to_vec())) else {
        return;
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    runtime.block_on(async {
        if let Ok(form) = body::form(request, &Config::default()).await {
            let _ = transcription::understand(form);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=x";

    const FORM: &[u8] = b"--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\ndemo\r\n\
        --x\r\ncontent-disposition: form-data; name=\"temperature\"\r\n\r\n0.5\r\n\
        --x\r\ncontent-disposition: form-data; name=\"context_bias\"\r\n\r\na,b\r\n\
        --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n\
        --x--\r\n";

    /// A valid text with some bytes changed, cut or doubled.
    fn mutated(valid: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        let change = (0..valid.len(), any::<u8>(), 0..3_u8);
        proptest::collection::vec(change, 0..6).prop_map(move |changes| {
            let mut bytes = valid.to_vec();
            for (at, byte, kind) in changes {
                let at = at.min(bytes.len().saturating_sub(1));
                match kind {
                    0 if !bytes.is_empty() => bytes[at] = byte,
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, byte),
                }
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn forms_never_panic(bytes in mutated(FORM), noise in any::<Vec<u8>>()) {
            form(TYPE, &bytes);
            form(TYPE, &noise);
            form("application/x-www-form-urlencoded", &noise);
            form("application/x-www-form-urlencoded", &bytes);
        }

        #[test]
        fn types_never_panic(content_type in ".{0,80}") {
            form(&content_type, FORM);
            form(&format!("multipart/form-data; boundary={content_type}"), FORM);
        }
    }
}
