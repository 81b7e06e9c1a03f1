//! When a snapshot is taken, and how much of the log before it is kept.
//!
//! A snapshot costs as much as the whole store, whatever has changed since the last one: so there is one when the log has
//! grown by a part of that, and not for a few small entries. It costs no pause: it is written from a copy of that moment.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::log::SharedLog;
use super::state_machine::Snapshots;
use super::types::Raft;

/// Bytes of log from which on a snapshot is due, even if they are few requests.
const LOG_BYTES: u64 = 64 << 20;
/// The part of the last snapshot's length that the log has to reach before the next one.
const PART: u64 = 4;
/// How long to wait between looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of log before a snapshot that are kept, for members that are a little behind.
const KEPT_BYTES: usize = 4 << 20;

/// What has been applied, as far as a snapshot has it.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    requests: u64,
    bytes: u64,
}

impl Done {
    fn now(counters: &Counters) -> Self {
        Self { requests: counters.requests_applied.get(), bytes: counters.bytes_applied.get() }
    }

    /// Whether the log since `last` is worth a snapshot.
    fn is_due(self, last: Self, snapshot_requests: u64, snapshot_bytes: u64) -> bool {
        let (requests, bytes) = (self.requests - last.requests, self.bytes - last.bytes);
        let is_long = requests >= snapshot_requests || bytes >= LOG_BYTES;
        is_long && bytes.saturating_mul(PART) >= snapshot_bytes
    }
}

/// Has snapshots taken, one at a time, until `stop`.
pub(super) async fn run(
    raft: Raft,
    log: SharedLog,
    snapshots: Snapshots,
    mut applied: watch::Receiver<u64>,
    snapshot_requests: u64,
    stop: CancellationToken,
) {
    let taking = async {
        let mut newest = snapshots.newest.subscribe();
        // What is in the log at the start counts as new: it is read at each start.
        let mut last = Done::default();
        loop {
            let now = Done::now(&snapshots.counters);
            if now.is_due(last, snapshot_requests, snapshots.bytes()) {
                let index = *applied.borrow_and_update();
                if raft.trigger().snapshot().await.is_err()
                    || newest.wait_for(|taken| *taken >= index).await.is_err()
                {
                    return;
                }
                last = now;
                let upto = purgeable(&log, *newest.borrow(), snapshot_requests);
                if let Some(upto) = upto
                    && raft.trigger().purge_log(upto).await.is_err()
                {
                    return;
                }
                continue;
            }
            // As it is for a part of a store, a moment more does not matter; each look costs whoever writes a wake.
            sleep(PAUSE).await;
            if applied.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = taking => {}
    }
}

/// The last entry that is not kept behind a snapshot of all up to `snapshot`.
fn purgeable(log: &SharedLog, snapshot: u64, snapshot_requests: u64) -> Option<u64> {
    let log = log.lock();
    let (mut bytes, mut requests) = (0, 0);
    let mut entries = log.sizes(..=snapshot).rev();
    let last = entries.find(|(_, size)| {
        bytes += size.bytes;
        requests += size.requests;
        bytes > KEPT_BYTES || requests > snapshot_requests / 10
    });
    last.map(|(log_id, _)| log_id.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_the_log_has_grown_by_a_part_of_it() {
        let done = |requests, bytes| Done { requests, bytes };
        let none = Done::default();
        assert!(!done(9, 1 << 20).is_due(none, 10, 0));
        assert!(done(10, 100).is_due(none, 10, 400));
        // A large store is not written for a few small entries.
        assert!(!done(10, 100).is_due(none, 10, 401));
        assert!(!done(1_000, 50 << 20).is_due(none, 10, 250 << 20));
        assert!(done(1_000, 63 << 20).is_due(none, 10, 250 << 20));
        // Few large entries count by their bytes.
        assert!(done(2, LOG_BYTES).is_due(none, 10_000, 0));
        assert!(!done(12, 100).is_due(done(10, 50), 10, 0));
    }
}
