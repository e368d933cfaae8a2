//! `/v1/files`, as far as transcriptions by `file_id` need them: kept for a time, then forgotten.

mod links;
mod store;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{
        HeaderMap, HeaderValue, Uri, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST,
        header::X_CONTENT_TYPE_OPTIONS,
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{
    ServerError,
    app::{App, unix_time},
    body::{self, Form},
    error::Failure,
};
pub(crate) use links::Links;
pub(crate) use store::Store;
use store::{New, Record};

/// The longest name and purpose that are kept, in characters.
const LONGEST_NAME: usize = 255;

/// Files in a list where the request does not say.
const PAGE: usize = 10_000;

/// Bytes that are sent at once.
const PIECE: usize = 1 << 16;

/// How often files that have had their time are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How long an address is good where the request does not say.
const LINK_HOURS: u64 = 24;

/// Does work on the files, where waiting for the disk is no harm.
async fn with<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Store) -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ServerError> {
    let store = Arc::clone(&app.files);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|_| ServerError::Crashed)?
}

/// Removes what has had its time, now and then.
pub(crate) async fn sweep(store: Arc<Store>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let store = Arc::clone(&store);
        let _ = tokio::task::spawn_blocking(move || store.sweep()).await;
    }
}

/// Opens the file of an id that a request names.
pub(crate) async fn open(app: &App, id: String) -> Result<File, ServerError> {
    with(app, move |store| Ok(store.content(&id)?.1)).await
}

/// Gets the file at a URL that stands in this field: one of those here, or from elsewhere.
pub(crate) async fn open_url(app: &App, field: &str, url: &str) -> Result<File, ServerError> {
    // What is no URL is refused where it is fetched.
    let address = url.parse::<Uri>().unwrap_or_default();
    match app.links.id(&address)? {
        Some(id) => open(app, id.to_owned()).await,
        None => app.fetcher.fetch(field, url).await,
    }
}

/// `POST /v1/files`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, Failure> {
    let form = body::form(request, &app.config).await?;
    let new = read(form)?;
    let record = with(&app, move |store| store.keep(new)).await?;
    Ok(Json(object(&record)))
}

/// What a form asks for; fields that are not known are refused.
fn read(form: Form) -> Result<New, ServerError> {
    let Some(upload) = form.file else {
        return Err(ServerError::Missing {
            field: "file",
            expected: "a file as a part of a form",
        });
    };
    let mut purpose = "audio".to_owned();
    let mut life = None;
    for (name, value) in form.values {
        match (&name[..], &value[..]) {
            (_, "" | "null") => {}
            ("purpose", _) => purpose = cut(&value),
            // There is nobody else to see them.
            ("visibility", "workspace" | "user") => {}
            ("expires_after[anchor]", "created_at") => {}
            ("expires_after[seconds]", seconds) => match seconds.parse() {
                Ok(seconds) => life = Some(Duration::from_secs(seconds)),
                Err(_) => {
                    let found = format!("`{}`", cut(seconds));
                    return Err(ServerError::field(name, found, "a whole number of seconds"));
                }
            },
            _ => {
                let reason = "there is no such field, or not with this value: leave it out";
                return Err(ServerError::unable(cut(&name), reason));
            }
        }
    }
    Ok(New {
        content: upload.file,
        bytes: upload.bytes,
        filename: cut(&upload.name.unwrap_or_default()),
        purpose,
        mimetype: upload.content_type.map(|kind| cut(&kind)),
        life,
    })
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

/// A file as OpenAI's clients and Mistral's read it.
fn object(record: &Record) -> Value {
    json!({
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "mimetype": record.mimetype,
        "sample_type": "audio",
        "source": "upload",
        "deleted": false,
    })
}

/// `GET /v1/files`, the newest first.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Failure> {
    let records = with(&app, |store| Ok(store.list())).await?;
    let (total, page) = Selection::read(query)?.of(records);
    Ok(Json(json!({
        "object": "list",
        "data": page.iter().map(object).collect::<Vec<_>>(),
        "total": total.0,
        "has_more": total.1,
        "first_id": page.first().map(|record| &record.id),
        "last_id": page.last().map(|record| &record.id),
    })))
}

/// Which files of a list are wanted.
#[derive(Debug)]
struct Selection {
    purpose: Option<String>,
    search: Option<String>,
    /// Behind this one.
    after: Option<String>,
    ascending: bool,
    page: usize,
    limit: usize,
}

impl Selection {
    fn read(query: Vec<(String, String)>) -> Result<Self, ServerError> {
        let mut wanted = Self {
            purpose: None,
            search: None,
            after: None,
            ascending: false,
            page: 0,
            limit: PAGE,
        };
        for (name, value) in query {
            let number = || {
                let found = format!("`{}`", cut(&value));
                let fault = |_| ServerError::field(&name[..], found, "a whole number");
                value.parse::<usize>().map_err(fault)
            };
            match &name[..] {
                _ if value.is_empty() => {}
                "purpose" => wanted.purpose = Some(value),
                "search" => wanted.search = Some(value),
                "after" => wanted.after = Some(value),
                "order" if value == "asc" => wanted.ascending = true,
                "order" if value == "desc" => {}
                "page" => wanted.page = number()?,
                "limit" | "page_size" => wanted.limit = number()?.clamp(1, PAGE),
                "include_total" => {}
                _ => {
                    let reason = "there is no such parameter, or not with this value: leave it out";
                    return Err(ServerError::unable(cut(&name), reason));
                }
            }
        }
        Ok(wanted)
    }

    /// These, with how many there are in all and whether there are more behind them.
    fn of(&self, mut records: Vec<Record>) -> ((usize, bool), Vec<Record>) {
        let named =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|it| it == found);
        records.retain(|record| named(&self.purpose, &record.purpose));
        let has = |name: &str| {
            self.search
                .as_ref()
                .is_none_or(|text| name.contains(&text[..]))
        };
        records.retain(|record| has(&record.filename));
        if self.ascending {
            records.reverse();
        }
        let total = records.len();
        let behind = |id: &String| records.iter().position(|record| record.id == *id);
        let start = match &self.after {
            Some(id) => behind(id).map_or(total, |at| at + 1),
            None => self.page.saturating_mul(self.limit).min(total),
        };
        let page: Vec<Record> = records.drain(start..).take(self.limit).collect();
        ((total, start + page.len() < total), page)
    }
}

/// `GET /v1/files/{id}`.
pub(crate) async fn retrieve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let record = with(&app, move |store| store.record(&id)).await?;
    Ok(Json(object(&record)))
}

/// `DELETE /v1/files/{id}`.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let gone = id.clone();
    with(&app, move |store| store.delete(&gone)).await?;
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}

/// `GET /v1/files/{id}/content`.
pub(crate) async fn content(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let (record, file) = with(&app, move |store| store.content(&id)).await?;
    let file = tokio::fs::File::from_std(file);
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece).await?;
        piece.truncate(count);
        let more = count > 0;
        Ok::<_, std::io::Error>(more.then_some((piece, file)))
    });
    // Never as something that a browser would run.
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CONTENT_LENGTH, HeaderValue::from(record.bytes)),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// `GET /v1/files/{id}/url`: an address of the content that needs no key, for some hours.
pub(crate) async fn url(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let hours = hours(query)?;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.ok_or(ServerError::Missing {
        field: "host",
        expected: "the header with the name by which this server was reached",
    })?;
    // A proxy before this server speaks TLS; it says so.
    let secure = headers.get("x-forwarded-proto");
    let scheme = match secure.is_some_and(|scheme| scheme == "https") {
        true => "https",
        false => "http",
    };
    let record = with(&app, move |store| store.record(&id)).await?;
    let expires = unix_time().saturating_add(hours.saturating_mul(3600));
    let link = app.links.of(&record.id, expires.min(record.expires_at));
    Ok(Json(json!({"url": format!("{scheme}://{host}{link}")})))
}

/// For how many hours an address is asked for.
fn hours(query: Vec<(String, String)>) -> Result<u64, ServerError> {
    let mut hours = LINK_HOURS;
    for (name, value) in query {
        match &name[..] {
            _ if value.is_empty() => {}
            "expiry" => {
                let number = value.parse().ok().filter(|&hours| hours > 0);
                let found = || format!("`{}`", cut(&value));
                let fault =
                    || ServerError::field("expiry", found(), "a number of hours, 1 or more");
                hours = number.ok_or_else(fault)?;
            }
            _ => {
                return Err(ServerError::unable(
                    cut(&name),
                    "there is no such parameter: leave it out",
                ));
            }
        }
    }
    Ok(hours)
}
