//! Elections: a queue whose first leads, and has something to say.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::proto::mvccpb::KeyValue;
use super::proto::v3electionpb::election_server::Election;
use super::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use super::queue::{Caller, Place, Standing, oldest, without_code};
use super::service::{Service, needs_leader};

type Leaders = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

#[tonic::async_trait]
impl Election for Service {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(self, request);
        let standing = Standing { name: name.clone(), lease, value: value.clone(), ask_first: false };
        let finish = |caller: Caller, place: Place, _| async move {
            // Who stands already says something else from now on.
            if place.value != value {
                let proclaimed =
                    caller.replace(&place.key, place.revision, Some((value, place.lease))).await?;
                if !proclaimed.succeeded {
                    return Err(not_leader());
                }
            }
            let Place { key, revision: rev, lease, header, .. } = place;
            let leader = Some(LeaderKey { name, key, rev, lease });
            Ok(CampaignResponse { header: Some(header), leader })
        };
        caller.stand(standing, finish).await.map(Response::new)
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(self, request);
        let LeaderKey { key, rev, lease, .. } = leader.ok_or_else(no_leader_key)?;
        let proclaim = async {
            let (lease, _) = caller.session(lease).await?;
            caller.replace(&key, rev, Some((value, lease))).await
        };
        let done = proclaim.await.map_err(|status| without_code(&status))?;
        if !done.succeeded {
            return Err(not_leader());
        }
        Ok(Response::new(ProclaimResponse { header: done.header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(self, request);
        let found = caller.range(oldest(&name)).await.map_err(|status| without_code(&status))?;
        let kv = found.kvs.into_iter().next().ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(LeaderResponse { header: found.header, kv: Some(kv) }))
    }

    type ObserveStream = Leaders;

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Leaders>, Status> {
        let needs_leader = needs_leader(request.metadata());
        let (caller, LeaderRequest { name }) = Caller::of(self, request);
        let revisions = caller.service().engine().revisions();
        let observer = Observer { caller, name, needs_leader, revisions, told: None };
        // Driven by the connection: what is not read is not looked for.
        let leaders = unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(end) => Some((Err(end), None)),
            }
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::of(self, request);
        let LeaderKey { key, rev, .. } = leader.ok_or_else(no_leader_key)?;
        let done = caller.replace(&key, rev, None).await.map_err(|status| without_code(&status))?;
        Ok(Response::new(ResignResponse { header: done.header }))
    }
}

/// Tells who leads and what they say, the last word of it at least, as etcd promises.
struct Observer {
    caller: Caller,
    name: bytes::Bytes,
    needs_leader: bool,
    revisions: watch::Receiver<i64>,
    /// The last that was told: its revision of creation, and of its last change.
    told: Option<(i64, i64)>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            self.revisions.borrow_and_update();
            let found = self.caller.range(oldest(&self.name)).await?;
            if let Some(kv) = found.kvs.into_iter().next()
                && self.told != Some(version(&kv))
            {
                self.told = Some(version(&kv));
                return Ok(LeaderResponse { header: found.header, kv: Some(kv) });
            }
            tokio::select! {
                end = self.caller.service().stream_end(self.needs_leader) => return Err(end),
                Ok(()) = self.revisions.changed() => {}
            }
        }
    }
}

fn version(kv: &KeyValue) -> (i64, i64) {
    (kv.create_revision(), kv.mod_revision())
}
