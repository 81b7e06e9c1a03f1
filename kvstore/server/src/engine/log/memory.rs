//! What of the log is in memory: of each entry where it is on disk, and of the youngest ones what they say.
//!
//! ```text
//!        purged │ slots: ID, size, place      │ in whose frame others find it, on disk
//!               │              near: payload  │ not yet on disk, not yet committed, or young
//!               └─────────────────────────────┴► append
//! ```
//!
//! Invariants:
//! - An entry is in memory, or it is on disk and its place is known.
//! - A place is of use as long as the entry is not purged: its segment is let go of afterwards.
//! - An entry of a frame is known by its whole ID: a frame may hold one of an older term that was cut off behind it.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};

use crate::engine::batch::weight;
use crate::engine::codec::{DecodeError, Record, decode_frame};
use crate::engine::types::{Entry, LogId, Payload, Proposal, Vote};
use crate::error_chain::chain;
use crate::wal::{Place, WalError};

/// Bytes of the youngest entries that stay in memory when they are on disk and committed: whoever is as little behind is not
/// worth a look at the disk. A few in tests, so that these read from it.
const NEAR_BYTES: usize = if cfg!(test) { 1 << 10 } else { 8 << 20 };

/// The part of the log that is in memory.
#[derive(Debug, Default)]
pub(in crate::engine) struct MemoryLog {
    /// Those after `purged`, without a gap.
    slots: VecDeque<Slot>,
    /// What the last ones of them say.
    near: VecDeque<Payload>,
    near_bytes: usize,
    /// The last entry that was let go of.
    pub(in crate::engine) purged: Option<LogId>,
    pub(in crate::engine) vote: Option<Vote>,
    pub(in crate::engine) committed: Option<LogId>,
}

#[derive(Debug)]
struct Slot {
    log_id: LogId,
    size: Size,
    /// The frame that holds it, once that is on disk.
    place: Option<Place>,
}

/// How large an entry is.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Size {
    pub(in crate::engine) requests: u64,
    /// About so many, as [`weight`] has it.
    pub(in crate::engine) bytes: usize,
}

impl Size {
    fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Normal(Proposal(batch)) => {
                let bytes = batch.requests.iter().map(|request| weight(&request.command)).sum();
                Self { requests: batch.requests.len() as u64, bytes }
            }
            Payload::Blank | Payload::Membership(_) => Self { requests: 1, bytes: 0 },
        }
    }
}

/// Why an entry that is on disk cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum ReadError {
    #[error("entry {index} of the log cannot be read again")]
    Wal { index: u64, source: WalError },
    #[error("frame {number} of the log, which holds entry {index}, cannot be read again")]
    Decode { index: u64, number: u64, source: DecodeError },
    #[error("entry {index} of the log is not in frame {number}")]
    Missing { index: u64, number: u64 },
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        // With the file's name, since whoever shows it does not ask for what is behind it.
        Self::other(chain(&error))
    }
}

/// An entry that was looked for.
#[derive(Debug)]
pub(in crate::engine) enum Found {
    Near(Entry),
    Far(LogId, Place),
}

impl Found {
    pub(super) fn index(&self) -> u64 {
        match self {
            Self::Near(entry) => entry.log_id.index,
            Self::Far(log_id, _) => log_id.index,
        }
    }

    /// What it says; `frame` remembers the last frame that was read. Blocks.
    pub(super) fn read(self, frame: &mut Frame) -> Result<Entry, ReadError> {
        match self {
            Self::Near(entry) => Ok(entry),
            Self::Far(log_id, place) => frame.entry(log_id, &place),
        }
    }
}

/// The entries of the frame that was read last: those who read want the next one, too.
#[derive(Debug, Default)]
pub(super) struct Frame {
    number: u64,
    entries: Vec<Entry>,
}

impl Frame {
    fn entry(&mut self, log_id: LogId, place: &Place) -> Result<Entry, ReadError> {
        let (index, number) = (log_id.index, place.number());
        if self.number != number {
            let payload = place.read().map_err(|source| ReadError::Wal { index, source })?;
            let records = decode_frame(&payload);
            let records = records.map_err(|source| ReadError::Decode { index, number, source })?;
            let entries = records.into_iter().filter_map(|record| match record {
                Record::Entry(entry) => Some(entry),
                _ => None,
            });
            *self = Self { number, entries: entries.collect() };
        }
        let found = self.entries.iter().find(|entry| entry.log_id == log_id);
        found.cloned().ok_or(ReadError::Missing { index, number })
    }
}

impl MemoryLog {
    /// A log of these entries, which follow each other.
    pub(super) fn new(
        purged: Option<LogId>,
        entries: impl IntoIterator<Item = (Entry, Option<Place>)>,
    ) -> Self {
        let mut log = Self { purged, ..Self::default() };
        for (entry, place) in entries {
            log.append(entry);
            if let (Some(place), Some(last)) = (place, log.slots.back_mut()) {
                last.place = Some(place);
            }
        }
        log
    }

    /// The index of the first entry, or of the one that would be.
    pub(in crate::engine) fn first_index(&self) -> u64 {
        let next = self.purged.map_or(0, |purged| purged.index.saturating_add(1));
        self.slots.front().map_or(next, |first| first.log_id.index)
    }

    pub(in crate::engine) fn last_log_id(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// The positions of those of a range that are there.
    fn positions(&self, range: impl RangeBounds<u64>) -> std::ops::Range<usize> {
        let position = |index: u64| {
            let skipped = index.saturating_sub(self.first_index());
            usize::try_from(skipped).unwrap_or(usize::MAX).min(self.slots.len())
        };
        let start = match range.start_bound() {
            Bound::Included(index) => position(*index),
            Bound::Excluded(index) => position(index.saturating_add(1)),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => position(index.saturating_add(1)),
            Bound::Excluded(index) => position(*index),
            Bound::Unbounded => self.slots.len(),
        };
        start..end.max(start)
    }

    /// The entries of a range that are there, and how large they are.
    pub(in crate::engine) fn sizes(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = (LogId, Size)> {
        self.slots.range(self.positions(range)).map(|slot| (slot.log_id, slot.size))
    }

    /// The entries of a range that are there, or where they are.
    pub(in crate::engine) fn find(&self, range: impl RangeBounds<u64>) -> impl Iterator<Item = Found> {
        let positions = self.positions(range);
        let far = self.slots.len() - self.near.len();
        let near = positions.start.saturating_sub(far);
        let mut payloads = self.near.range(near..);
        let slots = self.slots.range(positions.clone());
        positions.zip(slots).filter_map(move |(position, Slot { log_id, place, .. })| {
            if position >= far {
                let payload = payloads.next()?.clone();
                return Some(Found::Near(Entry { log_id: *log_id, payload }));
            }
            Some(Found::Far(*log_id, place.clone()?))
        })
    }

    /// The entries of a range that are there. Blocks while they are read.
    pub(in crate::engine) fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, ReadError> {
        let mut frame = Frame::default();
        self.find(range).map(|found| found.read(&mut frame)).collect()
    }

    pub(super) fn append(&mut self, entry: Entry) {
        let Entry { log_id, payload } = entry;
        let size = Size::of(&payload);
        self.slots.push_back(Slot { log_id, size, place: None });
        self.near.push_back(payload);
        self.near_bytes += size.bytes;
    }

    /// These are in a frame that is on disk.
    pub(super) fn note_place(&mut self, log_ids: &[LogId], place: &Place) {
        for log_id in log_ids {
            let position = self.positions(log_id.index..=log_id.index).start;
            if let Some(slot) = self.slots.get_mut(position).filter(|slot| slot.log_id == *log_id) {
                slot.place = Some(place.clone());
            }
        }
        self.let_go();
    }

    /// Forgets what older entries say, which others will hardly ask for.
    pub(in crate::engine) fn let_go(&mut self) {
        while self.near_bytes > NEAR_BYTES
            && let Some(oldest) = self.slots.get(self.slots.len() - self.near.len())
            && oldest.place.is_some()
            // Those are asked for soon.
            && Some(oldest.log_id) <= self.committed
        {
            self.near_bytes -= oldest.size.bytes;
            self.near.pop_front();
        }
    }

    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let kept = last.map_or(0, |last| last.index.saturating_add(1).saturating_sub(self.first_index()));
        let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(self.slots.len());
        for slot in self.slots.drain(kept..).rev() {
            if self.near.pop_back().is_some() {
                self.near_bytes -= slot.size.bytes;
            }
        }
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        let gone = self.positions(..=upto.index).end;
        let far = self.slots.len() - self.near.len();
        self.near.drain(..gone.saturating_sub(far));
        self.near_bytes -= self.slots.drain(..gone).skip(far).map(|slot| slot.size.bytes).sum::<usize>();
        self.purged = self.purged.max(Some(upto));
    }
}
