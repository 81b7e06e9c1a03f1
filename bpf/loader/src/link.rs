//! Pointing a link at another program, and a map for tests.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::syscall::{Attributes, bpf, owned, pair};

#[cfg(feature = "trial")]
const BPF_MAP_CREATE: libc::c_long = 0;
#[cfg(feature = "trial")]
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// Points the link that is pinned at `path` at another program of the same kind, in one step.
///
/// # Errors
/// The kernel's answer: `ENOLINK` if what it was attached to is gone.
pub(crate) fn replace_program(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut get: Attributes = [0; 16];
    // pathname
    get[0] = path.as_ptr() as u64;
    let link = owned(bpf(BPF_OBJ_GET, &mut get)?)?;
    let mut update: Attributes = [0; 16];
    // link_fd, new_prog_fd
    update[0] = pair(link.as_raw_fd(), program.as_raw_fd())?;
    bpf(BPF_LINK_UPDATE, &mut update).map(drop)
}

/// Makes a hash and pins it.
///
/// # Errors
/// The kernel's answer.
#[cfg(feature = "trial")]
pub(crate) fn make_hash<K, V>(path: &Path, max_entries: u32) -> io::Result<()> {
    const BPF_MAP_TYPE_HASH: i32 = 1;
    let number = |size: usize| i32::try_from(size).map_err(io::Error::other);
    let mut create: Attributes = [0; 16];
    // map_type, key_size, value_size, max_entries
    create[0] = pair(BPF_MAP_TYPE_HASH, number(size_of::<K>())?)?;
    create[1] = pair(number(size_of::<V>())?, i32::try_from(max_entries).map_err(io::Error::other)?)?;
    let map = owned(bpf(BPF_MAP_CREATE, &mut create)?)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin: Attributes = [0; 16];
    // pathname, bpf_fd
    pin[0] = path.as_ptr() as u64;
    pin[1] = pair(map.as_raw_fd(), 0)?;
    bpf(BPF_OBJ_PIN, &mut pin).map(drop)
}
