//! Keys that are there as long as somebody keeps them: under a lease, and put again whenever they are gone.
//!
//! ```text
//! wanted ──┐
//!          ├─► plan: what to write ─► the store, with the lease ──┐
//! feed ────┘   (pure)                                             │
//!   ▲─────────────── what is there, whoever wrote it ─────────────┘
//! ```
//!
//! Invariants:
//! - What the feed shows decides, not what was written: a key that anyone deletes or that went with a lease is put again, and
//!   so are all keys if the store was replaced by another.
//! - What others write to the same keys is written over once a second at most.

mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug_span, info, warn};

use self::plan::Seen;
use crate::backoff::delay;
use crate::client::KvClient;
use crate::error::ClientError;
use crate::feed::Feed;
use crate::lease::LeaseKeeper;

/// Time between two writes that nobody asked for.
const REPAIR_INTERVAL: Duration = Duration::from_secs(1);

/// Keys under a prefix that are kept, see [`KvClient::keep_keys`]. Dropping it ends its task; the keys then expire with their
/// lease.
#[derive(Debug)]
pub struct KeptKeys {
    prefix: String,
    wanted: watch::Sender<Wanted>,
    kept: watch::Receiver<Option<u64>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), ClientError>>,
}

/// Keys with their values.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// Counts the changes.
    version: u64,
    keys: BTreeMap<String, Vec<u8>>,
}

impl KeptKeys {
    pub(crate) fn start(client: KvClient, prefix: &str, ttl: Duration) -> Self {
        let (wanted, wants) = watch::channel(Wanted::default());
        let (keeps, kept) = watch::channel(None);
        let stop = CancellationToken::new();
        let feed = client.feed(prefix);
        let rng = client.requests().connections.fork_rng();
        let seen = Seen::default();
        let keeper = Keeper { client, feed, rng, ttl, wants, keeps, seen, lease: None, failures: 0 };
        let task = keeper.run(stop.clone()).instrument(debug_span!("kept keys", prefix));
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        Self { prefix: prefix.to_owned(), wanted, kept, stop, task }
    }

    /// Keeps the key that has `name` behind the prefix, with this value from now on.
    pub fn set(&self, name: &str, value: impl Into<Vec<u8>>) {
        let key = format!("{}{name}", self.prefix);
        self.change(|keys| drop(keys.insert(key, value.into())));
    }

    /// Deletes the key that has `name` behind the prefix, if it is kept.
    pub fn remove(&self, name: &str) {
        let key = format!("{}{name}", self.prefix);
        self.change(|keys| drop(keys.remove(&key)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        self.wanted.send_modify(|wanted| {
            wanted.version += 1;
            change(&mut wanted.keys);
        });
    }

    /// Resolves when the store was seen to have all that was set before this call, and nothing that was removed. Cancel safe.
    pub async fn kept(&mut self) {
        let version = self.wanted.borrow().version;
        // The sender is gone only if the runtime shuts down.
        let _ = self.kept.wait_for(|kept| kept.is_some_and(|kept| kept >= version)).await;
    }

    /// Deletes all of the keys at one revision, by revoking their lease.
    ///
    /// # Errors
    /// [`ClientError`] if the store does not confirm it; the keys then expire with their lease.
    pub async fn withdraw(self) -> Result<(), ClientError> {
        self.stop.cancel();
        // It ends by itself, or with the runtime.
        self.task.await.unwrap_or(Ok(()))
    }
}

/// The task behind.
struct Keeper {
    client: KvClient,
    feed: Feed,
    rng: Rng,
    ttl: Duration,
    wants: watch::Receiver<Wanted>,
    /// The version of what is wanted that is there; nothing while something is missing.
    keeps: watch::Sender<Option<u64>>,
    seen: Seen,
    lease: Option<LeaseKeeper>,
    failures: u32,
}

impl Keeper {
    /// # Errors
    /// If the lease cannot be revoked at the end.
    async fn run(mut self, stop: CancellationToken) -> Result<(), ClientError> {
        let mut not_before = Instant::now();
        let mut is_asked = true;
        loop {
            let wanted = self.wants.borrow_and_update().clone();
            let lease = self.lease.as_ref().map(LeaseKeeper::id);
            let writes = self.seen.is_whole.then(|| self.seen.plan(&wanted.keys, lease));
            let is_due = match &writes {
                None => false,
                Some(writes) if writes.is_empty() => {
                    self.keeps.send_replace(Some(wanted.version));
                    false
                }
                Some(_) => {
                    self.keeps.send_replace(None);
                    true
                }
            };
            if is_due && (is_asked && self.failures == 0 || Instant::now() >= not_before) {
                let pause = match self.write(&wanted).await {
                    Ok(()) => REPAIR_INTERVAL,
                    Err(error) => {
                        if self.failures == 0 {
                            warn!(
                                error = &error as &dyn std::error::Error,
                                "keys are not kept, trying again"
                            );
                        }
                        self.failures = self.failures.saturating_add(1);
                        delay(self.failures, self.rng.f64())
                    }
                };
                not_before = Instant::now() + pause;
            }
            is_asked = false;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.wants.changed() => match changed {
                    Ok(()) => is_asked = true,
                    Err(_) => break,
                },
                () = lost(&mut self.lease) => {
                    self.lease = None;
                    is_asked = true;
                }
                event = self.feed.next() => match event {
                    Some(event) => self.seen.take(event),
                    None => return Ok(()),
                },
                () = sleep_until(not_before), if is_due => {}
            }
        }
        match self.lease.take() {
            Some(lease) => lease.revoke().await,
            None => Ok(()),
        }
    }

    /// Writes what is missing, under a lease that lives.
    async fn write(&mut self, wanted: &Wanted) -> Result<(), ClientError> {
        let lease = match &self.lease {
            Some(lease) => lease.id(),
            None => self.lease.insert(self.client.keep_lease(self.ttl).await?).id(),
        };
        let writes = self.seen.plan(&wanted.keys, Some(lease));
        let count = writes.len();
        let written = self.client.apply_with_lease(writes, lease).await;
        if matches!(written, Err(ClientError::LeaseNotFound { .. })) {
            self.lease = None;
        }
        written?;
        self.seen.own(wanted.keys.keys());
        if std::mem::take(&mut self.failures) > 0 {
            info!(writes = count, "keys are kept again");
        }
        Ok(())
    }
}

/// Resolves when there is a lease and it is lost.
async fn lost(lease: &mut Option<LeaseKeeper>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}
