//! The end of leases: the member that leads watches their time, and ends those that have run out by a command.
//!
//! ```text
//! a term of this member ─► applied what came before ─► clock started ─► next deadline ─► LeaseRevoke ─► applied
//! ```
//!
//! Invariants:
//! - Only the leader has a clock, and a new one for each of its terms: all leases get their full time then, and the
//!   election timeout in which the leader before may still have renewed them.
//! - A lease leaves the clock when its end is applied, not before; so a command that was lost is proposed again.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::ProgressResponder;
use openraft::vote::leader_id_std::CommittedLeaderId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Command;
use super::batch::Batch;
use super::lease_time::LOOK_EVERY;
use super::state_machine::Shared;
use super::types::{Proposal, Raft};

/// Leases that are ended at once. They share an entry of the log.
const BATCH_LEN: usize = 256;
/// How long to wait after something failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends leases while this member leads, until `stop`.
pub(super) async fn run(raft: Raft, shared: Arc<Shared>, extension: Duration, stop: CancellationToken) {
    let leading = async {
        loop {
            let term = leads(&raft).await;
            // Whatever was granted or ended before is applied after this.
            if raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_err() {
                sleep(PAUSE).await;
                continue;
            }
            shared.start_clock(extension, term);
            tokio::select! {
                biased;
                () = no_longer_leads(&raft, term) => {}
                () = expire(&raft, &shared, term) => {}
            }
            shared.stop_clock();
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = leading => {}
    }
    shared.stop_clock();
}

/// Waits until this member leads, and returns the term.
async fn leads(raft: &Raft) -> u64 {
    let mut metrics = raft.server_metrics();
    loop {
        {
            let metrics = metrics.borrow_watched();
            if metrics.state.is_leader() {
                return metrics.vote.leader_id().term;
            }
        }
        if metrics.changed().await.is_err() {
            // openraft has ended. So will this, by `stop`.
            std::future::pending::<()>().await;
        }
    }
}

async fn no_longer_leads(raft: &Raft, term: u64) {
    let mut metrics = raft.server_metrics();
    loop {
        {
            let metrics = metrics.borrow_watched();
            if !metrics.state.is_leader() || metrics.vote.leader_id().term != term {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Ends leases of a term of this member as they run out.
async fn expire(raft: &Raft, shared: &Shared, term: u64) {
    loop {
        let looked = shared.with_clock(|clock, now| {
            let next = clock.next_deadline().map(|deadline| deadline.saturating_duration_since(now));
            (clock.expired(now, BATCH_LEN), next)
        });
        let Some((expired, next)) = looked else { return };
        if expired.is_empty() {
            let deadline = async {
                match next {
                    Some(left) => sleep(left.min(LOOK_EVERY)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shared.clock_changed.notified() => {}
                () = deadline => {}
            }
            continue;
        }
        // In this term only: whoever leads in another gives leases their full time first.
        let revokes = expired.into_iter().map(|id| Command::LeaseRevoke { id, within: None });
        let batch = Proposal(Arc::new(Batch::unattended(revokes)));
        let (responder, written) = ProgressResponder::complete_only();
        let leader = CommittedLeaderId::from(term);
        let write = raft.write(batch).with_leader(leader).responder(responder).await;
        let outcome = match write {
            Ok(()) => written.await.map_err(|_| "the store has stopped".to_owned()),
            Err(fatal) => Err(fatal.to_string()),
        };
        let outcome = outcome.and_then(|written| written.map_err(|error| error.to_string()));
        if shared.is_corrupt() {
            // Refused, until someone has looked at it.
            sleep(PAUSE).await;
        }
        if let Err(error) = outcome {
            warn!(error, "leases that have run out cannot be ended now");
            sleep(PAUSE).await;
        }
    }
}
