//! Bodies that are counted as they pass, and count as long as they are held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::futures::OwnedNotified;
use tonic::codegen::StdError;
use tonic::{Code, Status};

use super::calls::Call;
use super::gzip::{Packer, Unpacker};
use crate::held::Held;

/// How much of an answer is handed on at a time, which shows that its reader goes on.
const PIECE_BYTES: usize = 256 << 10;

/// The body of a gRPC request.
#[derive(Debug)]
pub(crate) struct Received {
    body: Incoming,
    call: Call,
    messages: Messages,
    /// Bytes of its metadata.
    metadata: usize,
    /// All bytes that have come, and those that were unpacked.
    all: usize,
    unpacker: Option<Unpacker>,
}

impl Received {
    /// The body of a call that has so many bytes of metadata, and whose messages may be packed.
    pub(super) fn new(body: Incoming, call: Call, metadata: usize, unpacker: Option<Unpacker>) -> Self {
        Self { body, call, messages: Messages::default(), metadata, all: metadata, unpacker }
    }

    /// The next message that was unpacked.
    fn unpacked(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(unpacker) = &mut self.unpacker else { return Ok(None) };
        let message = unpacker.next()?;
        if let Some(message) = &message
            && !self.call.takes_many()
        {
            self.all += message.len();
            self.call.hold(self.all)?;
        }
        Ok(message)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(message) = self.unpacked()? {
                return Poll::Ready(Some(Ok(Frame::data(message))));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()?;
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                self.call.received(data.len());
                self.all += data.len();
                let begun = self.messages.take(data);
                // A stream is answered message by message.
                self.call.hold(if self.call.takes_many() { self.metadata + begun } else { self.all })?;
            }
            let frame = match (frame.map(Frame::into_data), &mut self.unpacker) {
                (Some(Ok(data)), Some(unpacker)) => {
                    unpacker.push(data);
                    continue;
                }
                (None, Some(unpacker)) if !unpacker.is_empty() => Some(Frame::data(unpacker.left())),
                (frame, _) => frame.map(|frame| frame.map_or_else(|trailers| trailers, Frame::data)),
            };
            return Poll::Ready(frame.map(Ok));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unpacker.as_ref().is_none_or(Unpacker::is_empty) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.unpacker.is_none() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// Where in its messages a request is.
#[derive(Debug, Default)]
struct Messages {
    /// What has come of what stands before the next message: whether it is compressed, and its length in four bytes.
    prefix: [u8; 5],
    /// How much has come of a message, and of what stands before it.
    begun: usize,
    /// What is still to come of a message whose length is known.
    left: usize,
}

impl Messages {
    /// Goes on by `data`. Returns how much has come of a message that has begun and not ended.
    fn take(&mut self, mut data: &[u8]) -> usize {
        while !data.is_empty() {
            if self.left == 0 {
                let missing = &mut self.prefix[self.begun..];
                let len = missing.len().min(data.len());
                missing[..len].copy_from_slice(&data[..len]);
                self.begun += len;
                data = &data[len..];
                if self.begun == self.prefix.len() {
                    let [_, a, b, c, d] = self.prefix;
                    self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                }
            }
            let len = self.left.min(data.len());
            self.begun += len;
            self.left -= len;
            data = &data[len..];
            if self.left == 0 && self.begun >= self.prefix.len() {
                self.begun = 0;
            }
        }
        self.begun
    }
}

/// The body of a response. That of a gRPC call ends the call: with the code in its trailers, or with none if the client did
/// not wait for them.
///
/// What of it the client has not read counts, and a call that can wait with building more does so.
#[derive(Debug)]
pub(crate) struct Answer {
    body: tonic::body::Body,
    call: Option<Call>,
    held: Held,
    /// Whether it waits with the next part while there is much that the client has not read.
    waits: bool,
    has_read: Option<Pin<Box<OwnedNotified>>>,
    /// What is left of a part.
    rest: Bytes,
    packer: Option<Packer>,
}

impl Answer {
    pub(super) fn new(
        body: tonic::body::Body,
        call: Option<Call>,
        held: Held,
        packer: Option<Packer>,
    ) -> Self {
        let waits = call.as_ref().is_some_and(Call::waits);
        Self { body, call, held, waits, has_read: None, rest: Bytes::new(), packer }
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.waits && self.held.is_full() {
            match &mut self.has_read {
                // It is looked at once more before this is waited for.
                None => self.has_read = Some(Box::pin(self.held.has_read())),
                Some(has_read) => {
                    ready!(has_read.as_mut().poll(context));
                    self.has_read = None;
                }
            }
        }
        self.has_read = None;
        Poll::Ready(())
    }

    /// The next piece of the part that is under way.
    fn piece(&mut self) -> Frame<Bytes> {
        let len = self.rest.len().min(PIECE_BYTES);
        Frame::data(self.rest.split_to(len))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            self.held.note_moved();
            return Poll::Ready(Some(Ok(self.piece())));
        }
        if let Some(packer) = &mut self.packer
            && let Some(packed) = ready!(packer.poll_next(context))?
        {
            self.rest = self.held.unread(packed);
            return Poll::Ready(Some(Ok(self.piece())));
        }
        ready!(self.poll_room(context));
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
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => {
                    // It counts at once, also while it waits to be packed.
                    let data = self.held.unread(data);
                    if let Some(packer) = &mut self.packer {
                        packer.push(data);
                        return self.poll_frame(context);
                    }
                    self.rest = data;
                    self.piece()
                }
                Err(frame) => frame,
            })),
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.packer.as_ref().is_none_or(Packer::is_empty) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let is_as_built = self.rest.is_empty() && self.packer.is_none();
        if is_as_built { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.end(if self.is_end_stream() { Code::Ok } else { Code::Cancelled });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However messages are cut into frames, it is known how much of the last one has come.
        #[test]
        fn what_has_come_of_a_message_is_known(
            lens in prop::collection::vec(0..600_u32, 1..8),
            cuts in prop::collection::vec(1..700_usize, 1..40),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for len in lens {
                bytes.push(0);
                bytes.extend(len.to_be_bytes());
                bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 7);
                ends.push(bytes.len());
            }
            let (mut messages, mut at) = (Messages::default(), 0);
            for cut in cuts.into_iter().cycle() {
                let end = bytes.len().min(at + cut);
                let begun = messages.take(&bytes[at..end]);
                at = end;
                let start = ends.iter().rev().find(|end| **end <= at).unwrap();
                prop_assert_eq!(begun, at - start);
                if at == bytes.len() {
                    break;
                }
            }
        }
    }
}
