//! Bodies that are counted as they pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tonic::{Code, Status};

use super::calls::Call;

/// The body of a gRPC request.
#[derive(Debug)]
pub(crate) struct Received {
    body: Incoming,
    call: Call,
}

impl Received {
    pub(super) fn new(body: Incoming, call: Call) -> Self {
        Self { body, call }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.call.received(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. That of a gRPC call ends the call: with the code in its trailers, or with none if the client did
/// not wait for them.
#[derive(Debug)]
pub(crate) struct Answer {
    body: tonic::body::Body,
    call: Option<Call>,
}

impl Answer {
    pub(super) fn new(body: tonic::body::Body, call: Option<Call>) -> Self {
        Self { body, call }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(call) = &self.call {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        call.sent(data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        call.end(super::calls::code(trailers).unwrap_or(Code::Ok));
                        self.call = None;
                    }
                }
                Some(Err(status)) => {
                    call.end(status.code());
                    self.call = None;
                }
                None => {
                    call.end(Code::Ok);
                    self.call = None;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.end(if self.body.is_end_stream() { Code::Ok } else { Code::Cancelled });
        }
    }
}
