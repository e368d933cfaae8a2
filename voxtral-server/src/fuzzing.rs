//! Entrances for fuzzing and random tests: what reads the bytes of clients must never panic.

use axum::{body::Body, http::Request, http::header::CONTENT_TYPE};

use std::sync::Arc;

use crate::{Config, Engine, app::App, body, live, transcription};

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

/// Follows the lines of a text as messages of a live client, in every dialect.
pub fn events(text: &str) {
    let (_stop, over) = tokio::sync::watch::channel(false);
    // Without a folder for files there is nothing to try.
    let Ok(app) = App::new(Engine::idle(), Config::default(), over) else {
        return;
    };
    let app = Arc::new(app);
    live::understand(&app, &text.lines().collect::<Vec<_>>());
    app.files.close();
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

    const EVENTS: &[u8] = br#"{"type":"session.update","model":"nothing","delay_ms":480}
{"type":"session.update","session":{"type":"transcription","audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"transcription":{"model":"nothing"}}}}}
{"type":"session.update","session":{"audio_format":{"encoding":"pcm_s16le","sample_rate":16000},"context_bias":["a"]}}
{"type":"input_audio_buffer.commit","final":false}
{"type":"input_audio_buffer.append","audio":"AAAA"}
{"type":"input_audio.append","audio":"AAAA"}
{"type":"input_audio.flush"}
{"type":"input_audio_buffer.commit","final":true}
{"type":"input_audio_buffer.clear"}
{"type":"input_audio.end"}"#;

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
        fn events_never_panic(bytes in mutated(EVENTS), noise in ".*") {
            events(&String::from_utf8_lossy(&bytes));
            events(&noise);
        }

        #[test]
        fn types_never_panic(content_type in ".{0,80}") {
            form(&content_type, FORM);
            form(&format!("multipart/form-data; boundary={content_type}"), FORM);
        }
    }
}
