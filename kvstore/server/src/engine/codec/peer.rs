//! What members ask each other.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};

use super::log::{
    entry_from_proto, entry_to_proto, log_id_from_proto, log_id_to_proto, membership_from_proto,
    membership_to_proto, vote_from_proto, vote_to_proto,
};
use super::proto::{self, append_response};
use super::{DecodeError, required};
use crate::engine::types::{SnapshotMeta, StoredMembership, TypeConfig, Vote};

pub(in crate::engine) fn append_to_proto(request: &AppendEntriesRequest<TypeConfig>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(vote_to_proto(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(entry_to_proto).collect(),
        committed: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

pub(in crate::engine) fn append_from_proto(
    request: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_proto(required(request.vote, "the vote of a leader")?),
        prev_log_id: request.previous.map(log_id_from_proto),
        entries: request.entries.into_iter().map(entry_from_proto).collect::<Result<_, _>>()?,
        leader_commit: request.committed.map(log_id_from_proto),
    })
}

pub(in crate::engine) fn appended_to_proto(result: &StreamAppendResult<TypeConfig>) -> proto::AppendResponse {
    let result = match result {
        Ok(log_id) => append_response::Result::Matching(proto::Matching {
            log_id: log_id.as_ref().map(log_id_to_proto),
        }),
        Err(StreamAppendError::Conflict(log_id)) => {
            append_response::Result::Conflict(log_id_to_proto(log_id))
        }
        Err(StreamAppendError::HigherVote(vote)) => append_response::Result::HigherVote(vote_to_proto(vote)),
    };
    proto::AppendResponse { result: Some(result) }
}

pub(in crate::engine) fn appended_from_proto(
    response: proto::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, DecodeError> {
    Ok(match required(response.result, "how far a member got")? {
        append_response::Result::Matching(matching) => Ok(matching.log_id.map(log_id_from_proto)),
        append_response::Result::Conflict(log_id) => {
            Err(StreamAppendError::Conflict(log_id_from_proto(log_id)))
        }
        append_response::Result::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(vote_from_proto(vote)))
        }
    })
}

pub(in crate::engine) fn vote_request_to_proto(request: &VoteRequest<TypeConfig>) -> proto::VoteRequest {
    proto::VoteRequest {
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(in crate::engine) fn vote_request_from_proto(
    request: proto::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, DecodeError> {
    let vote = vote_from_proto(required(request.vote, "the vote of a candidate")?);
    let mut vote_request = VoteRequest::new(vote, request.last_log_id.map(log_id_from_proto));
    vote_request.leadership_transfer = request.leadership_transfer;
    Ok(vote_request)
}

pub(in crate::engine) fn vote_response_to_proto(response: &VoteResponse<TypeConfig>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(in crate::engine) fn vote_response_from_proto(
    response: proto::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let vote = vote_from_proto(required(response.vote, "the vote of a voter")?);
    Ok(VoteResponse::new(vote, response.last_log_id.map(log_id_from_proto), response.granted))
}

pub(in crate::engine) fn transfer_to_proto(
    request: &TransferLeaderRequest<TypeConfig>,
) -> proto::TransferLeaderRequest {
    proto::TransferLeaderRequest {
        from: Some(vote_to_proto(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_proto),
    }
}

pub(in crate::engine) fn transfer_from_proto(
    request: proto::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let from = vote_from_proto(required(request.from, "the vote of a leader")?);
    Ok(TransferLeaderRequest::new(from, request.to, request.last_log_id.map(log_id_from_proto)))
}

pub(in crate::engine) fn snapshot_meta_to_proto(
    vote: &Vote,
    meta: &SnapshotMeta,
    length: u64,
) -> proto::SnapshotMeta {
    proto::SnapshotMeta {
        vote: Some(vote_to_proto(vote)),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(meta.last_membership.membership())),
        length,
    }
}

pub(in crate::engine) fn snapshot_meta_from_proto(
    meta: proto::SnapshotMeta,
) -> Result<(Vote, SnapshotMeta), DecodeError> {
    let vote = vote_from_proto(required(meta.vote, "the vote of a leader")?);
    let membership = membership_from_proto(required(meta.membership, "the membership of a snapshot")?)?;
    let last_membership = StoredMembership::new(meta.membership_log_id.map(log_id_from_proto), membership);
    Ok((vote, SnapshotMeta { last_log_id: meta.last_log_id.map(log_id_from_proto), last_membership }))
}

pub(in crate::engine) fn installed_to_proto(vote: &Vote) -> proto::InstallSnapshotResponse {
    proto::InstallSnapshotResponse { vote: Some(vote_to_proto(vote)) }
}

pub(in crate::engine) fn installed_from_proto(
    response: proto::InstallSnapshotResponse,
) -> Result<Vote, DecodeError> {
    Ok(vote_from_proto(required(response.vote, "the vote of a member")?))
}
