//! What each command does to users and roles.

use std::sync::Arc;

use bytes::Bytes;

use super::{AuthChange, AuthCommand, AuthError, AuthOutcome, AuthStore, Permission, ROOT, Role, User};

impl AuthStore {
    /// Carries a command out, if whoever asks may. It is in the entry `index` of the log. Users and roles are copied only if they change, so that whoever holds
    /// them sees by that whether they did.
    ///
    /// # Errors
    /// [`AuthError`]; then nothing has changed.
    pub fn apply(this: &mut Arc<Self>, command: &AuthCommand, index: u64) -> Result<AuthOutcome, AuthError> {
        if let AuthChange::Authenticate { user, secret } = &command.change {
            return this.authenticate(user, secret, index);
        }
        this.check_root(&command.by)?;
        let mut next = Self::clone(this);
        let outcome = next.change(&command.change, index)?;
        if (next.revision, next.enabled) != (this.revision, this.enabled) {
            *this = Arc::new(next);
        }
        Ok(outcome)
    }

    /// Every change is a new revision, or turns rights on.
    fn change(&mut self, change: &AuthChange, index: u64) -> Result<AuthOutcome, AuthError> {
        use AuthChange as Change;
        match change {
            Change::Enable => self.enable(),
            Change::Disable => Ok(self.disable()),
            Change::Authenticate { user, secret } => self.authenticate(user, secret, index),
            Change::UserAdd { name, password_hash, no_password } => {
                self.user_add(name, password_hash, *no_password)
            }
            Change::UserDelete { name } => self.user_delete(name),
            Change::UserChangePassword { name, password_hash } => {
                self.user_change_password(name, password_hash.as_ref())
            }
            Change::UserGrantRole { user, role } => self.user_grant_role(user, role),
            Change::UserRevokeRole { user, role } => self.user_revoke_role(user, role),
            Change::RoleAdd { name } => self.role_add(name),
            Change::RoleDelete { name } => self.role_delete(name),
            Change::RoleGrantPermission { role, permission } => {
                self.role_grant_permission(role, permission.as_ref())
            }
            Change::RoleRevokePermission { role, key, range_end } => {
                self.role_revoke_permission(role, key, range_end)
            }
        }
    }

    fn changed(&mut self) -> AuthOutcome {
        self.revision += 1;
        AuthOutcome::Done
    }

    /// Leaves the revision as it is, unlike turning off: so does etcd.
    fn enable(&mut self) -> Result<AuthOutcome, AuthError> {
        if !self.enabled {
            let root = self.user(ROOT).ok_or(AuthError::RootUserMissing)?;
            if !root.roles.contains(ROOT) {
                return Err(AuthError::RootRoleMissing);
            }
            self.enabled = true;
        }
        Ok(AuthOutcome::Done)
    }

    fn disable(&mut self) -> AuthOutcome {
        if !self.enabled {
            return AuthOutcome::Done;
        }
        self.enabled = false;
        self.changed();
        AuthOutcome::Disabled
    }

    fn authenticate(&self, user: &str, secret: &str, index: u64) -> Result<AuthOutcome, AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        let known = self.user(user).ok_or(AuthError::AuthenticationFailed)?;
        if known.no_password {
            return Err(AuthError::AuthenticationFailed);
        }
        Ok(AuthOutcome::Authenticated { user: user.to_owned(), token: format!("{secret}.{index}") })
    }

    fn user_add(
        &mut self,
        name: &str,
        password_hash: &Bytes,
        no_password: bool,
    ) -> Result<AuthOutcome, AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserExists);
        }
        let password_hash = if no_password { Bytes::new() } else { password_hash.clone() };
        let user = User { password_hash, no_password, ..User::default() };
        self.users.insert(name.to_owned(), user);
        Ok(self.changed())
    }

    fn user_delete(&mut self, name: &str) -> Result<AuthOutcome, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        self.changed();
        Ok(AuthOutcome::TokensEnd { user: name.to_owned() })
    }

    fn user_change_password(
        &mut self,
        name: &str,
        password_hash: Option<&Bytes>,
    ) -> Result<AuthOutcome, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        user.password_hash = if user.no_password {
            Bytes::new()
        } else {
            password_hash.ok_or(AuthError::NoPasswordUser)?.clone()
        };
        self.changed();
        Ok(AuthOutcome::TokensEnd { user: name.to_owned() })
    }

    /// The role `root` can be given before there is one. A role that the user has already is no change.
    fn user_grant_role(&mut self, user: &str, role: &str) -> Result<AuthOutcome, AuthError> {
        let is_role = role == ROOT || self.roles.contains_key(role);
        let user = self.users.get_mut(user).ok_or(AuthError::UserNotFound)?;
        if !is_role {
            return Err(AuthError::RoleNotFound);
        }
        Ok(if user.roles.insert(role.to_owned()) { self.changed() } else { AuthOutcome::Done })
    }

    fn user_revoke_role(&mut self, name: &str, role: &str) -> Result<AuthOutcome, AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if user.roles.remove(role) { Ok(self.changed()) } else { Err(AuthError::RoleNotGranted) }
    }

    fn role_add(&mut self, name: &str) -> Result<AuthOutcome, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        self.roles.insert(name.to_owned(), Role::default());
        Ok(self.changed())
    }

    fn role_delete(&mut self, name: &str) -> Result<AuthOutcome, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        Ok(self.changed())
    }

    fn role_grant_permission(
        &mut self,
        role: &str,
        permission: Option<&Permission>,
    ) -> Result<AuthOutcome, AuthError> {
        let permission = permission.ok_or(AuthError::PermissionNotGiven)?;
        if !permission.is_valid() {
            return Err(AuthError::InvalidManagement);
        }
        let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
        let first = role.permissions.partition_point(|given| given.key < permission.key);
        match role.permissions.get_mut(first) {
            // etcd looks at the first permission of a key and no further: of a range that is given again behind another one
            // of the same key, both stay.
            Some(given) if given.key == permission.key && given.range_end == permission.range_end => {
                given.kind = permission.kind;
            }
            _ => {
                let behind = role.permissions.partition_point(|given| given.key <= permission.key);
                role.permissions.insert(behind, permission.clone());
            }
        }
        Ok(self.changed())
    }

    fn role_revoke_permission(
        &mut self,
        role: &str,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Result<AuthOutcome, AuthError> {
        let role = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
        let before = role.permissions.len();
        role.permissions.retain(|given| given.key != *key || given.range_end != *range_end);
        if role.permissions.len() == before {
            return Err(AuthError::PermissionNotGranted);
        }
        Ok(self.changed())
    }
}

impl Permission {
    /// Whether it can be about a key at all (`isValidPermissionRange`).
    fn is_valid(&self) -> bool {
        !self.key.is_empty() && !self.range().is_empty()
    }
}
