//! A lease that a task keeps alive.
//!
//! Each renewal is a stream of its own with one question and one answer, so that a broken connection or another
//! endpoint makes no difference to it.

mod renewal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Error as LibraryError;
use fastrand::Rng;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use self::renewal::{Next, Renewal};
use crate::connection::Connection;
use crate::error::ClientError;
use crate::request::{Effect, Fault, Requests};

/// A lease and the task that renews it, see [`KvClient::keep_lease`](crate::KvClient::keep_lease). Dropping it ends the
/// task; the lease then expires by itself.
pub struct LeaseKeeper {
    id: i64,
    ttl: Duration,
    lost: CancellationToken,
    task: AbortOnDropHandle<()>,
    requests: Arc<Requests>,
}

impl std::fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseKeeper").field("id", &self.id).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl LeaseKeeper {
    /// The lease, for puts.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The time to live that the store granted.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Resolves when the lease is gone: the store says so, or its time is up without a renewal. In the second case the
    /// store may keep it for a little longer, never shorter. Cancel safe.
    pub async fn lost(&mut self) {
        self.lost.cancelled().await;
    }

    /// Revokes the lease: its keys are deleted at once. One that is gone already is fine.
    ///
    /// # Errors
    /// [`ClientError`] if the store does not confirm it; the lease then expires by itself.
    pub async fn revoke(self) -> Result<(), ClientError> {
        let Self { id, task, requests, .. } = self;
        drop(task);
        let send = |connection: Arc<Connection>| {
            let mut lease = connection.lease.clone();
            async move { Ok(lease.revoke(id).await.map(drop)?) }
        };
        match requests.call("lease revoke", &name(id), Effect::Writes, send).await {
            Err(ClientError::LeaseNotFound { .. }) => Ok(()),
            done => done,
        }
    }
}

/// As etcdctl prints it.
fn name(id: i64) -> String {
    format!("{id:x}")
}

/// Takes a lease and starts to keep it.
pub(crate) async fn grant(requests: Arc<Requests>, ttl: Duration) -> Result<LeaseKeeper, ClientError> {
    let whole_seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX);
    let send = |connection: Arc<Connection>| {
        let mut lease = connection.lease.clone();
        async move {
            let asked = Instant::now();
            let granted = lease.grant(whole_seconds, None).await?;
            let ttl = u64::try_from(granted.ttl()).ok().filter(|seconds| *seconds > 0);
            let ttl = ttl.ok_or(Fault::Malformed("it grants no time"))?;
            Ok((asked, granted.id(), Duration::from_secs(ttl)))
        }
    };
    let (asked, id, ttl) = requests.call("lease grant", "", Effect::Writes, send).await?;
    let lost = CancellationToken::new();
    let renewal = Renewal::new(ttl, asked);
    let rng = requests.connections.fork_rng();
    let task = tokio::spawn(keep(requests.clone(), id, renewal, rng, lost.clone().drop_guard()));
    Ok(LeaseKeeper { id, ttl, lost, task: AbortOnDropHandle::new(task), requests })
}

/// Renews the lease until it is lost. Its end, whatever the cause, says that it is.
async fn keep(requests: Arc<Requests>, id: i64, mut renewal: Renewal, mut rng: Rng, _tells_loss: DropGuard) {
    let lease = name(id);
    loop {
        match renewal.next(Instant::now()) {
            Next::RenewAt(at) => tokio::time::sleep_until(at.into()).await,
            Next::Lost => {
                warn!(lease, "no renewal of the lease came through in time: taken for expired");
                return;
            }
        }
        let asked = Instant::now();
        let deadline = renewal.deadline(asked).min(asked + requests.timeout);
        match renew(&requests, id, &lease, deadline).await {
            Ok(true) => renewal.renewed(asked),
            Ok(false) => {
                warn!(lease, "the store no longer has the lease");
                return;
            }
            Err(error) => {
                debug!(lease, error = &error as &dyn std::error::Error, "the lease was not renewed");
                renewal.failed(Instant::now(), rng.f64());
            }
        }
    }
}

/// Returns whether the lease still exists.
async fn renew(requests: &Requests, id: i64, name: &str, deadline: Instant) -> Result<bool, ClientError> {
    let send = |connection: Arc<Connection>| {
        let mut lease = connection.lease.clone();
        async move {
            match lease.keep_alive(id).await {
                Ok(_) => Ok(true),
                // What the library makes of an answer without time to live. Nothing else has this kind.
                Err(LibraryError::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(Fault::Library(error)),
            }
        }
    };
    requests.once("lease renewal", name, deadline.into(), send).await.map(|(exists, _)| exists)
}
