//! Why users and roles stay as they are, or someone is not let in. The texts are part of etcd's API.

/// Why a command about users and roles is refused, or a user may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Rights cannot be turned on without somebody who could turn them off.
    #[error("etcdserver: root user does not exist")]
    RootUserMissing,
    /// As above.
    #[error("etcdserver: root user does not have root role")]
    RootRoleMissing,
    /// There is such a user.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// No user is named, or whoever asks has no name.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// There is no such user.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// There is such a role.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// There is no such role.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// No role is named.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// No user of that name has that password.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthenticationFailed,
    /// The user has no password, or what is given is no hash of one.
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// No permission is named.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// The user has no right to do this.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// The user does not have the role.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// Rights do not count.
    #[error("etcdserver: authentication is not enabled")]
    NotEnabled,
    /// It would leave nobody who could turn rights off, or the range of a permission is empty.
    #[error("etcdserver: invalid auth management")]
    InvalidManagement,
}
