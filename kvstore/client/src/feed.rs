//! The content of a prefix and every change of it, from list and watch.
//!
//! ```text
//! store ── pages, watch ──► task: FeedState decides ── bounded queue ──► Feed::next
//! ```
//!
//! When the queue is full the task waits, and stops reading: the store then keeps what follows in its history.

mod state;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug_span, info};

use self::state::{FeedState, Input, Step};
use self::watch::Watch;
use crate::backoff::delay;
use crate::client::KvClient;
use crate::error::ClientError;
use crate::key_range::KeyRange;
use crate::key_value::KeyValue;

/// Events that wait for their receiver, a little more than a page of them.
const QUEUE_LEN: usize = 512;

/// One thing that a [`Feed`] tells.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    /// A key has this value now.
    Upsert(KeyValue),
    /// A key is gone.
    Delete {
        /// The key, which was told of before.
        key: String,
        /// The revision that deleted it or, where history is lost, the one that shows it gone.
        revision: i64,
    },
    /// The keys told of are those of the store at `revision`. Comes after the first list, and after each list that had
    /// to be made again because history was lost.
    Synced {
        /// The revision of the list.
        revision: i64,
    },
    /// The store was at `revision`, and every change up to it was told. Comes at least every 15 seconds or so while all
    /// is well and quiet, or as often as [`KvClient::feed_with_progress`] asks, and soon after an outage.
    ///
    /// An etcd before 3.5.13 may say so a little before the changes.
    Progress {
        /// The revision.
        revision: i64,
    },
    /// The store cannot be read, told once per outage. The feed goes on by itself; what was told may be outdated until
    /// the next event of another kind.
    Lost {
        /// Why.
        error: ClientError,
    },
}

/// The content of a prefix and every change of it, see [`KvClient::feed`]. Dropping it ends its task.
#[derive(Debug)]
pub struct Feed {
    events: mpsc::Receiver<FeedEvent>,
    _task: AbortOnDropHandle<()>,
}

impl Feed {
    /// The next event. Nothing only if the runtime shuts down. Cancel safe.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        self.events.recv().await
    }
}

/// A silent watch is asked for its progress after this long.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Starts a feed that asks for progress when nothing was told for `silence`.
pub(crate) fn start(client: KvClient, prefix: &str, silence: Duration) -> Feed {
    let (sender, events) = mpsc::channel(QUEUE_LEN);
    let rng = client.requests().connections.fork_rng();
    let source = Source { client, prefix: prefix.to_owned(), range: KeyRange::of_prefix(prefix), silence };
    let task = source.run(sender, rng).instrument(debug_span!("feed", prefix));
    Feed { events, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
}

/// What a feed reads.
struct Source {
    client: KvClient,
    prefix: String,
    range: KeyRange,
    silence: Duration,
}

impl Source {
    /// Runs until the receiver is gone.
    async fn run(self, events: mpsc::Sender<FeedEvent>, mut rng: Rng) {
        let prefix = &self.prefix;
        let mut state = FeedState::new();
        let mut watch = None;
        loop {
            let step = state.step();
            let input = self.act(step, &mut watch).await.unwrap_or_else(|error| match error {
                ClientError::RevisionGone { .. } => Input::Forgotten,
                error => Input::Lost(error),
            });
            let ends_watch = matches!(input, Input::Lost(_) | Input::Forgotten);
            let failures = state.failures();
            for event in state.handle(input) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            let relists = watch.is_some() && matches!(state.step(), Step::List(_));
            if relists {
                info!(prefix, "the watched history is lost, listing again");
            }
            if ends_watch || relists {
                watch = None;
            }
            if state.failures() > failures {
                tokio::time::sleep(delay(state.failures(), rng.f64())).await;
            }
        }
    }

    async fn act(&self, step: Step, watch: &mut Option<Watch>) -> Result<Input, ClientError> {
        let Self { client, prefix, range, silence } = self;
        match (step, watch) {
            (Step::List(position), _) => Ok(Input::Page(client.page(prefix, range, position).await?)),
            (Step::Watch { .. }, Some(watch)) => watch.next(client.requests()).await,
            (Step::Watch { from }, watch) => {
                let opened = Watch::open(client.requests(), prefix, range, from, *silence).await?;
                watch.insert(opened).next(client.requests()).await
            }
        }
    }
}
