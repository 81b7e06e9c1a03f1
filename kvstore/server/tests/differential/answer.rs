//! What a store answers to an operation, without what is allowed to differ.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use landbridge_kvstore_server::grpc::proto::{authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::operation::{Operation, Users};

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
    /// Of the Auth service.
    Users(Option<pb::ResponseHeader>, Told),
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
            Self::Users(header, _) => vec![header],
        }
    }
}

/// What the Auth service says, besides its header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Done,
    Status { enabled: bool, revision: u64 },
    Token(String),
    Names(Vec<String>),
    Permissions(Vec<authpb::Permission>),
}

/// A client of one of the stores.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    auth: AuthClient<Channel>,
    /// By the name of who got it.
    tokens: BTreeMap<String, String>,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

/// A request with a token.
fn with<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token.and_then(|token| token.parse().ok()) {
        request.metadata_mut().insert("token", token);
    }
    request
}

fn reply<T>(make: impl FnOnce(T) -> Reply) -> impl FnOnce(Response<T>) -> Reply {
    |response| make(response.into_inner())
}

impl Client {
    pub(crate) fn new(channel: &Channel) -> Self {
        Self {
            auth: AuthClient::new(channel.clone()),
            tokens: BTreeMap::new(),
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
        }
    }

    /// Asks one thing that is answered at once; `None` if the operation is one of watches.
    pub(crate) async fn ask(&mut self, operation: Operation) -> Option<Answer> {
        let (user, operation) = match operation {
            Operation::As { user, operation } => (Some(user), *operation),
            operation => (None, operation),
        };
        let token = user.map(|user| self.tokens.get(&user).cloned().unwrap_or_else(|| "nobody.1".to_owned()));
        let answer = self.ask_with(token.as_deref(), operation).await?;
        Some(answer.map_err(Refusal::from))
    }

    async fn ask_with(&mut self, token: Option<&str>, operation: Operation) -> Option<Result<Reply, Status>> {
        macro_rules! call {
            ($client:ident.$method:ident($request:expr) => $reply:ident) => {
                self.$client.$method(with($request, token)).await.map(reply(Reply::$reply))
            };
        }
        Some(match operation {
            Operation::Range(request) => call!(kv.range(request) => Range),
            Operation::Put(request) => call!(kv.put(request) => Put),
            Operation::DeleteRange(request) => call!(kv.delete_range(request) => DeleteRange),
            Operation::Txn(request) => call!(kv.txn(request) => Txn),
            Operation::Compact(request) => call!(kv.compact(request) => Compact),
            Operation::Grant(request) => call!(lease.lease_grant(request) => Grant),
            Operation::GrantAndRevoke(request) => self.grant_and_revoke(request, token).await,
            Operation::Revoke(request) => call!(lease.lease_revoke(request) => Revoke),
            Operation::TimeToLive(request) => call!(lease.lease_time_to_live(request) => TimeToLive),
            Operation::Leases => call!(lease.lease_leases(pb::LeaseLeasesRequest {}) => Leases),
            Operation::KeepAlive(ids) => self.keep_alive(ids, token).await,
            Operation::Alarms => call!(maintenance.alarm(pb::AlarmRequest::default()) => Alarms),
            Operation::HashKv(request) => call!(maintenance.hash_kv(request) => HashKv),
            Operation::Users(users) => self.ask_users(users, token).await,
            Operation::As { .. }
            | Operation::Watch { .. }
            | Operation::CancelWatch { .. }
            | Operation::RequestProgress { .. }
            | Operation::CloseStream { .. }
            | Operation::Sync => return None,
        })
    }

    async fn ask_users(&mut self, users: Users, token: Option<&str>) -> Result<Reply, Status> {
        macro_rules! call {
            ($method:ident($request:expr)) => { call!($method($request), _response => Told::Done) };
            ($method:ident($request:expr), $response:ident => $told:expr) => {{
                let $response = self.auth.$method(with($request, token)).await?.into_inner();
                Ok(Reply::Users($response.header, $told))
            }};
        }
        match users {
            Users::Enable => call!(auth_enable(pb::AuthEnableRequest {})),
            Users::Disable => call!(auth_disable(pb::AuthDisableRequest {})),
            Users::Status => call!(auth_status(pb::AuthStatusRequest {}), status => {
                Told::Status { enabled: status.enabled, revision: status.auth_revision }
            }),
            Users::Authenticate(request) => {
                let name = request.name.clone();
                let response = self.auth.authenticate(with(request, token)).await?.into_inner();
                self.tokens.insert(name, response.token.clone());
                Ok(Reply::Users(response.header, Told::Token(response.token)))
            }
            Users::Add(request) => call!(user_add(request)),
            Users::Get(request) => call!(user_get(request), user => Told::Names(user.roles)),
            Users::List => call!(user_list(pb::AuthUserListRequest {}), list => Told::Names(list.users)),
            Users::Delete(request) => call!(user_delete(request)),
            Users::ChangePassword(request) => call!(user_change_password(request)),
            Users::GrantRole(request) => call!(user_grant_role(request)),
            Users::RevokeRole(request) => call!(user_revoke_role(request)),
            Users::AddRole(request) => call!(role_add(request)),
            Users::GetRole(request) => call!(role_get(request), role => Told::Permissions(role.perm)),
            Users::ListRoles => call!(role_list(pb::AuthRoleListRequest {}), list => Told::Names(list.roles)),
            Users::DeleteRole(request) => call!(role_delete(request)),
            Users::GrantPermission(request) => call!(role_grant_permission(request)),
            Users::RevokePermission(request) => call!(role_revoke_permission(request)),
        }
    }

    async fn grant_and_revoke(
        &mut self,
        request: pb::LeaseGrantRequest,
        token: Option<&str>,
    ) -> Result<Reply, Status> {
        let asked = Instant::now();
        let granted = self.lease.lease_grant(with(request, token)).await?.into_inner();
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        let revoke = pb::LeaseRevokeRequest { id: granted.id };
        let revoked = match self.lease.lease_revoke(with(revoke, token)).await {
            Ok(revoked) => Some(revoked.into_inner()),
            Err(status) if status.code() == Code::NotFound && asked.elapsed() >= ttl => None,
            Err(status) => return Err(status),
        };
        Ok(Reply::GrantAndRevoke(granted, revoked))
    }

    async fn keep_alive(&mut self, ids: Vec<i64>, token: Option<&str>) -> Result<Reply, Status> {
        let requests: Vec<_> = ids.into_iter().map(|id| pb::LeaseKeepAliveRequest { id }).collect();
        let mut stream =
            self.lease.lease_keep_alive(with(tokio_stream::iter(requests), token)).await?.into_inner();
        let mut replies = Vec::new();
        while let Some(reply) = stream.message().await? {
            replies.push(reply);
        }
        Ok(Reply::KeepAlive(replies))
    }
}
