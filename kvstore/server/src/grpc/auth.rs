//! Users and roles, as etcd lets them be changed at run time. Where rules are set by the program, this API says so.

mod passwords;
mod users;

pub(super) use passwords::Passwords;

use landbridge_kvstore_store::auth::{AuthChange, AuthError};
use tonic::{Request, Response, Status};

use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use users::{permission_from_proto, permission_to_proto};

/// The answer to a change, which has a header alone.
macro_rules! changed {
    ($response:ident, $header:expr) => {
        Ok(Response::new(pb::$response { header: Some($header) }))
    };
}

#[tonic::async_trait]
impl pb::auth_server::Auth for Service {
    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        if self.gate().options().is_none() {
            let header = Some(self.header_now());
            return Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 0 }));
        }
        let look = self.look_at_users(&request, |auth, by| {
            auth.check_root(by).map(|()| (auth.is_enabled(), auth.revision()))
        });
        let (header, (enabled, auth_revision)) = look.await?;
        Ok(Response::new(pb::AuthStatusResponse { header: Some(header), enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let Some(options) = self.gate().options() else {
            // Clients that were given a password go on without a token when they are told this.
            return Err(status::auth_refused(AuthError::NotEnabled));
        };
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let (header, token) = self.authenticated(name, password, options).await?;
        Ok(Response::new(pb::AuthenticateResponse { header: Some(header), token }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        if self.gate().options().is_none() {
            self.permissions(&Peer::of(request.extensions()))?.root()?;
            return changed!(AuthDisableResponse, self.header_now());
        }
        changed!(AuthDisableResponse, self.change(request, async |_, _| Ok(AuthChange::Disable)).await?)
    }

    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        changed!(AuthEnableResponse, self.change(request, async |_, _| Ok(AuthChange::Enable)).await?)
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let header = self.change(request, async |request, options| {
            let pb::AuthUserAddRequest { name, password, options: how, .. } = request;
            let no_password = how.is_some_and(|how| how.no_password);
            let password_hash =
                if no_password { bytes::Bytes::new() } else { self.hashed(password, options).await? };
            Ok(AuthChange::UserAdd { name, password_hash, no_password })
        });
        changed!(AuthUserAddResponse, header.await?)
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        self.auth_options(&request)?;
        let look = self.look_at_users(&request, |auth, by| {
            let name = &request.get_ref().name;
            // Everyone may know its own roles.
            auth.check_root(by).or_else(|refused| if name == by { Ok(()) } else { Err(refused) })?;
            let user = auth.user(name).ok_or(AuthError::UserNotFound)?;
            Ok(user.roles.iter().cloned().collect())
        });
        let (header, roles) = look.await?;
        Ok(Response::new(pb::AuthUserGetResponse { header: Some(header), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        self.auth_options(&request)?;
        let look = self.look_at_users(&request, |auth, by| {
            auth.check_root(by).map(|()| auth.users().map(|(name, _)| name.to_owned()).collect())
        });
        let (header, users) = look.await?;
        Ok(Response::new(pb::AuthUserListResponse { header: Some(header), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header =
            self.change(request, async |request, _| Ok(AuthChange::UserDelete { name: request.name }));
        changed!(AuthUserDeleteResponse, header.await?)
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let header = self.change(request, async |request, options| {
            let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request;
            let password_hash = self.rehashed(password, hashed_password, options).await?;
            Ok(AuthChange::UserChangePassword { name, password_hash })
        });
        changed!(AuthUserChangePasswordResponse, header.await?)
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let header = self.change(request, async |request, _| {
            Ok(AuthChange::UserGrantRole { user: request.user, role: request.role })
        });
        changed!(AuthUserGrantRoleResponse, header.await?)
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let header = self.change(request, async |request, _| {
            Ok(AuthChange::UserRevokeRole { user: request.name, role: request.role })
        });
        changed!(AuthUserRevokeRoleResponse, header.await?)
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = self.change(request, async |request, _| Ok(AuthChange::RoleAdd { name: request.name }));
        changed!(AuthRoleAddResponse, header.await?)
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        self.auth_options(&request)?;
        let look = self.look_at_users(&request, |auth, by| {
            let name = &request.get_ref().role;
            // Everyone may know what its own roles are.
            let is_own = auth.user(by).is_some_and(|user| user.roles.contains(name));
            auth.check_root(by).or_else(|refused| if is_own { Ok(()) } else { Err(refused) })?;
            let role = auth.role(name).ok_or(AuthError::RoleNotFound)?;
            Ok(role.permissions.iter().map(permission_to_proto).collect())
        });
        let (header, perm) = look.await?;
        Ok(Response::new(pb::AuthRoleGetResponse { header: Some(header), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        self.auth_options(&request)?;
        let look = self.look_at_users(&request, |auth, by| {
            auth.check_root(by).map(|()| auth.roles().map(|(name, _)| name.to_owned()).collect())
        });
        let (header, roles) = look.await?;
        Ok(Response::new(pb::AuthRoleListResponse { header: Some(header), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header =
            self.change(request, async |request, _| Ok(AuthChange::RoleDelete { name: request.role }));
        changed!(AuthRoleDeleteResponse, header.await?)
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let header = self.change(request, async |request, _| {
            let permission = request.perm.map(permission_from_proto);
            Ok(AuthChange::RoleGrantPermission { role: request.name, permission })
        });
        changed!(AuthRoleGrantPermissionResponse, header.await?)
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let header = self.change(request, async |request, _| {
            let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request;
            Ok(AuthChange::RoleRevokePermission { role, key, range_end })
        });
        changed!(AuthRoleRevokePermissionResponse, header.await?)
    }
}
