//! What every request passes: who may ask, whether there is a model yet, which handler answers, and the log.

use crate::access::Access;
use crate::error::{ApiError, ErrorKind, Interface};
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::routes::{self, OPEN, label};
use crate::state::{AppState, Caller};
use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What is there from the start: before the model is loaded, and after the server was told to end.
pub struct Front {
    options: Arc<ServerOptions>,
    metrics: Arc<Metrics>,
    /// Whether the server listens where only this machine reaches it.
    loopback: bool,
    state: OnceLock<Arc<AppState>>,
    draining: AtomicBool,
    requests: AtomicU64,
}

/// Where a connection comes from, which the server adds to each of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub SocketAddr);

impl Front {
    pub(crate) fn new(options: ServerOptions, loopback: bool) -> Front {
        Front {
            options: Arc::new(options),
            metrics: Arc::default(),
            loopback,
            state: OnceLock::new(),
            draining: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        }
    }

    /// How the server is set up.
    pub fn options(&self) -> &Arc<ServerOptions> {
        &self.options
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The model and what belongs to it; `None` until it is loaded.
    pub fn state(&self) -> Option<&Arc<AppState>> {
        self.state.get()
    }

    /// Whether the server was told to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// From now on requests are answered.
    pub(crate) fn open(&self, state: AppState) {
        if self.is_draining() {
            state.scheduler.drain();
        }
        // There is one model; whoever comes second changes nothing.
        let _ = self.state.set(Arc::new(state));
    }

    /// From now on no new requests are answered.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
        if let Some(state) = self.state() {
            state.scheduler.drain();
        }
    }

    /// Everything that answers.
    pub(crate) fn router(self: &Arc<Front>) -> Router {
        let router = routes::all()
            .fallback(async || ApiError::new(ErrorKind::NotFound, "there is nothing at this address"))
            .method_not_allowed_fallback(async || {
                ApiError::new(ErrorKind::MethodNotAllowed, "this address takes no requests of this method")
            })
            .layer(from_fn_with_state(self.clone(), pass))
            .with_state(self.clone());
        match self.options.origins.layer() {
            Some(layer) => router.layer(layer),
            None => router,
        }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let Front { options, loopback, .. } = self;
        let access = Access { keys: &options.keys, origins: &options.origins, loopback: *loopback };
        access.check_place(request.headers())?;
        let path = request.uri().path();
        if !OPEN.contains(&path) {
            access.check_key(request.headers())?;
        }
        match path {
            "/health" | "/metrics" => Ok(()),
            _ if self.is_draining() => {
                Err(ApiError::new(ErrorKind::Unavailable, "the server is shutting down"))
            }
            _ if OPEN.contains(&path) => Ok(()),
            _ if self.state().is_none() => {
                Err(ApiError::new(ErrorKind::Unavailable, "the model is being loaded; try again in a moment"))
            }
            _ => Ok(()),
        }
    }
}

/// The model, in a handler that is reached only once it is loaded.
pub struct Loaded(pub Arc<AppState>);

impl FromRequestParts<Arc<Front>> for Loaded {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, front: &Arc<Front>) -> Result<Loaded, ApiError> {
        let state = front.state().cloned();
        state.map(Loaded).ok_or_else(|| ApiError::new(ErrorKind::Unavailable, "the model is being loaded"))
    }
}

impl FromRequestParts<Arc<Front>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Front>) -> Result<Caller, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| ApiError::internal("a request has no caller"))
    }
}

/// Passes a request on to its handler, if it may pass.
async fn pass(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (route, interface) = (label(&path), Interface::of(&path));
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let id: Arc<str> = format!("req-{:08x}", front.requests.fetch_add(1, Relaxed)).into();
    let in_flight = InFlight::new(&front.metrics);
    let mut response = match front.check(&request) {
        Ok(()) => {
            let peer = peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
            request.extensions_mut().insert(Caller { request: id.clone(), peer });
            next.run(request).await
        }
        Err(error) => error.response(interface),
    };
    // A handler knows what went wrong; which interface it went wrong in is known here.
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = error.response(interface);
        if method == Method::HEAD {
            *response.body_mut() = axum::body::Body::empty();
        }
    }
    let status = response.status().as_u16();
    front.metrics.request(route, status);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if front.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let took = started.elapsed().as_secs_f64() * 1e3;
    let quiet = matches!(route, "/health" | "/metrics");
    match quiet {
        true => {
            tracing::debug!(request = %id, %method, path = ?path, status, ms = format_args!("{took:.1}"), "request")
        }
        false => {
            tracing::info!(request = %id, %method, path = ?path, status, ms = format_args!("{took:.1}"), "request")
        }
    }
    in_flight.until_the_end_of(response)
}

/// A request that is being answered.
struct InFlight(Arc<Metrics>);

impl InFlight {
    fn new(metrics: &Arc<Metrics>) -> InFlight {
        metrics.in_flight.fetch_add(1, Relaxed);
        InFlight(metrics.clone())
    }

    /// Counts the request until its answer was sent, or nobody wants it any more.
    fn until_the_end_of(self, response: Response) -> Response {
        response.map(|body| {
            use axum::body::Body;
            use axum::body::HttpBody;
            // What is there already needs no stream, and keeps its length.
            if body.is_end_stream() || body.size_hint().exact().is_some() {
                return body;
            }
            use tokio_stream::StreamExt;
            Body::from_stream(body.into_data_stream().map(move |frame| {
                let _counted = &self;
                frame
            }))
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
