//! Forgetting of history that no one needs any more, as etcd does it with `--auto-compaction-mode periodic`.
//!
//! Every change stays in memory until it is forgotten. Watches that come back within the retention miss nothing; who stays
//! away for longer lists again.

use std::time::Duration;

use landbridge_kvstore_store::Store;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::engine::{Command, Engine};

/// However short the retention is, others get a turn.
const SHORTEST: Duration = Duration::from_millis(1);

/// Once in every `retention`, forgets what was history the last time already: what is kept is one to two times as old. Runs
/// until it is dropped.
pub(crate) async fn compact_periodically(engine: &Engine, retention: Duration) {
    let mut before = engine.read(Store::revision);
    loop {
        sleep(retention.max(SHORTEST)).await;
        let (now, compacted) = engine.read(|store| (store.revision(), store.compacted_revision()));
        // A quiet store is left alone.
        if before > compacted.max(1) {
            match engine.propose(Command::Compact { revision: before }).await {
                // A client may have been faster, which is a refusal.
                Ok(applied) => debug!(revision = before, done = applied.outcome.is_ok(), "history compacted"),
                Err(error) => warn!(%error, "the history is not compacted now"),
            }
        }
        before = now;
    }
}
