//! Between our types and what is on disk.
//!
//! The disk has messages of ours (`proto/landbridge/raft/v1`), never openraft's own form of its types, so that a new
//! version of that library finds what the old one left.

use landbridge_kvstore_store::InvalidKeyValue;

mod auth;
mod command;
mod log;
pub(super) mod peer;
mod snapshot;

pub(super) use log::{
    Durable, Record, batch_from_proto, batch_to_proto, decode_frame, decode_prologue, encode_entry,
    encode_prologue, encode_record,
};
pub(super) use snapshot::{Block, Head, decode_block, encode_end, encode_head, encode_parts, part_to_proto};

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::pedantic,
    reason = "generated"
)]
pub(super) mod proto {
    tonic::include_proto!("landbridge.raft.v1");
}

/// Why bytes that are whole make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no message of ours.
    #[error("not a message of the store's log")]
    Malformed(#[from] prost::DecodeError),
    /// A key or its value is not as it was written.
    #[error(transparent)]
    KeyValue(#[from] InvalidKeyValue),
    /// A message lacks a part, or has one that is not known here.
    #[error("{what} is missing, or was written by a newer version")]
    Unknown {
        /// Which.
        what: &'static str,
    },
    /// The voters of a membership are not all members.
    #[error("a membership that is none: {reason}")]
    Membership {
        /// Why.
        reason: String,
    },
}

/// A part of a message that has to be there.
fn required<T>(part: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    part.ok_or(DecodeError::Unknown { what })
}
