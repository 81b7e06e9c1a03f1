//! From whoever is at the other end of a connection to what it may do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use landbridge_kvstore_store::auth::AuthStore;
use tokio::sync::watch;

use super::{Access, AccessError, AccessRules, AuthOptions, Permissions};
use crate::auth_token::AuthToken;
use crate::engine::Engine;
use crate::grpc::Peer;

/// Users whose permissions are kept. Whoever the CA has signed for is one, so that there has to be a limit.
const KEPT_USERS: usize = 4096;

/// A user by name; none has no certificate and no token.
type User = Option<Arc<str>>;

/// Knows what each peer may do.
#[derive(Debug)]
pub(crate) struct Gate {
    engine: Engine,
    options: Option<AuthOptions>,
    known: Mutex<Known>,
}

/// What was worked out, by the version of what it is worked out from.
#[derive(Debug)]
struct Known {
    source: Source,
    by_user: HashMap<User, Result<Arc<Permissions>, AccessError>>,
}

#[derive(Clone, Debug)]
enum Source {
    Rules(watch::Receiver<AccessRules>),
    Store(watch::Receiver<Arc<AuthStore>>),
}

/// Who somebody is, as far as rights go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    user: User,
    /// The revision of users and roles that its token is of, if it says.
    revision: Option<u64>,
}

/// Tells when rights may have changed.
#[derive(Clone, Debug)]
pub(crate) struct Rights(Source);

impl Gate {
    pub(crate) fn new(access: Access, engine: Engine) -> Self {
        let (source, options) = match access {
            Access::Rules(rules) => (Source::Rules(rules), None),
            Access::Store(options) => (Source::Store(engine.auth()), Some(options)),
        };
        Self { engine, options, known: Mutex::new(Known { source, by_user: HashMap::new() }) }
    }

    /// How users prove who they are; nothing if rules say who may do what.
    pub(crate) fn options(&self) -> Option<&AuthOptions> {
        self.options.as_ref()
    }

    /// Who a peer is. A token goes before the certificate.
    ///
    /// # Errors
    /// [`AccessError::InvalidToken`]; the certificate does not help then.
    pub(crate) fn identify(&self, peer: &Peer) -> Result<Identity, AccessError> {
        let certified = Identity { user: peer.user.clone(), revision: None };
        let (Some(options), Some(token)) = (&self.options, &peer.token) else { return Ok(certified) };
        if !self.engine.auth().borrow().is_enabled() {
            return Ok(certified);
        }
        let (user, revision) = match &options.token {
            AuthToken::Simple => (self.engine.token_user(token), None),
            AuthToken::Jwt(jwt) => match jwt.verify(token) {
                Some(claims) => (Some(claims.user), Some(claims.revision)),
                None => (None, None),
            },
            AuthToken::None => (None, None),
        };
        match user {
            Some(user) => Ok(Identity { user: Some(user), revision }),
            None => Err(AccessError::InvalidToken),
        }
    }

    /// What somebody may do by what counts at this moment.
    ///
    /// # Errors
    /// [`AccessError`] if that is nothing at all.
    pub(crate) fn permissions(&self, identity: &Identity) -> Result<Arc<Permissions>, AccessError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let permissions = known.permissions(&identity.user)?;
        // The version of what has no rights to speak of is below every token's.
        if identity.revision.is_some_and(|revision| revision < permissions.version()) {
            return Ok(Arc::new(Permissions::clone(&permissions).stale()));
        }
        Ok(permissions)
    }

    /// As [`Gate::permissions`], whatever users and roles the token is of.
    pub(crate) fn permissions_by_name(&self, identity: &Identity) -> Result<Arc<Permissions>, AccessError> {
        self.permissions(&Identity { revision: None, ..identity.clone() })
    }

    /// When rights may have changed.
    pub(crate) fn rights(&self) -> Rights {
        Rights(self.known.lock().unwrap_or_else(PoisonError::into_inner).source.clone())
    }
}

impl Identity {
    /// Its name; empty without one.
    pub(crate) fn name(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }
}

impl Known {
    fn permissions(&mut self, user: &User) -> Result<Arc<Permissions>, AccessError> {
        let Self { source, by_user } = self;
        let mut kept = |is_new: bool, work_out: &dyn Fn() -> Result<Permissions, AccessError>| {
            if is_new || by_user.len() >= KEPT_USERS {
                by_user.clear();
            }
            if let Some(permissions) = by_user.get(user) {
                return permissions.clone();
            }
            let permissions = work_out().map(Arc::new);
            by_user.insert(user.clone(), permissions.clone());
            permissions
        };
        match source {
            Source::Rules(rules) => {
                let rules = rules.borrow_and_update();
                kept(rules.has_changed(), &|| rules.of(user.as_deref()))
            }
            Source::Store(auth) => {
                let auth = auth.borrow_and_update();
                kept(auth.has_changed(), &|| match user {
                    None if auth.is_enabled() => Err(AccessError::Anonymous),
                    user => Ok(Permissions::by_store(&auth, user.as_deref().unwrap_or_default())),
                })
            }
        }
    }
}

impl Rights {
    /// Whether rights may have changed since this was last asked.
    pub(crate) fn have_changed(&mut self) -> bool {
        match &mut self.0 {
            Source::Rules(rules) => rules.borrow_and_update().has_changed(),
            Source::Store(auth) => auth.borrow_and_update().has_changed(),
        }
    }

    /// Waits until rights may have changed. Never comes back if they no longer can.
    pub(crate) async fn changed(&mut self) {
        let changed = match &mut self.0 {
            Source::Rules(rules) => rules.changed().await,
            Source::Store(auth) => auth.changed().await,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
