//! The power goes at every single operation of a workload on the disk, and everything that was acknowledged is there again.
//!
//! The workload is the log's own writer with a snapshot now and then, on a disk in memory that loses what was not synced,
//! wholly or sector by sector. It runs in one thread, so that the n-th operation is the same each time.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use landbridge_kvstore_store::{KeyRange, KeyValue, PutRequest, RangeRequest, Store};
use openraft::Membership;
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;

use super::batch::Batch;
use super::log::Write;
use super::open::{Found, Surroundings, recover_data};
use super::snapshot;
use super::types::{Entry, Flushed, LogId, Payload, Proposal, TypeConfig, Vote};
use super::{Command, EngineOptions};
use crate::planted::{PlantedBug, plant};
use crate::wal::disk::Disk;
use crate::wal::disk::memory::{Faults, Loss, MemoryDisk};
use crate::wal::{Making, WalOptions};

const TERM: u64 = 3;
/// Entries of the workload. Each puts a key of its own.
const ENTRIES: u64 = 24;
/// Votes after a crash: more than a sector of them.
const RESUMED_VOTES: u64 = 18;
/// After so many entries comes a snapshot, and a purge of what is in it.
const SNAPSHOT_EACH: u64 = 9;

fn options() -> EngineOptions {
    // Small, so that the workload takes several segments, and with a spare that is used again.
    let wal = WalOptions { segment_bytes: 4 << 10, spares: 1 };
    EngineOptions { wal, ..EngineOptions::new("/data") }
}

fn key(index: u64) -> Bytes {
    format!("key {index}").into()
}

/// Long enough for several sectors, and different in each place.
fn value(index: u64) -> Bytes {
    let len = 200 + usize::try_from(index * 331 % 1_400).unwrap();
    (0..len).map(|at| u8::try_from((at as u64 * 7 + index) % 251 + 1).unwrap()).collect::<Vec<u8>>().into()
}

pub(super) fn entry(index: u64) -> Entry {
    let put = PutRequest { key: key(index), value: value(index), ..PutRequest::default() };
    let payload = Payload::Normal(Proposal(Arc::new(Batch::unattended([Command::Put(put)]))));
    Entry { log_id: LogId::new_term_index(TERM, index), payload }
}

/// What was acknowledged before the power went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    vote: Option<Vote>,
    /// The first entry that was not.
    entries: u64,
    /// Whether the power has been gone once.
    resumed: bool,
}

pub(super) fn recovered(disk: &MemoryDisk) -> Result<Found, super::OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    recover_data(&options(), &disk, Making::WhenNeeded, &Surroundings::default())
}

/// Has the writer write what is in the queue, and ends it. A new one goes on from disk.
async fn write(disk: &MemoryDisk, from: u64, upto: u64, acknowledged: &mut Acknowledged) -> Option<()> {
    let Found { mut log, mut writer, mut queue, mut state, identity, .. } = recovered(disk).ok()?;
    for index in 0..from {
        if state.last_applied.is_none_or(|last| last.index < index) {
            state.apply(&entry(index), |_, _, _| {});
        }
    }
    // After a crash many, each a small frame: they cover, little by little, what it left of a frame that was larger.
    let votes = if acknowledged.resumed { RESUMED_VOTES } else { u64::from(acknowledged.vote.is_none()) };
    for _ in 0..votes {
        let vote = Vote::new_committed(acknowledged.vote.map_or(TERM, |vote| vote.leader_id.term + 1), 8);
        let (done, mut written) = tokio::sync::oneshot::channel();
        writer.write_now(Write::Vote(vote, done));
        if !matches!(written.try_recv(), Ok(Ok(()))) {
            return None;
        }
        acknowledged.vote = Some(vote);
    }
    for index in from..upto {
        let (done, flushed) = TypeConfig::oneshot();
        log.append([entry(index)], Flushed::signal(done)).await.ok()?;
        writer.write_now(queue.try_recv().ok()?);
        if !matches!(flushed.await, Ok(Ok(()))) {
            return None;
        }
        acknowledged.entries = index + 1;
        state.apply(&entry(index), |_, _, _| {});
        if (index + 1) % SNAPSHOT_EACH == 0 {
            let meta = super::types::SnapshotMeta {
                last_log_id: state.last_applied,
                last_membership: super::types::StoredMembership::new(
                    None,
                    Membership::new(vec![], std::collections::BTreeMap::new()).ok()?,
                ),
            };
            let dir = Path::new("/data/snap");
            snapshot::write(disk, dir, identity.cluster_id, &meta, &state).ok()?;
            // Some are kept, as for a member that is a little behind.
            let upto = LogId::new_term_index(TERM, index - 2);
            log.purge(upto).await.ok()?;
            writer.write_now(queue.try_recv().ok()?);
        }
    }
    Some(())
}

/// The workload: written in two runs, so that the log is also opened in between.
pub(super) fn workload(disk: &MemoryDisk) -> (Acknowledged, bool) {
    let mut acknowledged = Acknowledged::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let half = ENTRIES / 2;
    let done = runtime.block_on(async {
        write(disk, 0, half, &mut acknowledged).await?;
        write(disk, half, ENTRIES, &mut acknowledged).await
    });
    (acknowledged, done.is_some())
}

/// Why what is on disk is not what was acknowledged.
fn check(disk: &MemoryDisk, acknowledged: &Acknowledged) -> Result<(), String> {
    let found = recovered(disk).map_err(|error| format!("refused: {error}"))?;
    let Found { log, state, .. } = found;
    let log = log.memory();
    if acknowledged.vote.is_some() && log.vote != acknowledged.vote {
        return Err(format!("the vote is {:?}", log.vote));
    }
    let in_state = state.last_applied.map_or(0, |last| last.index + 1);
    let next = log.last_log_id().map_or(0, |last| last.index + 1).max(in_state);
    if next < acknowledged.entries {
        return Err(format!("{} entries were acknowledged, and {next} are there", acknowledged.entries));
    }
    // One may be there that was not acknowledged, and nothing of it is half there.
    if next > acknowledged.entries + 1 {
        return Err(format!("{next} entries are there, of {}", acknowledged.entries));
    }
    let mut store: Store = state.store.clone();
    for found in log.read(in_state..).map_err(|error| format!("the log cannot be read: {error}"))? {
        if found != entry(found.log_id.index) {
            return Err(format!("entry {} is another", found.log_id.index));
        }
        let mut after = super::state_machine::State { store, ..super::state_machine::State::default() };
        after.apply(&found, |_, _, _| {});
        store = after.store;
    }
    for index in 0..next {
        let read = store
            .range(&RangeRequest::new(KeyRange::Single(key(index))))
            .map_err(|error| error.to_string())?;
        if read.kvs.first().map(KeyValue::value) != Some(&value(index)[..]) {
            return Err(format!("the value of entry {index} is not there"));
        }
    }
    Ok(())
}

/// Runs the workload to every operation and crashes there. Returns what was found wrong first.
fn crash_everywhere(seeds: u64) -> Result<u64, String> {
    let disk = MemoryDisk::default();
    let (_, done) = workload(&disk);
    let operations = disk.operations();
    if !done {
        return Err("the workload does not end without a crash".to_owned());
    }
    for at in 1..=operations + 1 {
        let disk = MemoryDisk::new(Faults { crash_at: Some(at), ..Faults::default() });
        let (before, _) = workload(&disk);
        let losses =
            [Loss::Whole].into_iter().chain((0..seeds).map(|seed| Loss::Part(seed * 1_000_003 + at)));
        for loss in losses {
            let mut acknowledged = Acknowledged { resumed: true, ..before };
            let left = disk.after_crash(loss);
            let told = |error| format!("power gone at operation {at} of {operations}, {loss:?}: {error}");
            check(&left, &acknowledged).map_err(told)?;
            // The log goes on, and what it takes then lasts as well.
            let found = recovered(&left).map_err(|error| told(error.to_string()))?;
            let in_state = found.state.last_applied.map_or(0, |last| last.index + 1);
            let from = found.log.memory().last_log_id().map_or(0, |last| last.index + 1).max(in_state);
            drop(found);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            acknowledged.entries = from;
            let vote = runtime.block_on(write(&left, from, from, &mut acknowledged));
            vote.ok_or_else(|| told("the log takes no vote".to_owned()))?;
            check(&left.after_crash(Loss::Whole), &acknowledged).map_err(told)?;
            let wrote = runtime.block_on(write(&left, from, from + 2, &mut acknowledged));
            wrote.ok_or_else(|| told("the log does not go on".to_owned()))?;
            check(&left.after_crash(Loss::Whole), &acknowledged).map_err(told)?;
        }
    }
    Ok(operations)
}

#[test]
fn what_was_acknowledged_is_there_whenever_the_power_goes() {
    let operations = crash_everywhere(3).unwrap();
    // The workload is no smaller than was thought.
    assert!(operations > 100, "{operations}");
}

#[test]
fn the_check_notices_what_is_wrong_on_purpose() {
    for bug in [PlantedBug::ReplyBeforeFsync, PlantedBug::TornTailKept, PlantedBug::RenameNotSynced] {
        plant(Some(bug));
        let found = crash_everywhere(3);
        plant(None);
        assert!(found.is_err(), "{bug:?} was not noticed");
    }
}
