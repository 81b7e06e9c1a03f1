//! Leases.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use landbridge_kvstore_store::{LeaseId, Store, StoreError, granted_ttl_seconds};
use tonic::{Request, Response, Status, Streaming};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service, needs_leader};
use super::status;
use crate::access::{AccessError, Permissions};
use crate::engine::Command;

type KeepAlives = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

impl Service {
    /// The answer to one request of a stream that keeps leases alive.
    async fn keep_alive(
        &self,
        peer: &Peer,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let lease = LeaseId::new(request.id).ok();
        let check = |permissions: &Permissions| {
            permissions.leases()?;
            // It keeps their keys alive.
            self.engine().read(|store| lease.map_or(Ok(()), |lease| permissions.write_lease(store, lease)))
        };
        self.permitted(peer, check).await?;
        // Made before the renewal, as in etcd: the lease lived at this revision.
        let header = self.header_now();
        let renewed = match lease {
            Some(id) => self.engine().renew_lease(id).await?,
            None => None,
        };
        Ok(pb::LeaseKeepAliveResponse { header: Some(header), id: request.id, ttl: renewed.unwrap_or(0) })
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let peer = Peer::of(request.extensions());
        let request = request.into_inner();
        self.permitted(&peer, Permissions::leases).await?;
        let ttl = granted_ttl_seconds(request.ttl, self.min_lease_seconds()).map_err(status::refused)?;
        // 0 asks for a number: a random one, since members pick without asking each other.
        let id = LeaseId::new(request.id)
            .unwrap_or_else(|_| LeaseId::new(fastrand::i64(1..)).expect("the range begins at 1"));
        let (header, _) = self.carry_out(Command::LeaseGrant { id, ttl_seconds: ttl }, 0).await?;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: Some(header),
            id: id.get(),
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = LeaseId::new(request.get_ref().id);
        let check = |permissions: &Permissions| {
            permissions.leases()?;
            // The keys go with it.
            self.engine().read(|store| id.map_or(Ok(()), |id| permissions.write_lease(store, id)))
        };
        let permissions = self.permitted(&Peer::of(request.extensions()), check).await?;
        let id = id.map_err(|_| status::refused(StoreError::LeaseNotFound))?;
        let version = if permissions.root().is_ok() { 0 } else { permissions.version() };
        let within = permissions.bounds_of_leases();
        let (header, _) = self.carry_out(Command::LeaseRevoke { id, within }, version).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(header) }))
    }

    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let peer = Peer::of(request.extensions());
        let needs_leader = needs_leader(request.metadata());
        let state = Some((self.clone(), request.into_inner()));
        // Driven by the connection, so that there is no task to own and no queue: one request, one answer.
        let answers = unfold(state, move |state| {
            let peer = peer.clone();
            async move {
                let (service, mut requests) = state?;
                let answer = tokio::select! {
                    biased;
                    end = service.stream_end(needs_leader) => Err(end),
                    request = requests.message() => match request {
                        Ok(Some(request)) => service.keep_alive(&peer, request).await,
                        Ok(None) => return None,
                        Err(error) => Err(error),
                    },
                };
                let next = answer.is_ok().then_some((service, requests));
                Some((answer, next))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let permissions = self.permitted(&Peer::of(request.extensions()), |_| Ok(())).await?;
        let pb::LeaseTimeToLiveRequest { id, keys: with_keys } = *request.get_ref();
        self.engine().read_barrier().await?;
        let unknown = || pb::LeaseTimeToLiveResponse {
            header: Some(self.header_now()),
            id,
            ttl: -1,
            ..pb::LeaseTimeToLiveResponse::default()
        };
        let Ok(lease) = LeaseId::new(id) else { return Ok(Response::new(unknown())) };
        let remaining = self.engine().lease_time_left(lease).await?;
        let look = |store: &Store| {
            if with_keys {
                permissions.read_lease(store, lease)?;
            }
            let keys = if with_keys {
                store.lease_keys(lease).map(Bytes::copy_from_slice).collect()
            } else {
                Vec::new()
            };
            Ok::<_, Status>((store.revision(), store.lease_ttl_seconds(lease), keys))
        };
        let (revision, granted, keys) = self.look_as(&permissions, look)??;
        let (Some(remaining), Some(granted_ttl)) = (remaining, granted) else {
            return Ok(Response::new(unknown()));
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: Some(self.header(revision)),
            id,
            ttl: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            granted_ttl,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let permissions = self.permitted(&Peer::of(request.extensions()), |_| Ok(())).await?;
        self.engine().read_barrier().await?;
        // A list of leases tells that there are keys on them.
        let look = |store: &Store| {
            let leases: Vec<LeaseId> = store.leases().collect();
            leases.iter().try_for_each(|lease| permissions.read_lease(store, *lease))?;
            Ok::<_, AccessError>((store.revision(), leases))
        };
        let (revision, mut leases) = self.look_as(&permissions, look)??;
        self.engine().sort_leases(&mut leases);
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: Some(self.header(revision)),
            leases: leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.get() }).collect(),
        }))
    }
}
