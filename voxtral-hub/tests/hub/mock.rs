//! A hub on the loopback interface: the three requests of the protocol, a second origin for
//! large files as on the real one, and faults to order.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use ring::digest::{SHA256, digest};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// Whether it arrived at the origin of the large files.
    pub(crate) storage: bool,
}

/// What the hub holds, and what it does wrong.
#[derive(Default)]
pub(crate) struct State {
    /// By repository: the commit of `main`, and the files.
    pub(crate) repos: BTreeMap<String, (String, BTreeMap<String, Vec<u8>>)>,
    /// Every request, in order.
    pub(crate) requests: Vec<Request>,
    /// By file: after how many bytes of the body to end the connection, once for each entry.
    pub(crate) cuts: BTreeMap<String, VecDeque<usize>>,
    /// By file: a size to state instead of the true one.
    pub(crate) sizes: BTreeMap<String, usize>,
    /// By file: an entity tag to state instead of the true one.
    pub(crate) etags: BTreeMap<String, String>,
    /// By part of a path: a status and an error code to answer with.
    pub(crate) refusals: Vec<(String, u16, &'static str)>,
    /// Whether to send the whole file whatever range is asked for.
    pub(crate) ignores_ranges: bool,
}

pub(crate) struct Mock {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Mock {
    /// A hub with one repository.
    pub(crate) fn new(repo: &str, commit: &str, files: &[(&str, &[u8])]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let main = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", main.local_addr().unwrap());
        let elsewhere = format!("http://{}", storage.local_addr().unwrap());
        for (listener, is_storage) in [(main, false), (storage, true)] {
            let (state, elsewhere) = (Arc::clone(&state), elsewhere.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, elsewhere) = (Arc::clone(&state), elsewhere.clone());
                    // A client that goes away in the middle is no concern of the hub.
                    thread::spawn(move || drop(answer(stream, &state, &elsewhere, is_storage)));
                }
            });
        }
        let mock = Self { endpoint, state };
        mock.put(repo, commit, files);
        mock
    }

    /// Replaces the repository's files, at a new commit.
    pub(crate) fn put(&self, repo: &str, commit: &str, files: &[(&str, &[u8])]) {
        let files = files
            .iter()
            .map(|&(name, content)| (name.to_owned(), content.to_vec()))
            .collect();
        self.state()
            .repos
            .insert(repo.to_owned(), (commit.to_owned(), files));
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answers every path that contains `part` with `status`.
    pub(crate) fn refuse(&self, part: &str, status: u16, code: &'static str) {
        self.state().refusals.push((part.to_owned(), status, code));
    }

    /// The requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn answer(
    mut stream: TcpStream,
    state: &Mutex<State>,
    elsewhere: &str,
    storage: bool,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    let mut words = first.split(' ');
    let (method, path) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (response, cut) = {
        let mut state = state.lock().unwrap();
        state.requests.push(Request {
            method: method.clone(),
            path: path.clone(),
            range: headers.get("range").cloned(),
            authorization: headers.get("authorization").cloned(),
            storage,
        });
        respond(
            &mut state,
            &path,
            headers.get("range").map(String::as_str),
            elsewhere,
            storage,
        )
    };
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", response.body.len()));
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&response.body[..cut.unwrap_or(usize::MAX).min(response.body.len())])?;
    }
    stream.flush()
}

#[derive(Default)]
struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn status(status: u16, code: &str) -> (Response, Option<usize>) {
    let headers = vec![("x-error-code", code.to_owned())];
    (
        Response {
            status,
            headers,
            body: b"{\"error\":\"no\"}".to_vec(),
        },
        None,
    )
}

fn respond(
    state: &mut State,
    path: &str,
    range: Option<&str>,
    elsewhere: &str,
    storage: bool,
) -> (Response, Option<usize>) {
    if let Some((_, code, name)) = state.refusals.iter().find(|(part, ..)| path.contains(part)) {
        return status(*code, name);
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["api", "models", org, name, "revision", revision] if !storage => {
            let Some((commit, files)) = state.repos.get(&format!("{org}/{name}")) else {
                return status(404, "RepoNotFound");
            };
            if revision != "main" && revision != commit {
                return status(404, "RevisionNotFound");
            }
            assert_eq!(query, "blobs=true");
            let siblings: Vec<_> = files
                .iter()
                .map(
                    |(name, content)| serde_json::json!({"rfilename": name, "size": content.len()}),
                )
                .collect();
            let body = serde_json::json!({"sha": commit, "siblings": siblings, "private": false});
            (
                Response {
                    status: 200,
                    body: body.to_string().into_bytes(),
                    ..Response::default()
                },
                None,
            )
        }
        [org, name, "resolve", revision, file] if !storage => {
            let Some((commit, content)) = find(state, org, name, file) else {
                return status(404, "EntryNotFound");
            };
            if revision != "main" && revision != commit {
                return status(404, "RevisionNotFound");
            }
            let mut headers = vec![("x-repo-commit", commit)];
            if file.ends_with(".safetensors") {
                headers.push((
                    "x-linked-etag",
                    format!("\"{}\"", etag(state, file, &sha256(&content))),
                ));
                headers.push(("x-linked-size", stated(state, file, &content).to_string()));
                headers.push(("etag", "\"of-the-link\"".to_owned()));
                headers.push((
                    "location",
                    format!("{elsewhere}/{org}/{name}/{file}?signature=secret"),
                ));
                return (
                    Response {
                        status: 302,
                        headers,
                        ..Response::default()
                    },
                    None,
                );
            }
            headers.push((
                "location",
                format!("/api/resolve-cache/{org}/{name}/{file}"),
            ));
            (
                Response {
                    status: 307,
                    headers,
                    ..Response::default()
                },
                None,
            )
        }
        ["api", "resolve-cache", org, name, file] if !storage => {
            let (commit, content) = find(state, org, name, file).unwrap();
            let etag = etag(state, file, &sha256(&content)[..40]);
            content_of(
                state,
                file,
                &content,
                range,
                vec![("etag", format!("W/\"{etag}\"")), ("x-repo-commit", commit)],
            )
        }
        [org, name, file] if storage => {
            assert_eq!(query, "signature=secret");
            let (_, content) = find(state, org, name, file).unwrap();
            content_of(state, file, &content, range, Vec::new())
        }
        _ => status(404, ""),
    }
}

fn find(state: &State, org: &str, name: &str, file: &str) -> Option<(String, Vec<u8>)> {
    let (commit, files) = state.repos.get(&format!("{org}/{name}"))?;
    Some((commit.clone(), files.get(file)?.clone()))
}

fn etag(state: &State, file: &str, of_content: &str) -> String {
    state
        .etags
        .get(file)
        .cloned()
        .unwrap_or_else(|| of_content.to_owned())
}

fn stated(state: &State, file: &str, content: &[u8]) -> usize {
    state.sizes.get(file).copied().unwrap_or(content.len())
}

fn content_of(
    state: &mut State,
    file: &str,
    content: &[u8],
    range: Option<&str>,
    mut headers: Vec<(&'static str, String)>,
) -> (Response, Option<usize>) {
    let cut = state.cuts.get_mut(file).and_then(VecDeque::pop_front);
    let from = range.map(|range| {
        range["bytes=".len()..range.len() - 1]
            .parse::<usize>()
            .unwrap()
    });
    let (status, body) = match from.filter(|_| !state.ignores_ranges) {
        None => (200, content.to_vec()),
        Some(from) if from >= content.len() => (416, Vec::new()),
        Some(from) => {
            let last = content.len() - 1;
            headers.push((
                "content-range",
                format!("bytes {from}-{last}/{}", content.len()),
            ));
            (206, content[from..].to_vec())
        }
    };
    (
        Response {
            status,
            headers,
            body,
        },
        cut,
    )
}
