//! The packages that setup knows of, by their names in Debian and Ubuntu.

/// A newer Rust than the release's own, kept up to date for browsers, with the sources of the library.
pub(crate) const RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The LLVM of [`RUST`].
pub(crate) const RUST_LLVM_MAJOR: u32 = 22;

/// What LLVM's own libraries link with.
pub(crate) const LLVM_LIBRARIES: [&str; 2] = ["libzstd-dev", "zlib1g-dev"];

/// A C linker for everything, and what `etcd-client` compiles its protocol buffers with.
pub(crate) const BUILD: [&str; 4] = ["gcc", "libc6-dev", "protobuf-compiler", "libprotobuf-dev"];

/// What tests start.
pub(crate) const TEST: [&str; 5] = ["iproute2", "iputils-ping", "procps", "tcpdump", ETCD_CLIENT];

/// What benches compare with, beside etcd.
pub(crate) const PEERS: [&str; 2] = ["iptables", "nftables"];

/// Has etcdctl. The distribution's own is installed, a newer one is unpacked into the cache.
pub(crate) const ETCD_CLIENT: &str = "etcd-client";

/// Only ever unpacked into the cache: installed, its unit would start a service.
pub(crate) const ETCD_SERVER: &str = "etcd-server";

/// The versions of LLVM that bpf-linker 0.13 can be built with.
pub(crate) const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// The package with the headers and `llvm-config` of one LLVM.
pub(crate) fn llvm_dev(major: u32) -> String {
    format!("llvm-{major}-dev")
}

/// Every package of this file.
pub(crate) fn all() -> Vec<String> {
    let fixed =
        RUST.iter().chain(&LLVM_LIBRARIES).chain(&BUILD).chain(&TEST).chain(&PEERS).chain(&[ETCD_SERVER]);
    fixed.map(|name| (*name).to_owned()).chain(LLVM_MAJORS.map(llvm_dev)).collect()
}

/// The commands that stand for [`BUILD`], [`TEST`] and [`PEERS`] where there is no apt.
pub(crate) const COMMANDS: [&str; 7] = ["cc", "protoc", "ip", "ping", "pgrep", "tcpdump", "etcdctl"];

/// As [`COMMANDS`], for `--peers`.
pub(crate) const PEER_COMMANDS: [&str; 3] = ["iptables", "nft", "etcd"];
