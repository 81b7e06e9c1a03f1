//! Calls of one message each way, without what gRPC needs for streams of them.
//!
//! ```text
//! body ─► flag, length, message ─► the call ─► one buffer of the right size ─► body, then how it ended
//! ```
//!
//! tonic takes a buffer of 8 KiB for each message that comes or goes, and steps through streams of one element. A call of
//! some hundred bytes needs neither.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, header};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::status;

/// What stands before each message: whether it is compressed, and its length in four bytes.
const PREFIX_LEN: usize = 5;

/// Reads a request of one message, of `largest` bytes at most.
///
/// # Errors
/// That of the body, or why its bytes are no such message.
pub(super) async fn receive<B, M>(request: Request<B>, largest: usize) -> Result<tonic::Request<M>, Status>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<StdError>,
    M: Message + Default,
{
    let (head, body) = request.into_parts();
    let message = M::decode(message(body, largest).await?)
        .map_err(|error| Status::internal(format!("the request is no such message: {error}")))?;
    Ok(tonic::Request::from_parts(MetadataMap::from_headers(head.headers), head.extensions, message))
}

/// The bytes of the one message of a body.
async fn message<B>(body: B, largest: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<StdError>,
{
    let mut body = std::pin::pin!(body);
    let mut received = Bytes::new();
    let mut expected = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        received = if received.is_empty() { data } else { joined(received, &data, expected) };
        if expected.is_none() {
            expected = expected_len(&received, largest)?;
        }
        if expected.is_some_and(|len| received.len() > len) {
            return Err(Status::internal("more than one message came for a call that takes one"));
        }
    }
    if expected != Some(received.len()) {
        // As etcd says it, which has no code for it.
        return Err(Status::unknown("unexpected EOF"));
    }
    received.advance(PREFIX_LEN);
    Ok(received)
}

/// Most messages come in one piece; the pieces of the others become one.
fn joined(before: Bytes, data: &[u8], expected: Option<usize>) -> Bytes {
    let mut all = before.try_into_mut().unwrap_or_else(|before| BytesMut::from(&before[..]));
    all.reserve(expected.map_or(data.len(), |len| len.saturating_sub(all.len()).max(data.len())));
    all.extend_from_slice(data);
    all.freeze()
}

/// How long message and prefix are together, once the prefix is there.
fn expected_len(received: &[u8], largest: usize) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = received.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
    if flag != 0 {
        return Err(Status::internal(format!("the message has the flag {flag}, and is not compressed")));
    }
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > largest {
        return Err(status::message_larger_than(len, largest));
    }
    Ok(Some(PREFIX_LEN + len))
}

/// The response to a call.
pub(super) fn respond<M: Message>(outcome: Result<tonic::Response<M>, Status>) -> Response<Body> {
    let (metadata, message, extensions) = match outcome {
        Ok(response) => response.into_parts(),
        Err(status) => return status.into_http(),
    };
    let len = message.encoded_len();
    let Ok(prefix_len) = u32::try_from(len) else {
        return Status::resource_exhausted(format!("the response has {len} bytes, more than gRPC can say"))
            .into_http();
    };
    let mut bytes = BytesMut::with_capacity(PREFIX_LEN + len);
    bytes.put_u8(0);
    bytes.put_u32(prefix_len);
    message.encode_raw(&mut bytes);
    let mut response = Response::new(Body::new(One::Message(bytes.freeze())));
    *response.headers_mut() = metadata.into_headers();
    *response.extensions_mut() = extensions;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message, and then that all went well.
#[derive(Debug)]
enum One {
    Message(Bytes),
    Trailers,
    Nothing,
}

impl HttpBody for One {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match std::mem::replace(&mut *self, Self::Nothing) {
            Self::Message(bytes) => {
                *self = Self::Trailers;
                Frame::data(bytes)
            }
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Ok as i32));
                Frame::trailers(trailers)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    fn size_hint(&self) -> SizeHint {
        // Without a length: trailers follow.
        SizeHint::default()
    }
}
