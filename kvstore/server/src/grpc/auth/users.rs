//! Users and roles in the store: who asks is looked up here, and whether it may where the change is applied.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use landbridge_kvstore_store::Store;
use landbridge_kvstore_store::auth::{
    AuthChange, AuthCommand, AuthError, AuthOutcome, AuthStore, Permission, PermissionKind,
};
use tonic::{Request, Status};

use super::super::proto::{authpb, etcdserverpb as pb};
use super::super::service::{Peer, Service};
use super::super::status;
use crate::access::AuthOptions;
use crate::auth_token::{AuthToken, draw_secret};
use crate::engine::{Command, Outcome};

/// What rules that are set elsewhere leave to say.
pub(super) fn configured() -> Status {
    status::unimplemented("users and their rights are configured, and not changed through this API")
}

impl Service {
    /// How users prove who they are, if users are in the store. If not, whoever has all rights is told so.
    pub(super) fn auth_options<T>(&self, request: &Request<T>) -> Result<&AuthOptions, Status> {
        if let Some(options) = self.gate().options() {
            return Ok(options);
        }
        self.permissions(&Peer::of(request.extensions()))?.root()?;
        Err(configured())
    }

    /// The name of whoever asks; empty without one, or while nobody is asked for it.
    async fn name_of(&self, peer: &Peer) -> Result<String, Status> {
        let identity = match self.gate().identify(peer) {
            // The token may have been given elsewhere a moment ago.
            Err(_) => {
                self.engine().read_barrier().await?;
                self.gate().identify(peer)?
            }
            Ok(identity) => identity,
        };
        Ok(identity.name().to_owned())
    }

    /// Has users or roles changed.
    pub(super) async fn change<T>(
        &self,
        request: Request<T>,
        change: impl AsyncFnOnce(T, &AuthOptions) -> Result<AuthChange, Status>,
    ) -> Result<pb::ResponseHeader, Status> {
        let options = self.auth_options(&request)?;
        let by = self.name_of(&Peer::of(request.extensions())).await?;
        let is_root = || self.engine().auth().borrow().check_root(&by);
        // Who may not is told here, so that it costs others nothing; by what is so everywhere, so that nobody is wrongly.
        if is_root().is_err() {
            self.engine().read_barrier().await?;
            is_root().map_err(status::auth_refused)?;
        }
        let change = change(request.into_inner(), options).await?;
        let (header, _) = self.carry_out(Command::Auth(AuthCommand { by, change }), 0).await?;
        Ok(header)
    }

    /// Looks at users and roles as they are, for somebody who may.
    pub(super) async fn look_at_users<T, R>(
        &self,
        request: &Request<T>,
        look: impl FnOnce(&AuthStore, &str) -> Result<R, AuthError>,
    ) -> Result<(pb::ResponseHeader, R), Status> {
        let by = self.name_of(&Peer::of(request.extensions())).await?;
        self.engine().read_barrier().await?;
        let (revision, found) =
            self.engine().read_state(|store, auth| (Store::revision(store), look(auth, &by)));
        Ok((self.header(revision), found.map_err(status::auth_refused)?))
    }

    /// What is kept of a new user's password.
    pub(super) async fn hashed(&self, password: String, options: &AuthOptions) -> Result<Bytes, Status> {
        self.passwords().hash(password, options.bcrypt_cost).await
    }

    /// What is kept of a changed password. A client may give the hash instead, in base64.
    pub(super) async fn rehashed(
        &self,
        password: String,
        hash: String,
        options: &AuthOptions,
    ) -> Result<Option<Bytes>, Status> {
        if password.is_empty() {
            return Ok(STANDARD.decode(hash).ok().map(Bytes::from));
        }
        self.hashed(password, options).await.map(Some)
    }

    /// Takes a password and gives a token.
    pub(super) async fn authenticated(
        &self,
        name: String,
        password: String,
        options: &AuthOptions,
    ) -> Result<(pb::ResponseHeader, String), Status> {
        self.engine().read_barrier().await?;
        loop {
            let auth = self.engine().auth().borrow().clone();
            if !auth.is_enabled() {
                return Err(status::auth_refused(AuthError::NotEnabled));
            }
            let failed = || status::auth_refused(AuthError::AuthenticationFailed);
            let user = auth.user(&name).ok_or_else(failed)?;
            if user.no_password {
                return Err(status::auth_refused(AuthError::NoPasswordUser));
            }
            if !self.passwords().fits(password.clone(), user.password_hash.clone()).await? {
                return Err(failed());
            }
            let answer = match &options.token {
                AuthToken::None => return Err(failed()),
                AuthToken::Jwt(jwt) => {
                    // Whoever can only check tokens gives none; etcd's text.
                    let token = jwt.sign(&name, auth.revision()).ok_or_else(|| {
                        Status::unknown("auth: token signing attempted with verify-only key")
                    })?;
                    (self.header_now(), token)
                }
                AuthToken::Simple => self.simple_token(&name).await?,
            };
            // The password may have been changed while it was looked at.
            if self.engine().auth().borrow().revision() == auth.revision() {
                return Ok(answer);
            }
        }
    }

    async fn simple_token(&self, name: &str) -> Result<(pb::ResponseHeader, String), Status> {
        let secret = draw_secret().map_err(|error| Status::internal(error.to_string()))?;
        let change = AuthChange::Authenticate { user: name.to_owned(), secret };
        let command = Command::Auth(AuthCommand { by: String::new(), change });
        match self.carry_out(command, 0).await? {
            (header, Outcome::Auth(AuthOutcome::Authenticated { token, .. })) => Ok((header, token)),
            (_, outcome) => {
                Err(Status::internal(format!("landbridge: the outcome is of another command: {outcome:?}")))
            }
        }
    }
}

pub(super) fn permission_from_proto(permission: authpb::Permission) -> Permission {
    let authpb::Permission { perm_type, key, range_end } = permission;
    Permission { kind: PermissionKind::of_number(perm_type), key, range_end }
}

pub(super) fn permission_to_proto(permission: &Permission) -> authpb::Permission {
    let Permission { kind, key, range_end } = permission;
    authpb::Permission { perm_type: kind.number(), key: key.clone(), range_end: range_end.clone() }
}
