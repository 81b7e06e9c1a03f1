//! One operation, as it is drawn: a request whose revisions are not known before the ones in front of it are done.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::request_op::Request;

/// In the place of a revision: the current one when the operation is run. `NOW - 3` is three before it.
pub(crate) const NOW: i64 = 1 << 40;
/// In the place of a revision: the one compacted last when the operation is run.
pub(crate) const COMPACTED: i64 = 1 << 42;
/// How far from these a number still means them.
const SPAN: i64 = 1 << 30;

/// What both stores are asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    /// A lease whose id or life cannot be compared, revoked at once.
    GrantAndRevoke(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    /// One stream, and these requests on it.
    KeepAlive(Vec<i64>),
    /// Makes a watch on one of a few streams, which is opened if it is not.
    Watch {
        stream: usize,
        request: pb::WatchCreateRequest,
    },
    CancelWatch {
        stream: usize,
        watch_id: i64,
    },
    RequestProgress {
        stream: usize,
    },
    /// Ends a stream with all its watches.
    CloseStream {
        stream: usize,
    },
    /// Waits until all watches have been told everything, and compares that.
    Sync,
    Alarms,
    /// A checksum of all keys and their history, which has to be etcd's.
    HashKv(pb::HashKvRequest),
    Users(Users),
    /// With the token that a user got last, or with one that nobody got if the user got none.
    As {
        user: String,
        operation: Box<Operation>,
    },
}

/// What is asked of the Auth service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Users {
    Enable,
    Disable,
    Status,
    Authenticate(pb::AuthenticateRequest),
    Add(pb::AuthUserAddRequest),
    Get(pb::AuthUserGetRequest),
    List,
    Delete(pb::AuthUserDeleteRequest),
    ChangePassword(pb::AuthUserChangePasswordRequest),
    GrantRole(pb::AuthUserGrantRoleRequest),
    RevokeRole(pb::AuthUserRevokeRoleRequest),
    AddRole(pb::AuthRoleAddRequest),
    GetRole(pb::AuthRoleGetRequest),
    ListRoles,
    DeleteRole(pb::AuthRoleDeleteRequest),
    GrantPermission(pb::AuthRoleGrantPermissionRequest),
    RevokePermission(pb::AuthRoleRevokePermissionRequest),
}

/// The revisions that [`NOW`] and [`COMPACTED`] stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revisions {
    pub now: i64,
    pub compacted: i64,
}

impl Revisions {
    /// What a revision in a request means. One before the beginning is the first.
    fn resolve(self, revision: &mut i64) {
        for (symbol, value) in [(NOW, self.now), (COMPACTED, self.compacted)] {
            if (symbol - SPAN..symbol + SPAN).contains(revision) {
                *revision = (*revision - symbol + value).max(1);
            }
        }
    }

    fn range(self, request: &mut pb::RangeRequest) {
        self.resolve(&mut request.revision);
        self.resolve(&mut request.min_mod_revision);
        self.resolve(&mut request.max_mod_revision);
        self.resolve(&mut request.min_create_revision);
        self.resolve(&mut request.max_create_revision);
    }

    fn txn(self, request: &mut pb::TxnRequest) {
        use pb::compare::TargetUnion;
        for compare in &mut request.compare {
            if let Some(TargetUnion::ModRevision(revision) | TargetUnion::CreateRevision(revision)) =
                &mut compare.target_union
            {
                self.resolve(revision);
            }
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(Request::RequestRange(range)) => self.range(range),
                Some(Request::RequestTxn(inner)) => self.txn(inner),
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
            }
        }
    }
}

impl Operation {
    /// What is asked, whoever asks.
    pub(crate) fn asked(&self) -> &Self {
        if let Self::As { operation, .. } = self { operation } else { self }
    }

    /// The operation with real revisions.
    pub(crate) fn resolved(&self, revisions: Revisions) -> Self {
        let mut operation = self.clone();
        match &mut operation {
            Self::Range(request) => revisions.range(request),
            Self::Txn(request) => revisions.txn(request),
            Self::Compact(request) => revisions.resolve(&mut request.revision),
            Self::HashKv(request) => revisions.resolve(&mut request.revision),
            Self::As { operation, .. } => **operation = operation.resolved(revisions),
            Self::Watch { request, .. } => revisions.resolve(&mut request.start_revision),
            _ => {}
        }
        operation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_stand_for_the_revisions_of_the_moment() {
        let revisions = Revisions { now: 20, compacted: 5 };
        let range = |revision| Operation::Range(pb::RangeRequest { revision, ..Default::default() });
        for (symbol, meant) in
            [(0, 0), (-1, -1), (7, 7), (NOW - 3, 17), (NOW + 1, 21), (NOW - 50, 1), (COMPACTED, 5)]
        {
            assert_eq!(range(symbol).resolved(revisions), range(meant), "{symbol}");
        }
    }
}
