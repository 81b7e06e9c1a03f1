//! openraft's way to other members.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::timeout;
use tonic::{Response, Status};

use super::codec::peer as codec;
use super::codec::{DecodeError, proto};
use super::peers::{Lane, Peers};
use super::snapshot::SnapshotFile;
use super::types::{Member, Snapshot, TypeConfig, Vote};
use crate::platform::Platform;
use crate::wal::disk::DiskFile;

/// Bytes of a snapshot that are sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Makes the ways to other members.
#[derive(Clone, Debug)]
pub(super) struct Network(pub(super) Peers);

/// The way to a member.
#[derive(Clone, Debug)]
pub(super) struct Route {
    peers: Peers,
    target: u64,
    lane: Lane,
}

impl Network {
    fn route(&self, target: u64, member: &Member, lane: Lane) -> Route {
        self.0.locate(target, &member.peer_urls);
        Route { peers: self.0.clone(), target, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Route;

    async fn new_client(&mut self, target: u64, member: &Member) -> Route {
        self.route(target, member, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Route {
        self.route(target, member, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, member: &Member) -> Route {
        self.route(target, member, Lane::Snapshot)
    }
}

impl Route {
    fn unreachable(reason: impl ToString) -> Unreachable<TypeConfig> {
        Unreachable::from_string(reason)
    }

    fn failed(&self, status: &Status) -> Unreachable<TypeConfig> {
        Self::unreachable(self.peers.failed(status))
    }

    /// Waits for an answer as long as makes sense.
    async fn answer<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Unreachable<TypeConfig>> {
        match timeout(patience, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Self::unreachable("no answer in time")),
        }
    }

    async fn ask_for_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        patience: Duration,
        is_pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.peers.client(self.target, Lane::Control);
        let request = self.peers.request(self.target, codec::vote_request_to_proto(request));
        let response = if is_pre_vote {
            self.answer(patience, client.pre_vote(request)).await?
        } else {
            self.answer(patience, client.vote(request)).await?
        };
        decoded(codec::vote_response_from_proto(response))
    }
}

fn decoded<T>(message: Result<T, DecodeError>) -> Result<T, RPCError<TypeConfig>> {
    message.map_err(|error| RPCError::Unreachable(Route::unreachable(error)))
}

impl RaftNetworkV2<TypeConfig> for Route {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut answers = self.stream_append(stream::iter([request]), option).await?;
        match answers.next().await {
            Some(answer) => Ok(answer?.into()),
            None => Err(Self::unreachable("no answer").into()),
        }
    }

    fn stream_append<S>(
        &mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<
        '_,
        Result<
            BoxStream<'_, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let requests = input.map(|request| codec::append_to_proto(&request));
            let request = self.peers.request(self.target, requests);
            let mut client = self.peers.client(self.target, self.lane);
            // A link that is silent later is noticed by its own means.
            let answers = self.answer(self.peers.election_timeout(), client.append(request)).await?;
            let route = self.clone();
            let answers = answers.map(move |answer| match answer {
                Ok(answer) => decoded(codec::appended_from_proto(answer)),
                Err(status) => Err(route.failed(&status).into()),
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&request, option.soft_ttl(), false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(&request, option.soft_ttl(), true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let lost = |error: io::Error| Self::unreachable(format!("the snapshot cannot be read: {error}"));
        let file = snapshot.snapshot.file;
        let length = file.len().map_err(lost)?;
        let meta = codec::snapshot_meta_to_proto(&vote, &snapshot.meta, length);
        let first = proto::SnapshotChunk { meta: Some(meta), bytes: Bytes::new() };
        let chunks = stream::once(async { first }).chain(chunks(self.peers.platform().clone(), file));
        let mut client = self.peers.client(self.target, Lane::Snapshot);
        let call = client.install_snapshot(self.peers.request(self.target, chunks));
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = call => response.map_err(|status| self.failed(&status))?.into_inner(),
        };
        let vote = codec::installed_from_proto(response).map_err(Self::unreachable)?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.peers.client(self.target, Lane::Control);
        let request = self.peers.request(self.target, codec::transfer_to_proto(&request));
        self.answer(option.soft_ttl(), client.transfer_leader(request)).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        // Soon enough that whoever comes back hears of its leader before it stands for election.
        let longest = self.peers.election_timeout() / 4;
        Some(Backoff::new(std::iter::repeat_with(move || longest.mul_f64(0.5 + fastrand::f64() / 2.0))))
    }
}

/// The bytes of a file. Ends early if it cannot be read; whoever gets them knows how many there are.
fn chunks(
    platform: Platform,
    file: Arc<dyn DiskFile>,
) -> impl Stream<Item = proto::SnapshotChunk> + Send + 'static {
    stream::unfold((file, 0), move |(file, offset)| {
        let platform = platform.clone();
        async move {
            let read = platform.blocking(move || {
                let mut bytes = vec![0; CHUNK_BYTES];
                let read = file.read_at(&mut bytes, offset)?;
                bytes.truncate(read);
                io::Result::Ok((bytes, file))
            });
            let (bytes, file) = read.await.ok()?.ok()?;
            let next = offset + bytes.len() as u64;
            (next > offset).then(|| (proto::SnapshotChunk { meta: None, bytes: bytes.into() }, (file, next)))
        }
    })
}
