//! A disk in memory that loses what was not synced, and fails on command.
//!
//! ```text
//! write ─► seen ── sync ─► durable        name: pending ── sync of its folder ─► durable
//!           └─ crash ─► each sector as it was seen, or as it was durable: by a seeded coin
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Access, Disk, DiskFile, Lock};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// The operation that the power does not live to see the end of, counted from 1. It and all later ones fail.
    pub(crate) crash_at: Option<u64>,
    /// An operation that fails with this kind, and those after it go on.
    pub(crate) fail_at: Option<(u64, io::ErrorKind)>,
    /// Bytes that all files may have together.
    pub(crate) capacity: Option<u64>,
    /// How long each sync takes.
    pub(crate) sync_takes: Duration,
}

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing.
    Whole,
    /// Some sectors and some names, by a seed.
    Part(u64),
}

/// A disk in memory. Clones are of the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since their folder was synced, in order.
    pending: BTreeMap<PathBuf, Vec<Change>>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    operations: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => drop(names.insert(path.clone(), *inode)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl State {
    /// Counts an operation that changes something, and fails it if it is its turn.
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.faults.crash_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the power is gone"));
        }
        match self.faults.fail_at {
            Some((at, kind)) if at == self.operations => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].seen.len() as u64).sum()
    }

    fn resize(&mut self, inode: usize, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        let more = len.saturating_sub(self.inodes[inode].seen.len()) as u64;
        if self.faults.capacity.is_some_and(|capacity| more > 0 && self.used() + more > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inodes[inode].seen.resize(len, 0);
        Ok(())
    }

    fn change(&mut self, dir: &Path, change: Change) {
        change.apply(&mut self.names);
        self.pending.entry(dir.to_owned()).or_default().push(change);
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

impl MemoryDisk {
    pub(crate) fn new(faults: Faults) -> Self {
        let disk = Self::default();
        disk.state().faults = faults;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations changed something, those that failed included.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// No operation succeeds any more that changes something.
    pub(crate) fn power_off(&self) {
        self.state().faults.crash_at = Some(0);
    }

    /// The disk as it is found when a process was killed: with all that it has written.
    pub(crate) fn after_kill(&self) -> Self {
        let state = self.state();
        let (inodes, names, dirs) = (state.inodes.clone(), state.names.clone(), state.dirs.clone());
        let (durable_names, pending) = (state.durable_names.clone(), state.pending.clone());
        let left = State { inodes, names, durable_names, pending, dirs, ..State::default() };
        Self(Arc::new(Mutex::new(left)))
    }

    /// The disk as it is found when the power comes back.
    pub(crate) fn after_crash(&self, loss: Loss) -> Self {
        let state = self.state();
        let mut coin = match loss {
            Loss::Whole => None,
            Loss::Part(seed) => Some(fastrand::Rng::with_seed(seed)),
        };
        let mut keep = || coin.as_mut().is_some_and(fastrand::Rng::bool);
        let mut inodes = Vec::new();
        for Inode { seen, durable } in &state.inodes {
            let mut left = durable.clone();
            if keep() {
                left.resize(seen.len(), 0);
            }
            let len = left.len().min(seen.len());
            for from in (0..len).step_by(SECTOR) {
                let to = (from + SECTOR).min(len);
                if left[from..to] != seen[from..to] && keep() {
                    left[from..to].copy_from_slice(&seen[from..to]);
                }
            }
            inodes.push(Inode { seen: left.clone(), durable: left });
        }
        let mut names = state.durable_names.clone();
        for changes in state.pending.values() {
            // Changes of names reach the disk in their order.
            for change in changes {
                if !keep() {
                    break;
                }
                change.apply(&mut names);
            }
        }
        let dirs = state.dirs.clone();
        let left = State { inodes, durable_names: names.clone(), names, dirs, ..State::default() };
        Self(Arc::new(Mutex::new(left)))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
    writable: bool,
}

#[derive(Debug)]
struct MemoryLock(MemoryDisk, PathBuf);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        // Folders last at once: they are made before anything is acknowledged.
        state.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn is_dir(&self, dir: &Path) -> bool {
        self.state().dirs.contains(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        Ok(state.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[inode].seen.len() as u64)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let there = state.names.get(path).copied();
        let inode = match (there, access) {
            (Some(inode), Access::Create) => {
                state.operation()?;
                state.inodes[inode].seen.clear();
                inode
            }
            (Some(inode), _) => inode,
            (None, Access::Create) => {
                state.operation()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.change(&parent(path), Change::Create(path.to_owned(), inode));
                inode
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode, writable: access != Access::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(&parent(from), Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(&parent(path), Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let changes = state.pending.remove(dir).unwrap_or_default();
        for change in changes {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock(self.clone(), path.to_owned())))
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].seen.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let seen = &state.inodes[self.inode].seen;
        let from = usize::try_from(offset).unwrap().min(seen.len());
        let read = bytes.len().min(seen.len() - from);
        bytes[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(self.writable, "a file that was opened for reading is written");
        let mut state = self.disk.state();
        let outcome = state.operation();
        // Of a write that fails, something may have come to the disk: the coin says which sectors.
        let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + bytes.len());
        if to > state.inodes[self.inode].seen.len() {
            outcome?;
            state.resize(self.inode, to as u64)?;
            state.inodes[self.inode].seen[from..to].copy_from_slice(bytes);
            return Ok(());
        }
        state.inodes[self.inode].seen[from..to].copy_from_slice(bytes);
        outcome
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        state.resize(self.inode, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let len = len.max(state.inodes[self.inode].seen.len() as u64);
        state.resize(self.inode, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation()?;
        let takes = state.faults.sync_takes;
        let inode = &mut state.inodes[self.inode];
        inode.durable.clone_from(&inode.seen);
        drop(state);
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
