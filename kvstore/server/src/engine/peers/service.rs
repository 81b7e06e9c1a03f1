//! What this member answers others.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use futures_util::stream::{Stream, StreamExt, unfold};
use landbridge_kvstore_store::LeaseId;
use openraft::errors::{Fatal, RaftError};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::{CLUSTER, FROM, REMOVED, TO, number};
use crate::engine::codec::proto::{self, change_members_request::Change, leader_response::Answer};
use crate::engine::codec::{DecodeError, batch_from_proto, peer as codec};
use crate::engine::membership::MemberError;
use crate::engine::snapshot::SnapshotFile;
use crate::engine::types::{Proposal, Snapshot, TypeConfig};
use crate::engine::{Engine, Inner, ProposeError, ReadError};
use crate::platform::Platform;
use crate::wal::disk::{Access, DiskFile};

type Appended = Pin<Box<dyn Stream<Item = Result<proto::AppendResponse, Status>> + Send>>;

/// Answers other members as long as the engine lives.
#[derive(Clone, Debug)]
pub(in crate::engine) struct PeerService(Weak<Inner>);

impl PeerService {
    pub(in crate::engine) fn new(engine: &Engine) -> Self {
        Self(Arc::downgrade(&engine.0))
    }

    fn engine(&self) -> Result<Engine, Status> {
        self.0.upgrade().map(Engine).ok_or_else(stopped)
    }

    /// The engine, if a call is of its cluster, for it, and of a member.
    fn called(&self, metadata: &MetadataMap) -> Result<Engine, Status> {
        let engine = self.engine()?;
        let identity = engine.0.identity;
        let refused = |text: String| {
            warn!(reason = text, "a call of another member is refused");
            Err(Status::failed_precondition(text))
        };
        match (number(metadata, CLUSTER), number(metadata, TO), number(metadata, FROM)) {
            (Some(cluster), _, _) if cluster != identity.cluster_id => refused(format!(
                "cluster ID mismatch: this is {:016x}, and not {cluster:016x}",
                identity.cluster_id
            )),
            (_, Some(to), _) if to != identity.member_id => {
                refused(format!("member ID mismatch: this is {:016x}, and not {to:016x}", identity.member_id))
            }
            (Some(_), Some(_), Some(from)) => {
                if engine.0.shared.state().members.removed.contains(&from) {
                    return Err(Status::failed_precondition(REMOVED));
                }
                Ok(engine)
            }
            _ => Err(Status::invalid_argument("the metadata of a member's call are missing")),
        }
    }

    async fn voted(
        &self,
        request: Request<proto::VoteRequest>,
        is_pre_vote: bool,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let request = codec::vote_request_from_proto(request.into_inner()).map_err(malformed)?;
        let raft = &engine.0.raft;
        let response = if is_pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
        let response = response.map_err(|error| match error {
            RaftError::Fatal(fatal) => ended(&fatal),
        })?;
        Ok(Response::new(codec::vote_response_to_proto(&response)))
    }
}

fn stopped() -> Status {
    Status::unavailable("the member is stopping")
}

fn ended(fatal: &Fatal<TypeConfig>) -> Status {
    Status::unavailable(fatal.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what becomes of an error")]
fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn answer(answer: Answer) -> Response<proto::LeaderResponse> {
    Response::new(proto::LeaderResponse { answer: Some(answer) })
}

fn not_leader(engine: &Engine) -> Answer {
    Answer::NotLeader(proto::NotLeader { leader: engine.leader().unwrap_or(0) })
}

fn read_failed(engine: &Engine, error: &ReadError) -> Result<Answer, Status> {
    match error {
        ReadError::NoLeader | ReadError::NotLeader { .. } => Ok(not_leader(engine)),
        error => Err(Status::unavailable(error.to_string())),
    }
}

#[tonic::async_trait]
impl proto::peer_server::Peer for PeerService {
    type AppendStream = Appended;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Appended>, Status> {
        let engine = self.called(request.metadata())?;
        // Ends with the first that cannot be read; whoever sent it sees its answers end.
        let start = (request.into_inner(), engine.0.peers.clone());
        let requests = unfold(start, |(mut requests, peers)| async move {
            let request = requests.message().await.ok()??;
            peers.hear();
            let request = codec::append_from_proto(request)
                .inspect_err(|error| warn!(%error, "entries of the leader cannot be read"));
            Some((request.ok()?, (requests, peers)))
        });
        let answers = engine.0.raft.stream_append(Box::pin(requests));
        let answers = answers.map(|answer| match answer {
            Ok(result) => Ok(codec::appended_to_proto(&result)),
            Err(fatal) => Err(ended(&fatal)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        self.voted(request, false).await
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        self.voted(request, true).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.meta);
        let meta =
            first.ok_or_else(|| Status::invalid_argument("a snapshot that does not say what it is"))?;
        let length = meta.length;
        let (vote, meta) = codec::snapshot_meta_from_proto(meta).map_err(malformed)?;
        let platform = engine.0.snapshots.platform.clone();
        let path = engine.0.snapshots.dir.join(format!("received-{:016x}.tmp", fastrand::u64(..)));
        let draft = Draft { platform, path };
        let file = draft.fill(chunks, length).await?;
        let snapshot = Snapshot { meta, snapshot: SnapshotFile { path: draft.path.clone(), file } };
        let installed = engine.0.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|fatal| ended(&fatal))?;
        Ok(Response::new(codec::installed_to_proto(&response.vote)))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let request = codec::transfer_from_proto(request.into_inner()).map_err(malformed)?;
        let outcome = engine.0.raft.handle_transfer_leader(request).await.map_err(|fatal| ended(&fatal))?;
        outcome.map_err(|error| Status::aborted(error.to_string()))?;
        Ok(Response::new(proto::TransferLeaderResponse {}))
    }

    async fn forward(
        &self,
        request: Request<proto::ForwardRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let batch = request.into_inner().batch.ok_or_else(|| Status::invalid_argument("no batch"))?;
        let batch = batch_from_proto(batch).map_err(malformed)?;
        if engine.0.room.is_short() {
            return Ok(answer(Answer::NoRoom(proto::NoRoom {})));
        }
        let written = engine.0.raft.client_write(Proposal(Arc::new(batch))).await;
        let Inner { identity, failure, peers, .. } = &*engine.0;
        let written = written.map_err(|error| ProposeError::new(error, *identity, failure, peers));
        Ok(answer(match written {
            Ok(written) => Answer::Index(written.log_id.index()),
            Err(error) if error.may_be_carried_out() => Answer::Unknown(proto::Unknown {}),
            Err(_) => not_leader(&engine),
        }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        if !engine.leads() {
            return Ok(answer(not_leader(&engine)));
        }
        match engine.read_index().await {
            Ok(index) => Ok(answer(Answer::Index(index))),
            Err(error) => read_failed(&engine, &error).map(answer),
        }
    }

    async fn renew_lease(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let id = LeaseId::new(request.into_inner().id).map_err(|_| Status::invalid_argument("no lease"))?;
        if !engine.leads() {
            return Ok(answer(not_leader(&engine)));
        }
        match engine.renew_lease_here(id).await {
            Ok(renewed) => Ok(answer(Answer::Lease(proto::LeaseAnswer {
                found: renewed.is_some(),
                milliseconds: renewed.unwrap_or(0),
            }))),
            Err(error) => read_failed(&engine, &error).map(answer),
        }
    }

    async fn lease_remaining(
        &self,
        request: Request<proto::LeaseRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let id = LeaseId::new(request.into_inner().id).map_err(|_| Status::invalid_argument("no lease"))?;
        if !engine.0.shared.has_clock() {
            return Ok(answer(not_leader(&engine)));
        }
        let left = engine.lease_remaining(id);
        Ok(answer(Answer::Lease(proto::LeaseAnswer {
            found: left.is_some(),
            milliseconds: left.map_or(0, |left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX)),
        })))
    }

    async fn change_members(
        &self,
        request: Request<proto::ChangeMembersRequest>,
    ) -> Result<Response<proto::LeaderResponse>, Status> {
        let engine = self.called(request.metadata())?;
        let change = request.into_inner().change;
        let change: Change = change.ok_or_else(|| Status::invalid_argument("no change of members"))?;
        if !engine.leads() {
            return Ok(answer(not_leader(&engine)));
        }
        Ok(answer(match engine.change_members_here(change).await {
            Ok(member) => Answer::MemberId(member),
            Err(MemberError::NoLeader) => not_leader(&engine),
            Err(error) => Answer::Refusal(proto::Refusal { code: error.code() }),
        }))
    }

    async fn members(
        &self,
        request: Request<proto::MembersRequest>,
    ) -> Result<Response<proto::MembersResponse>, Status> {
        drop(request);
        let engine = self.engine()?;
        let members = engine.members().into_iter().map(|member| proto::MemberFacts {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
        });
        let members = members.collect();
        Ok(Response::new(proto::MembersResponse { cluster_id: engine.0.identity.cluster_id, members }))
    }
}

/// A snapshot that is being received. What is not taken over goes with it.
struct Draft {
    platform: Platform,
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // If it was installed, it has another name now.
        let _ = self.platform.disk.remove(&self.path);
    }
}

impl Draft {
    async fn fill(
        &self,
        mut chunks: Streaming<proto::SnapshotChunk>,
        length: u64,
    ) -> Result<Arc<dyn DiskFile>, Status> {
        let failed = |error: io::Error| Status::unavailable(format!("{}: {error}", self.path.display()));
        let (platform, path) = (&self.platform, self.path.clone());
        let disk = Arc::clone(&platform.disk);
        let file = platform.blocking(move || disk.open(&path, Access::Create)).await;
        let file = file.flatten().map_err(failed)?;
        let mut received = 0;
        while let Some(chunk) = chunks.message().await? {
            let (out, at) = (Arc::clone(&file), received);
            received += chunk.bytes.len() as u64;
            let written = platform.blocking(move || out.write_all_at(&chunk.bytes, at)).await;
            written.flatten().map_err(failed)?;
        }
        if received != length {
            return Err(Status::aborted("the snapshot ended early"));
        }
        // Before it gets its name, which says that it is whole and durable.
        let out = Arc::clone(&file);
        platform.blocking(move || out.sync_all()).await.flatten().map_err(failed)?;
        Ok(file)
    }
}
