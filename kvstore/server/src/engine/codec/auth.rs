//! Users and roles.

use landbridge_kvstore_store::auth::{
    AuthChange, AuthCommand, AuthStore, Permission, PermissionKind, Role, User,
};

use super::proto::{self, auth_command};
use super::{DecodeError, required};

pub(super) fn auth_command_to_proto(command: &AuthCommand) -> proto::AuthCommand {
    use auth_command::Change;
    let user_role = |user: &String, role: &String| proto::UserRole { user: user.clone(), role: role.clone() };
    let change = match &command.change {
        AuthChange::Enable => Change::Enable(proto::AuthEnable {}),
        AuthChange::Disable => Change::Disable(proto::AuthDisable {}),
        AuthChange::Authenticate { user, secret } => {
            Change::Authenticate(proto::Authenticate { user: user.clone(), secret: secret.clone() })
        }
        AuthChange::UserAdd { name, password_hash, no_password } => Change::UserAdd(proto::UserAdd {
            name: name.clone(),
            password_hash: password_hash.clone(),
            no_password: *no_password,
        }),
        AuthChange::UserDelete { name } => Change::UserDelete(proto::UserDelete { name: name.clone() }),
        AuthChange::UserChangePassword { name, password_hash } => {
            Change::UserChangePassword(proto::UserChangePassword {
                name: name.clone(),
                password_hash: password_hash.clone(),
            })
        }
        AuthChange::UserGrantRole { user, role } => Change::UserGrantRole(user_role(user, role)),
        AuthChange::UserRevokeRole { user, role } => Change::UserRevokeRole(user_role(user, role)),
        AuthChange::RoleAdd { name } => Change::RoleAdd(proto::RoleAdd { name: name.clone() }),
        AuthChange::RoleDelete { name } => Change::RoleDelete(proto::RoleDelete { name: name.clone() }),
        AuthChange::RoleGrantPermission { role, permission } => {
            Change::RoleGrantPermission(proto::RoleGrantPermission {
                role: role.clone(),
                permission: permission.as_ref().map(permission_to_proto),
            })
        }
        AuthChange::RoleRevokePermission { role, key, range_end } => {
            Change::RoleRevokePermission(proto::RoleRevokePermission {
                role: role.clone(),
                key: key.clone(),
                range_end: range_end.clone(),
            })
        }
    };
    proto::AuthCommand { by: command.by.clone(), change: Some(change) }
}

pub(super) fn auth_command_from_proto(command: proto::AuthCommand) -> Result<AuthCommand, DecodeError> {
    use auth_command::Change;
    let change = match required(command.change, "the kind of a change of users and roles")? {
        Change::Enable(_) => AuthChange::Enable,
        Change::Disable(_) => AuthChange::Disable,
        Change::Authenticate(proto::Authenticate { user, secret }) => {
            AuthChange::Authenticate { user, secret }
        }
        Change::UserAdd(proto::UserAdd { name, password_hash, no_password }) => {
            AuthChange::UserAdd { name, password_hash, no_password }
        }
        Change::UserDelete(proto::UserDelete { name }) => AuthChange::UserDelete { name },
        Change::UserChangePassword(proto::UserChangePassword { name, password_hash }) => {
            AuthChange::UserChangePassword { name, password_hash }
        }
        Change::UserGrantRole(proto::UserRole { user, role }) => AuthChange::UserGrantRole { user, role },
        Change::UserRevokeRole(proto::UserRole { user, role }) => AuthChange::UserRevokeRole { user, role },
        Change::RoleAdd(proto::RoleAdd { name }) => AuthChange::RoleAdd { name },
        Change::RoleDelete(proto::RoleDelete { name }) => AuthChange::RoleDelete { name },
        Change::RoleGrantPermission(proto::RoleGrantPermission { role, permission }) => {
            AuthChange::RoleGrantPermission { role, permission: permission.map(permission_from_proto) }
        }
        Change::RoleRevokePermission(proto::RoleRevokePermission { role, key, range_end }) => {
            AuthChange::RoleRevokePermission { role, key, range_end }
        }
    };
    Ok(AuthCommand { by: command.by, change })
}

fn permission_to_proto(permission: &Permission) -> proto::Permission {
    let Permission { kind, key, range_end } = permission;
    proto::Permission { kind: kind.number(), key: key.clone(), range_end: range_end.clone() }
}

fn permission_from_proto(permission: proto::Permission) -> Permission {
    let proto::Permission { kind, key, range_end } = permission;
    Permission { kind: PermissionKind::of_number(kind), key, range_end }
}

pub(super) fn auth_to_proto(auth: &AuthStore) -> proto::Auth {
    let users = auth.users().map(|(name, user)| proto::User {
        name: name.to_owned(),
        password_hash: user.password_hash.clone(),
        no_password: user.no_password,
        roles: user.roles.iter().cloned().collect(),
    });
    let roles = auth.roles().map(|(name, role)| proto::Role {
        name: name.to_owned(),
        permissions: role.permissions.iter().map(permission_to_proto).collect(),
    });
    proto::Auth {
        enabled: auth.is_enabled(),
        revision: auth.revision(),
        users: users.collect(),
        roles: roles.collect(),
    }
}

/// Users and roles of a snapshot; one from before there were any has none.
pub(super) fn auth_from_proto(auth: Option<proto::Auth>) -> AuthStore {
    let Some(auth) = auth else { return AuthStore::default() };
    let users = auth.users.into_iter().map(|user| {
        let proto::User { name, password_hash, no_password, roles } = user;
        (name, User { password_hash, no_password, roles: roles.into_iter().collect() })
    });
    let roles = auth.roles.into_iter().map(|role| {
        (role.name, Role { permissions: role.permissions.into_iter().map(permission_from_proto).collect() })
    });
    AuthStore::from_parts(auth.enabled, auth.revision, users, roles)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn permission(kind: i32) -> Permission {
        Permission { kind: PermissionKind::of_number(kind), key: "k".into(), range_end: "\0".into() }
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let name = || "one".to_owned();
        let (user, role) = (name, || "two".to_owned());
        let changes = [
            AuthChange::Enable,
            AuthChange::Disable,
            AuthChange::Authenticate { user: user(), secret: role() },
            AuthChange::UserAdd { name: name(), password_hash: "hash".into(), no_password: true },
            AuthChange::UserDelete { name: name() },
            AuthChange::UserChangePassword { name: name(), password_hash: Some(Bytes::new()) },
            AuthChange::UserChangePassword { name: name(), password_hash: None },
            AuthChange::UserGrantRole { user: user(), role: role() },
            AuthChange::UserRevokeRole { user: user(), role: role() },
            AuthChange::RoleAdd { name: name() },
            AuthChange::RoleDelete { name: name() },
            AuthChange::RoleGrantPermission { role: role(), permission: None },
            AuthChange::RoleGrantPermission { role: role(), permission: Some(permission(7)) },
            AuthChange::RoleRevokePermission { role: role(), key: "k".into(), range_end: "l".into() },
        ];
        for change in changes {
            let command = AuthCommand { by: "me".to_owned(), change };
            let bytes = auth_command_to_proto(&command).encode_to_vec();
            let read = auth_command_from_proto(proto::AuthCommand::decode(&bytes[..]).unwrap()).unwrap();
            assert_eq!(read, command);
        }
        let unknown = proto::AuthCommand::default();
        assert!(matches!(auth_command_from_proto(unknown), Err(DecodeError::Unknown { .. })));
    }

    #[test]
    fn users_and_roles_are_read_as_they_were_written() {
        let user =
            User { password_hash: "hash".into(), no_password: false, roles: [("r").to_owned()].into() };
        let role = Role { permissions: (0..4).map(permission).collect() };
        let auth = AuthStore::from_parts(true, 9, [("u".to_owned(), user)], [("r".to_owned(), role)]);
        let bytes = auth_to_proto(&auth).encode_to_vec();
        assert_eq!(auth_from_proto(Some(proto::Auth::decode(&bytes[..]).unwrap())), auth);
        assert_eq!(auth_from_proto(None), AuthStore::default());
    }
}
