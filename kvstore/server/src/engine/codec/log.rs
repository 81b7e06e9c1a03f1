//! Records of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;

use super::command::{command_from_proto, command_to_proto};
use super::proto::{self, entry, record};
use super::{DecodeError, required};
use crate::engine::batch::{Batch, Origin, Request};
use crate::engine::identity::Identity;
use crate::engine::types::{Entry, LogId, Member, Membership, Payload, Proposal, Vote};

/// What is known beside the entries; the end of the log has the last word.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::engine) struct Durable {
    pub(in crate::engine) vote: Option<Vote>,
    /// Everything up to here is in a snapshot.
    pub(in crate::engine) purged: Option<LogId>,
    pub(in crate::engine) committed: Option<LogId>,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Record {
    Vote(Vote),
    Entry(Entry),
    TruncateAfter(Option<LogId>),
    Purged(LogId),
    Committed(LogId),
}

pub(in crate::engine) fn encode_prologue(identity: Identity, durable: &Durable) -> Vec<u8> {
    let prologue = proto::Prologue {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        vote: durable.vote.as_ref().map(vote_to_proto),
        purged: durable.purged.as_ref().map(log_id_to_proto),
        committed: durable.committed.as_ref().map(log_id_to_proto),
    };
    prologue.encode_to_vec()
}

pub(in crate::engine) fn decode_prologue(bytes: &[u8]) -> Result<(Identity, Durable), DecodeError> {
    let prologue = proto::Prologue::decode(bytes)?;
    let identity = Identity { cluster_id: prologue.cluster_id, member_id: prologue.member_id };
    if identity.cluster_id == 0 || identity.member_id == 0 {
        return Err(DecodeError::Unknown { what: "the ID of cluster or member" });
    }
    let durable = Durable {
        vote: prologue.vote.map(vote_from_proto),
        purged: prologue.purged.map(log_id_from_proto),
        committed: prologue.committed.map(log_id_from_proto),
    };
    Ok((identity, durable))
}

/// Adds a record to a frame.
pub(in crate::engine) fn encode_record(record: &Record, frame: &mut Vec<u8>) {
    match record {
        Record::Vote(vote) => encode(record::Record::Vote(vote_to_proto(vote)), frame),
        Record::Entry(entry) => encode_entry(entry, frame),
        Record::TruncateAfter(log_id) => {
            let log_id = log_id.as_ref().map(log_id_to_proto);
            encode(record::Record::TruncateAfter(proto::TruncateAfter { log_id }), frame);
        }
        Record::Purged(log_id) => encode(record::Record::Purged(log_id_to_proto(log_id)), frame),
        Record::Committed(log_id) => encode(record::Record::Committed(log_id_to_proto(log_id)), frame),
    }
}

/// Adds the record of an entry to a frame.
pub(in crate::engine) fn encode_entry(entry: &Entry, frame: &mut Vec<u8>) {
    encode(record::Record::Entry(entry_to_proto(entry)), frame);
}

fn encode(record: record::Record, frame: &mut Vec<u8>) {
    proto::Record { record: Some(record) }.encode_length_delimited(frame).expect("a vector grows");
}

/// All records of a frame.
pub(in crate::engine) fn decode_frame(mut frame: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut records = Vec::new();
    while !frame.is_empty() {
        // From a slice, each key and value is copied out of the frame: none keeps the whole of it in memory.
        let record = proto::Record::decode_length_delimited(&mut frame)?;
        records.push(match required(record.record, "the kind of a record")? {
            record::Record::Vote(vote) => Record::Vote(vote_from_proto(vote)),
            record::Record::Entry(entry) => Record::Entry(entry_from_proto(entry)?),
            record::Record::TruncateAfter(after) => {
                Record::TruncateAfter(after.log_id.map(log_id_from_proto))
            }
            record::Record::Purged(log_id) => Record::Purged(log_id_from_proto(log_id)),
            record::Record::Committed(log_id) => Record::Committed(log_id_from_proto(log_id)),
        });
    }
    Ok(records)
}

pub(super) fn entry_to_proto(entry: &Entry) -> proto::Entry {
    let payload = match &entry.payload {
        Payload::Blank => entry::Payload::Noop(proto::Noop {}),
        Payload::Normal(Proposal(batch)) => entry::Payload::Batch(batch_to_proto(batch)),
        Payload::Membership(membership) => entry::Payload::Membership(membership_to_proto(membership)),
    };
    proto::Entry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload) }
}

pub(super) fn entry_from_proto(entry: proto::Entry) -> Result<Entry, DecodeError> {
    let payload = match required(entry.payload, "what an entry holds")? {
        entry::Payload::Noop(proto::Noop {}) => Payload::Blank,
        entry::Payload::Command(command) => {
            Payload::Normal(Proposal(Arc::new(Batch::unattended([command_from_proto(command)?]))))
        }
        entry::Payload::Batch(batch) => Payload::Normal(Proposal(Arc::new(batch_from_proto(batch)?))),
        entry::Payload::Membership(membership) => Payload::Membership(membership_from_proto(membership)?),
    };
    Ok(Entry { log_id: log_id_from_proto(required(entry.log_id, "the ID of an entry")?), payload })
}

/// A batch, as it is in the log and on its way to the leader.
pub(in crate::engine) fn batch_to_proto(batch: &Batch) -> proto::Batch {
    let Batch { origin: Origin { member, session, sequence }, requests } = batch;
    let request = |Request { command, auth_revision }: &Request| proto::Request {
        command: Some(command_to_proto(command)),
        auth_revision: *auth_revision,
    };
    proto::Batch {
        member: *member,
        session: *session,
        sequence: *sequence,
        requests: requests.iter().map(request).collect(),
    }
}

/// The reverse of [`batch_to_proto`].
pub(in crate::engine) fn batch_from_proto(batch: proto::Batch) -> Result<Batch, DecodeError> {
    let proto::Batch { member, session, sequence, requests } = batch;
    let request = |proto::Request { command, auth_revision }| {
        let command = command_from_proto(required(command, "the command of a request")?)?;
        Ok(Request { command, auth_revision })
    };
    let requests = requests.into_iter().map(request).collect::<Result<_, DecodeError>>()?;
    Ok(Batch { origin: Origin { member, session, sequence }, requests })
}

pub(super) fn vote_to_proto(vote: &Vote) -> proto::Vote {
    proto::Vote {
        term: vote.leader_id.term,
        member_id: vote.leader_id.voted_for,
        committed: vote.is_committed(),
    }
}

pub(super) fn vote_from_proto(vote: proto::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.member_id)
    } else {
        Vote::new(vote.term, vote.member_id)
    }
}

pub(super) fn log_id_to_proto(log_id: &LogId) -> proto::LogId {
    proto::LogId { term: **log_id.committed_leader_id(), index: log_id.index() }
}

pub(super) fn log_id_from_proto(log_id: proto::LogId) -> LogId {
    LogId::new_term_index(log_id.term, log_id.index)
}

pub(super) fn membership_to_proto(membership: &Membership) -> proto::Membership {
    let voters = membership.get_joint_config().iter();
    let members = membership.nodes().map(|(id, member)| proto::Member {
        id: *id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        is_learner: member.is_learner,
    });
    proto::Membership {
        voters: voters.map(|ids| proto::Voters { member_ids: ids.iter().copied().collect() }).collect(),
        members: members.collect(),
    }
}

pub(super) fn membership_from_proto(membership: proto::Membership) -> Result<Membership, DecodeError> {
    let voters: Vec<BTreeSet<u64>> =
        membership.voters.into_iter().map(|voters| voters.member_ids.into_iter().collect()).collect();
    let member = |member: proto::Member| {
        let proto::Member { id, name, peer_urls, is_learner } = member;
        (id, Member { name, peer_urls, is_learner })
    };
    let members: BTreeMap<u64, Member> = membership.members.into_iter().map(member).collect();
    Membership::new(voters, members).map_err(|error| DecodeError::Membership { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::PutRequest;

    use super::*;
    use crate::engine::Command;

    #[test]
    fn records_are_read_as_they_were_written() {
        let peer_urls = vec!["https://one:2380".into(), "https://one:2381".into()];
        let member = Member { name: "one".into(), peer_urls, is_learner: true };
        let members: BTreeMap<u64, Member> = [(u64::MAX, member.clone()), (2, member)].into();
        let membership = Membership::new(vec![[2].into(), [2, u64::MAX].into()], members).unwrap();
        let put = PutRequest { key: "k".into(), value: vec![7; 300].into(), ..PutRequest::default() };
        let request = Request { command: Command::Put(put), auth_revision: 5 };
        let origin = Origin { member: u64::MAX, session: 3, sequence: 1 };
        let batch = Batch { origin, requests: vec![request.clone(), request] };
        let entry =
            |index, payload| Record::Entry(Entry { log_id: LogId::new_term_index(3, index), payload });
        let records = [
            Record::Vote(Vote::new(3, 2)),
            Record::Vote(Vote::new_committed(3, 2)),
            entry(0, Payload::Blank),
            entry(1, Payload::Membership(membership)),
            entry(2, Payload::Normal(Proposal(Arc::new(batch)))),
            Record::TruncateAfter(None),
            Record::TruncateAfter(Some(LogId::new_term_index(3, 1))),
            Record::Purged(LogId::new_term_index(0, 0)),
            Record::Committed(LogId::new_term_index(3, 2)),
        ];
        let mut frame = Vec::new();
        for record in &records {
            encode_record(record, &mut frame);
        }
        assert_eq!(decode_frame(&frame).unwrap(), records);
        assert!(decode_frame(&frame[..frame.len() - 1]).is_err());
    }

    #[test]
    fn a_prologue_is_read_as_it_was_written() {
        let identity = Identity { cluster_id: 1, member_id: u64::MAX };
        let all = Durable {
            vote: Some(Vote::new(4, 9)),
            purged: Some(LogId::new_term_index(0, 0)),
            committed: Some(LogId::new_term_index(2, 7)),
        };
        for durable in [all, Durable::default()] {
            let bytes = encode_prologue(identity, &durable);
            assert_eq!(decode_prologue(&bytes).unwrap(), (identity, durable));
        }
        assert!(matches!(decode_prologue(b""), Err(DecodeError::Unknown { .. })));
    }
}
