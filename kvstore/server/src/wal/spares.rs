//! Segments that are made ahead, so that no append waits for zeros.
//!
//! ```text
//! released segment ─► raw ─┐
//!                          ├─► zeros, sync ─► ready-….wal ─► the next segment
//! no file at all ──────────┘      (helper)
//! ```
//!
//! Invariants:
//! - A file named `ready-…` has its full length in zeros, all of them durable. One named `spare-…` may hold anything.
//! - A segment is made when half of the one in use is left, in small pieces with pauses: what is dirty of it when the log is
//!   synced has to go to the disk with it.
//! - A full disk is met here and nowhere else: segments that are in use have their room already. So it loses nothing, and
//!   the helper tries again until there is room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::WalError;
use super::disk::{Access, Disk, DiskFile, is_full};

/// Bytes of zeros after which the helper syncs and pauses.
const PIECE_BYTES: u64 = 1 << 20;
/// The helper pauses no longer than this.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the helper waits before it asks a full disk again.
const RETRY: Duration = Duration::from_millis(200);
static ZEROS: [u8; 1 << 18] = [0; 1 << 18];

/// A file of zeros that can become a segment.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
}

/// Whether the log has room for more.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<RoomState>);

#[derive(Debug, Default)]
struct RoomState {
    /// The disk had no room for another segment when it was last asked.
    disk_is_full: AtomicBool,
    /// Bytes left in the segment in use.
    left: AtomicU64,
    /// Bytes that are kept for what was taken before.
    reserve: AtomicU64,
}

impl Room {
    /// Whether nothing new is to be taken: the disk is full, and what is left of the log is for what was taken already.
    pub fn is_short(&self) -> bool {
        let RoomState { disk_is_full, left, reserve } = &*self.0;
        disk_is_full.load(Ordering::Relaxed) && left.load(Ordering::Relaxed) < reserve.load(Ordering::Relaxed)
    }

    pub(super) fn set_reserve(&self, bytes: u64) {
        self.0.reserve.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_left(&self, bytes: u64) {
        self.0.left.store(bytes, Ordering::Relaxed);
    }

    fn set_full(&self, is_full: bool) {
        self.0.disk_is_full.store(is_full, Ordering::Relaxed);
    }
}

/// Makes segments ahead.
#[derive(Debug)]
pub(super) struct Spares {
    shared: Arc<Shared>,
    /// None if nothing is made ahead.
    helper: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Of a segment, when the log has grown.
    len: u64,
    room: Room,
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    raw: Vec<PathBuf>,
    /// The length of the next segment, once it will be needed soon.
    wanted: Option<u64>,
    ready: Option<Ready>,
    /// Why there is none, if that is known.
    failed: Option<io::Error>,
}

impl Spares {
    /// Spares in `dir`, made by a thread of their own if `ahead`, of the files that are there.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        len: u64,
        room: Room,
        ahead: bool,
        raw: Vec<PathBuf>,
        ready: Option<Ready>,
    ) -> Result<Self, WalError> {
        let state = Mutex::new(State { raw, wanted: None, ready, failed: None });
        let (dir, stop, changed) = (dir.to_owned(), AtomicBool::new(false), Condvar::new());
        let shared = Arc::new(Shared { disk, dir, len, room, stop, state, changed });
        let helper = if ahead {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("log segments".to_owned());
            let helper = thread.spawn(move || shared.run());
            Some(helper.map_err(WalError::io("start a thread for", Path::new("the log")))?)
        } else {
            None
        };
        Ok(Self { shared, helper })
    }

    /// Has a segment of `len` bytes made ahead.
    pub(super) fn want(&self, len: u64) {
        let mut state = self.shared.state();
        if self.helper.is_some() && state.wanted != Some(len) {
            state.wanted = Some(len);
            self.shared.changed.notify_all();
        }
    }

    /// A file of `len` bytes of zeros, or more. Waits for it if it is being made.
    ///
    /// # Errors
    /// [`WalError::NoRoom`], and nothing is lost.
    pub(super) fn take(&self, len: u64) -> Result<Ready, WalError> {
        let Shared { dir, changed, .. } = &*self.shared;
        let mut state = self.shared.state();
        if let Some(ready) = state.ready.take_if(|ready| ready.len >= len) {
            state.wanted = None;
            return Ok(ready);
        }
        // What nobody makes ahead, or is larger than that.
        if self.helper.is_none() || state.ready.is_some() || state.wanted.is_none_or(|wanted| wanted < len) {
            let raw = if len == self.shared.len { state.raw.pop() } else { None };
            let path = raw.unwrap_or_else(|| name(dir));
            drop(state);
            return self.shared.make(&path, len, false).map_err(|source| self.no_room(source));
        }
        loop {
            if let Some(ready) = state.ready.take() {
                state.wanted = None;
                return Ok(ready);
            }
            if let Some(error) = &state.failed {
                let error = io::Error::new(error.kind(), error.to_string());
                return Err(self.no_room(error));
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn no_room(&self, source: io::Error) -> WalError {
        WalError::NoRoom { path: self.shared.dir.clone(), source }
    }

    /// A new file of any length.
    pub(super) fn make_new(&self, len: u64) -> Result<Ready, WalError> {
        let path = name(&self.shared.dir);
        self.shared.make(&path, len, false).map_err(|source| self.no_room(source))
    }

    /// How many files wait to be used.
    pub(super) fn len(&self) -> usize {
        let state = self.shared.state();
        state.raw.len() + usize::from(state.ready.is_some())
    }

    /// Takes a file whose old name is gone for good.
    pub(super) fn recycle(&self, path: PathBuf) {
        self.shared.state().raw.push(path);
        self.shared.changed.notify_all();
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        {
            // Whoever is about to wait has seen it, or is woken.
            let _state = self.shared.state();
            self.shared.changed.notify_all();
        }
        if let Some(helper) = self.helper.take() {
            // It had nothing to tell but that it panicked, which was said.
            drop(helper.join());
        }
    }
}

/// A name that no other file has, also of those that were made before the last start.
fn name(dir: &Path) -> PathBuf {
    dir.join(format!("spare-new-{:016x}.wal", fastrand::u64(..)))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one file ready.
    fn run(&self) {
        let mut state = self.state();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(len) = state.wanted.filter(|_| state.ready.is_none()) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let raw = if len == self.len { state.raw.pop() } else { None };
            let path = raw.unwrap_or_else(|| name(&self.dir));
            drop(state);
            let made = self.make(&path, len, true);
            state = self.state();
            match made {
                Ok(ready) => {
                    state.ready = Some(ready);
                    state.failed = None;
                    self.changed.notify_all();
                }
                Err(error) => {
                    state.failed = Some(error);
                    self.changed.notify_all();
                    let waited = self.changed.wait_timeout(state, RETRY);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Makes a file of zeros out of one that may hold anything, or of none.
    fn make(&self, path: &Path, len: u64, is_ahead: bool) -> io::Result<Ready> {
        let made = self.fill(path, len, is_ahead);
        self.room.set_full(made.as_ref().is_err_and(is_full));
        // What is half made takes the room that someone else may need.
        made.inspect_err(|_| drop(self.disk.remove(path)))
    }

    fn fill(&self, path: &Path, len: u64, is_ahead: bool) -> io::Result<Ready> {
        // A file that is there is kept: its blocks are.
        let there = self.disk.open(path, Access::Change).ok();
        let there = there.filter(|file| file.len().is_ok_and(|there| there == len));
        let file = if let Some(file) = there {
            file
        } else {
            let file = self.disk.open(path, Access::Create)?;
            // Room first, so that a full disk is found before the first zero.
            file.allocate(len)?;
            file
        };
        let mut at = 0;
        while at < len {
            let began = Instant::now();
            let end = len.min(at + PIECE_BYTES);
            fill_with_zeros(&*file, at, end)?;
            at = end;
            if is_ahead && at < len {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                file.sync_data()?;
                // Half of the time is the log's, unless it waits for this.
                std::thread::sleep(began.elapsed().min(PAUSE));
            }
        }
        file.sync_all()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ready = self.dir.join(name.replacen("spare-", "ready-", 1));
        self.disk.rename(path, &ready)?;
        Ok(Ready { path: ready, file, len })
    }
}

/// Fills a part of a file with zeros.
pub(super) fn fill_with_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
