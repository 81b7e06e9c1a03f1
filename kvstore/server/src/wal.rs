//! The write-ahead log: batches of bytes that survive the loss of power once [`Wal::append`] has returned.
//!
//! ```text
//! <dir>/0000000000000007.wal   header │ prologue │ frame │ frame │ … │ frame │ zeros
//!       0000000000000008.wal   header │ prologue │ frame │ … zeros
//!       spare-….wal            no longer needed, waiting to become the next segment
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

mod error;
mod frame;
mod segment;

pub use error::WalError;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use segment::Segment;

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

/// A log that is open for appending.
#[derive(Debug)]
pub struct Wal {
    dir: PathBuf,
    options: WalOptions,
    /// Older segments, oldest first.
    sealed: VecDeque<Segment>,
    active: Segment,
    next_number: u64,
    spares: Vec<PathBuf>,
    failed: bool,
    _lock: File,
}

impl Wal {
    /// Opens the log in `dir`, or makes one whose first segment begins with `prologue`.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if something that was acknowledged cannot be read, [`WalError::Missing`] if a segment between
    /// others is gone, [`WalError::InUse`], [`WalError::Io`]. That the newest segment is gone cannot be seen here.
    pub fn open(dir: &Path, options: WalOptions, prologue: &[u8]) -> Result<(Self, Recovery), WalError> {
        create_dirs(dir)?;
        let lock = lock(dir)?;
        // A crash may have come between a rename and its sync. What is seen now has to stay so.
        sync_dir(dir)?;
        let (sequences, mut spares) = segment::list(dir)?;
        for surplus in spares.drain(options.spares.min(spares.len())..) {
            fs::remove_file(&surplus).map_err(WalError::io("remove", &surplus))?;
        }
        let mut recovery = Recovery::default();
        let mut segments = VecDeque::new();
        let mut next_number = 1;
        for (position, &sequence) in sequences.iter().enumerate() {
            if sequence != sequences[0] + position as u64 {
                return Err(WalError::Missing { path: segment::path(dir, sequences[0] + position as u64) });
            }
            let is_last = position + 1 == sequences.len();
            let (segment, found) = Segment::recover(dir, sequence, is_last)?;
            if position == 0 {
                recovery.prologue = Some(found.prologue);
                next_number = segment.first_number();
            } else if segment.first_number() != next_number {
                return Err(WalError::Damaged { path: segment.path().to_owned(), offset: 0 });
            }
            recovery.torn_bytes += found.torn_bytes;
            for payload in found.payloads {
                recovery.frames.push(Recovered { number: next_number, payload });
                next_number += 1;
            }
            segments.push_back(segment);
        }
        let active = if let Some(active) = segments.pop_back() {
            active
        } else {
            Segment::create(dir, 1, next_number, prologue, options.segment_bytes, spares.pop())?
        };
        let dir = dir.to_owned();
        Ok((
            Self { dir, options, sealed: segments, active, next_number, spares, failed: false, _lock: lock },
            recovery,
        ))
    }

    /// Appends a frame and returns its number. When this returns, the frame is on disk.
    ///
    /// A new segment, if it takes one, begins with what `prologue` returns.
    ///
    /// # Errors
    /// [`WalError::Failed`] after a failed write or sync of this log. [`WalError::Io`]: if it was a new segment that
    /// could not be made, for a full disk for example, nothing is lost and the call may be repeated.
    pub fn append(&mut self, payload: &[u8], prologue: impl FnOnce() -> Vec<u8>) -> Result<u64, WalError> {
        if self.failed {
            return Err(WalError::Failed);
        }
        let needed = frame::encoded_len(payload.len());
        if !self.active.has_room_for(needed) {
            let prologue = prologue();
            let bytes = self.options.segment_bytes.max(segment::len_for(prologue.len(), needed));
            let sequence = self.active.sequence() + 1;
            let spare = self.spares.pop();
            let next = Segment::create(&self.dir, sequence, self.next_number, &prologue, bytes, spare)?;
            self.sealed.push_back(std::mem::replace(&mut self.active, next));
        }
        let number = self.next_number;
        self.active.append(number, payload).inspect_err(|_| self.failed = true)?;
        self.next_number += 1;
        Ok(number)
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
            if self.spares.len() < self.options.spares {
                let spare = segment::discard(&self.dir, oldest.sequence())?;
                self.sealed.pop_front();
                sync_dir(&self.dir)?;
                self.spares.push(spare);
            } else {
                fs::remove_file(oldest.path()).map_err(WalError::io("remove", oldest.path()))?;
                self.sealed.pop_front();
                sync_dir(&self.dir)?;
            }
        }
        Ok(())
    }

    /// The number that the next frame will get.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }
}

/// Keeps other processes out, for as long as the file is open.
fn lock(dir: &Path) -> Result<File, WalError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(WalError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WalError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(WalError::io("lock", &path)(error)),
    }
}

/// Makes a folder with those above it, all of them durable.
fn create_dirs(dir: &Path) -> Result<(), WalError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dirs(parent)?;
    }
    fs::create_dir(dir).map_err(WalError::io("create", dir))?;
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes the names of files in a folder as durable as their contents.
fn sync_dir(dir: &Path) -> Result<(), WalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(WalError::io("sync", dir))
}
