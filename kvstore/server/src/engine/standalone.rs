//! Going on alone: what is left to do after the majority of a cluster was lost for good. etcd's `--force-new-cluster`.
//!
//! Invariants:
//! - Every entry of the log counts as agreed on. One that was acknowledged may be among those of which this member never
//!   heard that they were, and what nobody acknowledged may come to be.
//! - The log goes on in a term of its own, with an entry that nobody else has: this member is all there is.
//! - Whoever is alone already changes nothing, so that the flag does no harm at the next start.

use std::collections::{BTreeMap, BTreeSet};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use tracing::{info, warn};

use super::identity::Identity;
use super::log::{LogStore, SharedLog};
use super::types::{Entry, LogId, Member, Membership, Payload, StoredMembership, Vote};
use super::{EngineOptions, OpenError};

/// Appends to the log that this member is alone, before anything else is done with it.
///
/// # Errors
/// [`OpenError::Failed`] if that cannot be written.
pub(super) async fn go_on_alone(
    log: &mut LogStore,
    memory: &SharedLog,
    applied: &StoredMembership,
    last_applied: Option<LogId>,
    options: &EngineOptions,
    identity: Identity,
) -> Result<(), OpenError> {
    let failed = |error: &dyn std::error::Error| OpenError::Failed { reason: error.to_string() };
    let own = identity.member_id;
    let (known, vote, last) = {
        let memory = memory.lock();
        let entries = memory.read(..).map_err(|error| failed(&error))?;
        let in_log = entries.into_iter().rev().find_map(|entry| match entry.payload {
            Payload::Membership(membership) => Some(membership),
            _ => None,
        });
        let known = in_log.unwrap_or_else(|| applied.membership().clone());
        (known, memory.vote, memory.last_log_id())
    };
    let others: BTreeSet<u64> = known.nodes().map(|(id, _)| *id).filter(|id| *id != own).collect();
    if others.is_empty() {
        info!("this member is alone already: --force-new-cluster changes nothing");
        return Ok(());
    }
    if let Some(applied) = last_applied.filter(|applied| Some(*applied) > last) {
        // A snapshot came, and the log was not yet told.
        log.purge(applied).await.map_err(|error| failed(&error))?;
    }
    let last = last.max(last_applied);
    let term = vote.map(|vote| vote.leader_id().term).max(last.map(|last| **last.committed_leader_id()));
    let term = term.unwrap_or(0) + 1;
    let member =
        Member { name: options.name.clone(), peer_urls: options.peers.advertise.clone(), is_learner: false };
    let membership = Membership::new(vec![BTreeSet::from([own])], BTreeMap::from([(own, member)]));
    let membership = membership.map_err(|error| failed(&error))?;
    let index = last.map_or(0, |last| last.index + 1);
    let entry =
        Entry { log_id: LogId::new_term_index(term, index), payload: Payload::Membership(membership) };
    log.save_vote(&Vote::new(term, own)).await.map_err(|error| failed(&error))?;
    log.blocking_append([entry]).await.map_err(|error| failed(&error))?;
    let others: Vec<String> = others.iter().map(|id| format!("{id:016x}")).collect();
    warn!(
        without = others.join(","),
        "the store goes on alone, as it was told to: start none of the other members with their data again"
    );
    Ok(())
}
