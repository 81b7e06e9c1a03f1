//! What is true of a machine, as far as setup has to know: plain data for [`super::plan()`].

use std::collections::BTreeSet;

use super::{apt_sources::Mirror, disk::Disk, distro::Distro, etcd_version::EtcdVersion};

/// Everything that a plan is made from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) distro: Distro,
    pub(crate) is_root: bool,
    /// Installed packages, among those that setup knows of.
    pub(crate) installed: BTreeSet<String>,
    pub(crate) offered: Offered,
    /// Commands on the search path, among those that setup knows of; what counts where there is no apt.
    pub(crate) commands: BTreeSet<String>,
    /// A rustc that can build for the kernel: its sysroot has the sources of the library.
    pub(crate) rustc: Option<KernelRustc>,
    pub(crate) has_rustup: bool,
    /// Whether a bpf-linker of the pinned minor version is there, and starts.
    pub(crate) has_bpf_linker: bool,
    /// Versions of etcd among the peers in the cache.
    pub(crate) etcds: BTreeSet<EtcdVersion>,
    /// Those of them that have their etcdctl beside them.
    pub(crate) etcdctls: BTreeSet<EtcdVersion>,
    /// Where this system's packages come from.
    pub(crate) mirror: Option<Mirror>,
    pub(crate) disks: Vec<Disk>,
}

/// A rustc whose sysroot has the sources of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRustc {
    /// The linker must read the bitcode that this LLVM writes.
    pub(crate) llvm_major: Option<u32>,
}

/// What apt can install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offered {
    /// The package lists are empty, or to be read anew first.
    Unknown,
    /// Among the packages that setup knows of.
    Known(BTreeSet<String>),
}
