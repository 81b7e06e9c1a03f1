//! What a member stands on here: the kernel's files, on a disk that is slow or full on command, and a clock that jumps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use landbridge_kvstore_server::platform::{Clock, Platform};
use landbridge_kvstore_server::wal::disk::{Access, Disk, DiskFile, Lock, RealDisk};

/// What is wrong with a machine at the moment. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine(Arc<Faults>);

#[derive(Debug, Default)]
struct Faults {
    /// How long each sync takes, beyond what the kernel takes.
    sync_millis: AtomicU64,
    is_full: AtomicBool,
    clock_is_ahead_seconds: AtomicI64,
}

impl Machine {
    pub(crate) fn platform(&self) -> Platform {
        Platform::new(Arc::new(FaultyDisk(self.clone())), Arc::new(self.clone()))
    }

    pub(crate) fn set_sync(&self, takes: Duration) {
        let millis = u64::try_from(takes.as_millis()).unwrap();
        self.0.sync_millis.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.0.is_full.store(is_full, Ordering::Relaxed);
    }

    /// The clock jumps, and stays where it is then.
    pub(crate) fn jump(&self, seconds: i64) {
        self.0.clock_is_ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Fails if there is no room for a file that is to grow.
    fn grow(&self, from: u64, to: u64) -> io::Result<()> {
        let is_full = self.0.is_full.load(Ordering::Relaxed) && to > from;
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Clock for Machine {
    fn now(&self) -> Instant {
        // Far from the beginning of time, so that it can go back.
        let now = Instant::now() + Duration::from_hours(24);
        let ahead = self.0.clock_is_ahead_seconds.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { now.checked_sub(by).unwrap() } else { now + by }
    }
}

#[derive(Debug)]
struct FaultyDisk(Machine);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    machine: Machine,
}

impl Disk for FaultyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn is_dir(&self, dir: &Path) -> bool {
        RealDisk.is_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.file_len(path)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, access)?;
        Ok(Arc::new(FaultyFile { file, machine: self.0.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.machine.grow(self.file.len()?, offset + bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.machine.grow(self.file.len()?, len)?;
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.machine.grow(self.file.len()?, len)?;
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.machine.0.sync_millis.load(Ordering::Relaxed)));
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.machine.0.sync_millis.load(Ordering::Relaxed)));
        self.file.sync_all()
    }
}
