//! What a store answers to an operation, without what is allowed to differ.

use std::time::{Duration, Instant};

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::operation::Operation;

/// An answer: what came, or why nothing did.
pub(crate) type Answer = Result<Reply, Refusal>;

/// Code and text of a refusal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub code: Code,
    pub text: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { code: status.code(), text: status.message().to_owned() }
    }
}

/// A response of one of the services.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    /// No second one if the time of the lease was over before it could be revoked.
    GrantAndRevoke(pb::LeaseGrantResponse, Option<pb::LeaseRevokeResponse>),
    TimeToLive(pb::LeaseTimeToLiveResponse),
    Leases(pb::LeaseLeasesResponse),
    KeepAlive(Vec<pb::LeaseKeepAliveResponse>),
    Alarms(pb::AlarmResponse),
    HashKv(pb::HashKvResponse),
}

impl Reply {
    /// The headers of all messages of the reply.
    pub(crate) fn headers(&mut self) -> Vec<&mut Option<pb::ResponseHeader>> {
        match self {
            Self::Range(reply) => vec![&mut reply.header],
            Self::Put(reply) => vec![&mut reply.header],
            Self::DeleteRange(reply) => vec![&mut reply.header],
            Self::Txn(reply) => vec![&mut reply.header],
            Self::Compact(reply) => vec![&mut reply.header],
            Self::Grant(reply) => vec![&mut reply.header],
            Self::Revoke(reply) => vec![&mut reply.header],
            Self::GrantAndRevoke(granted, revoked) => {
                let revoked = revoked.iter_mut().map(|revoked| &mut revoked.header);
                [&mut granted.header].into_iter().chain(revoked).collect()
            }
            Self::TimeToLive(reply) => vec![&mut reply.header],
            Self::Leases(reply) => vec![&mut reply.header],
            Self::KeepAlive(replies) => replies.iter_mut().map(|reply| &mut reply.header).collect(),
            Self::Alarms(reply) => vec![&mut reply.header],
            Self::HashKv(reply) => vec![&mut reply.header],
        }
    }
}

/// A client of one of the stores.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

fn reply<T>(make: impl FnOnce(T) -> Reply) -> impl FnOnce(Response<T>) -> Reply {
    |response| make(response.into_inner())
}

impl Client {
    pub(crate) fn new(channel: &Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
        }
    }

    /// Asks one thing that is answered at once; `None` if the operation is one of watches.
    pub(crate) async fn ask(&mut self, operation: Operation) -> Option<Answer> {
        let answer = match operation {
            Operation::Range(request) => self.kv.range(request).await.map(reply(Reply::Range)),
            Operation::Put(request) => self.kv.put(request).await.map(reply(Reply::Put)),
            Operation::DeleteRange(request) => {
                self.kv.delete_range(request).await.map(reply(Reply::DeleteRange))
            }
            Operation::Txn(request) => self.kv.txn(request).await.map(reply(Reply::Txn)),
            Operation::Compact(request) => self.kv.compact(request).await.map(reply(Reply::Compact)),
            Operation::Grant(request) => self.lease.lease_grant(request).await.map(reply(Reply::Grant)),
            Operation::GrantAndRevoke(request) => self.grant_and_revoke(request).await,
            Operation::Revoke(request) => self.lease.lease_revoke(request).await.map(reply(Reply::Revoke)),
            Operation::TimeToLive(request) => {
                self.lease.lease_time_to_live(request).await.map(reply(Reply::TimeToLive))
            }
            Operation::Leases => {
                self.lease.lease_leases(pb::LeaseLeasesRequest {}).await.map(reply(Reply::Leases))
            }
            Operation::KeepAlive(ids) => self.keep_alive(ids).await,
            Operation::Alarms => {
                self.maintenance.alarm(pb::AlarmRequest::default()).await.map(reply(Reply::Alarms))
            }
            Operation::HashKv(request) => self.maintenance.hash_kv(request).await.map(reply(Reply::HashKv)),
            Operation::Watch { .. }
            | Operation::CancelWatch { .. }
            | Operation::RequestProgress { .. }
            | Operation::CloseStream { .. }
            | Operation::Sync => return None,
        };
        Some(answer.map_err(Refusal::from))
    }

    async fn grant_and_revoke(&mut self, request: pb::LeaseGrantRequest) -> Result<Reply, Status> {
        let asked = Instant::now();
        let granted = self.lease.lease_grant(request).await?.into_inner();
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        let revoked = match self.lease.lease_revoke(pb::LeaseRevokeRequest { id: granted.id }).await {
            Ok(revoked) => Some(revoked.into_inner()),
            Err(status) if status.code() == Code::NotFound && asked.elapsed() >= ttl => None,
            Err(status) => return Err(status),
        };
        Ok(Reply::GrantAndRevoke(granted, revoked))
    }

    async fn keep_alive(&mut self, ids: Vec<i64>) -> Result<Reply, Status> {
        let requests: Vec<_> = ids.into_iter().map(|id| pb::LeaseKeepAliveRequest { id }).collect();
        let mut stream = self.lease.lease_keep_alive(tokio_stream::iter(requests)).await?.into_inner();
        let mut replies = Vec::new();
        while let Some(reply) = stream.message().await? {
            replies.push(reply);
        }
        Ok(Reply::KeepAlive(replies))
    }
}
