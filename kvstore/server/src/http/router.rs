//! What a request is for.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::body::Received;
use super::calls::{Answering, Calls};
use super::deadline::deadline;
use super::gateway::Gateway;
use super::gzip::{self, Unpacker};
use super::{CLUSTER_VERSION, ETCD_VERSION, health};
use crate::grpc::{Api, Peer, Service, ServiceSettings, unknown_method};
use crate::held::{Held, HeldForAll};

/// Begins the paths of those services that tell which ones there are, and are not among them.
const REFLECTION: &str = "/grpc.reflection.";

/// The largest head of a request over HTTP/2 that is no call of gRPC, as [`list_len`] has it.
const LARGEST_HEAD: usize = 16 << 10;

/// Tells requests apart, and has them answered.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    service: Service,
    api: Api,
    calls: Arc<Calls>,
    gateway: Arc<Gateway>,
    held: HeldForAll,
    /// Whether metrics and health are all that there is.
    has_metrics_only: bool,
}

impl Router {
    /// What answers the requests to `service`.
    pub(crate) fn new(service: Service) -> Self {
        let api = Api::new(&service);
        let calls = Arc::new(Calls::new(service.settings().times_calls));
        let gateway = Arc::new(Gateway::new(api.clone(), &service));
        let held = HeldForAll::new(service.settings().max_held_bytes);
        Self { service, api, calls, gateway, held, has_metrics_only: false }
    }

    /// What answers those who are to see metrics and health, and nothing else.
    pub(crate) fn of_metrics(&self) -> Self {
        Self { has_metrics_only: true, ..self.clone() }
    }

    /// What is held for one more connection.
    pub(super) fn held(&self, cut: CancellationToken) -> Held {
        self.held.connection(cut)
    }

    pub(super) fn settings(&self) -> ServiceSettings {
        self.service.settings()
    }

    pub(super) fn answer(&self, peer: &Peer, held: &Held, mut request: Request<Incoming>) -> Answering {
        request.extensions_mut().insert(held.clone());
        let is_grpc = request.version() == Version::HTTP_2
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && !self.has_metrics_only {
            let call = Calls::begin(&self.calls, request.uri().path(), held);
            let path = request.uri().path();
            if !call.is_known() && !path.starts_with(REFLECTION) {
                let unknown = unknown_method(path, |service| self.calls.has_service(service));
                return Answering::refused(unknown, call);
            }
            let metadata = list_len(request.headers());
            if let Err(refusal) = call.hold(metadata) {
                return Answering::refused(refusal, call);
            }
            let packs = match gzip::take_encoding(request.headers_mut()) {
                Ok(packs) => packs,
                Err(refusal) => return Answering::refused(refusal, call),
            };
            let unpacker = packs.then(|| Unpacker::new(self.service.largest_message()));
            let deadline = deadline(request.headers());
            request.extensions_mut().insert(peer.clone());
            let request = request.map(|body| Received::new(body, call.clone(), metadata, unpacker));
            return Answering::grpc(self.api.call(request), call, deadline, packs);
        }
        if request.version() == Version::HTTP_2 && list_len(request.headers()) > LARGEST_HEAD {
            let text = format!("the head of a request may have {LARGEST_HEAD} bytes: send fewer headers\n");
            let refusal = plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text);
            return Answering::http(async { refusal }, held);
        }
        let (router, peer) = (self.clone(), peer.clone());
        Answering::http(async move { router.answer_http(&peer, request).await }, held)
    }

    async fn answer_http(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        let mut response = self.route_http(peer, request).await;
        // As etcd's default, `--cors '*'`: the API is for pages of other origins, too. Who may do what is told by tokens.
        let headers = response.headers_mut();
        let mut allow = |name, value| headers.insert(name, HeaderValue::from_static(value));
        allow(header::ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE");
        allow(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        allow(header::ACCESS_CONTROL_ALLOW_HEADERS, "accept, content-type, authorization");
        response
    }

    async fn route_http(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::OPTIONS {
            return Response::new(Body::empty());
        }
        let path = request.uri().path();
        if self.has_metrics_only && (path == "/version" || path.starts_with("/v3")) {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if let Some(call) = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/")) {
            let call = call.to_owned();
            return self.gateway.answer(peer, &call, request).await;
        }
        let known = matches!(path, "/health" | "/version" | "/metrics") || health::is_check(path);
        if !known {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match path {
            "/version" => {
                let text =
                    format!("{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\"}}");
                typed(StatusCode::OK, "application/json", text)
            }
            "/metrics" => {
                let text = self.calls.render(&self.service);
                typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            "/health" => health::health(&self.service, &self.calls, request.uri().query()).await,
            check => health::check(&self.service, check, request.uri().query()).await,
        }
    }
}

/// How long headers are, in bytes (RFC 9113, 6.5.2).
fn list_len(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// A text, as Go's `http.Error` sends it.
pub(super) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = typed(status, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A text of a kind.
pub(super) fn typed(status: StatusCode, kind: &'static str, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
