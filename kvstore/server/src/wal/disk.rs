//! The files below log and snapshots: what is asked of a disk, and the kernel's.
//!
//! ```text
//! Wal, snapshots, backups ─► Disk ─► RealDisk: the kernel's files
//!                                └─► MemoryDisk (tests): loses what was not synced, crashes and fails on command
//! ```
//!
//! Invariants:
//! - What was written lasts when its file was synced, and a name when its folder was. Nothing else does.
//! - All files are readable by their owner only.

#[cfg(test)]
pub(crate) mod memory;

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read. It has to be there.
    Read,
    /// To be read and written, with what it holds. It has to be there.
    Change,
    /// To be read and written, empty. What it held before is gone.
    Create,
}

/// Where files are.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder in one that is there.
    ///
    /// # Errors
    /// The kernel's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether there is such a folder.
    fn is_dir(&self, dir: &Path) -> bool;

    /// The paths of all files of a folder, in order.
    ///
    /// # Errors
    /// The kernel's.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn file_len(&self, path: &Path) -> io::Result<u64>;

    /// Opens a file.
    ///
    /// # Errors
    /// The kernel's.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in the place of the file that has it.
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names of a folder last.
    ///
    /// # Errors
    /// The kernel's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Keeps others out by a file, until what is returned is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another holds it; the kernel's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// Keeps others out until it is dropped.
pub trait Lock: Debug + Send + Sync {}

/// A file that is open.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn len(&self) -> io::Result<u64>;

    /// Reads from a place, and returns how much; 0 at the end.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes to a place. What is on disk after an error is not known.
    ///
    /// # Errors
    /// The kernel's.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or lengthens it by zeros.
    ///
    /// # Errors
    /// The kernel's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Takes room for so many bytes from the disk, as far as it can say.
    ///
    /// # Errors
    /// The kernel's; one that [`is_full`] if there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes what was written last, and the length if it is needed to read that.
    ///
    /// # Errors
    /// The kernel's. What is on disk then is not known, and no later sync tells.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes everything about the file last, but its name.
    ///
    /// # Errors
    /// As for [`Self::sync_data`].
    fn sync_all(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room, which someone may make.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a folder with those above it, all of them durable. Leaves alone what is there.
pub(crate) fn create_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if disk.is_dir(dir) {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dirs(disk, parent)?;
    }
    disk.create_dir(dir)?;
    disk.sync_dir(parent.unwrap_or(Path::new(".")))
}

/// All bytes of a file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let filled = fill(file, &mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads as many bytes as there is room for, from a place.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::UnexpectedEof`] if there are fewer.
pub(crate) fn read_exact_at(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    if fill(file, bytes, offset)? < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Reads until there is no room or the file ends, and returns how much.
fn fill(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Reads a file from its beginning.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile) -> Self {
        Self { file, offset: 0 }
    }
}

impl io::Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The kernel's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// A file of the kernel.
#[derive(Debug)]
pub struct RealFile(pub File);

#[derive(Debug)]
struct RealLock {
    _held: File,
}

impl Lock for RealLock {}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(dir)
    }

    fn is_dir(&self, dir: &Path) -> bool {
        dir.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort_unstable();
        Ok(paths)
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => {}
            Access::Change => drop(options.write(true)),
            Access::Create => drop(options.write(true).create(true).truncate(true)),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _held: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(&self.0, bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // Not every filesystem can.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
