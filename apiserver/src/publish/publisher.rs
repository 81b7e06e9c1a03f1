//! The task that publishes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use landbridge_kvstore_client::{ClientError, KvClient};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lock::Lock;
use super::records::ClusterFacts;
use super::session::Session;
use super::state::PublisherState;
use crate::objects::Objects;

/// How long things take. The default is what a cluster runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the lock outlives a holder that is silent; whole seconds.
    pub lock_ttl: Duration,
    /// How long objects are left to change before they are looked at.
    pub debounce: Duration,
    /// How often everything is compared with the store.
    pub full_pass: Duration,
    /// How often the heartbeat is written; readers give up after 120 s without.
    pub heartbeat: Duration,
    /// How long to wait after the store failed.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lock_ttl: Duration::from_secs(3),
            debounce: Duration::from_millis(20),
            full_pass: Duration::from_mins(1),
            heartbeat: Duration::from_secs(30),
            retry: Duration::from_millis(500),
        }
    }
}

/// How long giving the lock back may take at the end; it ends by itself.
const RELEASE_DEADLINE: Duration = Duration::from_secs(1);

/// Publishes a cluster while this replica holds the lock.
#[derive(Debug)]
pub struct Publisher {
    client: KvClient,
    objects: watch::Receiver<Arc<Objects>>,
    facts: ClusterFacts,
    timing: Timing,
    state: watch::Sender<PublisherState>,
}

/// A publisher that runs until it is told to stop.
#[derive(Debug)]
pub struct PublisherHandle {
    state: watch::Receiver<PublisherState>,
    task: JoinHandle<()>,
}

impl PublisherHandle {
    /// How it is going, whenever that changes.
    pub fn state(&self) -> watch::Receiver<PublisherState> {
        self.state.clone()
    }

    /// Resolves when it has ended, which it does only if it is told to.
    pub async fn ended(self) {
        if let Err(error) = self.task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// Ends it without giving the lock back, as when the process is killed.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Publisher {
    /// Starts to publish what `objects` holds, as soon as the lock is free.
    pub fn spawn(
        client: KvClient,
        objects: watch::Receiver<Arc<Objects>>,
        facts: ClusterFacts,
        stop: CancellationToken,
    ) -> PublisherHandle {
        Self::spawn_timed(client, objects, facts, Timing::default(), stop)
    }

    /// The same with other times.
    pub fn spawn_timed(
        client: KvClient,
        objects: watch::Receiver<Arc<Objects>>,
        facts: ClusterFacts,
        timing: Timing,
        stop: CancellationToken,
    ) -> PublisherHandle {
        let (state, state_seen) = watch::channel(PublisherState::default());
        let publisher = Self { client, objects, facts, timing, state };
        PublisherHandle { state: state_seen, task: tokio::spawn(publisher.run(stop)) }
    }

    async fn run(mut self, stop: CancellationToken) {
        let holder = format!("{}-{:016x}", self.facts.origin.keyspace.cluster, fastrand::u64(..));
        loop {
            let acquired = Lock::acquire(&self.client, &holder, self.timing.lock_ttl);
            let mut lock = match stop.run_until_cancelled(acquired).await {
                None => return,
                Some(Ok(lock)) => lock,
                Some(Err(error)) => {
                    self.tell_failure(&error);
                    if stop.run_until_cancelled(sleep(self.timing.retry)).await.is_none() {
                        return;
                    }
                    continue;
                }
            };
            info!(holder, "this replica publishes");
            self.state.send_modify(|state| state.publishing = true);
            // Whatever of `publish` is under way when the lock is lost is dropped with it.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = lock.lost() => warn!("publisher lock lost"),
                never = self.publish() => match never {},
            }
            self.state.send_modify(|state| (state.publishing, state.synced) = (false, false));
            if stop.is_cancelled() {
                match timeout(RELEASE_DEADLINE, lock.release()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(error = describe(&error), "publisher lock not given back"),
                    Err(_) => warn!("publisher lock not given back in time"),
                }
                return;
            }
        }
    }

    /// Publishes for as long as it is polled, over failures of the store.
    async fn publish(&mut self) -> Infallible {
        loop {
            let session =
                Session::new(&self.client, &mut self.objects, &self.facts, self.timing, &self.state);
            let error = match session.run().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.tell_failure(&error);
            sleep(self.timing.retry).await;
        }
    }

    fn tell_failure(&self, error: &ClientError) {
        let error = describe(error);
        warn!(error, retry_in = ?self.timing.retry, "store not written");
        let problem = format!("{STORE_PROBLEM}: {error}");
        self.state.send_modify(|state| {
            state.synced = false;
            state.problems.retain(|problem| !problem.starts_with(STORE_PROBLEM));
            state.problems.push(problem);
        });
    }
}

const STORE_PROBLEM: &str = "the publisher cannot use the store, and tries again";

/// An error with all that caused it.
fn describe(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
