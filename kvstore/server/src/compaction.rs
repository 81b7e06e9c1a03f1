//! Forgetting of history that no one needs any more, as etcd does it with `--auto-compaction-mode`.
//!
//! Every change stays in memory until it is forgotten. Watches that come back within the retention miss nothing; who stays
//! away for longer lists again.

use std::collections::VecDeque;
use std::time::Duration;

use landbridge_kvstore_store::Store;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::engine::{Command, Engine};

/// However short a retention is, others get a turn.
const SHORTEST: Duration = Duration::from_millis(1);
/// The time between two compactions is not longer than this, as in etcd.
const LONGEST: Duration = Duration::from_hours(1);
/// Looks at the revision between two compactions, as in etcd.
const LOOKS: u32 = 10;
/// How often the history is counted, as in etcd.
const COUNTED_EACH: Duration = Duration::from_mins(5);

/// How much history is kept; etcd's `--auto-compaction-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// What is not older than this, and up to an hour or once that time more. [`Duration::MAX`] keeps everything.
    Periodic(Duration),
    /// So many revisions before the current one, and what comes in five minutes. 0 or less keeps everything.
    Revision(i64),
}

/// Forgets what is to be, until it is dropped.
pub(crate) async fn compact(engine: &Engine, mode: CompactionMode) {
    match mode {
        CompactionMode::Periodic(Duration::MAX) | CompactionMode::Revision(..=0) => {}
        CompactionMode::Periodic(retention) => {
            let mut looks = Looks::new(retention);
            loop {
                sleep(looks.interval).await;
                if let Some(revision) = looks.look(engine.read(Store::revision)) {
                    compact_to(engine, revision).await;
                }
            }
        }
        CompactionMode::Revision(kept) => loop {
            sleep(COUNTED_EACH).await;
            compact_to(engine, engine.read(Store::revision).saturating_sub(kept)).await;
        },
    }
}

async fn compact_to(engine: &Engine, revision: i64) {
    // A quiet store is left alone. One member is enough; who is later finds that it is done.
    if revision <= engine.read(Store::compacted_revision).max(1) {
        return;
    }
    match engine.propose(Command::Compact { revision }).await {
        // Someone may have been faster, which is a refusal.
        Ok(applied) => debug!(revision, done = applied.outcome.is_ok(), "history compacted"),
        Err(error) => warn!(%error, "the history is not compacted now"),
    }
}

/// What the revision was, for as long as history is kept.
#[derive(Debug)]
struct Looks {
    /// Between two looks.
    interval: Duration,
    /// How many there are in the time that is kept.
    kept: usize,
    revisions: VecDeque<i64>,
    since_compaction: u32,
}

impl Looks {
    fn new(retention: Duration) -> Self {
        let interval = retention.min(LONGEST).max(SHORTEST * LOOKS) / LOOKS;
        let kept = usize::try_from(retention.as_nanos() / interval.as_nanos()).unwrap_or(usize::MAX).max(1);
        Self { interval, kept, revisions: VecDeque::new(), since_compaction: LOOKS }
    }

    /// Notes the revision of this moment, and says which one is old enough to be compacted to, if it is time for that.
    fn look(&mut self, revision: i64) -> Option<i64> {
        self.since_compaction = self.since_compaction.saturating_add(1);
        self.revisions.push_back(revision);
        if self.revisions.len() <= self.kept {
            return None;
        }
        let old = self.revisions.pop_front();
        if self.since_compaction < LOOKS {
            return None;
        }
        self.since_compaction = 0;
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_for_its_time_and_compacted_each_hour_at_least() {
        let mut looks = Looks::new(Duration::from_mins(150));
        assert_eq!((looks.interval, looks.kept), (Duration::from_mins(6), 25));
        // The number of the look is the revision.
        let compacted: Vec<(i64, i64)> =
            (1..=60).filter_map(|look| Some((look, looks.look(look)?))).collect();
        assert_eq!(compacted, [(26, 1), (36, 11), (46, 21), (56, 31)]);

        let mut looks = Looks::new(Duration::from_mins(10));
        assert_eq!((looks.interval, looks.kept), (Duration::from_mins(1), 10));
        let compacted: Vec<(i64, i64)> =
            (1..=25).filter_map(|look| Some((look, looks.look(look)?))).collect();
        assert_eq!(compacted, [(11, 1), (21, 11)]);
        assert_eq!(Looks::new(Duration::ZERO).interval, SHORTEST);
    }
}
