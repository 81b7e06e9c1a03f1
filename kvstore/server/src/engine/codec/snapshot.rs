//! Blocks of a snapshot.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use landbridge_kvstore_store::auth::AuthStore;
use landbridge_kvstore_store::{Event, KeyValue, StorePart};
use prost::Message;

use super::auth::{auth_from_proto, auth_to_proto};
use super::command::{alarm_from_proto, alarm_to_proto, lease_id};
use super::log::{log_id_from_proto, log_id_to_proto, membership_from_proto, membership_to_proto};
use super::proto::{self, snapshot_block, snapshot_part};
use super::{DecodeError, required};
use crate::engine::alarms::Alarms;
use crate::engine::members::{Attributes, Members};
use crate::engine::types::{LogId, Membership, StoredMembership};

/// What a snapshot says before the store itself.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Head {
    pub(in crate::engine) cluster_id: u64,
    /// The last entry that is in it; none if nothing was applied.
    pub(in crate::engine) last_applied: Option<LogId>,
    pub(in crate::engine) membership: StoredMembership,
    pub(in crate::engine) auth: Arc<AuthStore>,
    pub(in crate::engine) members: Members,
    pub(in crate::engine) alarms: Alarms,
}

/// A block of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Block {
    Head(Head),
    Parts(Vec<StorePart>),
    /// How many blocks came before.
    End(u64),
}

pub(in crate::engine) fn encode_head(head: &Head) -> Vec<u8> {
    encode(snapshot_block::Block::Head(proto::SnapshotHead {
        cluster_id: head.cluster_id,
        last_applied: head.last_applied.as_ref().map(log_id_to_proto),
        membership_log_id: head.membership.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(head.membership.membership())),
        auth: Some(auth_to_proto(&head.auth)),
        members: Some(members_to_proto(&head.members)),
        alarms: head.alarms.iter().map(alarm_to_proto).collect(),
    }))
}

pub(in crate::engine) fn encode_parts(parts: Vec<proto::SnapshotPart>) -> Vec<u8> {
    encode(snapshot_block::Block::Parts(proto::SnapshotParts { parts }))
}

pub(in crate::engine) fn encode_end(blocks: u64) -> Vec<u8> {
    encode(snapshot_block::Block::End(proto::SnapshotEnd { blocks }))
}

fn encode(block: snapshot_block::Block) -> Vec<u8> {
    proto::SnapshotBlock { block: Some(block) }.encode_to_vec()
}

pub(in crate::engine) fn decode_block(bytes: impl Buf) -> Result<Block, DecodeError> {
    let block = proto::SnapshotBlock::decode(bytes)?.block;
    Ok(match required(block, "the kind of a block")? {
        snapshot_block::Block::Head(head) => {
            let membership: Membership =
                membership_from_proto(required(head.membership, "the membership of a snapshot")?)?;
            Block::Head(Head {
                cluster_id: head.cluster_id,
                last_applied: head.last_applied.map(log_id_from_proto),
                alarms: head.alarms.into_iter().map(alarm_from_proto).collect::<Result<_, _>>()?,
                membership: StoredMembership::new(head.membership_log_id.map(log_id_from_proto), membership),
                auth: Arc::new(auth_from_proto(head.auth)),
                members: head.members.map(members_from_proto).unwrap_or_default(),
            })
        }
        snapshot_block::Block::Parts(parts) => {
            Block::Parts(parts.parts.into_iter().map(part_from_proto).collect::<Result<_, _>>()?)
        }
        snapshot_block::Block::End(end) => Block::End(end.blocks),
    })
}

fn members_to_proto(members: &Members) -> proto::Members {
    let attributes = members.attributes.iter().map(|(id, attributes)| proto::MemberAttributes {
        member_id: *id,
        name: attributes.name.clone(),
        client_urls: attributes.client_urls.clone(),
    });
    proto::Members { attributes: attributes.collect(), removed: members.removed.iter().copied().collect() }
}

fn members_from_proto(members: proto::Members) -> Members {
    let attributes = members.attributes.into_iter().map(|attributes| {
        let proto::MemberAttributes { member_id, name, client_urls } = attributes;
        (member_id, Attributes { name, client_urls })
    });
    Members { attributes: attributes.collect(), removed: members.removed.into_iter().collect() }
}

pub(in crate::engine) fn part_to_proto(part: StorePart) -> proto::SnapshotPart {
    let part = match part {
        StorePart::Beginning { compacted, revision } => {
            snapshot_part::Part::Beginning(proto::Beginning { compacted_revision: compacted, revision })
        }
        StorePart::Lease { id, ttl_seconds } => {
            snapshot_part::Part::Lease(proto::Lease { id: id.get(), ttl_seconds })
        }
        StorePart::Version(event) => snapshot_part::Part::Version(proto::Version {
            encoded: Bytes::copy_from_slice(event.key_value().encoded()),
            sub_revision: event.key_value().sub_revision(),
        }),
    };
    proto::SnapshotPart { part: Some(part) }
}

fn part_from_proto(part: proto::SnapshotPart) -> Result<StorePart, DecodeError> {
    Ok(match required(part.part, "the kind of a part")? {
        snapshot_part::Part::Beginning(beginning) => {
            StorePart::Beginning { compacted: beginning.compacted_revision, revision: beginning.revision }
        }
        snapshot_part::Part::Lease(lease) => {
            StorePart::Lease { id: lease_id(lease.id)?, ttl_seconds: lease.ttl_seconds }
        }
        snapshot_part::Part::Version(version) => {
            StorePart::Version(Event::of(KeyValue::from_encoded(&version.encoded, version.sub_revision)?))
        }
    })
}
