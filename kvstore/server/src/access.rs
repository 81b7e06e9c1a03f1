//! Who may read and write which keys.
//!
//! ```text
//! certificate ─► Peer ─► Gate ── AccessRules, or the store's users and roles ─► Permissions ─► yes or no
//! token ──────────┘
//! ```
//!
//! Invariants:
//! - What counts is read anew for each request; what a user may do is worked out once for each version of it.
//! - A range is allowed only if every key it can hold is, now or later: what the grants leave out, however small, denies
//!   it. Ranges that touch or overlap count as one.
//! - What is not granted is denied, for a user without any grant too.

mod gate;
mod permissions;

pub(crate) use gate::{Gate, Identity, Rights};
pub use permissions::Permissions;

use landbridge_kvstore_store::KeyRange;
use tokio::sync::watch;

use crate::auth_token::AuthToken;

/// Whose word counts.
#[derive(Clone, Debug)]
pub enum Access {
    /// Rules that this program sets, and changes as it likes. A change counts from the next request on, and for running
    /// watches too.
    Rules(watch::Receiver<AccessRules>),
    /// Users and roles in the store itself, as etcd has them: clients change them through the Auth service.
    Store(AuthOptions),
}

/// How users prove who they are.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// What a password is exchanged for; etcd's `--auth-token`. How long simple tokens live is a setting of the engine.
    pub token: AuthToken,
    /// How much work a password is to check, as a power of two, from 4 to 31; etcd's `--bcrypt-cost`.
    pub bcrypt_cost: u32,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self { token: AuthToken::Simple, bcrypt_cost: 10 }
    }
}

/// Who may read and write which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessRules {
    /// Everyone may do everything.
    Open,
    /// Users, by the common name of their certificate, have what is granted to them.
    ByUser(Vec<Grant>),
}

/// What one user may do. Several grants of one user add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The user: the exact common name of its certificate.
    pub user: String,
    /// Whether it may do everything.
    pub root: bool,
    /// The keys it may read and watch.
    pub read: Vec<KeyRange>,
    /// The keys it may put and delete.
    pub write: Vec<KeyRange>,
}

/// Why a request is refused. The texts are part of etcd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Users have rights, and this is no user.
    #[error("etcdserver: user name is empty")]
    Anonymous,
    /// The user has no right to do this.
    #[error("etcdserver: permission denied")]
    Denied,
    /// The token is not known, or no longer.
    #[error("etcdserver: invalid auth token")]
    InvalidToken,
    /// Users and roles have changed since the token was given, or while the request was looked at.
    #[error("etcdserver: revision of auth store is old")]
    OldRevision,
    /// There is no such user any more.
    #[error("etcdserver: user name not found")]
    UserNotFound,
}

impl AccessRules {
    /// What `user` may do; `None` is a connection without a certificate.
    ///
    /// # Errors
    /// [`AccessError::Anonymous`] if users have rights and this is none, [`AccessError::Denied`] if nothing at all is granted
    /// to the user.
    pub fn of(&self, user: Option<&str>) -> Result<Permissions, AccessError> {
        let Self::ByUser(grants) = self else { return Ok(Permissions::all()) };
        let user = user.filter(|user| !user.is_empty()).ok_or(AccessError::Anonymous)?;
        let grants: Vec<&Grant> = grants.iter().filter(|grant| grant.user == user).collect();
        if grants.is_empty() {
            return Err(AccessError::Denied);
        }
        if grants.iter().any(|grant| grant.root) {
            return Ok(Permissions::all());
        }
        let read = grants.iter().flat_map(|grant| grant.read.iter().cloned()).collect();
        let write = grants.iter().flat_map(|grant| grant.write.iter().cloned()).collect();
        Ok(Permissions::by_rules(read, write))
    }
}

#[cfg(test)]
mod tests;
