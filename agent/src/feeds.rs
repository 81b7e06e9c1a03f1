//! What the agent reads of its cluster's store.
//!
//! Every feed is a task that waits when the reconciler's queue is full, so that a flood slows the store's stream and
//! loses nothing.

use landbridge_kvstore_client::{FeedEvent, KvClient};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The prefixes. Health reports of other nodes are not among them: what a node can reach it probes itself.
pub(crate) const PREFIXES: [&str; 6] = [
    "cilium/cluster-config/",
    "cilium/synced/",
    "cilium/state/",
    "cilium/cache/",
    "landbridge/local/",
    "landbridge/shared/",
];

/// An event, with the position of its feed in [`PREFIXES`].
pub(crate) type NumberedEvent = (usize, FeedEvent);

/// Passes on what feed `number` tells, until `stop` or until nobody listens.
pub(crate) async fn run(
    client: KvClient,
    number: usize,
    events: mpsc::Sender<NumberedEvent>,
    stop: CancellationToken,
) {
    let mut feed = client.feed(PREFIXES[number]);
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = feed.next() => event,
        };
        let Some(event) = event else { return };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            sent = events.send((number, event)) => if sent.is_err() { return },
        }
    }
}
