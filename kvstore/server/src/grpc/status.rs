//! Errors as etcd says them.

use landbridge_kvstore_store::auth::AuthError;
use landbridge_kvstore_store::{RangeError, StoreError};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use crate::access::AccessError;
use crate::engine::{MemberError, ProposeError, ReadError};

/// The request is larger than the store takes.
pub(super) fn request_too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// There is more to do than is taken on.
pub(crate) fn too_many_requests() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

/// An order that etcd does not know.
pub(super) fn invalid_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

/// A version that is no text.
pub(super) fn invalid_client_api_version() -> Status {
    Status::invalid_argument("etcdserver: invalid client api version")
}

/// A version to go back to that is no version.
pub(super) fn wrong_downgrade_format() -> Status {
    Status::invalid_argument("etcdserver: wrong downgrade target version format")
}

/// A version that this one cannot go back to.
pub(super) fn invalid_downgrade() -> Status {
    Status::invalid_argument("etcdserver: invalid downgrade target version")
}

/// There is no older version of this store to go back to.
pub(super) fn not_capable() -> Status {
    Status::failed_precondition("etcdserver: not capable")
}

/// Nothing goes back to an older version.
pub(super) fn no_downgrade() -> Status {
    Status::failed_precondition("etcdserver: no inflight downgrade job")
}

/// No member leads.
pub(super) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// There is no room for what a request would write.
pub(super) fn no_space() -> Status {
    Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
}

/// The member is stopping.
pub(super) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// The member has failed. Why is in its log: clients compare the text, and paths of files are not theirs to know.
fn unhealthy() -> Status {
    Status::unavailable("etcdserver: unhealthy cluster")
}

/// Gives a refusal of gRPC itself the code and the text that etcd's gRPC has for it. tonic says that a message is out of
/// range when it is too large, which etcd's clients take for something about revisions.
pub(crate) fn message_too_large(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    if !text.starts_with("Error,%20decoded%20message%20length%20too%20large") {
        return response;
    }
    let text = text.replace("%20", " ");
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<usize>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(len), Some(largest)) => message_larger_than(len, largest).into_http(),
        _ => response,
    }
}

/// A message is longer than those that are taken: as etcd's gRPC says it.
pub(crate) fn message_larger_than(len: usize, largest: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({len} vs. {largest})"))
}

/// Nothing is called so: as etcd's gRPC says it. `has_service` says whether there is a service of that name.
pub(crate) fn unknown_method(path: &str, has_service: impl Fn(&str) -> bool) -> Status {
    let name = path.strip_prefix('/').unwrap_or(path);
    Status::unimplemented(match name.rsplit_once('/') {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if has_service(service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    })
}

/// What this store does not do.
pub(super) fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("landbridge: {what}"))
}

/// It took too long.
fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

/// What a learner does not do. The code is that of etcd 3.5, with which clients go on to another member; 3.6 has another.
pub(super) fn not_for_learners() -> Status {
    Status::unavailable("etcdserver: rpc not supported for learner")
}

impl From<MemberError> for Status {
    fn from(error: MemberError) -> Self {
        let text = error.to_string();
        match error {
            MemberError::NotFound => Self::not_found(text),
            MemberError::InvalidUrls => Self::invalid_argument(text),
            MemberError::PeerUrlsExist
            | MemberError::NotEnoughStarted
            | MemberError::NotLearner
            | MemberError::NotInSync
            | MemberError::TooManyLearners
            | MemberError::NotLeader
            | MemberError::BadTransferee => Self::failed_precondition(text),
            MemberError::Unhealthy | MemberError::NoLeader | MemberError::TimedOut | MemberError::Stopped => {
                Self::unavailable(text)
            }
        }
    }
}

impl From<AccessError> for Status {
    fn from(error: AccessError) -> Self {
        let text = error.to_string();
        match error {
            AccessError::Anonymous | AccessError::OldRevision => Self::invalid_argument(text),
            AccessError::Denied => Self::permission_denied(text),
            AccessError::InvalidToken => Self::unauthenticated(text),
            AccessError::UserNotFound => Self::failed_precondition(text),
        }
    }
}

/// Why the store refuses a request.
pub(super) fn refused(error: StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Range(RangeError::Compacted | RangeError::Future) | StoreError::TtlTooLarge => {
            Status::out_of_range(text)
        }
        StoreError::Auth(error) => auth_refused(error),
        StoreError::LeaseNotFound => Status::not_found(text),
        StoreError::NoSpace => Status::resource_exhausted(text),
        StoreError::Corrupt => Status::data_loss(text),
        StoreError::LeaseExists => Status::failed_precondition(text),
        StoreError::AuthOldRevision
        | StoreError::EmptyKey
        | StoreError::KeyNotFound
        | StoreError::ValueProvided
        | StoreError::LeaseProvided
        | StoreError::TooManyOps
        | StoreError::DuplicateKey => Status::invalid_argument(text),
    }
}

/// Why users and roles stay as they are, or someone is not let in.
pub(super) fn auth_refused(error: AuthError) -> Status {
    let text = error.to_string();
    match error {
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthenticationFailed
        | AuthError::PermissionNotGiven
        | AuthError::InvalidManagement => Status::invalid_argument(text),
        AuthError::PermissionDenied => Status::permission_denied(text),
        AuthError::NoPasswordUser => Status::unknown(text),
        AuthError::RootUserMissing
        | AuthError::RootRoleMissing
        | AuthError::UserExists
        | AuthError::UserNotFound
        | AuthError::RoleExists
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::NotEnabled => Status::failed_precondition(text),
    }
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader | ProposeError::NotLeader { .. } => no_leader(),
            ProposeError::LeaderChanged => Self::unavailable("etcdserver: leader changed"),
            ProposeError::TimedOut { has_leader: true } => timed_out(),
            ProposeError::TimedOut { has_leader: false } => {
                Self::unavailable("etcdserver: request timed out, possibly due to connection lost")
            }
            ProposeError::NoSpace => no_space(),
            // A member of etcd stops when it is removed.
            ProposeError::Stopped | ProposeError::Removed => stopped(),
            ProposeError::Io { .. } => unhealthy(),
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader | ReadError::NotLeader { .. } => no_leader(),
            ReadError::TimedOut => timed_out(),
            ReadError::Stopped | ReadError::Removed => stopped(),
            ReadError::Io { .. } => unhealthy(),
        }
    }
}
