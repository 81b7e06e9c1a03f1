//! The copy of a peer while it is kept: what its mirror says, and how much of that is written.

use futures_util::FutureExt;
use landbridge_kvstore_client::{Feed, FeedEvent, Write};
use landbridge_kvstore_schema::{Capabilities, ClusterConfig, EndpointSlicesExportMode};

use super::super::mirror::{Counts, Mirror};

/// How many changes go into the own store at once.
const BATCH: usize = 256;

/// The copy of a peer while it is kept.
pub(super) struct Copy {
    pub(super) mirror: Mirror,
    /// The peer's config as agents of this cluster read it.
    pub(super) config: Vec<u8>,
    /// Changes that are not written yet.
    pub(super) pending: Vec<Write>,
    /// Up to which revision of the peer's store `mirror` is.
    pub(super) position: i64,
    pub(super) list: List,
    pub(super) is_pass_due: bool,
    pub(super) may_write: bool,
    /// How many changes the counts have in them that are shown.
    pub(super) shown_changes: u64,
}

/// What is known of the list of the peer's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// A part of it may be missing.
    Coming,
    /// All of it is there.
    Whole,
    /// All of it is there, but the peer's store was out of sight and may not be what it was.
    InDoubt,
}

impl Copy {
    pub(super) fn new(mirror: Mirror, config: &ClusterConfig) -> Self {
        let config = mirrored_config(config).encode();
        let (list, is_pass_due, may_write) = (List::Coming, true, true);
        Self {
            mirror,
            config,
            pending: Vec::new(),
            position: 0,
            list,
            is_pass_due,
            may_write,
            shown_changes: 0,
        }
    }

    pub(super) fn take(&mut self, event: FeedEvent) {
        let (writes, revision) = match event {
            FeedEvent::Upsert(record) => (self.mirror.upsert(&record.key, record.value), record.mod_revision),
            FeedEvent::Delete { key, revision } => (self.mirror.delete(&key), revision),
            FeedEvent::Synced { revision } => {
                if self.list == List::Coming {
                    self.list = List::Whole;
                }
                self.position = revision; // a store that was made anew counts from the start
                return;
            }
            FeedEvent::Progress { revision } => (Vec::new(), revision),
            // The probe says what is wrong.
            FeedEvent::Lost { .. } => {
                if self.list == List::Whole {
                    self.list = List::InDoubt;
                }
                return;
            }
        };
        // The first list comes in the order of its keys, not in that of revisions: nothing is sure before its end.
        if self.list != List::Coming {
            self.position = self.position.max(revision);
        }
        // Until the list is whole, a full pass is due, which brings everything.
        if !self.is_pass_due {
            self.pending.extend(writes);
        }
    }

    /// What is taken and what is refused, if that has changed since it was asked last.
    pub(super) fn changed_counts(&mut self) -> Option<Counts> {
        let changes = self.mirror.changes();
        (std::mem::replace(&mut self.shown_changes, changes) != changes).then(|| self.mirror.counts())
    }

    /// Takes what has arrived already, so that a burst of changes is few requests.
    pub(super) fn take_waiting(&mut self, feed: &mut Feed) {
        while self.pending.len() < BATCH {
            let Some(Some(event)) = feed.next().now_or_never() else { return };
            self.take(event);
        }
    }
}

/// What agents of this cluster are told of a peer: its records are in the cache, and only of the kinds that are taken.
fn mirrored_config(config: &ClusterConfig) -> ClusterConfig {
    ClusterConfig {
        id: config.id,
        capabilities: Capabilities {
            synced_canaries: true,
            cached: true,
            max_connected_clusters: config.capabilities.max_connected_clusters,
            service_exports_enabled: None,
            endpoint_slices_export_mode: EndpointSlicesExportMode::ServicesOnly,
        },
    }
}
