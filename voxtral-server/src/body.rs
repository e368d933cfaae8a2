//! Bodies of requests: read piece by piece, with limits on size and patience.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::header::CONTENT_TYPE,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{Config, ServerError};

/// Parts of a form; a request that is meant has a dozen.
const MOST_PARTS: usize = 512;

/// The longest text in a form, in bytes.
const LONGEST_VALUE: usize = 1 << 20;

/// A form, whichever way it was sent.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// Names and texts, in their order.
    pub(crate) values: Vec<(String, String)>,
    pub(crate) file: Option<Upload>,
}

/// A file that was sent.
#[derive(Debug)]
pub(crate) struct Upload {
    /// As the client calls it.
    pub(crate) name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: u64,
    /// Unnamed: it is gone with the request.
    pub(crate) file: File,
}

/// Reads a form.
pub(crate) async fn form(request: Request, config: &Config) -> Result<Form, ServerError> {
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    if content_type.starts_with("multipart/form-data") {
        let form = Multipart::from_request(request, &()).await;
        return multipart(form.map_err(|error| malformed("form", error))?, config).await;
    }
    if content_type.starts_with("application/x-www-form-urlencoded") {
        let body = bytes(request.into_body(), LONGEST_VALUE as u64, config).await?;
        std::str::from_utf8(&body).map_err(|error| malformed("form", error))?;
        let values = form_urlencoded::parse(&body).into_owned().collect();
        return Ok(Form { values, file: None });
    }
    Err(ServerError::field(
        "content-type",
        match content_type.is_empty() {
            true => "missing".to_owned(),
            false => format!("`{content_type}`"),
        },
        "`multipart/form-data` or `application/x-www-form-urlencoded`",
    ))
}

fn malformed(subject: &'static str, error: impl std::fmt::Display) -> ServerError {
    ServerError::Malformed {
        subject,
        reason: error.to_string(),
    }
}

async fn multipart(mut parts: Multipart, config: &Config) -> Result<Form, ServerError> {
    let mut form = Form::default();
    let mut count = 0;
    let mut left = config.max_body;
    loop {
        let part = soon("form", parts.next_field(), config).await?;
        let Some(part) = part.map_err(|error| malformed("form", error))? else {
            return Ok(form);
        };
        count += 1;
        if count > MOST_PARTS {
            let limit = format!("{MOST_PARTS} parts");
            return Err(ServerError::TooLarge {
                subject: "form",
                limit,
            });
        }
        let name = part.name().unwrap_or_default().to_owned();
        if part.file_name().is_some() || name == "file" {
            if name != "file" || form.file.is_some() {
                let expected = "one file, in the part `file`";
                return Err(ServerError::field(name, "a file", expected));
            }
            form.file = Some(upload(part, &mut left, config).await?);
        } else {
            let value = text(part, &name, &mut left, config).await?;
            form.values.push((name, value));
        }
    }
}

async fn upload(
    mut part: Field<'_>,
    left: &mut u64,
    config: &Config,
) -> Result<Upload, ServerError> {
    let mut file = tempfile::tempfile().map_err(ServerError::Storage)?;
    let mut bytes = 0;
    while let Some(chunk) = piece(&mut part, left, config).await? {
        bytes += chunk.len() as u64;
        file = write(file, chunk).await?;
    }
    file.seek(SeekFrom::Start(0))
        .map_err(ServerError::Storage)?;
    Ok(Upload {
        name: part.file_name().map(str::to_owned),
        content_type: part.content_type().map(str::to_owned),
        bytes,
        file,
    })
}

/// Writes where nobody waits for the disk.
async fn write(mut file: File, chunk: Bytes) -> Result<File, ServerError> {
    let written = tokio::task::spawn_blocking(move || file.write_all(&chunk).map(|()| file));
    match written.await {
        Ok(written) => written.map_err(ServerError::Storage),
        Err(_) => Err(ServerError::Crashed),
    }
}

async fn text(
    mut part: Field<'_>,
    name: &str,
    left: &mut u64,
    config: &Config,
) -> Result<String, ServerError> {
    let mut text = Vec::new();
    while let Some(chunk) = piece(&mut part, left, config).await? {
        if text.len() + chunk.len() > LONGEST_VALUE {
            return Err(ServerError::TooLarge {
                subject: "field of the form",
                limit: format!("{LONGEST_VALUE} bytes"),
            });
        }
        text.extend_from_slice(&chunk);
    }
    let expected = "UTF-8";
    String::from_utf8(text).map_err(|_| ServerError::field(name, "not UTF-8", expected))
}

async fn piece(
    part: &mut Field<'_>,
    left: &mut u64,
    config: &Config,
) -> Result<Option<Bytes>, ServerError> {
    let chunk = soon("form", part.chunk(), config).await?;
    let chunk = chunk.map_err(|error| malformed("form", error))?;
    if let Some(chunk) = &chunk {
        let rest = left.checked_sub(chunk.len() as u64);
        *left = rest.ok_or_else(|| too_large(config.max_body))?;
    }
    Ok(chunk)
}

fn too_large(limit: u64) -> ServerError {
    ServerError::TooLarge {
        subject: "body",
        limit: format!("{limit} bytes"),
    }
}

/// Waits no longer than the server's patience goes.
async fn soon<T>(
    subject: &'static str,
    work: impl Future<Output = T>,
    config: &Config,
) -> Result<T, ServerError> {
    let limit = config.patience;
    let late = |_| ServerError::TooSlow { subject, limit };
    tokio::time::timeout(limit, work).await.map_err(late)
}

/// The whole of a body of at most so many bytes.
pub(crate) async fn bytes(body: Body, limit: u64, config: &Config) -> Result<Bytes, ServerError> {
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let mut chunks = body.into_data_stream();
    let mut all = BytesMut::new();
    while let Some(chunk) = soon("body", chunks.next(), config).await? {
        let chunk = chunk.map_err(|error| malformed("body", error))?;
        if all.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large(limit));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}
