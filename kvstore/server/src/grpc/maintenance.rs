//! How a member is, and what its keeper does with it.

use std::io::{self, Write};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use landbridge_kvstore_store::{HashKv, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use crate::access::Permissions;
use crate::engine::{Alarm, AlarmKind, Command, Outcome, backup};
use crate::http::ETCD_VERSION;

type Snapshots = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

/// Bytes of a piece of a copy of the store.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait to be sent.
const PIECES: usize = 4;

type Piece = Result<pb::SnapshotResponse, Status>;

/// Sends a copy of the store in pieces, as long as someone takes them. Blocks.
fn send_copy(copy: &backup::Copy, pieces: &mpsc::Sender<Piece>) {
    let failed =
        |error: io::Error| Status::internal(format!("landbridge: the store cannot be copied: {error}"));
    let sent = copy.size_bytes().and_then(|len| {
        // etcd does not count the checksum, and neither do clients that show how far they are.
        let remaining = len - backup::HASH_BYTES;
        let mut out = Pieces { sender: pieces, buffer: BytesMut::new(), remaining };
        copy.write(&mut out)?;
        out.flush()
    });
    if let Err(error) = sent {
        // Nobody takes it either if that is what went wrong.
        drop(pieces.blocking_send(Err(failed(error))));
    }
}

/// Cuts what is written into pieces.
struct Pieces<'a> {
    sender: &'a mpsc::Sender<Piece>,
    buffer: BytesMut,
    /// Bytes of the store that follow what was sent.
    remaining: u64,
}

impl Pieces<'_> {
    fn send(&mut self, blob: Bytes) -> io::Result<()> {
        self.remaining = self.remaining.saturating_sub(blob.len() as u64);
        let (remaining_bytes, version) = (self.remaining, ETCD_VERSION.to_owned());
        let piece = pb::SnapshotResponse { header: None, remaining_bytes, blob, version };
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        // The checksum is a piece of its own, and waits for the end.
        loop {
            let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(PIECE_BYTES);
            if len == 0 || self.buffer.len() < len {
                break;
            }
            let piece = self.buffer.split_to(len).freeze();
            self.send(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let rest = self.buffer.split().freeze();
        self.send(rest)
    }
}

fn alarm_to_proto(alarm: Alarm) -> pb::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member_id, alarm: kind.into() }
}

/// As etcd says it: the text form of the message, with a space behind each field, and without those that are 0.
fn alarm_to_text(alarm: Alarm) -> String {
    let member = if alarm.member_id == 0 { String::new() } else { format!("memberID:{} ", alarm.member_id) };
    format!("{member}alarm:{} ", alarm.kind.name())
}

impl Service {
    /// Checks that whoever asks may care for the member.
    fn keeper<T>(&self, request: &Request<T>) -> impl Future<Output = Result<(), Status>> + use<'_, T> {
        let peer = Peer::of(request.extensions());
        async move {
            self.permitted(&peer, Permissions::root).await?;
            Ok(())
        }
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Service {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        match AlarmAction::try_from(request.get_ref().action) {
            Ok(AlarmAction::Get) => {
                self.permitted(&Peer::of(request.extensions()), |_| Ok(())).await?;
            }
            Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_) => self.keeper(&request).await?,
        }
        let pb::AlarmRequest { action, member_id, alarm } = request.into_inner();
        // Whatever is not an alarm: all of them as a question, none as a command.
        let kind = match pb::AlarmType::try_from(alarm) {
            Ok(pb::AlarmType::None) => None,
            Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Err(_) => return Err(Status::invalid_argument("landbridge: no such alarm")),
        };
        let (header, alarms) = match (AlarmAction::try_from(action), kind) {
            (Ok(AlarmAction::Get), kind) => {
                self.engine().read_barrier().await?;
                let mut alarms = self.engine().alarms();
                alarms.retain(|alarm| kind.is_none_or(|kind| alarm.kind == kind));
                (self.header_now(), alarms)
            }
            (Ok(action), Some(kind)) => {
                let alarm = Alarm { kind, member_id };
                let raised = action == AlarmAction::Activate;
                let (header, outcome) = self.carry_out(Command::Alarm { alarm, raised }, 0).await?;
                (header, if matches!(outcome, Outcome::Alarm(true)) { vec![alarm] } else { Vec::new() })
            }
            (Ok(_), None) | (Err(_), _) => (self.header_now(), Vec::new()),
        };
        let alarms = alarms.into_iter().map(alarm_to_proto).collect();
        Ok(Response::new(pb::AlarmResponse { header: Some(header), alarms }))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.engine().status();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let no_leader = status.leader.is_none().then(|| "etcdserver: no leader".to_owned());
        let alarms = self.engine().alarms().into_iter().map(alarm_to_text);
        let errors = no_leader.into_iter().chain(alarms).collect();
        // Of the data, as quota is; 0 if there is no limit.
        let quota = self.engine().quota_bytes().unwrap_or(0);
        let revision = self.engine().read(Store::revision);
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.header_of_term(revision, status.term)),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes(status.disk_bytes),
            db_size_in_use: bytes(status.used_bytes),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_quota: bytes(quota),
            is_learner: self.engine().is_learner(),
            ..pb::StatusResponse::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.keeper(&request).await?;
        // Nothing to do: what is deleted leaves no holes, neither in memory nor in the log.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.keeper(&request).await?;
        Err(status::unimplemented("there is no checksum of the files yet"))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.keeper(&request).await?;
        let revision = request.get_ref().revision;
        let store = self.engine().snapshot();
        let current = store.revision();
        // All keys are looked at, away from those who answer others.
        let hashed = tokio::task::spawn_blocking(move || store.hash_kv(revision));
        let hashed = hashed.await.map_err(|_| Status::aborted("landbridge: the store is stopping"))?;
        let HashKv { hash, hash_revision, compact_revision } =
            hashed.map_err(|error| status::refused(error.into()))?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.header(current)),
            hash,
            compact_revision,
            hash_revision,
        }))
    }

    type SnapshotStream = Snapshots;

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<Snapshots>, Status> {
        self.keeper(&request).await?;
        let place = self.place_for_copy()?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let copy = self.engine().backup();
        // Ends when nobody takes what it sends, which is when the stream ends at the latest.
        tokio::task::spawn_blocking(move || {
            send_copy(&copy, &sender);
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.keeper(&request).await?;
        self.engine().move_leader(request.get_ref().target_id).await?;
        // Without a header, as in etcd.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction;
        self.keeper(&request).await?;
        let pb::DowngradeRequest { action, version } = request.into_inner();
        match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                downgrade_target(&version)?;
                // etcd would go on to let a member of that version in. None of this store's can read what is written here.
                Err(status::not_capable())
            }
            // None is ever under way.
            Ok(DowngradeAction::Cancel) => Err(status::no_downgrade()),
            Err(_) => Err(Status::unknown("etcdserver: unknown method")),
        }
    }
}

/// Checks the version to go back to: the one before this one. Patches do not count, as in etcd.
fn downgrade_target(version: &str) -> Result<(), Status> {
    let parts: Vec<u64> = version
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| status::wrong_downgrade_format())?;
    match parts[..] {
        [major, minor] | [major, minor, _] => {
            if (major, minor) == (3, 4) {
                Ok(())
            } else {
                Err(status::invalid_downgrade())
            }
        }
        _ => Err(status::wrong_downgrade_format()),
    }
}
