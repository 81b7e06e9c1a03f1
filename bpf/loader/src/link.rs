//! Pointing a link at another program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::syscall::{Attributes, bpf, owned, pair};

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
