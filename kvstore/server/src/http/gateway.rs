//! The API in JSON, as grpc-gateway has it in etcd: a request is turned into the message of a gRPC call, which is made as any
//! other, and its answer is turned back.
//!
//! ```text
//! POST /v3/kv/range {"key":"Zm9v"} ─► RangeRequest ─► Api ─► RangeResponse ─► {"header":{…},"kvs":[…]}
//! POST /v3/watch    {…}{…}         ─► WatchRequest… ─► Api ─► WatchResponse… ─► {"result":{…}}\n…
//! ```
//!
//! Invariants:
//! - No message is mapped by hand: the descriptors of the API say how each looks in JSON.
//! - A body that is answered once is in memory once, and is no larger than a request may be.

mod call;
mod error;
mod paths;
mod values;

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{once, unfold};
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Status};

use super::deadline::{deadline, too_late};
use super::router::{plain, typed};
use crate::grpc::{Api, Peer, Service, as_etcd, proto};
use call::{Replies, message};
use error::refusal;
use values::Values;

/// How long a client may take for the body of a request that is answered once.
const BODY_DEADLINE: Duration = Duration::from_mins(1);

/// Answers requests in JSON.
#[derive(Debug)]
pub(super) struct Gateway {
    api: Api,
    service: Service,
    pool: DescriptorPool,
    /// In bytes. JSON is a third longer than what it stands for, if that is mostly bytes.
    largest_body: usize,
}

impl Gateway {
    pub(super) fn new(api: Api, service: &Service) -> Self {
        let largest_body = service.largest_message().saturating_mul(2);
        // The descriptors were made together with this program; without them there would be nothing at any path.
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap_or_default();
        Self { api, service: service.clone(), pool, largest_body }
    }

    /// Answers a request to `path`, which is below `/v3/`.
    pub(super) async fn answer(&self, peer: &Peer, path: &str, request: Request<Incoming>) -> Response<Body> {
        if peer.user.is_some() && self.service.has_users() {
            let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
            return plain(StatusCode::BAD_REQUEST, text);
        }
        let Some(method) = paths::method(&self.pool, path) else {
            return error::answer(StatusCode::NOT_FOUND, Code::NotFound, "Not Found");
        };
        if request.method() != Method::POST {
            return error::answer(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, "Method Not Allowed");
        }
        match self.call(&method, request).await {
            Ok(response) => response,
            Err(status) if method.is_server_streaming() => error::of_stream(&status),
            Err(status) => refusal(&status),
        }
    }

    async fn call(
        &self,
        method: &MethodDescriptor,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let messages = if method.is_client_streaming() {
            let mut values = Values::new(Limited::new(body, usize::MAX), self.largest_body);
            let input = method.input();
            let first = values.next().await.transpose()?;
            let first = first.map(|value| message(&input, &value)).transpose()?;
            let rest = unfold(values, move |mut values| {
                let input = input.clone();
                async move {
                    // What is no message ends the requests, as in etcd; what was asked before goes on.
                    let value = values.next().await?.ok()?;
                    Some((message(&input, &value).ok()?, values))
                }
            });
            let messages = futures_util::stream::iter(first).chain(rest);
            Body::new(StreamBody::new(messages.map(|message| Ok::<_, Status>(Frame::data(message)))))
        } else {
            let value = self.one_value(body).await?;
            let message = message(&method.input(), value.as_deref().unwrap_or(b"{}"))?;
            Body::new(StreamBody::new(once(async { Ok::<_, Status>(Frame::data(message)) })))
        };
        let request = call::request(method, &head.headers, head.extensions.get(), messages);
        let call = self.api.call(request);
        let response = match deadline(&head.headers) {
            Some(deadline) => timeout(deadline, call).await.map_err(|_| too_late())?,
            None => call.await,
        };
        let response = as_etcd(response.unwrap_or_else(|never| match never {}));
        let mut replies = Replies::new(response, method.output());
        if method.is_server_streaming() {
            return stream(replies).await;
        }
        let reply = replies.next().await.ok_or_else(|| Status::internal("landbridge: no answer"))??;
        Ok(json(typed(StatusCode::OK, "application/json", reply)))
    }

    /// The first value of a body; what follows it is not looked at.
    async fn one_value(&self, body: Incoming) -> Result<Option<Bytes>, Status> {
        let mut values = Values::new(Limited::new(body, self.largest_body), self.largest_body);
        let value = timeout(BODY_DEADLINE, values.next()).await;
        value.map_err(|_| too_late())?.transpose()
    }
}

/// The answers of a stream, each on a line. The code of HTTP tells how it began.
async fn stream(mut replies: Replies) -> Result<Response<Body>, Status> {
    let first = replies.next().await.transpose()?;
    let rest = unfold(Some(replies), |replies| async {
        let mut replies = replies?;
        let reply = replies.next().await?;
        let next = reply.is_ok().then_some(replies);
        Some((reply, next))
    });
    let lines = futures_util::stream::iter(first.map(Ok)).chain(rest);
    Ok(json(Response::new(Body::new(StreamBody::new(frames(lines))))))
}

fn frames(
    replies: impl Stream<Item = Result<String, Status>> + Send + 'static,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static {
    replies.map(|reply| {
        let line = match reply {
            Ok(reply) => format!("{{\"result\":{reply}}}\n"),
            Err(status) => error::line(&status),
        };
        Ok(Frame::data(line.into()))
    })
}

fn json(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("grpc-metadata-content-type", HeaderValue::from_static("application/grpc"));
    response
}
