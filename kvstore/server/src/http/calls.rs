//! Calls of the API: counted, bounded by their deadline, and answered.
//!
//! Counting costs a look into a table of names and three additions per call.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response};
use prost_reflect::DescriptorPool;
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};

use super::body::Answer;
use super::deadline::too_late;
use super::gzip::{ENCODING, GZIP, Packer};
use crate::grpc::{as_etcd, is_direct, proto};
use crate::held::{Held, SMALL_REQUEST, Unfinished};

/// gRPC's codes.
const CODES: usize = 17;

/// What is counted of all calls.
#[derive(Debug)]
pub(super) struct Calls {
    by_path: HashMap<String, usize>,
    pub(super) methods: Vec<Method>,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) healthy: AtomicU64,
    pub(super) unhealthy: AtomicU64,
}

/// What is counted of one method.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) name: String,
    /// `unary`, or which side streams.
    pub(super) kind: &'static str,
    pub(super) started: AtomicU64,
    pub(super) handled: [AtomicU64; CODES],
    /// How long calls took; `None` if that is not measured.
    pub(super) times: Option<Times>,
}

/// Upper bounds of the times of calls in seconds, as the metrics of gRPC for Go have them.
pub(super) const TIMES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long calls took.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// How many were not longer than each bound, and longer than the one before; the last is of those beyond.
    pub(super) buckets: [AtomicU64; TIMES.len() + 1],
    pub(super) sum_nanoseconds: AtomicU64,
}

impl Times {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = TIMES.iter().position(|bound| seconds <= *bound).unwrap_or(TIMES.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One call under way. Clones are of the same one.
#[derive(Clone, Debug)]
pub(crate) struct Call(Arc<CallState>);

#[derive(Debug)]
struct CallState {
    calls: Arc<Calls>,
    /// `None` is one that nobody knows.
    method: Option<usize>,
    has_ended: AtomicBool,
    /// `None` if the time is not measured.
    began: Option<Instant>,
    held: Held,
    /// What is held of the request, once that is much.
    unfinished: Mutex<Option<Unfinished>>,
}

impl Calls {
    /// `times_calls` says whether it is measured how long each takes.
    pub(super) fn new(times_calls: bool) -> Self {
        let pools = [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut methods = Vec::new();
        for pool in pools.into_iter().filter_map(|encoded| DescriptorPool::decode(encoded).ok()) {
            methods.extend(pool.services().flat_map(|service| {
                let full_name = service.full_name().to_owned();
                service
                    .methods()
                    .map(move |method| Method {
                        service: full_name.clone(),
                        name: method.name().to_owned(),
                        kind: match (method.is_client_streaming(), method.is_server_streaming()) {
                            (false, false) => "unary",
                            (true, false) => "client_stream",
                            (false, true) => "server_stream",
                            (true, true) => "bidi_stream",
                        },
                        started: AtomicU64::new(0),
                        handled: std::array::from_fn(|_| AtomicU64::new(0)),
                        times: times_calls.then(Times::default),
                    })
                    .collect::<Vec<_>>()
            }));
        }
        let path = |method: &Method| format!("/{}/{}", method.service, method.name);
        Self {
            by_path: methods.iter().enumerate().map(|(number, method)| (path(method), number)).collect(),
            methods,
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            healthy: AtomicU64::new(0),
            unhealthy: AtomicU64::new(0),
        }
    }

    /// Whether there is a service of that name.
    pub(super) fn has_service(&self, name: &str) -> bool {
        self.methods.iter().any(|method| method.service == name)
    }

    /// A call of a connection, for which `held` is held.
    pub(super) fn begin(calls: &Arc<Self>, path: &str, held: &Held) -> Call {
        let method = calls.by_path.get(path).copied();
        let mut began = None;
        if let Some(method) = method.and_then(|method| calls.methods.get(method)) {
            method.started.fetch_add(1, Relaxed);
            began = method.times.is_some().then(Instant::now);
        }
        Call(Arc::new(CallState {
            calls: Arc::clone(calls),
            method,
            has_ended: AtomicBool::new(false),
            began,
            held: held.clone(),
            unfinished: Mutex::default(),
        }))
    }
}

impl Call {
    pub(super) fn received(&self, bytes: usize) {
        self.0.calls.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.0.calls.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether the method exists.
    pub(super) fn is_known(&self) -> bool {
        self.0.method.is_some()
    }

    fn method(&self) -> Option<&Method> {
        self.0.calls.methods.get(self.0.method?)
    }

    /// Whether it takes a stream of messages.
    pub(super) fn takes_many(&self) -> bool {
        self.method().is_some_and(|method| matches!(method.kind, "client_stream" | "bidi_stream"))
    }

    /// Whether its answer is built as it is read, rather than at once.
    pub(super) fn waits(&self) -> bool {
        self.method().is_none_or(|method| !is_direct(&method.service, &method.name))
    }

    /// So many bytes of the request are held now.
    ///
    /// # Errors
    /// If that is too much.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), Status> {
        let mut unfinished = self.0.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes < SMALL_REQUEST && unfinished.is_none() {
            return Ok(());
        }
        unfinished.get_or_insert_with(|| Unfinished::new(self.0.held.clone())).set(bytes)
    }

    /// Nothing of the request is held any more.
    fn let_go(&self) {
        drop(self.0.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Counts the call with how it ended. Only the first time counts.
    pub(super) fn end(&self, code: Code) {
        let CallState { calls, method, has_ended, began, .. } = &*self.0;
        if let Some(method) = method.and_then(|method| calls.methods.get(method))
            && !has_ended.swap(true, Relaxed)
            && let Some(handled) = method.handled.get(code as usize)
        {
            handled.fetch_add(1, Relaxed);
            if let (Some(times), Some(began)) = (&method.times, began) {
                times.observe(began.elapsed());
            }
        }
    }
}

/// The code that headers or trailers tell.
pub(super) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// A request that is being answered.
pub(super) struct Answering {
    answer: BoxFuture<Response<Body>, Infallible>,
    call: Option<Call>,
    held: Held,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the answer is to be packed, as the request was.
    packs: bool,
}

impl fmt::Debug for Answering {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answering").field("call", &self.call).finish_non_exhaustive()
    }
}

impl Answering {
    pub(super) fn grpc(
        answer: BoxFuture<Response<Body>, Infallible>,
        call: Call,
        deadline: Option<Duration>,
        packs: bool,
    ) -> Self {
        let held = call.0.held.clone();
        let deadline = deadline.map(|deadline| Box::pin(sleep(deadline)));
        Self { answer, call: Some(call), held, deadline, packs }
    }

    pub(super) fn refused(refusal: Status, call: Call) -> Self {
        Self::grpc(Box::pin(std::future::ready(Ok(refusal.into_http()))), call, None, false)
    }

    pub(super) fn http(answer: impl Future<Output = Response<Body>> + Send + 'static, held: &Held) -> Self {
        let answer = Box::pin(async { Ok(answer.await) });
        Self { answer, call: None, held: held.clone(), deadline: None, packs: false }
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match self.answer.as_mut().poll(context) {
            Poll::Ready(Ok(response)) => response,
            Poll::Pending => {
                let Some(deadline) = &mut self.deadline else { return Poll::Pending };
                ready!(deadline.as_mut().poll(context));
                too_late().into_http()
            }
        };
        let call = self.call.take();
        let mut packer = None;
        if let Some(call) = &call {
            call.let_go();
            response = as_etcd(response);
            if let Some(code) = code(response.headers()) {
                call.end(code);
            } else if self.packs {
                response.headers_mut().insert(ENCODING, HeaderValue::from_static(GZIP));
                packer = Some(Packer::default());
            }
        }
        let held = self.held.clone();
        Poll::Ready(Ok(response.map(|body| Answer::new(body, call, held, packer))))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.end(Code::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::held::HeldForAll;

    #[test]
    fn a_call_is_counted_once_and_by_how_it_ended_first() {
        let calls = Arc::new(Calls::new(true));
        let held = HeldForAll::new(1).connection(CancellationToken::new());
        let call = Calls::begin(&calls, "/etcdserverpb.KV/Range", &held);
        call.end(Code::NotFound);
        call.end(Code::Ok);
        Calls::begin(&calls, "/etcdserverpb.KV/Nothing", &held).end(Code::Unimplemented);
        let counted: Vec<_> =
            calls.methods.iter().filter(|method| method.started.load(Relaxed) > 0).collect();
        assert!(matches!(&counted[..], [method] if method.name == "Range" && method.kind == "unary"
            && method.handled[5].load(Relaxed) == 1 && method.handled[0].load(Relaxed) == 0
            && method.times.as_ref().unwrap().buckets.iter().map(|bucket| bucket.load(Relaxed)).sum::<u64>() == 1));
    }
}
