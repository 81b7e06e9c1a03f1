//! What openraft is to work with, and short names for its types. None of them leaves the engine.

use std::fmt;
use std::sync::Arc;

use openraft::impls::leader_id_std::LeaderId;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::vote::leader_id_std::CommittedLeaderId;

use super::batch::Batch;
use super::log::LogStore;
#[cfg(test)]
use super::simulation::Runtime;
use super::snapshot::SnapshotFile;
use super::state_machine::StateMachine;

#[cfg(not(test))]
type Runtime = openraft::impls::TokioRuntime;

openraft::declare_raft_types!(
    /// At most one leader in a term, as in the Raft paper, so that a log ID is a term and an index.
    pub(super) TypeConfig:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type LogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(super) type Vote = openraft::Vote<LeaderId<u64, u64>>;
pub(super) type Payload = openraft::EntryPayload<Proposal, u64, Member>;
pub(super) type Entry = openraft::Entry<CommittedLeaderId<u64>, Payload>;
pub(super) type Membership = openraft::Membership<u64, Member>;
pub(super) type StoredMembership = openraft::StoredMembership<CommittedLeaderId<u64>, u64, Member>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId<u64>, u64, Member>;
pub(super) type Snapshot = openraft::Snapshot<CommittedLeaderId<u64>, u64, Member, SnapshotFile>;
pub(super) type Flushed = openraft::storage::IOFlushed<TypeConfig>;
pub(super) type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;
pub(super) type LogState = openraft::LogState<TypeConfig>;

/// A batch on its way through the log; the copies for log, disk and store are one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal(pub(super) Arc<Batch>);

impl fmt::Display for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What the membership knows about a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) peer_urls: Vec<String>,
    /// Whether it is to have no vote. One without, that is to have it, gets it when it has caught up.
    pub(super) is_learner: bool,
}

// The engine hands these to openraft, whose signatures would name them less clearly if they did not fit.
const _: () = {
    const fn is_log_storage<S: openraft::storage::RaftLogStorage<TypeConfig>>() {}
    const fn is_state_machine<S: openraft::storage::RaftStateMachine<TypeConfig>>() {}
    is_log_storage::<LogStore>();
    is_state_machine::<StateMachine>();
};
