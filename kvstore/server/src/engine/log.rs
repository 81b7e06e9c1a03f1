//! The Raft log: on disk what has to last, in memory what has to be read.
//!
//! ```text
//! openraft ── append, vote, truncate, purge ─► queue ─► writer ─► one frame of all that waits ─► disk
//!    │                                                     └─► all who waited for it
//!    └── read ◄── entries since the last purge, in memory
//! ```
//!
//! Invariants:
//! - What is written goes through one queue, in order: a vote is on disk before the entries of its term.
//! - An entry can be read as soon as it is appended; that it is on disk is told afterwards.
//! - That an entry is committed is noted with the next frame, never by a write of its own: after a crash it is found
//!   out anew.

mod recovery;
mod writer;

pub(super) use recovery::Replay;
pub(super) use writer::Writer;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::batch::weight;
use super::types::{Entry, Flushed, LogId, LogState, TypeConfig, Vote};
use super::types::{Payload, Proposal};

/// Writes that may wait for the disk. When it is full, openraft waits.
const QUEUE_LEN: usize = 1024;

/// Bytes of entries from which on a message to another member takes no more.
const MESSAGE_BYTES: usize = 1 << 20;

/// Why the disk takes no more, once it does not.
pub(super) type Failure = Arc<OnceLock<String>>;

/// The part of the log that is in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryLog {
    /// Those after `purged`, without a gap.
    pub(super) entries: VecDeque<Entry>,
    /// The last entry that was let go of.
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

impl MemoryLog {
    /// The index of the first entry, or of the one that would be.
    fn first_index(&self) -> u64 {
        let next = self.purged.map_or(0, |purged| purged.index.saturating_add(1));
        self.entries.front().map_or(next, |first| first.log_id.index)
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// The entries of a range that are there.
    pub(super) fn range(&self, range: impl RangeBounds<u64>) -> impl DoubleEndedIterator<Item = &Entry> {
        let position = |index: u64| {
            let skipped = index.saturating_sub(self.first_index());
            usize::try_from(skipped).unwrap_or(usize::MAX).min(self.entries.len())
        };
        let start = match range.start_bound() {
            Bound::Included(index) => position(*index),
            Bound::Excluded(index) => position(index.saturating_add(1)),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => position(index.saturating_add(1)),
            Bound::Excluded(index) => position(*index),
            Bound::Unbounded => self.entries.len(),
        };
        self.entries.range(start..end.max(start))
    }

    fn truncate_after(&mut self, last: Option<LogId>) {
        let kept = last.map_or(0, |last| last.index.saturating_add(1).saturating_sub(self.first_index()));
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    fn purge(&mut self, upto: LogId) {
        let gone = upto.index.saturating_add(1).saturating_sub(self.first_index());
        let gone = usize::try_from(gone).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.drain(..gone);
        self.purged = self.purged.max(Some(upto));
    }
}

/// Something for the disk.
#[derive(Debug)]
pub(super) enum Write {
    Vote(Vote, Done),
    Entries(Vec<Entry>, Callback),
    TruncateAfter(Option<LogId>, Done),
    Purge(LogId),
}

type Done = oneshot::Sender<io::Result<()>>;

/// Whom to tell that entries are on disk.
pub(super) struct Callback(Flushed);

impl Debug for Callback {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Callback")
    }
}

/// The log as openraft writes it.
#[derive(Debug)]
pub(super) struct LogStore {
    log: SharedLog,
    writes: mpsc::Sender<Write>,
}

/// The log as openraft reads it.
#[derive(Clone, Debug)]
pub(super) struct SharedLog(Arc<Mutex<MemoryLog>>);

impl SharedLog {
    pub(super) fn lock(&self) -> MutexGuard<'_, MemoryLog> {
        self.0.lock().expect("nothing that holds it panics")
    }
}

impl LogStore {
    /// The log that was recovered, and the queue that its writer is to be run with.
    pub(super) fn new(log: MemoryLog) -> (Self, SharedLog, mpsc::Receiver<Write>) {
        let log = SharedLog(Arc::new(Mutex::new(log)));
        let (writes, queue) = mpsc::channel(QUEUE_LEN);
        (Self { log: log.clone(), writes }, log, queue)
    }

    /// The part of the log that is in memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> MutexGuard<'_, MemoryLog> {
        self.log.lock()
    }

    async fn write(&self, write: Write) -> io::Result<()> {
        // Why it is gone was told to whoever waited when it went.
        self.writes.send(write).await.map_err(|_| io::Error::other("the writer of the log has ended"))
    }

    async fn write_and_wait(&self, write: impl FnOnce(Done) -> Write) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.write(write(done)).await?;
        written.await.unwrap_or_else(|_| Err(io::Error::other("the writer of the log has ended")))
    }
}

impl RaftLogReader<TypeConfig> for SharedLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.lock().range(range).cloned().collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let log = self.lock();
        let mut room = MESSAGE_BYTES;
        let fits = |entry: &&Entry| {
            let before = room;
            if let Payload::Normal(Proposal(batch)) = &entry.payload {
                let bytes = batch.requests.iter().map(|request| weight(&request.command)).sum();
                room = room.saturating_sub(bytes);
            }
            before > 0
        };
        Ok(log.range(start..end).take_while(fits).cloned().collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = SharedLog;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let log = self.log.lock();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> SharedLog {
        self.log.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write_and_wait(|done| Write::Vote(*vote, done)).await?;
        self.log.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: Flushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.log.lock().entries.extend(entries.iter().cloned());
        self.write(Write::Entries(entries, Callback(callback))).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.lock().truncate_after(last);
        self.write_and_wait(|done| Write::TruncateAfter(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.lock().purge(upto);
        self.write(Write::Purge(upto)).await
    }
}
