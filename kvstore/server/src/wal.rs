//! The write-ahead log: batches of bytes that survive the loss of power once [`Wal::append`] has returned.
//!
//! ```text
//! <dir>/0000000000000007.wal   header │ prologue │ frame │ frame │ … │ frame │ zeros
//!       0000000000000008.wal   header │ prologue │ frame │ … zeros
//!       ready-….wal            zeros, waiting to become the next segment
//!       spare-….wal            no longer needed, waiting to become zeros
//!       lock                   held by the process that has the log open
//! ```
//!
//! Invariants:
//! - One frame is one append: it is written at once and synced before the next is written. So a frame that is not
//!   whole is the last one, torn by a crash, and was never acknowledged; it is cut off. A broken frame with a whole one
//!   behind it, or without a sector that the crash kept from the disk, is damage, and the log refuses to open.
//! - A segment begins with a prologue from its user: what older segments said that must not be lost with them.
//! - A segment has its full length and holds zeros before it is used, so that a sync writes data and no metadata:
//!   that halves the latency of a lone append.
//! - After a failed write or sync nothing is known about the disk, so that the log takes no more (see "fsyncgate").

pub mod disk;
mod error;
mod frame;
mod place;
mod segment;
mod spares;

pub use error::WalError;
pub use place::Place;
pub use spares::Room;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::planted::{PlantedBug, planted};
use disk::{Access, Disk, Lock, RealDisk, create_dirs};
use segment::{Listed, Segment};
use spares::{Ready, Spares};

/// The first segment is no longer than this: a new log is to be there at once, and the next one is made meanwhile.
const FIRST_BYTES: u64 = 1 << 20;
/// By which segments become longer, up to their full length.
const GROWTH: u64 = 4;
/// Bytes that are kept for what was taken before the disk was full, if a segment has that many.
const RESERVE_BYTES: u64 = 16 << 20;

/// Settings of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Length of a segment in bytes. A frame that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// How many spare segments are kept for later use.
    pub spares: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spares: 2 }
    }
}

/// One frame as it was found when the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its number; numbers grow by one.
    pub number: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The prologue of the oldest segment; `None` if the log is new.
    pub prologue: Option<Vec<u8>>,
    /// All frames since.
    pub frames: Vec<Recovered>,
    /// How many bytes of a torn frame were cut off, 0 after an orderly end.
    pub torn_bytes: u64,
}

/// What was found beside the frames when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The prologue of the oldest segment; `None` if the log is new.
    pub prologue: Option<Vec<u8>>,
    /// How many frames there are.
    pub frames: u64,
    /// How many bytes of a torn frame were cut off, 0 after an orderly end.
    pub torn_bytes: u64,
}

/// Who makes the segments that will be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    /// A thread of the log, before they are needed.
    Ahead,
    /// The append that needs one.
    WhenNeeded,
}

/// A log that is open for appending.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: WalOptions,
    /// Older segments, oldest first.
    sealed: VecDeque<Segment>,
    active: Segment,
    next_number: u64,
    spares: Spares,
    room: Room,
    failed: bool,
    _lock: Box<dyn Lock>,
}

impl Wal {
    /// Opens the log in `dir`, or makes one whose first segment begins with `prologue`. All frames are in memory then;
    /// [`Self::open_on`] shows them one by one.
    ///
    /// # Errors
    /// As for [`Self::open_on`].
    pub fn open(dir: &Path, options: WalOptions, prologue: &[u8]) -> Result<(Self, Recovery), WalError> {
        let mut frames = Vec::new();
        let mut visit = |place: &Place, payload: &[u8]| {
            frames.push(Recovered { number: place.number(), payload: payload.to_vec() });
        };
        let (wal, opened) =
            Self::open_on(Arc::new(RealDisk), dir, options, Making::Ahead, prologue, &mut visit)?;
        let Opened { prologue, torn_bytes, .. } = opened;
        Ok((wal, Recovery { prologue, frames, torn_bytes }))
    }

    /// Opens the log in a folder of a disk, or makes one whose first segment begins with `prologue`. Shows the frames in
    /// order, each with its place, also before an error.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if something that was acknowledged cannot be read, [`WalError::Missing`] if a segment between
    /// others is gone, [`WalError::InUse`], [`WalError::Io`]. That the newest segment is gone cannot be seen here.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: WalOptions,
        making: Making,
        prologue: &[u8],
        visit: &mut dyn FnMut(&Place, &[u8]),
    ) -> Result<(Self, Opened), WalError> {
        create_dirs(&*disk, dir).map_err(WalError::io("create", dir))?;
        let lock = lock(&*disk, dir)?;
        // A crash may have come between a rename and its sync. What is seen now has to stay so.
        sync_dir(&*disk, dir)?;
        let listed = segment::list(&*disk, dir)?;
        let (ready, raw) = sort_out(&*disk, options, &listed)?;
        let sequences = listed.sequences;
        let mut opened = Opened::default();
        let mut segments = VecDeque::new();
        let mut next_number = 1;
        for (position, &sequence) in sequences.iter().enumerate() {
            if sequence != sequences[0] + position as u64 {
                return Err(WalError::Missing { path: segment::path(dir, sequences[0] + position as u64) });
            }
            let is_last = position + 1 == sequences.len();
            let (segment, found) = Segment::recover(&*disk, dir, sequence, is_last, visit)?;
            if position == 0 {
                opened.prologue = Some(found.prologue);
                next_number = segment.first_number();
            } else if segment.first_number() != next_number {
                return Err(WalError::Damaged { path: segment.path().to_owned(), offset: 0 });
            }
            opened.torn_bytes += found.torn_bytes;
            opened.frames += found.frames;
            next_number += found.frames;
            segments.push_back(segment);
        }
        let room = Room::default();
        room.set_reserve(RESERVE_BYTES.min(options.segment_bytes / 4));
        let spares = |ahead| {
            Spares::new(Arc::clone(&disk), dir, options.segment_bytes, room.clone(), ahead, raw, ready)
        };
        let (active, spares) = if let Some(active) = segments.pop_back() {
            (active, spares(making == Making::Ahead)?)
        } else {
            let spares = spares(making == Making::Ahead)?;
            let least = segment::len_for(prologue.len(), 0);
            let ready = spares.make_new(options.segment_bytes.min(FIRST_BYTES).max(least))?;
            (Segment::create(&*disk, dir, 1, next_number, prologue, ready)?, spares)
        };
        room.set_left(active.left());
        want_next(&spares, &active, options);
        let (dir, sealed) = (dir.to_owned(), segments);
        let failed = false;
        Ok((
            Self { disk, dir, options, sealed, active, next_number, spares, room, failed, _lock: lock },
            opened,
        ))
    }

    /// Appends a frame and returns its place. When this returns, the frame is on disk.
    ///
    /// A new segment, if it takes one, begins with what `prologue` returns.
    ///
    /// # Errors
    /// [`WalError::Failed`] after a failed write or sync of this log. [`WalError::NoRoom`] if there is no file for a new
    /// segment, for a full disk for example: nothing is lost, and the call may be repeated. [`WalError::Io`].
    pub fn append(&mut self, payload: &[u8], prologue: impl FnOnce() -> Vec<u8>) -> Result<Place, WalError> {
        if self.failed {
            return Err(WalError::Failed);
        }
        let needed = frame::encoded_len(payload.len());
        if !self.active.has_room_for(needed) {
            let prologue = prologue();
            let bytes = next_len(&self.active, self.options).max(segment::len_for(prologue.len(), needed));
            let ready = self.spares.take(bytes)?;
            let sequence = self.active.sequence() + 1;
            // From here on a file may have the segment's name, so that there is no way back.
            let next = Segment::create(&*self.disk, &self.dir, sequence, self.next_number, &prologue, ready);
            let next = next.inspect_err(|_| self.failed = true)?;
            self.sealed.push_back(std::mem::replace(&mut self.active, next));
        }
        let number = self.next_number;
        let place = self.active.append(number, payload).inspect_err(|_| self.failed = true)?;
        self.next_number += 1;
        self.room.set_left(self.active.left());
        want_next(&self.spares, &self.active, self.options);
        Ok(place)
    }

    /// How long the sync of the last append took.
    pub fn synced_in(&self) -> Duration {
        self.active.synced_in
    }

    /// Whether there is room for more, as it changes.
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Lets go of all segments that hold only frames before `number`; some of them are kept for later use.
    ///
    /// # Errors
    /// [`WalError::Io`]; what was not let go of is so by a later call.
    pub fn release_before(&mut self, number: u64) -> Result<(), WalError> {
        while let Some(oldest) = self.sealed.front() {
            // A segment ends where the next one begins.
            let next = self.sealed.get(1).unwrap_or(&self.active);
            if next.first_number() > number {
                break;
            }
            // Oldest first and one by one, so that no crash leaves a gap; and a file is used again only when its old name
            // is gone for good.
            if self.spares.len() < self.options.spares && oldest.len() == self.options.segment_bytes {
                let spare = segment::discard(&*self.disk, &self.dir, oldest.sequence())?;
                self.sealed.pop_front();
                sync_dir(&*self.disk, &self.dir)?;
                self.spares.recycle(spare);
            } else {
                self.disk.remove(oldest.path()).map_err(WalError::io("remove", oldest.path()))?;
                self.sealed.pop_front();
                sync_dir(&*self.disk, &self.dir)?;
            }
        }
        Ok(())
    }

    /// The number that the next frame will get.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }
}

/// The length of the segment after this one: they grow from the first one on, so that a small store has a small log, and none
/// is waited for.
fn next_len(active: &Segment, options: WalOptions) -> u64 {
    active.len().saturating_mul(GROWTH).min(options.segment_bytes)
}

/// Has the next segment made once half of this one is used.
fn want_next(spares: &Spares, active: &Segment, options: WalOptions) {
    if active.left() < active.len() / 2 {
        spares.want(next_len(active, options));
    }
}

/// Removes files that are not to be used again, and returns the others: one that is zeros, and those that are not.
fn sort_out(
    disk: &dyn Disk,
    options: WalOptions,
    listed: &Listed,
) -> Result<(Option<Ready>, Vec<PathBuf>), WalError> {
    let (mut ready, mut raw) = (None, Vec::new());
    for path in listed.ready.iter().chain(&listed.raw) {
        let file = disk.open(path, Access::Change).map_err(WalError::io("open", path))?;
        let len = file.len().map_err(WalError::io("look at", path))?;
        let is_zeros = listed.ready.contains(path);
        if len != options.segment_bytes || raw.len() + usize::from(ready.is_some()) >= options.spares.max(1) {
            disk.remove(path).map_err(WalError::io("remove", path))?;
        } else if is_zeros && ready.is_none() {
            ready = Some(Ready { path: path.clone(), file, len });
        } else {
            raw.push(path.clone());
        }
    }
    Ok((ready, raw))
}

/// Keeps other processes out, for as long as what is returned lives.
fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Lock>, WalError> {
    let path = dir.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => WalError::InUse { path: dir.to_owned() },
        _ => WalError::io("lock", &path)(error),
    })
}

/// Makes the names of files in a folder as durable as their contents.
fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    if planted(PlantedBug::RenameNotSynced) {
        return Ok(());
    }
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))
}
