//! Users, their roles, and the keys that roles may read and write.
//!
//! ```text
//! AuthCommand in log order ─► AuthStore ── users ─► roles ─► permissions
//!                                 └─► Cover: what a user may read, what it may write
//! ```
//!
//! Invariants:
//! - The same commands in the same order make the same store on every member: passwords come as hashes, tokens as the text
//!   that whoever asked has drawn.
//! - A command that is refused changes nothing, and leaves the revision as it is.
//! - What is not granted is denied. The user with role `root` may do everything.
//!
//! Rules and texts are etcd's (`server/auth/store.go`, `range_perm_cache.go`), its oddities included where a client can
//! tell.

mod apply;
mod command;
mod cover;
mod error;

pub use command::{AuthChange, AuthCommand, AuthOutcome};
pub use cover::Cover;
pub use error::AuthError;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::KeyRange;

/// The user that has to be there, with the role of that name, before rights can be turned on.
pub const ROOT: &str = "root";

/// Users and roles, and whether they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthStore {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The hash of its password as bcrypt writes it. Empty fits no password.
    pub password_hash: Bytes,
    /// It has none: it shows a certificate.
    pub no_password: bool,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
}

/// A set of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// By key; those of one key in the order in which they were given.
    pub permissions: Vec<Permission>,
}

/// A right on a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What may be done.
    pub kind: PermissionKind,
    /// The first key.
    pub key: Bytes,
    /// Where it ends, in etcd's form: empty is one key, one zero byte is no end.
    pub range_end: Bytes,
}

/// What may be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionKind {
    /// Read and watch.
    Read,
    /// Put and delete.
    Write,
    /// Both.
    ReadWrite,
    /// A number that etcd's API does not know. It is kept, and allows nothing.
    Unknown(i32),
}

/// What a user may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// It may do everything.
    pub root: bool,
    /// What it may read and watch.
    pub read: Cover,
    /// What it may put and delete.
    pub write: Cover,
}

impl Default for AuthStore {
    fn default() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl AuthStore {
    /// Stands for "rights did not count" where a revision is expected: they count from a later one on, since the user that
    /// this needs is itself a change.
    pub const OFF: u64 = 1;

    /// Users and roles as they were exported.
    pub fn from_parts(
        enabled: bool,
        revision: u64,
        users: impl IntoIterator<Item = (String, User)>,
        roles: impl IntoIterator<Item = (String, Role)>,
    ) -> Self {
        Self { enabled, revision, users: users.into_iter().collect(), roles: roles.into_iter().collect() }
    }

    /// Whether rights count.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Grows with each change of users and roles, and when rights are turned off; 1 at first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A request that was looked at with the rights of this version is to be refused when the version is another at the time
    /// it is carried out: [`AuthStore::OFF`], or the revision.
    pub fn version(&self) -> u64 {
        if self.enabled { self.revision } else { Self::OFF }
    }

    /// Whether a request that was looked at with the rights of `version` can no longer be relied on. It can when rights do not
    /// count, or if `version` is 0: then nobody asked for rights.
    pub fn has_outdated(&self, version: u64) -> bool {
        self.enabled && version != 0 && version != self.revision
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (&name[..], user))
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&name[..], role))
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Whether the user may care for users, roles and members. The empty name is nobody. Everyone may while rights do not
    /// count.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn check_root(&self, user: &str) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let user = self.user(user).ok_or(AuthError::UserNotFound)?;
        if user.roles.contains(ROOT) { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    /// What all roles of a user add up to; nothing if there is no such user.
    pub fn granted(&self, user: &str) -> Option<Granted> {
        let user = self.user(user)?;
        let permissions =
            || user.roles.iter().filter_map(|role| self.role(role)).flat_map(|role| &role.permissions);
        let cover = |kind| permissions().filter(|given| given.allows(kind)).map(Permission::range).collect();
        Some(Granted {
            root: user.roles.contains(ROOT),
            read: cover(PermissionKind::Read),
            write: cover(PermissionKind::Write),
        })
    }
}

impl PermissionKind {
    /// Its number in etcd's API.
    pub fn number(self) -> i32 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::ReadWrite => 2,
            Self::Unknown(number) => number,
        }
    }

    /// What a number of etcd's API stands for.
    pub fn of_number(number: i32) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::ReadWrite,
            unknown => Self::Unknown(unknown),
        }
    }
}

impl Permission {
    /// The keys it is about.
    pub fn range(&self) -> KeyRange {
        KeyRange::new(self.key.clone(), self.range_end.clone())
    }

    fn allows(&self, kind: PermissionKind) -> bool {
        self.kind == PermissionKind::ReadWrite || self.kind == kind
    }
}
