//! What can be asked of users and roles.

use bytes::Bytes;

use super::Permission;

/// A change of users and roles, and who asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCommand {
    /// Who asks; empty is nobody. Looked at when the command is carried out, so that it has the rights of then.
    pub by: String,
    /// What is asked.
    pub change: AuthChange,
}

/// A change of users and roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// Lets rights count.
    Enable,
    /// Lets rights no longer count.
    Disable,
    /// Gives a user a token. Its password was looked at before. Nobody has to be root for that.
    Authenticate {
        /// The user.
        user: String,
        /// The secret part of the token.
        secret: String,
    },
    /// Makes a user.
    UserAdd {
        /// Its name.
        name: String,
        /// The hash of its password.
        password_hash: Bytes,
        /// It has none, whatever the hash is.
        no_password: bool,
    },
    /// Removes a user.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Gives a user another password.
    UserChangePassword {
        /// Its name.
        name: String,
        /// The hash of the password; `None` is one that could not be read.
        password_hash: Option<Bytes>,
    },
    /// Gives a user a role.
    UserGrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Takes a role from a user.
    UserRevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Makes a role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// Removes a role, and takes it from all users.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// Gives a role a permission, or changes what may be done with a range that it has.
    RoleGrantPermission {
        /// The role.
        role: String,
        /// The permission; `None` if the request has none.
        permission: Option<Permission>,
    },
    /// Takes a permission from a role.
    RoleRevokePermission {
        /// The role.
        role: String,
        /// The first key of the permission.
        key: Bytes,
        /// Its end, exactly as it was given.
        range_end: Bytes,
    },
}

/// What came of a command, for those who keep tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// It is done, and tokens live on.
    Done,
    /// It is done, and all tokens end.
    Disabled,
    /// It is done, and the tokens of a user end.
    TokensEnd {
        /// The user.
        user: String,
    },
    /// A user gets a token.
    Authenticated {
        /// The user.
        user: String,
        /// The token, as etcd writes it: the secret, and the entry of the log that made it count.
        token: String,
    },
}
