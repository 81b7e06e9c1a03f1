//! Snapshots: the whole store in a file, so that the log before it is not needed.
//!
//! ```text
//! <dir>/000000000000270f.snap   header │ head │ parts │ … │ parts │ end
//!       ….tmp                   being written, or left by a crash
//!
//! header: magic, format, checksum       block: length, checksum of place and bytes, bytes
//! ```
//!
//! Invariants:
//! - A file has its name when it is whole and durable. Its name is the index of the last entry that is in it.
//! - A block that cannot be read is damage, never an end: the last block says that it is, and how many came before.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use landbridge_kvstore_store::{BuildError, StoreBuilder};
use prost::Message;

use super::codec::{
    Block, DecodeError, Head, decode_block, encode_end, encode_head, encode_parts, part_to_proto,
};
use super::state_machine::State;
use super::types::{LogId, SnapshotMeta};
use crate::planted::{PlantedBug, planted};
use crate::wal::disk::{Access, Disk, DiskFile, Reader, is_full};

const MAGIC: [u8; 8] = *b"LBRGSNP\0";
const FORMAT: u32 = 2;
pub(super) const HEADER_LEN: usize = 16;
/// Bytes of parts from which on a block takes no more.
const BLOCK_BYTES: usize = 256 << 10;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// What is there is not what was written.
    #[error(
        "{path} is damaged at byte {offset}: restore this member's data folder from a backup, or remove the member \
         and add a new one that copies the others"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        offset: u64,
        /// In which way.
        source: Damage,
    },
    /// It was written by a newer version.
    #[error("{path} has format {format}, and this program knows {known}: use the version that wrote it")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it says.
        format: u32,
        /// What is known here.
        known: u32,
    },
    /// A call to the kernel failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// In which way a snapshot is damaged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is no snapshot at all.
    #[error("not a snapshot of the store")]
    Header,
    /// It ends before its end, or goes on behind it.
    #[error("the file is not as long as it was")]
    Length,
    /// Bytes have changed.
    #[error("a checksum does not fit")]
    Checksum,
    /// Blocks are not in their order.
    #[error("blocks are missing or not in their order")]
    Order,
    /// A block makes no sense.
    #[error("a block cannot be read")]
    Block(#[from] DecodeError),
    /// The parts are no store.
    #[error("the parts do not fit")]
    Parts(#[from] BuildError),
}

impl SnapshotError {
    /// Whether there was no room for it, which someone may make.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// A snapshot on disk. It can be read even when a newer one has taken its place.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
}

/// A snapshot that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) cluster_id: u64,
    pub(super) state: State,
}

/// The snapshots of `dir`, the newest first.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut found = files(disk, dir)?;
    found.retain(|path| path.extension() == Some(OsStr::new("snap")));
    found.sort_unstable_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Removes what a crash left unfinished.
pub(super) fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), SnapshotError> {
    for path in files(disk, dir)? {
        if path.extension() == Some(OsStr::new("tmp")) {
            disk.remove(&path).map_err(SnapshotError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    disk.list(dir).map_err(SnapshotError::io("read", dir))
}

/// Where the snapshot up to an entry is.
pub(super) fn path(dir: &Path, last_applied: Option<LogId>) -> PathBuf {
    let index = last_applied.map_or(0, |last| last.index);
    dir.join(format!("{index:016x}.snap"))
}

/// Writes a snapshot and removes those before it. Blocks.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    cluster_id: u64,
    meta: &SnapshotMeta,
    state: &State,
) -> Result<PathBuf, SnapshotError> {
    let last_applied = meta.last_log_id;
    let path = path(dir, last_applied);
    let draft = path.with_extension("tmp");
    let written = disk.open(&draft, Access::Create).and_then(|file| {
        let mut out = Buffered { file: &*file, buffer: Vec::new(), offset: 0 };
        write_to(&mut out, cluster_id, meta, state)?;
        out.flush()?;
        file.sync_all()
    });
    // What is half written takes the room that someone else may need.
    let written = written.inspect_err(|_| drop(disk.remove(&draft)));
    written.map_err(SnapshotError::io("write", &draft))?;
    finish(disk, dir, &draft, &path)?;
    Ok(path)
}

/// Writes what is in a snapshot.
pub(super) fn write_to(
    out: &mut dyn Write,
    cluster_id: u64,
    meta: &SnapshotMeta,
    state: &State,
) -> io::Result<()> {
    let head = Head {
        cluster_id,
        last_applied: meta.last_log_id,
        membership: meta.last_membership.clone(),
        auth: Arc::clone(&state.auth),
        alarms: state.alarms.clone(),
        members: state.members.clone(),
    };
    BlockWriter { out, count: 0 }.write_all(&head, state)
}

/// Gives a snapshot that is whole and durable its name, and removes those before it.
pub(super) fn finish(disk: &dyn Disk, dir: &Path, draft: &Path, path: &Path) -> Result<(), SnapshotError> {
    disk.rename(draft, path).map_err(SnapshotError::io("rename", draft))?;
    if !planted(PlantedBug::RenameNotSynced) {
        disk.sync_dir(dir).map_err(SnapshotError::io("sync", dir))?;
    }
    for older in list(disk, dir)?.into_iter().filter(|older| **older < *path) {
        disk.remove(&older).map_err(SnapshotError::io("remove", &older))?;
    }
    Ok(())
}

struct BlockWriter<'a> {
    out: &'a mut dyn Write,
    count: u64,
}

/// Writes a file from its beginning, in large pieces.
struct Buffered<'a> {
    file: &'a dyn DiskFile,
    buffer: Vec<u8>,
    /// Of the buffer in the file.
    offset: u64,
}

impl Write for Buffered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl BlockWriter<'_> {
    fn write_all(&mut self, head: &Head, state: &State) -> io::Result<()> {
        self.out.write_all(&header())?;
        self.write(&encode_head(head))?;
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for part in state.store.parts() {
            let part = part_to_proto(part);
            bytes += part.encoded_len();
            parts.push(part);
            if bytes >= BLOCK_BYTES {
                self.write(&encode_parts(mem::take(&mut parts)))?;
                bytes = 0;
            }
        }
        self.write(&encode_parts(parts))?;
        self.write(&encode_end(self.count))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len =
            u32::try_from(bytes.len()).map_err(|_| io::Error::other("a part of the store is too large"))?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&checksum(self.count, bytes).to_le_bytes())?;
        self.out.write_all(bytes)?;
        self.count += 1;
        Ok(())
    }
}

pub(super) fn header() -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Of a block with its place, so that one is not taken for another.
pub(super) fn checksum(place: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&place.to_le_bytes()), bytes)
}

/// Reads a snapshot. Blocks.
pub(super) fn read(path: &Path, file: &dyn DiskFile) -> Result<Loaded, SnapshotError> {
    let len = file.len().map_err(SnapshotError::io("look at", path))?;
    read_padded(path, file, len, 1)
}

/// Reads a snapshot of `len` bytes, the last of which are zeros up to a multiple of `multiple`. Blocks.
pub(super) fn read_padded(
    path: &Path,
    file: &dyn DiskFile,
    len: u64,
    multiple: u64,
) -> Result<Loaded, SnapshotError> {
    let file = Reader::new(file);
    let mut reader =
        BlockReader { path, file: BufReader::new(file), len, offset: 0, count: 0, buffer: BytesMut::new() };
    reader.header()?;
    let Block::Head(head) = reader.next()? else { return Err(reader.damaged(Damage::Order)) };
    let mut store = StoreBuilder::new();
    loop {
        let before = reader.count;
        match reader.next()? {
            Block::Head(_) => return Err(reader.damaged(Damage::Order)),
            Block::Parts(parts) => {
                for part in parts {
                    store.add(part).map_err(|error| reader.damaged(error.into()))?;
                }
            }
            Block::End(blocks) if blocks != before => return Err(reader.damaged(Damage::Order)),
            Block::End(_) if reader.offset.next_multiple_of(multiple) != len => {
                return Err(reader.damaged(Damage::Length));
            }
            Block::End(_) => break,
        }
    }
    let store = store.finish().map_err(|error| reader.damaged(error.into()))?;
    let Head { cluster_id, last_applied, membership, alarms, auth, members } = head;
    let state = State { store, auth, members, alarms, last_applied, membership };
    Ok(Loaded { cluster_id, state })
}

struct BlockReader<'a> {
    path: &'a Path,
    file: BufReader<Reader<'a>>,
    len: u64,
    /// Where the next block is.
    offset: u64,
    count: u64,
    /// Kept from block to block: new memory for each would take as long as all the rest. What is read of it is copied.
    buffer: BytesMut,
}

impl BlockReader<'_> {
    fn damaged(&self, source: Damage) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.to_owned(), offset: self.offset, source }
    }

    fn header(&mut self) -> Result<(), SnapshotError> {
        let bytes: [u8; HEADER_LEN] = self.array()?;
        let number = |at: usize| {
            bytes
                .get(at..)
                .and_then(|bytes| bytes.first_chunk())
                .map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        if !bytes.starts_with(&MAGIC) || number(12) != crc32c::crc32c(&bytes[..12]) {
            return Err(self.damaged(Damage::Header));
        }
        if number(8) != FORMAT {
            let (path, format) = (self.path.to_owned(), number(8));
            return Err(SnapshotError::UnknownFormat { path, format, known: FORMAT });
        }
        self.offset += HEADER_LEN as u64;
        Ok(())
    }

    fn next(&mut self) -> Result<Block, SnapshotError> {
        let len = u32::from_le_bytes(self.array()?);
        let expected = u32::from_le_bytes(self.array()?);
        // Before room is made for what is not there.
        if self.offset + 8 + u64::from(len) > self.len {
            return Err(self.damaged(Damage::Length));
        }
        let mut bytes = mem::take(&mut self.buffer);
        bytes.resize(len as usize, 0);
        self.fill(&mut bytes)?;
        if checksum(self.count, &bytes) != expected {
            return Err(self.damaged(Damage::Checksum));
        }
        let bytes = bytes.freeze();
        let block = decode_block(bytes.clone()).map_err(|error| self.damaged(error.into()))?;
        self.buffer = bytes.try_into_mut().unwrap_or_default();
        self.offset += 8 + u64::from(len);
        self.count += 1;
        Ok(block)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        match self.file.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged(Damage::Length)),
            outcome => outcome.map_err(SnapshotError::io("read", self.path)),
        }
    }
}
