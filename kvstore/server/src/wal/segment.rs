//! One file of the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::WalError;
use super::disk::{Access, Disk, read_all};
use super::frame::{self, Rest};
use super::place::{Place, Source};
use super::spares::{Ready, fill_with_zeros};
use crate::planted::{PlantedBug, planted};

const MAGIC: [u8; 8] = *b"LBRGWAL\0";
const FORMAT: u32 = 1;
/// Magic, format, four zeros, salt, sequence, number of the first frame, checksum of all that, zeros.
const HEADER_LEN: usize = 64;
/// The prologue is a frame of this number, which no appended frame has.
const PROLOGUE_NUMBER: u64 = 0;

/// A segment that is open for reading or appending.
#[derive(Debug)]
pub(super) struct Segment {
    source: Arc<Source>,
    sequence: u64,
    first_number: u64,
    /// Where the next frame goes.
    end: u64,
    len: u64,
    /// Kept from frame to frame, so that an append allocates nothing.
    buffer: Vec<u8>,
    /// How long the last sync took.
    pub(super) synced_in: Duration,
}

/// What a segment held when it was opened.
pub(super) struct Found {
    pub(super) prologue: Vec<u8>,
    /// How many frames.
    pub(super) frames: u64,
    pub(super) torn_bytes: u64,
}

/// The files of a log.
#[derive(Default)]
pub(super) struct Listed {
    /// The sequences of all segments, in order.
    pub(super) sequences: Vec<u64>,
    /// Files that are zeros, or were to become that.
    pub(super) ready: Vec<PathBuf>,
    /// Files that may hold anything.
    pub(super) raw: Vec<PathBuf>,
}

/// Where a segment is.
pub(super) fn path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}.wal"))
}

/// How long a segment has to be for one frame of `frame_len` bytes.
pub(super) fn len_for(prologue_len: usize, frame_len: u64) -> u64 {
    HEADER_LEN as u64 + frame::encoded_len(prologue_len) + frame_len
}

/// All files of a log.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Listed, WalError> {
    let mut listed = Listed::default();
    for path in disk.list(dir).map_err(WalError::io("read", dir))? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".wal")) else {
            continue;
        };
        if name.starts_with("ready-") {
            listed.ready.push(path);
        } else if name.starts_with("spare-") {
            listed.raw.push(path);
        } else if name.len() == 16
            && let Ok(sequence) = u64::from_str_radix(name, 16)
        {
            listed.sequences.push(sequence);
        }
    }
    listed.sequences.sort_unstable();
    Ok(listed)
}

/// Turns a segment into a spare file and returns its path.
pub(super) fn discard(disk: &dyn Disk, dir: &Path, sequence: u64) -> Result<PathBuf, WalError> {
    let (from, spare) = (path(dir, sequence), dir.join(format!("spare-{sequence:016x}.wal")));
    disk.rename(&from, &spare).map_err(WalError::io("rename", &from))?;
    Ok(spare)
}

impl Segment {
    /// Makes a segment out of a file of zeros. It has its name only when it is whole.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        sequence: u64,
        first_number: u64,
        prologue: &[u8],
        ready: Ready,
    ) -> Result<Self, WalError> {
        let path = path(dir, sequence);
        let Ready { path: draft, file, len } = ready;
        // Its only use is to differ from what a client could have put into the file.
        let salt = fastrand::u64(..);
        let mut segment = Self {
            source: Arc::new(Source { path, file, salt }),
            sequence,
            first_number,
            end: HEADER_LEN as u64,
            len,
            buffer: Vec::new(),
            synced_in: Duration::ZERO,
        };
        segment.source.file.write_all_at(&segment.header(), 0).map_err(WalError::io("write", &draft))?;
        segment.write(PROLOGUE_NUMBER, prologue).map_err(WalError::io("write", &draft))?;
        segment.source.file.sync_all().map_err(WalError::io("sync", &draft))?;
        disk.rename(&draft, &segment.source.path).map_err(WalError::io("rename", &draft))?;
        super::sync_dir(disk, dir)?;
        Ok(segment)
    }

    /// Opens a segment and shows what it holds, frame by frame. Only the last one may end in a torn frame.
    pub(super) fn recover(
        disk: &dyn Disk,
        dir: &Path,
        sequence: u64,
        is_last: bool,
        visit: &mut dyn FnMut(&Place, &[u8]),
    ) -> Result<(Self, Found), WalError> {
        let path = path(dir, sequence);
        let damaged = |offset| WalError::Damaged { path: path.clone(), offset };
        let file = disk.open(&path, Access::Change).map_err(WalError::io("open", &path))?;
        let bytes = read_all(&*file).map_err(WalError::io("read", &path))?;
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Err(damaged(0)) };
        let (salt, first_number) = match Header::decode(header) {
            Some(Header { format, .. }) if format != FORMAT => {
                return Err(WalError::UnknownFormat { path: path.clone(), format, known: FORMAT });
            }
            Some(header) if header.sequence == sequence => (header.salt, header.first_number),
            _ => return Err(damaged(0)),
        };
        let prologue =
            frame::first(salt, PROLOGUE_NUMBER, body).ok_or_else(|| damaged(HEADER_LEN as u64))?.to_vec();
        let start = HEADER_LEN as u64 + frame::encoded_len(prologue.len());
        let frames = usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
        let scan = frame::scan(salt, first_number, bytes.len() - frames.len(), frames);
        let end = start + scan.end as u64;
        let torn_bytes = match scan.rest {
            Rest::Empty => 0,
            Rest::Torn(_) if is_last && planted(PlantedBug::TornTailKept) => 0,
            Rest::Torn(written) if is_last => (written - scan.end) as u64,
            Rest::Torn(_) | Rest::Damaged => return Err(damaged(end)),
        };
        let len = bytes.len() as u64;
        if torn_bytes > 0 {
            fill_with_zeros(&*file, end, end + torn_bytes).map_err(WalError::io("write", &path))?;
        }
        if is_last {
            // The process may have died between the write of the last frame and its sync, or after a sync that failed:
            // then the frame can be read, and is on no disk. What is recovered has to be durable, so it is written again.
            let last = scan.payloads.last().map_or(0, |payload| frame::encoded_len(payload.len()));
            let written = usize::try_from(end - last).ok().zip(usize::try_from(end).ok());
            let frame = written.and_then(|(from, to)| bytes.get(from..to)).unwrap_or_default();
            file.write_all_at(frame, end - last).map_err(WalError::io("write", &path))?;
            file.sync_all().map_err(WalError::io("sync", &path))?;
        }
        let frames = scan.payloads.len() as u64;
        let source = Arc::new(Source { path: path.clone(), file, salt });
        let mut offset = start;
        for (number, payload) in (first_number..).zip(scan.payloads) {
            visit(&Place::new(&source, number, offset, payload.len()), payload);
            offset += frame::encoded_len(payload.len());
        }
        let found = Found { prologue, frames, torn_bytes };
        let buffer = Vec::new();
        let synced_in = Duration::ZERO;
        Ok((Self { source, sequence, first_number, end, len, buffer, synced_in }, found))
    }

    pub(super) fn path(&self) -> &Path {
        &self.source.path
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of its first frame, or of the one that would be.
    pub(super) fn first_number(&self) -> u64 {
        self.first_number
    }

    /// Its length in bytes, whatever it holds.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that are left for frames.
    pub(super) fn left(&self) -> u64 {
        self.len - self.end
    }

    pub(super) fn has_room_for(&self, frame_len: u64) -> bool {
        self.end + frame_len <= self.len
    }

    /// Writes a frame and waits until it is on disk.
    pub(super) fn append(&mut self, number: u64, payload: &[u8]) -> Result<Place, WalError> {
        let source = Arc::clone(&self.source);
        let place = Place::new(&source, number, self.end, payload.len());
        self.write(number, payload).map_err(WalError::io("write", &source.path))?;
        let began = Instant::now();
        if !planted(PlantedBug::ReplyBeforeFsync) {
            source.file.sync_data().map_err(WalError::io("sync", &source.path))?;
        }
        self.synced_in = began.elapsed();
        Ok(place)
    }

    fn write(&mut self, number: u64, payload: &[u8]) -> std::io::Result<()> {
        self.buffer.clear();
        frame::encode(self.source.salt, number, payload, &mut self.buffer);
        self.source.file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let Self { sequence, first_number, .. } = *self;
        Header { format: FORMAT, salt: self.source.salt, sequence, first_number }.encode()
    }
}

/// What a segment says about itself.
struct Header {
    format: u32,
    salt: u64,
    sequence: u64,
    first_number: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.format.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_number.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let whole = bytes.starts_with(&MAGIC) && short(40)? == crc32c::crc32c(&bytes[..40]);
        let header =
            Self { format: short(8)?, salt: number(16)?, sequence: number(24)?, first_number: number(32)? };
        whole.then_some(header)
    }
}
