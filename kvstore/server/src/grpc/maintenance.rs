//! How a member is, and what its keeper does with it.

use std::pin::Pin;

use futures_util::Stream;
use landbridge_kvstore_store::{HashKv, Store};
use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use crate::http::{CLUSTER_VERSION, ETCD_VERSION};

type Snapshots = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

impl Service {
    /// Checks that whoever asks may care for the member.
    fn keeper<T>(&self, request: &Request<T>) -> Result<(), Status> {
        Ok(self.permissions(&Peer::of(request.extensions()))?.root()?)
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Service {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        match AlarmAction::try_from(request.get_ref().action) {
            Ok(AlarmAction::Get) => {
                self.permissions(&Peer::of(request.extensions()))?;
            }
            // There is none to clear.
            Ok(AlarmAction::Deactivate) => self.keeper(&request)?,
            Ok(AlarmAction::Activate) | Err(_) => {
                self.keeper(&request)?;
                return Err(status::unimplemented("alarms are not raised by hand"));
            }
        }
        Ok(Response::new(pb::AlarmResponse { header: Some(self.header_now()), alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.engine().status();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let errors =
            if status.leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
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
            ..pb::StatusResponse::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.keeper(&request)?;
        // Nothing to do: what is deleted leaves no holes, neither in memory nor in the log.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        self.keeper(&request)?;
        Err(status::unimplemented("there is no checksum of the files yet"))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.keeper(&request)?;
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
        self.keeper(&request)?;
        Err(status::unimplemented("the store cannot be copied this way yet: list its keys"))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.keeper(&request)?;
        self.engine().move_leader(request.get_ref().target_id).await?;
        // Without a header, as in etcd.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction;
        self.keeper(&request)?;
        let header = Some(self.header_now());
        let pb::DowngradeRequest { action, version } = request.into_inner();
        match DowngradeAction::try_from(action) {
            Ok(action @ (DowngradeAction::Validate | DowngradeAction::Enable)) => {
                downgrade_target(&version)?;
                if action == DowngradeAction::Enable {
                    return Err(status::unimplemented("there is no older version to go back to"));
                }
                Ok(Response::new(pb::DowngradeResponse { header, version: CLUSTER_VERSION.to_owned() }))
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
