//! The one who writes the log.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Callback, Done, Failure, SharedLog, Write};
use crate::engine::codec::{Durable, Record, encode_entry, encode_prologue, encode_record};
use crate::engine::counters::Counters;
use crate::engine::identity::Identity;
#[cfg(test)]
use crate::engine::simulation::Simulated;
use crate::engine::types::LogId;
use crate::error_chain::chain;
use crate::wal::disk::is_full;
use crate::wal::{Wal, WalError};

/// Bytes of records from which on a frame takes no more, so that one is not as large as all that waits.
const FRAME_BYTES: usize = 4 << 20;

/// How long to wait before a full disk is asked again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// What a frame that is on disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u64,
    /// The highest index of its entries.
    pub(super) last_index: Option<u64>,
    pub(super) bytes: u64,
}

/// Turns what waits in the queue into frames of the log.
#[derive(Debug)]
pub(in crate::engine) struct Writer {
    pub(super) wal: Wal,
    pub(super) identity: Identity,
    /// What all frames so far say.
    pub(super) written: Durable,
    /// The index of the last entry on disk.
    pub(super) last_index: Option<u64>,
    /// Frames that are still needed, and all after the first of these.
    pub(super) frames: VecDeque<Frame>,
    /// The frame that is being made.
    pub(super) next: Next,
    pub(super) log: SharedLog,
    pub(super) failure: Failure,
    pub(super) counters: Arc<Counters>,
    /// Ends the wait for room.
    pub(super) stop: CancellationToken,
    /// Bytes of frames that are still needed.
    pub(super) needed_bytes: Arc<AtomicU64>,
}

/// A frame in the making.
#[derive(Debug, Default)]
pub(super) struct Next {
    buffer: Vec<u8>,
    /// What all frames say, this one included.
    durable: Durable,
    last_index: Option<u64>,
    highest_index: Option<u64>,
    log_ids: Vec<LogId>,
    purges: bool,
    waiting: Vec<Waiting>,
}

/// Someone who waits for the frame.
#[derive(Debug)]
enum Waiting {
    Done(Done),
    Callback(Callback),
}

impl Waiting {
    fn complete(self, outcome: &Result<(), String>) {
        let outcome = outcome.clone().map_err(io::Error::other);
        match self {
            // One who no longer waits needs no answer.
            Self::Done(done) => drop(done.send(outcome)),
            Self::Callback(Callback(flushed)) => flushed.io_completed(outcome),
        }
    }
}

impl Writer {
    /// Bytes of frames that are still needed, as they change.
    pub(in crate::engine) fn needed_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.needed_bytes)
    }

    /// Writes until no one is left who could append, and returns the log, still open. Blocks.
    pub(in crate::engine) fn run(mut self, mut queue: mpsc::Receiver<Write>) -> Wal {
        self.begin();
        while let Some(write) = queue.blocking_recv() {
            self.write_all(write, &mut queue);
        }
        self.end()
    }

    /// As [`Self::run`], in the one thread of a simulation, where a write takes simulated time.
    #[cfg(test)]
    pub(in crate::engine) async fn run_simulated(
        mut self,
        mut queue: mpsc::Receiver<Write>,
        simulated: Simulated,
    ) -> Wal {
        self.begin();
        while let Some(write) = queue.recv().await {
            simulated.disk_is_busy().await;
            self.write_all(write, &mut queue);
        }
        self.end()
    }

    fn begin(&mut self) {
        self.next.durable = self.written;
        self.next.last_index = self.last_index;
        // A crash may have come after the purge of entries and before their segments were let go of.
        self.release();
    }

    /// Writes what came, with all that came while the disk was busy: one frame.
    fn write_all(&mut self, first: Write, queue: &mut mpsc::Receiver<Write>) {
        self.take(first);
        while let Ok(write) = queue.try_recv() {
            self.take(write);
        }
        self.write_frame();
    }

    fn end(mut self) -> Wal {
        if self.note_committed() {
            self.write_frame();
        }
        self.wal
    }

    /// Writes one thing at once, in the thread of whoever asks.
    #[cfg(test)]
    pub(in crate::engine) fn write_now(&mut self, write: Write) {
        if self.next.durable == Durable::default() {
            self.next.durable = self.written;
            self.next.last_index = self.last_index;
        }
        self.take(write);
        self.write_frame();
    }

    fn take(&mut self, write: Write) {
        let waiting = match write {
            Write::Vote(vote, done) => {
                encode_record(&Record::Vote(vote), &mut self.next.buffer);
                self.next.durable.vote = Some(vote);
                Some(Waiting::Done(done))
            }
            Write::Entries(entries, callback) => {
                for entry in &entries {
                    encode_entry(entry, &mut self.next.buffer);
                    self.next.log_ids.push(entry.log_id);
                    self.next.last_index = Some(entry.log_id.index);
                    self.next.highest_index = self.next.highest_index.max(Some(entry.log_id.index));
                    if self.next.buffer.len() >= FRAME_BYTES {
                        self.write_frame();
                    }
                }
                Some(Waiting::Callback(callback))
            }
            Write::TruncateAfter(last, done) => {
                encode_record(&Record::TruncateAfter(last), &mut self.next.buffer);
                self.next.last_index = last.map(|last| last.index);
                Some(Waiting::Done(done))
            }
            Write::Purge(upto) => {
                encode_record(&Record::Purged(upto), &mut self.next.buffer);
                self.next.durable.purged = Some(upto);
                self.next.last_index = self.next.last_index.max(Some(upto.index));
                self.next.purges = true;
                None
            }
        };
        self.next.waiting.extend(waiting);
    }

    /// Puts what is committed into the frame, if that is news and the entry itself is on disk with this frame.
    fn note_committed(&mut self) -> bool {
        let committed = self.log.lock().committed;
        let news = committed > self.next.durable.committed
            && committed.map(|committed| committed.index) <= self.next.last_index;
        if let Some(committed) = committed.filter(|_| news) {
            encode_record(&Record::Committed(committed), &mut self.next.buffer);
            self.next.durable.committed = Some(committed);
        }
        news
    }

    /// Writes the frame in the making, and tells all who wait for it.
    fn write_frame(&mut self) {
        let outcome = match self.failure.get() {
            // Also of what is not in the buffer: it may have gone with the frame that failed.
            Some(reason) => {
                self.next.buffer.clear();
                Err(reason.clone())
            }
            None if self.next.buffer.is_empty() => Ok(()),
            None => self.append(),
        };
        for waiting in mem::take(&mut self.next.waiting) {
            waiting.complete(&outcome);
        }
        if mem::take(&mut self.next.purges) && outcome.is_ok() {
            self.release();
        }
    }

    fn append(&mut self) -> Result<(), String> {
        self.note_committed();
        let payload = mem::take(&mut self.next.buffer);
        let (identity, written) = (self.identity, self.written);
        let mut waits = false;
        let appended = loop {
            match self.wal.append(&payload, || encode_prologue(identity, &written)) {
                // What openraft has taken is not lost: it waits until there is room. Nothing new is taken meanwhile.
                Err(WalError::NoRoom { source, .. }) if is_full(&source) && !self.stop.is_cancelled() => {
                    if !mem::replace(&mut waits, true) {
                        warn!(%source, "the disk is full: the log waits for room");
                    }
                    std::thread::sleep(ROOM_PAUSE);
                }
                outcome => break outcome,
            }
        };
        self.counters.synced(self.wal.synced_in(), payload.len());
        match appended {
            Ok(place) => {
                let number = place.number();
                let bytes = payload.len() as u64;
                self.frames.push_back(Frame { number, last_index: self.next.highest_index.take(), bytes });
                self.needed_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.written = self.next.durable;
                self.last_index = self.next.last_index;
                self.next.buffer = payload;
                self.next.buffer.clear();
                self.log.lock().note_place(&self.next.log_ids, &place);
                self.next.log_ids.clear();
                Ok(())
            }
            Err(error) => {
                let reason = chain(&error);
                error!(error = reason, "the log takes no more");
                // The first reason is the one that counts.
                Err(self.failure.get_or_init(|| reason).clone())
            }
        }
    }

    /// Lets go of segments whose entries are all purged.
    fn release(&mut self) {
        let Some(purged) = self.written.purged else { return };
        while let Some(frame) = self.frames.front()
            && frame.last_index.is_none_or(|last| last <= purged.index)
        {
            self.needed_bytes.fetch_sub(frame.bytes, Ordering::Relaxed);
            self.frames.pop_front();
        }
        let needed = self.frames.front().map_or_else(|| self.wal.next_number(), |frame| frame.number);
        if let Err(error) = self.wal.release_before(needed) {
            // Nothing is lost but room. The next purge tries again.
            warn!(error = chain(&error), "segments of the log that are no longer needed cannot be let go of");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use landbridge_kvstore_store::PutRequest;
    use openraft::storage::RaftLogStorage;

    use openraft::type_config::TypeConfigExt;

    use super::FRAME_BYTES;
    use crate::engine::batch::Batch;
    use crate::engine::open::{Found, Surroundings, recover_data};
    use crate::engine::types::{Entry, Flushed, LogId, Payload, Proposal, TypeConfig};
    use crate::engine::{Command, EngineOptions};
    use crate::wal::Making;
    use crate::wal::disk::{Disk, RealDisk};

    /// An entry that puts a value of so many bytes.
    fn entry(index: u64, len: usize) -> Entry {
        let put = PutRequest { key: "k".into(), value: vec![1; len].into(), ..PutRequest::default() };
        let payload = Payload::Normal(Proposal(Arc::new(Batch::unattended([Command::Put(put)]))));
        Entry { log_id: LogId::new_term_index(1, index), payload }
    }

    fn recover(options: &EngineOptions) -> Found {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        recover_data(options, &disk, Making::WhenNeeded, &Surroundings::default()).unwrap()
    }

    /// The number of frames that puts of so many bytes make, if all of them wait for the disk at once.
    async fn frames(values: impl IntoIterator<Item = usize>) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let found = recover(&EngineOptions::new(dir.path()));
        let Found { mut log, writer, queue, .. } = found;
        for (index, len) in (0..).zip(values) {
            log.append([entry(index, len)], Flushed::noop()).await.unwrap();
        }
        drop(log);
        let wal = tokio::task::spawn_blocking(|| writer.run(queue)).await.unwrap();
        wal.next_number() - 1
    }

    #[tokio::test]
    async fn all_that_waits_is_one_frame_unless_it_is_large() {
        assert_eq!(frames([10; 100]).await, 1);
        assert_eq!(frames([3 << 20; 5]).await, 3);
        assert_eq!(frames([]).await, 0);
    }
    #[tokio::test]
    async fn what_fills_a_frame_that_cannot_be_written_is_not_said_to_be_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = EngineOptions::new(dir.path());
        options.wal.segment_bytes = 1 << 16;
        let found = recover(&options);
        let Found { mut log, writer, queue, .. } = found;
        // A large frame takes a segment of its own, which can no longer be made.
        std::fs::remove_dir_all(dir.path().join("wal")).unwrap();
        let (done, flushed) = TypeConfig::oneshot();
        log.append([entry(0, FRAME_BYTES)], Flushed::signal(done)).await.unwrap();
        drop(log);
        tokio::task::spawn_blocking(|| writer.run(queue)).await.unwrap();
        flushed.await.unwrap().unwrap_err();
    }
}
