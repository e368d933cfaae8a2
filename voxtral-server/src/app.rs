//! The routes, and what holds for all of them: keys, ids of requests, panics, the end.

use std::future::Future;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Instant;

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use tokio::{net::TcpListener, sync::watch};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    Config, Engine, ServerError, chat,
    error::{Dialect, Failure},
    fetch::Fetcher,
    files, live,
    metrics::Route,
    page, system, transcription,
};

/// Names a request in logs; a client's own is kept.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client that is kept.
const LONGEST_ID: usize = 128;

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) fetcher: Fetcher,
    pub(crate) files: Arc<files::Store>,
    pub(crate) links: files::Links,
    stopping: AtomicBool,
    /// True from the sign to stop on.
    stop: watch::Receiver<bool>,
    /// Connections of live clients.
    connections: watch::Sender<usize>,
    /// When it started, in seconds of Unix time.
    pub(crate) started: u64,
}

impl App {
    /// Told to stop by this.
    pub(crate) fn new(
        engine: Engine,
        config: Config,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            started: unix_time(),
            fetcher: Fetcher::new(&config),
            files: Arc::new(files::Store::open(&config)?),
            links: files::Links::new()?,
            engine,
            config,
            stopping: AtomicBool::new(false),
            stop,
            connections: watch::Sender::new(0),
        })
    }

    /// Whether nothing new is taken.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits until nothing new is taken.
    pub(crate) async fn stopped(&self) {
        // An error means that the server has ended.
        let _ = self.stop.clone().wait_for(|stopped| *stopped).await;
    }

    /// A place for a live client, if there is one.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<Place, ServerError> {
        let limit = self.engine.limits().sessions;
        let take = |taken: &mut usize| {
            let free = *taken < limit;
            *taken += usize::from(free);
            free
        };
        if self.connections.send_if_modified(take) {
            return Ok(Place(Arc::clone(self)));
        }
        self.engine.metrics().refused.inc();
        Err(ServerError::TooManySessions { limit })
    }
}

/// The place of a live client. Dropped, it is another's.
#[derive(Debug)]
pub(crate) struct Place(Arc<App>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.send_modify(|taken| *taken -= 1);
    }
}

/// Answers requests until `stop` is ready, then finishes those that run, for as long as the
/// configuration says.
///
/// # Errors
/// The listener fails, or the folder for files cannot be used.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let grace = config.grace;
    let (stopped, mut over) = watch::channel(false);
    let app = Arc::new(App::new(engine, config, over.clone())?);
    let sweeping = tokio::spawn(files::sweep(Arc::clone(&app.files)));
    let files = Arc::clone(&app.files);
    let theirs = Arc::clone(&app);
    let stop = async move {
        stop.await;
        theirs.stopping.store(true, Ordering::Relaxed);
        let _ = stopped.send(true);
    };
    // Words of live clients are small, and do not wait for others.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection delays small pieces");
        }
    });
    let server = axum::serve(listener, router(Arc::clone(&app))).with_graceful_shutdown(stop);
    let mut connections = app.connections.subscribe();
    let server = async move {
        let ended = server.await;
        // Once a client has switched to WebSockets, its connection is no concern of the above.
        let _ = connections.wait_for(|taken| *taken == 0).await;
        ended
    };
    let late = async move {
        // An error means that the server has ended.
        let _ = over.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(grace).await;
    };
    let ended = tokio::select! {
        ended = server => ended,
        () = late => {
            tracing::warn!("requests that run are given up after {grace:?}");
            Ok(())
        }
    };
    sweeping.abort();
    files.close();
    ended
}

/// [`serve`]s until the process gets SIGTERM or SIGINT, on a runtime of its own.
///
/// # Errors
/// The runtime cannot be started, or the listener fails.
pub fn run(listener: std::net::TcpListener, engine: Engine, config: Config) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let stop = asked_to_stop()?;
        serve(TcpListener::from_std(listener)?, engine, config, stop).await
    });
    // Files that are being read hold up nobody.
    runtime.shutdown_background();
    served
}

/// Waits for a signal that ends processes.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        // Without the signal, the process goes on until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

pub(crate) fn unix_time() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

fn router(app: Arc<App>) -> Router {
    // Behind keys.
    let api = Router::new()
        .route("/v1/models", get(system::models))
        .route("/v1/models/{model}", get(system::model))
        .route("/v1/audio/transcriptions", post(transcription::handle))
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/files", get(files::list).post(files::create))
        .route("/v1/files/{id}", get(files::retrieve).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/files/{id}/url", get(files::url))
        .route("/v1/audio/transcriptions/realtime", get(live::mistral))
        .route("/v1/realtime", get(live::realtime))
        .route("/metrics", get(system::metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), admit));
    Router::new()
        .merge(api)
        .route("/", get(page::page))
        .route("/openapi.json", get(page::openapi))
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        // Bodies are read with limits of their own.
        .layer(DefaultBodyLimit::disable())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        // Bodies have the limits of the configuration.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_| {
            Failure(Dialect::OpenAi, ServerError::Crashed).into_response()
        }))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), follow))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> Failure {
    ServerError::NotFound {
        subject: "path",
        found: uri.path().to_owned(),
    }
    .into()
}

async fn unknown_method(request: Request) -> Failure {
    ServerError::Method {
        found: request.method().to_string(),
    }
    .into()
}

/// Lets in those with a key, or the signed address of a file, while the server goes on.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let dialect = transcription::dialect_of(request.headers());
    let keys = &app.config.keys;
    let admitted = match app.is_stopping() {
        true => Err(ServerError::Stopping),
        false => keys.check(request.headers()).or_else(|refused| {
            let signed = request.method() == Method::GET && app.links.id(request.uri())?.is_some();
            signed.then_some(()).ok_or(refused)
        }),
    };
    match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => Failure(dialect, error).into_response(),
    }
}

/// Gives a request an id, and counts it.
async fn follow(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let given = request.headers().get(&REQUEST_ID);
    let given = given.filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
    let id = given.cloned().or_else(|| {
        let id = format!("req-{}", Uuid::new_v4().simple());
        HeaderValue::from_str(&id).ok()
    });
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().to_string();
    let shown = id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let span = tracing::info_span!("request", id = shown, %method, path);
    let mut response = next.run(request).instrument(span).await;
    let metrics = app.engine.metrics();
    metrics.first_byte.observe(started.elapsed().as_secs_f64());
    let status = response.status().as_u16();
    let route = Route {
        path,
        method,
        status,
    };
    metrics.requests.get_or_create(&route).inc();
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
