//! What an engine has done since its start, as numbers that anyone may read while it works.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

    /// What it says now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use super::*;

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
