//! What an engine has done since its start, as numbers that anyone may read while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use landbridge_kvstore_store::{OpResult, TxnResponse};
use openraft::async_runtime::watch::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::types::ServerMetrics;

/// The upper bounds of the buckets of durations in seconds, as etcd has them for its log: 1 ms, and twice as much each time.
pub const SYNC_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// A number that only grows, but for those that say otherwise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes from one that may sink.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// Adds one as long as what this returns is there, however that ends.
    pub(super) fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }

    /// What it says now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of what is counted while it lasts.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Counter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// Operations on keys, those of transactions included. As in etcd, what failed is not counted.
#[derive(Debug, Default)]
pub struct Operations {
    /// Puts; etcd's `etcd_mvcc_put_total`.
    pub puts: Counter,
    /// Deletions, however many keys each found; etcd's `etcd_mvcc_delete_total`.
    pub deletes: Counter,
    /// Reads; etcd's `etcd_mvcc_range_total`.
    pub ranges: Counter,
    /// Transactions of more than one operation; etcd's `etcd_mvcc_txn_total`.
    pub txns: Counter,
}

impl Operations {
    /// Notes what a command did.
    pub(super) fn note(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Put(_) => self.puts.add(1),
            Outcome::DeleteRange(_) => self.deletes.add(1),
            Outcome::Txn(response) => self.note_txn(response),
            Outcome::Compacted
            | Outcome::LeaseGranted
            | Outcome::LeaseRevoked
            | Outcome::Auth(_)
            | Outcome::MemberPublished
            | Outcome::Alarm(_) => {}
        }
    }

    /// Notes what a transaction did.
    pub fn note_txn(&self, response: &TxnResponse) {
        if self.note_branch(response) > 1 {
            self.txns.add(1);
        }
    }

    /// Notes the operations of a branch, and tells how many there were.
    fn note_branch(&self, response: &TxnResponse) -> u64 {
        let note = |result: &OpResult| {
            match result {
                OpResult::Range(_) => self.ranges.add(1),
                OpResult::Put(_) => self.puts.add(1),
                OpResult::Delete(_) => self.deletes.add(1),
                OpResult::Txn(inner) => return self.note_branch(inner),
            }
            1
        };
        response.responses.iter().map(|response| note(&response.result)).sum()
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Durations {
    /// How many were not longer than the bound of each bucket, and longer than the one before.
    pub buckets: [Counter; SYNC_BUCKETS.len()],
    /// How many there were, those beyond all buckets included.
    pub count: Counter,
    /// All of them together, in nanoseconds.
    pub sum_nanoseconds: Counter,
}

impl Durations {
    /// Notes one.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = SYNC_BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get(bucket)) {
            bucket.add(1);
        }
        self.count.add(1);
        self.sum_nanoseconds.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What an engine counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Syncs of the log; etcd's `etcd_disk_wal_fsync_duration_seconds`.
    pub log_syncs: Durations,
    /// Bytes written to the log; etcd's `etcd_disk_wal_write_bytes`.
    pub log_bytes: Counter,
    /// Requests that are under way; may sink. etcd's `etcd_server_proposals_pending`.
    pub proposals_pending: Counter,
    /// Requests that were not taken, or of which it is not known; etcd's `etcd_server_proposals_failed_total`.
    pub proposals_failed: Counter,
    /// How often this member saw another one lead than before, or one where none did; etcd's
    /// `etcd_server_leader_changes_seen_total`.
    pub leader_changes: Counter,
    /// What was done with keys.
    pub operations: Operations,
    /// Requests that were applied, whoever made them.
    pub requests_applied: Counter,
    /// About how many bytes these requests have, keys and values.
    pub bytes_applied: Counter,
    /// Batches that were applied with these requests.
    pub batches_applied: Counter,
    /// Applying of what was committed, each time a turn of it; beside etcd's `etcd_disk_backend_commit_duration_seconds`.
    pub applies: Durations,
    /// Snapshots that were written; with their durations, as in `etcd_debugging_snap_save_total_duration_seconds`.
    pub snapshots: Durations,
    /// Snapshots that could not be written at first, for want of room for example.
    pub snapshots_failed: Counter,
}

impl Counters {
    /// Notes a frame of the log.
    pub(super) fn synced(&self, duration: Duration, bytes: usize) {
        self.log_syncs.observe(duration);
        self.log_bytes.add(bytes as u64);
    }
}

/// Counts the leaders that this member sees, until `stop`. Leaders that come and go before it looks are not seen.
pub(super) async fn count_leaders(
    mut metrics: ServerMetrics,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    let counting = async {
        let mut last = None;
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if leader.is_some() && leader != last {
                counters.leader_changes.add(1);
            }
            last = leader;
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = counting => {}
    }
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::{DeleteResponse, OpResponse, PutResponse, RangeResponse};

    use super::*;

    #[test]
    fn a_transaction_is_one_from_two_operations_on_and_its_operations_count() {
        let response = |results: Vec<OpResult>| TxnResponse {
            succeeded: true,
            responses: results.into_iter().map(|result| OpResponse { revision: 2, result }).collect(),
        };
        let put = || OpResult::Put(PutResponse::default());
        let operations = Operations::default();
        for outcome in [
            Outcome::Put(PutResponse::default()),
            Outcome::Compacted,
            Outcome::Txn(response(vec![put()])),
            Outcome::Txn(response(Vec::new())),
            Outcome::Txn(response(vec![
                OpResult::Range(RangeResponse::default()),
                OpResult::Txn(response(vec![put(), OpResult::Delete(DeleteResponse::default())])),
            ])),
        ] {
            operations.note(&outcome);
        }
        let Operations { puts, deletes, ranges, txns } = &operations;
        assert_eq!([puts, deletes, ranges, txns].map(Counter::get), [3, 1, 1, 1]);
    }

    #[test]
    fn what_is_under_way_is_no_longer_counted_when_it_is_given_up() {
        let pending = Counter::default();
        let (one, other) = (pending.hold(), pending.hold());
        assert_eq!(pending.get(), 2);
        drop((one, other));
        assert_eq!(pending.get(), 0);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for micros in [1, 1_000, 1_001, 9_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = durations.buckets.iter().map(Counter::get).collect();
        assert_eq!((counts[0], counts[1], counts[2..].iter().sum::<u64>()), (2, 1, 0));
        assert_eq!((durations.count.get(), durations.sum_nanoseconds.get()), (4, 9_002_002_000));
    }
}
