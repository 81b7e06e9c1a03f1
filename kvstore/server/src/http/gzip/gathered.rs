//! Whole messages out of a body.

use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::PREFIX_LEN;
use crate::grpc::message_larger_than;

/// Makes whole messages of the pieces of a body.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// A message that has not come as a whole.
    begun: BytesMut,
    /// What came behind it.
    rest: Bytes,
}

impl Gathered {
    /// Takes what comes next, once there is no whole message in what came before.
    pub(super) fn push(&mut self, data: Bytes) {
        debug_assert!(self.rest.is_empty(), "the messages of before are taken first");
        self.rest = data;
    }

    /// The next whole message, with what stands before it. It may have `largest` bytes.
    pub(super) fn next(&mut self, largest: usize) -> Result<Option<Bytes>, Status> {
        loop {
            let known = if self.begun.is_empty() { &self.rest[..] } else { &self.begun[..] };
            let len = match known.first_chunk::<PREFIX_LEN>() {
                None => PREFIX_LEN,
                Some([_, a, b, c, d]) => {
                    let len = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
                    if len > largest {
                        return Err(message_larger_than(len, largest));
                    }
                    PREFIX_LEN + len
                }
            };
            if self.begun.is_empty() && self.rest.len() >= len {
                return Ok(Some(self.rest.split_to(len)));
            }
            let more = self.rest.split_to((len - self.begun.len()).min(self.rest.len()));
            self.begun.extend_from_slice(&more);
            if self.begun.len() < len {
                return Ok(None);
            }
            // With nothing but the prefix, it is only now known how long the message is.
            if len > PREFIX_LEN || self.begun[1..].iter().all(|byte| *byte == 0) {
                return Ok(Some(self.begun.split().freeze()));
            }
        }
    }

    /// What is left of a message that did not come as a whole, which is all that is wrong with it.
    pub(super) fn left(&mut self) -> Bytes {
        if let Some(flag) = self.begun.first_mut().filter(|flag| **flag == 1) {
            *flag = 0;
        }
        self.begun.split().freeze()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.rest.is_empty()
    }
}
