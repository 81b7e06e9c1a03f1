//! Memory that compactions forgot is let go of a little at a time, so that neither reads nor writes wait for it.
//!
//! Nothing that the store answers depends on how far this is, so that members need not agree on it.

use std::sync::Arc;

use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::state_machine::Shared;

/// Keys that are looked at under one lock: some tens of microseconds.
const STEP_KEYS: usize = 128;

/// Lets go of what compactions forget, until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let sweeping = async {
        loop {
            // Also what was compacted before the last stop.
            while shared.sweep(STEP_KEYS) {
                yield_now().await;
            }
            shared.compacted.notified().await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = sweeping => {}
    }
}
