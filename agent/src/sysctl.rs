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

/// The source of a packet has to be behind the interface that it arrives at (Linux `ip-sysctl`, `rp_filter`).
const STRICT: u8 = 1;
/// Any interface may lead back to it.
const LOOSE: u8 = 2;

/// Lets the node forward packets between `overlay`, which the agent made, and `uplink`.
///
/// What a pod sends to another node's own address leaves by the uplink and its answer arrives by the overlay. A strict
/// check would drop it, so that on these two the check becomes a loose one. Other interfaces keep theirs.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn allow_forwarding(overlay: &str, uplink: &str) -> Result<(), SysctlError> {
    // Writing it resets other settings of all interfaces, so not without need.
    set(&setting("ip_forward"), 1, |now| now == 1)?;
    let all = read(&reverse_path("all"), LOOSE)?;
    for interface in [overlay, uplink] {
        set(&reverse_path(interface), LOOSE, |now| !is_strict(all, now))?;
    }
    Ok(())
}

/// Lets the node forward packets of IPv6. A node that forwards believes no router, but for this: `uplink` keeps the routes
/// that it has from one.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn allow_forwarding6(uplink: &str) -> Result<(), SysctlError> {
    let accept = setting6(uplink, "accept_ra");
    if read(&accept, ACCEPT_ALWAYS)? == Some(ACCEPT) {
        set(&accept, ACCEPT_ALWAYS, |_| false)?;
    }
    set(&setting6("all", "forwarding"), 1, |now| now == 1)
}

/// Routers are believed unless the node forwards (Linux `ip-sysctl`, `accept_ra`).
const ACCEPT: u8 = 1;
/// Also then.
const ACCEPT_ALWAYS: u8 = 2;

/// Switches IPv6 on or off on an interface. Where pods have no addresses of it, what the kernel says by itself would be
/// heard by nobody. A kernel without IPv6 is quiet already.
///
/// # Errors
/// [`SysctlError`], also if the kernel has no IPv6 and is to have it.
pub(crate) fn set_ipv6(interface: &str, on: bool) -> Result<(), SysctlError> {
    let path = setting6(interface, "disable_ipv6");
    let value = u8::from(!on);
    if on || path.exists() { set(&path, value, |now| now == value) } else { Ok(()) }
}

/// Keeps the kernel from giving an interface an address by itself: nobody on its link would answer.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn without_link_address(interface: &str) -> Result<(), SysctlError> {
    const NONE: u8 = 1;
    set(&setting6(interface, "addr_gen_mode"), NONE, |now| now == NONE)
}

fn setting6(interface: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv6/conf").join(interface).join(name)
}

/// The kernel applies the larger one of an interface's setting and that of all.
fn is_strict(all: Option<u8>, interface: u8) -> bool {
    all.map_or(interface, |all| all.max(interface)) == STRICT
}

fn setting(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn reverse_path(interface: &str) -> PathBuf {
    setting("conf").join(interface).join("rp_filter")
}

fn set(path: &Path, value: u8, is_fine: impl FnOnce(u8) -> bool) -> Result<(), SysctlError> {
    if read(path, value)?.is_some_and(is_fine) {
        return Ok(());
    }
    fs::write(path, value.to_string()).map_err(failed(path, value))
}

/// What is set before it becomes `value`; `None` if it is none of the values that this program knows.
fn read(path: &Path, value: u8) -> Result<Option<u8>, SysctlError> {
    Ok(fs::read_to_string(path).map_err(failed(path, value))?.trim().parse().ok())
}

fn failed(path: &Path, value: u8) -> impl FnOnce(io::Error) -> SysctlError {
    let path = path.to_owned();
    move |source| SysctlError { path, value, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_setting_counts() {
        let strict = [(0, 1), (1, 0), (1, 1)];
        for (all, interface) in (0..=2).flat_map(|all| (0..=2).map(move |interface| (all, interface))) {
            assert_eq!(is_strict(Some(all), interface), strict.contains(&(all, interface)));
        }
    }
}
