//! Many entries of a map in one system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

use crate::syscall::{Attributes, bpf, pair};

const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// What is left of a batch that the kernel did not take as a whole.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// How many entries were written: the first ones.
    pub(crate) written: usize,
    /// Why the next one was not.
    pub(crate) source: io::Error,
}

/// Writes entries, new or not, in their order.
pub(crate) fn update<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), Unfinished> {
    if keys.is_empty() {
        return Ok(());
    }
    let refused = |source| Unfinished { written: 0, source };
    let count = i32::try_from(keys.len().min(values.len())).map_err(io::Error::other).map_err(refused)?;
    let mut attributes: Attributes = [0; 16];
    // keys, values, then count and map_fd
    attributes[2] = keys.as_ptr() as u64;
    attributes[3] = values.as_ptr() as u64;
    attributes[4] = pair(count, map.as_raw_fd()).map_err(refused)?;
    match bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) {
        Ok(_) => Ok(()),
        // The kernel says how many it wrote. If it does not get so far, the number is the one it was given.
        Err(source) => {
            let [a, b, c, d, ..] = attributes[4].to_ne_bytes();
            let told = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or_default();
            Err(Unfinished { written: if told < keys.len() { told } else { 0 }, source })
        }
    }
}
