//! Settings of the node's network that its packets need, written only where they are not as needed already.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the settings of the calling thread's network namespace are.
const FOLDER: &str = "/proc/sys/net/ipv4";

/// A setting cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {} to {value}: is /proc/sys writable here?", path.display())]
pub(crate) struct SysctlError {
    path: PathBuf,
    value: u8,
    source: io::Error,
}

/// How strictly the source of a packet is checked against the routes back to it (Linux `ip-sysctl`, `rp_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReversePath {
    /// Not at all.
    Off = 0,
    /// Any interface may lead back.
    Loose = 2,
}

/// Lets the node forward packets between `overlay`, which the agent made, and `uplink`.
///
/// What a pod sends to another node's own address leaves by the uplink and its answer arrives by the overlay. A strict
/// check would drop it, so that there the check becomes a loose one; what the overlay brings is checked by its program.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn allow_forwarding(overlay: &str, uplink: &str) -> Result<(), SysctlError> {
    // Writing it resets other settings of all interfaces, so not without need.
    set(&setting("ip_forward"), 1, |now| now == 1)?;
    for interface in ["all", uplink] {
        // The kernel applies the larger one of an interface's and that of all.
        set(&reverse_path(interface), ReversePath::Loose as u8, |now| now != 1)?;
    }
    set(&reverse_path(overlay), ReversePath::Off as u8, |now| now == 0)
}

/// Keeps the kernel from talking IPv6 on an interface: pods have no IPv6 addresses yet, and what it says by itself would
/// be dropped and counted as if a pod had sent it. A kernel without IPv6 is quiet already.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn disable_ipv6(interface: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
    if path.exists() { set(&path, 1, |now| now == 1) } else { Ok(()) }
}

fn setting(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn reverse_path(interface: &str) -> PathBuf {
    setting("conf").join(interface).join("rp_filter")
}

fn set(path: &Path, value: u8, is_fine: impl FnOnce(u8) -> bool) -> Result<(), SysctlError> {
    let failed = |source| SysctlError { path: path.to_owned(), value, source };
    let now = fs::read_to_string(path).map_err(failed)?;
    if now.trim().parse().is_ok_and(is_fine) {
        return Ok(());
    }
    fs::write(path, value.to_string()).map_err(failed)
}
