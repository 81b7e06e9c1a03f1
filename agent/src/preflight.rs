//! What the machine has to offer before the agent changes anything on it.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::config::Config;
use crate::netlink::{Netlink, NetlinkError};

/// The loader attaches programs by tcx links.
const MIN_KERNEL: (u32, u32) = (6, 6);
/// What statfs(2) says of a cgroup v2 filesystem.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// What statfs(2) says of a bpf filesystem.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Everything that the machine lacks.
#[derive(Debug, thiserror::Error)]
#[error("this machine lacks what an agent needs:{}", Missing::list(.0))]
pub(crate) struct PreflightError(Vec<Missing>);

/// One thing that the machine lacks.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Root,
    Kernel { found: String },
    CgroupV2(PathBuf),
    BpfFilesystem(PathBuf),
    Uplink(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => write!(f, "root: start the agent as root"),
            Self::Kernel { found } => {
                let (major, minor) = MIN_KERNEL;
                write!(f, "Linux {major}.{minor} or newer, for tcx: this is {found}")
            }
            Self::CgroupV2(path) => write!(
                f,
                "cgroup v2 at {}: mount it there, or name where it is with --cgroup",
                path.display()
            ),
            Self::BpfFilesystem(path) => write!(
                f,
                "a bpf filesystem at {}: mount one (mount -t bpf bpf <folder>), or name a folder on one with --bpf-dir",
                path.display()
            ),
            Self::Uplink(name) => {
                write!(f, "the interface {name}: name the one that leads to other nodes with --uplink")
            }
        }
    }
}

impl Missing {
    fn list(missing: &[Self]) -> String {
        missing.iter().flat_map(|one| ["\n  - ".to_owned(), one.to_string()]).collect()
    }
}

/// Looks for everything, and changes nothing.
///
/// # Errors
/// [`PreflightError`] with all that is missing.
///
pub(crate) async fn check(config: &Config, netlink: &Netlink) -> Result<(), PreflightError> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push(Missing::Root);
    }
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    if version(&release).is_some_and(|version| version < MIN_KERNEL) {
        missing.push(Missing::Kernel { found: release.into_owned() });
    }
    if magic(&config.cgroup) != Some(CGROUP2_MAGIC) {
        missing.push(Missing::CgroupV2(config.cgroup.clone()));
    }
    // The folder itself is made later.
    if config.bpf_dir.ancestors().find_map(magic) != Some(BPF_FS_MAGIC) {
        missing.push(Missing::BpfFilesystem(config.bpf_dir.clone()));
    }
    let uplink: Result<_, NetlinkError> = netlink.interface(&config.uplink).await;
    if !matches!(uplink, Ok(Some(_))) {
        missing.push(Missing::Uplink(config.uplink.clone()));
    }
    if missing.is_empty() { Ok(()) } else { Err(PreflightError(missing)) }
}

/// Which filesystem `path` is on, if it exists.
fn magic(path: &Path) -> Option<i64> {
    statfs(path).ok().map(|filesystem| filesystem.f_type)
}

/// The first two numbers of a release such as `6.18.44-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("10.0-rc1"), Some((10, 0)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let error = PreflightError(vec![Missing::Root, Missing::Uplink("eth7".to_owned())]).to_string();
        assert!(error.contains("\n  - root") && error.contains("\n  - the interface eth7"), "{error}");
    }

    #[test]
    fn the_parent_of_a_folder_to_be_made_counts() {
        let here = std::env::temp_dir();
        assert_eq!(here.join("not/there").ancestors().find_map(magic), magic(&here));
        assert_eq!(magic(Path::new("/not/there")), None);
    }
}
