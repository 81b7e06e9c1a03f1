//! The lock of the one replica that publishes: a key that exists for as long as its holder's lease.

use std::time::Duration;

use landbridge_kvstore_client::{ClientError, Creation, KvClient, LeaseKeeper};
use landbridge_kvstore_schema::PUBLISHER_LOCK;
use tokio::time::sleep;
use tracing::info;

/// How often whoever waits looks whether the lock is free. With the lease's time it bounds how long nobody publishes.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How often whoever holds the lock looks whether it still does.
const CHECK: Duration = Duration::from_secs(1);

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock {
    lease: LeaseKeeper,
    client: KvClient,
}

impl Lock {
    /// Waits until the lock is ours. `holder` is the key's value, for people who look at it.
    ///
    /// # Errors
    /// [`ClientError`] if the store does not answer; the lock may then be ours until its lease ends.
    pub(super) async fn acquire(client: &KvClient, holder: &str, ttl: Duration) -> Result<Self, ClientError> {
        let mut lease = client.keep_lease(ttl).await?;
        let id = lease.id();
        tokio::select! {
            taken = take(client, holder, id) => taken?,
            () = lease.lost() => return Box::pin(Self::acquire(client, holder, ttl)).await,
        }
        Ok(Self { lease, client: client.clone() })
    }

    /// Resolves when the lock is no longer ours: the lease is gone, which is known before somebody else can have it, or
    /// somebody deleted the key by hand, which is seen within a second.
    pub(super) async fn lost(&mut self) {
        let id = self.lease.id();
        tokio::select! {
            () = self.lease.lost() => {}
            () = taken_away(&self.client, id) => {}
        }
    }

    /// Gives the lock back, so that nobody has to wait for its lease to end.
    pub(super) async fn release(self) -> Result<(), ClientError> {
        self.lease.revoke().await
    }
}

async fn take(client: &KvClient, holder: &str, lease: i64) -> Result<(), ClientError> {
    let mut told = false;
    loop {
        // Reading first: a creation that fails would still cost the store a log entry.
        match client.get(PUBLISHER_LOCK).await? {
            // Ours: a creation whose answer was lost.
            Some(key_value) if key_value.lease == lease => return Ok(()),
            Some(key_value) if !told => {
                let other = String::from_utf8_lossy(&key_value.value).into_owned();
                info!(holder = other, "another replica publishes");
                told = true;
            }
            Some(_) => {}
            None => {
                if let Creation::Created { .. } = client.create(PUBLISHER_LOCK, holder, Some(lease)).await? {
                    return Ok(());
                }
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn taken_away(client: &KvClient, lease: i64) {
    loop {
        sleep(CHECK).await;
        // Without an answer the lease decides.
        if let Ok(found) = client.get(PUBLISHER_LOCK).await
            && found.is_none_or(|found| found.lease != lease)
        {
            return;
        }
    }
}
