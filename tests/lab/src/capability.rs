//! What labs need of a machine, checked before anything changes.

use std::path::PathBuf;
use std::{fs, io};

use rustix::thread::CapabilitySet;

use crate::cgroup;

/// `cgroup.kill`, which ends all processes of a host at once, came with Linux 5.14.
const MIN_KERNEL: (u32, u32) = (5, 14);

/// Namespaces and mounts; links, addresses and routes; packet sockets.
const POWERS: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
];

/// Something labs need and this machine lacks; the message says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingCapability {
    /// Namespaces, bridges and cgroups are root's.
    #[error("labs need root: run the command again with sudo")]
    Root,
    /// Root of a container that was not given root's powers.
    #[error(
        "labs need all of root's powers, and this process lacks {lacking}: run them outside of the container, or start it with --privileged"
    )]
    Powers {
        /// The names of what is missing, as in capabilities(7).
        lacking: String,
    },
    /// The kernel is too old.
    #[error(
        "labs need Linux {}.{} or newer, this is {running}: boot a newer kernel",
        MIN_KERNEL.0, MIN_KERNEL.1
    )]
    Kernel {
        /// What `uname -r` says.
        running: String,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error("labs need cgroup v2, and none is mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified`")]
    CgroupV2,
    /// TAP devices, which relays use, cannot be made.
    #[error("labs need /dev/net/tun: run `modprobe tun`")]
    Tun,
    /// The kernel has no IPv6.
    #[error("labs need IPv6, and this kernel has none: boot it without ipv6.disable=1")]
    Ipv6,
    /// BPF programs cannot be pinned.
    #[error("labs need the bpf filesystem, which this kernel lacks: boot one with CONFIG_BPF_SYSCALL")]
    BpfFilesystem,
}

/// Checks that the caller is root.
pub(crate) fn require_root() -> Result<(), MissingCapability> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(MissingCapability::Root) }
}

/// Whether the running kernel is at least this.
pub(crate) fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    version(&kernel()) >= Some(wanted)
}

/// What `uname -r` says.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What was found on a machine.
struct Facts {
    is_root: bool,
    powers: CapabilitySet,
    kernel: String,
    cgroup_root: Option<PathBuf>,
    has_tun: bool,
    has_ipv6: bool,
    filesystems: String,
}

/// Checks that labs can run here.
///
/// # Errors
/// The first [`MissingCapability`].
pub(crate) fn preflight() -> Result<(), MissingCapability> {
    let read = |path: &str| -> io::Result<String> { fs::read_to_string(path) };
    check(&Facts {
        is_root: rustix::process::geteuid().is_root(),
        powers: rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective),
        kernel: kernel(),
        cgroup_root: cgroup::mount_point(),
        has_tun: fs::exists("/dev/net/tun").unwrap_or(false),
        has_ipv6: fs::exists("/proc/sys/net/ipv6").unwrap_or(false),
        filesystems: read("/proc/filesystems").unwrap_or_default(),
    })
}

fn check(facts: &Facts) -> Result<(), MissingCapability> {
    if !facts.is_root {
        return Err(MissingCapability::Root);
    }
    let lacking: Vec<&str> =
        POWERS.iter().filter(|(power, _)| !facts.powers.contains(*power)).map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        return Err(MissingCapability::Powers { lacking: lacking.join(" and ") });
    }
    if version(&facts.kernel) < Some(MIN_KERNEL) {
        return Err(MissingCapability::Kernel { running: facts.kernel.clone() });
    }
    if facts.cgroup_root.is_none() {
        return Err(MissingCapability::CgroupV2);
    }
    if !facts.has_tun {
        return Err(MissingCapability::Tun);
    }
    if !facts.has_ipv6 {
        return Err(MissingCapability::Ipv6);
    }
    if !facts.filesystems.split_whitespace().any(|word| word == "bpf") {
        return Err(MissingCapability::BpfFilesystem);
    }
    Ok(())
}

/// Major and minor version of what `uname -r` prints.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            is_root: true,
            powers: CapabilitySet::all(),
            kernel: "5.14.0-rc1".to_owned(),
            cgroup_root: Some("/sys/fs/cgroup".into()),
            has_tun: true,
            has_ipv6: true,
            filesystems: "nodev\tproc\nnodev\tbpf\n\text4\n".to_owned(),
        }
    }

    #[test]
    fn each_missing_thing_is_named() {
        assert_eq!(check(&facts()), Ok(()));
        type Change = fn(&mut Facts);
        let cases: [(Change, &str); 8] = [
            (|f| f.is_root = false, "sudo"),
            (|f| f.powers = CapabilitySet::NET_RAW, "lacks CAP_SYS_ADMIN and CAP_NET_ADMIN"),
            (|f| f.kernel = "5.10.0-28-amd64".to_owned(), "Linux 5.14 or newer, this is 5.10.0-28-amd64"),
            (|f| f.kernel = "?".to_owned(), "this is ?"),
            (|f| f.cgroup_root = None, "cgroup v2"),
            (|f| f.has_tun = false, "/dev/net/tun"),
            (|f| f.has_ipv6 = false, "ipv6.disable"),
            (|f| f.filesystems = "ext4".to_owned(), "bpf filesystem"),
        ];
        for (take_away, expected) in cases {
            let mut facts = facts();
            take_away(&mut facts);
            let message = check(&facts).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
