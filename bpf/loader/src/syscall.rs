//! Commands of bpf(2) that aya keeps to itself.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// The first bytes of `union bpf_attr` (`include/uapi/linux/bpf.h`), the rest is zero.
pub(crate) type Attributes = [u64; 16];

/// Two descriptors side by side, as two u32 fields are in memory.
pub(crate) fn pair(first: i32, second: i32) -> io::Result<u64> {
    let [first, second] = [first, second].map(u32::try_from);
    let (Ok(first), Ok(second)) = (first, second) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    Ok(u64::from_ne_bytes(bytes))
}

#[expect(unsafe_code, reason = "a system call that no safe crate wraps")]
pub(crate) fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most as many bytes as it is told the attributes have, and the pointers in
    // them are to strings that outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(unsafe_code, reason = "the kernel returned the number of a descriptor")]
pub(crate) fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel just opened it for this process, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
