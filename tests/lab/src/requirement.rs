//! What a test needs of its machine, and how it says that it was skipped.
//!
//! The test harness knows no skipping at run time. A test asks first, and returns if the answer is no:
//!
//! ```no_run
//! use landbridge_lab::requirement::{Requirement, met};
//!
//! if !met(&[Requirement::Namespaces]) {
//!     return;
//! }
//! ```
//!
//! Each skip becomes a line of JSON in the file that `LANDBRIDGE_SKIP_LOG` names. `cargo xtask test` counts the
//! lines, and fails in CI for groups that have to run there.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use serde::Serialize;

use crate::capability::{self, MissingCapability};

/// Something that a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Labs can be started.
    Namespaces,
    /// Programs can be loaded into the kernel and attached to interfaces.
    Ebpf,
    /// The etcd that others run.
    Etcd,
    /// The tools that write the kernel's rules for packets.
    Firewall,
    /// The etcdctl of an etcd that is newer than the distribution's own, beside that.
    NewerEtcdctl,
}

/// The loader attaches programs by tcx links.
const MIN_KERNEL_FOR_TCX: (u32, u32) = (6, 6);

#[derive(Serialize)]
struct Skip<'a> {
    group: &'static str,
    test: &'a str,
    reason: &'a str,
}

impl Requirement {
    /// The name under which its skips are counted.
    pub fn group(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Ebpf => "ebpf",
            Self::Etcd => "etcd",
            Self::Firewall => "firewall",
            Self::NewerEtcdctl => "newer etcdctl",
        }
    }

    /// What this machine lacks of it, with the way to get it.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Namespaces => capability::preflight().err().map(|missing| missing.to_string()),
            Self::Ebpf => missing_for_ebpf(),
            Self::Etcd => etcd()
                .is_none()
                .then(|| "no etcd was found: run `cargo xtask setup`, or set LANDBRIDGE_ETCD".to_owned()),
            Self::Firewall => FIREWALL_TOOLS
                .into_iter()
                .find(|tool| !is_installed(tool))
                .map(|tool| format!("there is no {tool}: run `cargo xtask setup --peers`")),
            Self::NewerEtcdctl => newer_etcdctl()
                .is_none()
                .then(|| "no etcdctl is beside the newest etcd: run `cargo xtask setup --peers`".to_owned()),
        }
    }
}

/// Of Debian's packages `iptables` and `nftables`.
const FIREWALL_TOOLS: [&str; 3] = ["iptables-legacy", "iptables-nft", "nft"];

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this machine meets all of `requirements`. If not, records the calling test as skipped.
pub fn met(requirements: &[Requirement]) -> bool {
    let unmet =
        requirements.iter().find_map(|requirement| Some((requirement.group(), requirement.missing()?)));
    let Some((group, reason)) = unmet else { return true };
    // The harness names the thread of a test after it.
    let thread = thread::current();
    let test = thread.name().unwrap_or("unknown");
    eprintln!("skipped: {test} ({group}): {reason}");
    if let Some(log) = env::var_os("LANDBRIDGE_SKIP_LOG") {
        record(Path::new(&log), &Skip { group, test, reason: &reason });
    }
    false
}

fn record(log: &Path, skip: &Skip<'_>) {
    let mut line = serde_json::to_vec(skip).expect("a skip is three texts");
    line.push(b'\n');
    let file = OpenOptions::new().create(true).append(true).open(log);
    // One write a line: other test processes append to the same file. A skip that is not counted must not pass.
    file.and_then(|mut file| file.write_all(&line)).expect("the skip log can be written");
}

fn missing_for_ebpf() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(MissingCapability::Root.to_string());
    }
    if !capability::kernel_is_at_least(MIN_KERNEL_FOR_TCX) {
        let (major, minor) = MIN_KERNEL_FOR_TCX;
        return Some(format!(
            "programs attach by tcx, which Linux {major}.{minor} has, and this is {}",
            capability::kernel()
        ));
    }
    let has_types = fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false);
    (!has_types).then(|| {
        "this kernel describes no types in /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)".to_owned()
    })
}

/// The newest etcd that `cargo xtask setup` unpacked, or the one that `LANDBRIDGE_ETCD` names.
pub fn etcd() -> Option<PathBuf> {
    if let Some(path) = env::var_os("LANDBRIDGE_ETCD") {
        return Some(path.into());
    }
    let cache = env::var_os("LANDBRIDGE_CACHE").map(PathBuf::from).or_else(|| {
        let home = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("landbridge"))
    })?;
    let trees = fs::read_dir(cache.join("peers")).ok()?.flatten();
    let versions = trees.filter_map(|tree| {
        let name = tree.file_name().into_string().ok()?;
        let version: Vec<u32> =
            name.strip_prefix("etcd-")?.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        Some((version, tree.path().join("usr/bin/etcd")))
    });
    versions.filter(|(_, path)| path.is_file()).max().map(|(_, path)| path)
}

/// The etcdctl beside [`etcd`]. The distribution's own etcd has none beside it, but one in the system.
pub fn newer_etcdctl() -> Option<PathBuf> {
    etcd().map(|etcd| etcd.with_file_name("etcdctl")).filter(|path| path.is_file())
}
