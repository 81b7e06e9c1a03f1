//! Where a frame is, for those who read it again.

use std::path::PathBuf;
use std::sync::Arc;

use super::WalError;
use super::disk::{DiskFile, read_exact_at};
use super::frame;

/// The file of a segment, for as long as anyone reads it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Which use of the file this is.
    pub(super) salt: u64,
}

/// Where a frame is. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Place(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Arc<Source>,
    number: u64,
    offset: u64,
    payload_len: usize,
}

impl Place {
    pub(super) fn new(source: &Arc<Source>, number: u64, offset: u64, payload_len: usize) -> Self {
        Self(Arc::new(Inner { source: Arc::clone(source), number, offset, payload_len }))
    }

    /// The number of the frame.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Reads what was appended. Blocks.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if it is not there any more: the file is damaged, or its segment was let go of and the file has
    /// another use. [`WalError::Io`].
    pub fn read(&self) -> Result<Vec<u8>, WalError> {
        let Inner { source, number, offset, payload_len } = &*self.0;
        let mut bytes = vec![0; frame::HEADER_LEN + payload_len];
        read_exact_at(&*source.file, &mut bytes, *offset).map_err(WalError::io("read", &source.path))?;
        if frame::first(source.salt, *number, &bytes).is_none() {
            return Err(WalError::Damaged { path: source.path.clone(), offset: *offset });
        }
        bytes.drain(..frame::HEADER_LEN);
        Ok(bytes)
    }
}
