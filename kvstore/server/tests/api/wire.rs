//! What no library of gRPC says, and anybody can: each is said to ours and to etcd, and answered alike.

mod gzip;
mod limits;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::iter;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use landbridge_kvstore_server::AccessRules;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_lab::requirement::{Requirement, etcd, met};
use prost::Message;
use tokio::net::TcpStream;

use crate::store::{Client, Etcd, Ours, soon};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// A request of gRPC as it is on the wire.
#[derive(Clone)]
struct Call {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    /// The body, in frames.
    frames: Vec<Bytes>,
}

impl Call {
    fn new(path: &'static str, frames: impl IntoIterator<Item = Bytes>) -> Self {
        let headers = vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())];
        Self { method: "POST", path, headers, frames: frames.into_iter().collect() }
    }

    fn of(path: &'static str, message: &impl Message) -> Self {
        Self::new(path, [framed(&message.encode_to_vec())])
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }
}

/// How a request was answered.
#[derive(Clone, PartialEq, Eq)]
struct Answer {
    http: u16,
    content_type: String,
    grpc: Option<String>,
    text: String,
    message: Bytes,
    encoding: String,
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { http, content_type, grpc, text, message, encoding } = self;
        let begin = &message[..message.len().min(100)];
        write!(
            formatter,
            "{http} {content_type} {encoding} {grpc:?} {text:?} {} bytes {:?}",
            message.len(),
            begin.escape_ascii().to_string()
        )
    }
}

/// A message behind what says that it is not compressed, and its length.
fn framed(message: &[u8]) -> Bytes {
    flagged(0, message)
}

fn flagged(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}

/// Says it on a connection of its own. An error is a connection or a stream that ended without an answer.
async fn say(endpoint: &str, call: &Call) -> Result<Answer, hyper::Error> {
    let address = endpoint.split_once("://").unwrap().1;
    let tcp = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(call.method).uri(format!("http://{address}{}", call.path));
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let frames = call.frames.clone().into_iter().map(|frame| Ok::<_, hyper::Error>(Frame::data(frame)));
    let request = request.body(StreamBody::new(iter(frames))).unwrap();
    let response = soon(sender.send_request(request)).await?;
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await?;
    let empty = HeaderMap::new();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let find = |name: &str| {
        let value = [&trailers, &head.headers, &empty].into_iter().find_map(|headers| headers.get(name));
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(Answer {
        http: head.status.as_u16(),
        content_type: find("content-type").unwrap_or_default(),
        grpc: find("grpc-status"),
        text: decoded(&find("grpc-message").unwrap_or_default()),
        encoding: find("grpc-encoding").unwrap_or_default(),
        message: body.to_bytes(),
    })
}

/// gRPC over HTTP/2, "Percent-Encoded".
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Both stores, until the test ends.
struct Both {
    etcd: Etcd,
    ours: Ours,
}

impl Both {
    async fn start() -> Option<Self> {
        if !met(&[Requirement::Etcd]) {
            return None;
        }
        let etcd = Etcd::start(&etcd().unwrap());
        // It takes a moment until it listens.
        Client::connect(&etcd.endpoint, "a").await;
        Some(Self { etcd, ours: Ours::start(AccessRules::Open, None).await })
    }

    /// What ours and etcd say.
    async fn say(&self, call: &Call) -> [Result<Answer, hyper::Error>; 2] {
        [say(&self.ours.endpoint("http"), call).await, say(&self.etcd.endpoint, call).await]
    }

    /// Says it to both, and expects the same codes, and the same texts if `text`; of messages, only that there is one or not.
    async fn agree(&self, what: &str, text: bool, call: Call) -> Answer {
        let [ours, theirs] = self.say(&call).await.map(|answer| answer.unwrap());
        let kind = |answer: &Answer| {
            let text = text.then(|| answer.text.clone());
            (answer.http, answer.grpc.clone(), text, answer.message.is_empty())
        };
        assert_eq!(kind(&ours), kind(&theirs), "{what}: ours {ours:?}, etcd {theirs:?}");
        // Whatever it was, the next one is served.
        let next = say(&self.ours.endpoint("http"), &Call::of(RANGE, &range())).await.unwrap();
        assert_eq!(next.grpc.as_deref(), Some("0"), "after {what}: {next:?}");
        ours
    }
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "k".into(), ..Default::default() }
}

fn put(bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: "k".into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

/// Cuts a body into frames of so many bytes.
fn cut(bytes: &Bytes, len: usize) -> Vec<Bytes> {
    bytes.chunks(len).map(Bytes::copy_from_slice).collect()
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_one_frame_and_in_many() {
    let Some(both) = Both::start().await else { return };
    for len in [3 << 20, 16 << 10, 1000] {
        // Taken, too large for a request, too large for a message.
        for (bytes, code) in [(1 << 20, "0"), (1_600_000, "3"), (3 << 20, "8")] {
            let frames = cut(&framed(&put(bytes).encode_to_vec()), len);
            let what = format!("{bytes} bytes in frames of {len}");
            let answer = both.agree(&what, true, Call::new(PUT, frames)).await;
            assert_eq!(answer.grpc.as_deref(), Some(code), "{what}: {answer:?}");
        }
    }
    // Those that another part of the server reads.
    let name = pb::AuthenticateRequest { name: "n".repeat(3 << 20), password: String::new() };
    let answer = both.agree("a long name", true, Call::of(AUTHENTICATE, &name)).await;
    assert_eq!(answer.grpc.as_deref(), Some("8"), "{answer:?}");
    both.ours.stop().await;
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let Some(both) = Both::start().await else { return };
    let whole = framed(&range().encode_to_vec());
    let huge = Bytes::from_static(b"\0\xff\xff\xff\xff");
    let cases: Vec<(&str, Vec<Bytes>)> = vec![
        ("a length without end", vec![huge]),
        ("a message that ends early", vec![whole.slice(..whole.len() - 1)]),
        ("half a length", vec![whole.slice(..3)]),
        ("a flag that is none", vec![Bytes::from_static(b"\x07\0\0\0\0")]),
        ("a flag of compression", vec![Bytes::from_static(b"\x01\0\0\0\x02\x0a\0")]),
        ("a field that is no field", vec![framed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]),
        ("a field of number 0", vec![framed(b"\x02\x01a")]),
        ("a text longer than its message", vec![framed(b"\x0a\x7fk")]),
        ("a number where a text is", vec![framed(b"\x08\x01")]),
    ];
    // Where etcd has no code for it, tonic says that it is internal.
    let is_without_code = |what: &str| matches!(what, "a message that ends early" | "half a length");
    for path in [RANGE, GRANT] {
        for (what, frames) in &cases {
            let call = Call::new(path, frames.clone());
            let answer = if path == GRANT && is_without_code(what) {
                both.say(&call).await.map(|answer| answer.unwrap())[0].clone()
            } else {
                both.agree(what, false, call).await
            };
            let is_refused = !matches!(answer.grpc.as_deref(), None | Some("0"));
            // The first field of that one is a number.
            let is_known = path == GRANT && *what == "a number where a text is";
            assert_eq!(is_refused, !is_known, "{what}: {answer:?}");
        }
    }
    for (path, message) in [(RANGE, range().encode_to_vec()), (GRANT, Vec::new())] {
        let unknown = Call::new(path, [framed(&message)]).with("grpc-encoding", "what");
        both.agree("an unknown compression", true, unknown).await;
    }
    both.ours.stop().await;
}

#[tokio::test]
async fn fields_that_nobody_knows_change_nothing() {
    let Some(both) = Both::start().await else { return };
    // Of each kind, also a group; and the largest number that a field may have.
    let unknown: [&[u8]; 6] = [
        b"\xa0\x06\x2a",
        b"\xa1\x06\x01\x02\x03\x04\x05\x06\x07\x08",
        b"\xa5\x06\x01\x02\x03\x04",
        b"\xa2\x06\x03abc",
        b"\xa3\x06\x08\x01\xa4\x06",
        b"\xf8\xff\xff\xff\x0f\x01",
    ];
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(5))) };
    let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
    let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
    let calls: [(&'static str, Vec<u8>); 5] = [
        (PUT, put(7).encode_to_vec()),
        (RANGE, range().encode_to_vec()),
        (TXN, txn.encode_to_vec()),
        (GRANT, grant.encode_to_vec()),
        (STATUS, Vec::new()),
    ];
    for fields in unknown {
        for (path, message) in &calls {
            for bytes in [[fields, message].concat(), [message, fields].concat()] {
                let answer = both.agree(path, true, Call::new(path, [framed(&bytes)])).await;
                assert_eq!(answer.grpc.as_deref(), Some("0"), "{path} {fields:?}: {answer:?}");
            }
        }
    }
    // What is inside of a message that is known, and a kind of operation that is not.
    let inner = [&put(5).encode_to_vec()[..], unknown[0]].concat();
    let mut op = vec![0x12, u8::try_from(inner.len()).unwrap()];
    op.extend(&inner);
    let mut success = vec![0x12, u8::try_from(op.len()).unwrap()];
    success.extend(&op);
    both.agree("inside", true, Call::new(TXN, [framed(&success)])).await;
    let answer = both.agree("an operation", true, Call::new(TXN, [framed(b"\x12\x03\xa2\x06\0")])).await;
    assert_eq!(answer.text, "etcdserver: key not found");
    both.ours.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let Some(both) = Both::start().await else { return };
    for path in [
        "/etcdserverpb.KV/Nothing",
        "/etcdserverpb.Watch/Nothing",
        "/nothing.Here/Range",
        "/etcdserverpb/Range",
        "/nothing",
        "/",
        "/a/b/c",
        "//",
    ] {
        let answer = both.agree(path, true, Call::of(path, &range())).await;
        assert_eq!(answer.grpc.as_deref(), Some("12"), "{path}: {answer:?}");
    }
    both.ours.stop().await;
}

#[tokio::test]
async fn other_kinds_of_content_are_no_calls() {
    let Some(both) = Both::start().await else { return };
    for kind in ["application/grpc", "application/grpc+proto"] {
        let answer = both.agree(kind, true, Call::of(RANGE, &range()).with("content-type", kind)).await;
        assert_eq!(answer.grpc.as_deref(), Some("0"), "{kind}: {answer:?}");
    }
    // etcd refuses it where it expects nothing but gRPC, and with TLS, as ours does: it looks for another page of that name.
    for kind in ["application/json", "text/plain", "", "application/gr"] {
        let call = Call::of(RANGE, &range()).with("content-type", kind);
        let [ours, theirs] = both.say(&call).await.map(|answer| answer.unwrap());
        assert_eq!((ours.http, theirs.http), (404, 415), "{kind:?}: ours {ours:?}, etcd {theirs:?}");
    }
    both.ours.stop().await;
}
