//! Commands of bpf(2) that aya keeps to itself: above all, pointing a link at another program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[cfg(feature = "trial")]
const BPF_MAP_CREATE: libc::c_long = 0;
#[cfg(feature = "trial")]
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// The first bytes of `union bpf_attr` (`include/uapi/linux/bpf.h`), the rest is zero.
type Attributes = [u64; 16];

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

/// Two descriptors side by side, as two u32 fields are in memory.
fn pair(first: i32, second: i32) -> io::Result<u64> {
    let [first, second] = [first, second].map(u32::try_from);
    let (Ok(first), Ok(second)) = (first, second) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    Ok(u64::from_ne_bytes(bytes))
}

#[expect(unsafe_code, reason = "a system call that no safe crate wraps")]
fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most as many bytes as it is told the attributes have, and the pointers in
    // them are to strings that outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(unsafe_code, reason = "the kernel returned the number of a descriptor")]
fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel just opened it for this process, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
