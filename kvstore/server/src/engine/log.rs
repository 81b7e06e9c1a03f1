//! The Raft log: on disk what has to last, in memory what is read soon.
//!
//! ```text
//! openraft ── append, vote, truncate, purge ─► queue ─► writer ─► one frame of all that waits ─► disk
//!    │                                                     └─► all who waited for it
//!    └── read ◄── entries since the last purge: the youngest in memory, others from disk by their place
//! ```
//!
//! Invariants:
//! - What is written goes through one queue, in order: a vote is on disk before the entries of its term.
//! - An entry can be read as soon as it is appended; that it is on disk is told afterwards.
//! - That an entry is committed is noted with the next frame, never by a write of its own: after a crash it is found
//!   out anew.

mod memory;
mod recovery;
mod writer;

pub(super) use memory::{MemoryLog, ReadError};
pub(super) use recovery::Replay;
pub(super) use writer::Writer;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::types::{Entry, Flushed, LogId, LogState, TypeConfig, Vote};
use memory::{Found, Frame, Size};

/// Writes that may wait for the disk. When it is full, openraft waits.
const QUEUE_LEN: usize = 1024;

/// Bytes of entries from which on a message to another member takes no more.
const MESSAGE_BYTES: usize = 1 << 20;

/// Why the disk takes no more, once it does not.
pub(super) type Failure = Arc<OnceLock<String>>;

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

    /// Reads what is found. What is not in memory was written not long ago, so that the kernel has it, as a rule; and who leads
    /// reads a message's worth at a time.
    fn read(&self, find: impl Fn(&MemoryLog) -> Vec<Found>) -> io::Result<Vec<Entry>> {
        let found = find(&self.lock());
        let mut frame = Frame::default();
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            let index = found.index();
            match found.read(&mut frame) {
                Ok(entry) => entries.push(entry),
                // Its segment was let go of meanwhile. Whoever asks sees that it is not there.
                Err(_) if index < self.lock().first_index() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entries)
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
        self.read(|log| log.find(range.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(|log| {
            let mut room = MESSAGE_BYTES;
            let fits = |(_, size): &(LogId, Size)| {
                let before = room;
                room = room.saturating_sub(size.bytes);
                before > 0
            };
            let count = log.sizes(start..end).take_while(fits).count();
            log.find(start..end).take(count).collect()
        })
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
        {
            let mut log = self.log.lock();
            entries.iter().cloned().for_each(|entry| log.append(entry));
        }
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
