//! The way to other members. There is none yet: a cluster has one member, and whoever else were asked is unreachable.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};

use super::snapshot::SnapshotFile;
use super::types::{Member, Snapshot, TypeConfig, Vote};

/// Leads to no one.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoNetwork;

/// The way to a member that cannot be reached.
#[derive(Clone, Debug)]
pub(super) struct NoRoute {
    member: u64,
    peer_urls: Vec<String>,
}

impl NoRoute {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        let Self { member, peer_urls } = self;
        Unreachable::from_string(format!(
            "no way to member {member:016x} at {peer_urls:?}: a cluster has one member"
        ))
    }
}

impl RaftNetworkFactory<TypeConfig> for NoNetwork {
    type Network = NoRoute;

    async fn new_client(&mut self, target: u64, node: &Member) -> NoRoute {
        NoRoute { member: target, peer_urls: node.peer_urls.clone() }
    }
}

impl RaftNetworkV2<TypeConfig> for NoRoute {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    // The default grants.
    async fn pre_vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(self.unreachable().into())
    }
}
