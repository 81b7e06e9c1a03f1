//! Looks at the machine: what [`Facts`] says about this one. Every second run pays for all of this, so it starts few programs.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{
    apt_sources::{self, Mirror},
    disk::{Disk, Place},
    distro::Distro,
    etcd_version::EtcdVersion,
    facts::{Facts, KernelRustc, Offered},
    packages, tools,
};
use crate::{cache::Cache, process, workspace};

/// Gathers the facts of this machine; what apt offers stays unknown, since asking takes long.
pub(crate) fn gather(cache: &Cache) -> anyhow::Result<Facts> {
    let distro = Distro::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let mirror = match &distro {
        Distro::Debian { codename } => find_mirror(Path::new("/etc/apt"), codename),
        Distro::DebianLike { .. } | Distro::Other { .. } => None,
    };
    let has_apt = !matches!(distro, Distro::Other { .. });
    Ok(Facts {
        is_root: rustix::process::geteuid().is_root(),
        installed: if has_apt { installed_packages() } else { BTreeSet::new() },
        offered: Offered::Unknown,
        commands: if has_apt { BTreeSet::new() } else { commands() },
        rustc: kernel_rustc(),
        has_rustup: on_path("rustup").next().is_some(),
        has_bpf_linker: has_bpf_linker(cache),
        etcds: etcds(cache, "etcd"),
        etcdctls: etcds(cache, "etcdctl"),
        mirror,
        disks: disks(cache)?,
        distro,
    })
}

/// What apt can install by its present package lists.
pub(crate) fn offered_packages(installed: &BTreeSet<String>) -> Offered {
    let output =
        process::query(Command::new("apt-cache").arg("policy").args(packages::all())).unwrap_or_default();
    let offered = parse_policy(&output);
    // An installed package is its own candidate. If there is nothing else, the lists are empty.
    if offered.is_subset(installed) { Offered::Unknown } else { Offered::Known(offered) }
}

fn installed_packages() -> BTreeSet<String> {
    // It exits with 1 as soon as one package is unknown, and lists the others all the same.
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages::all());
    let output = query.output().map(|output| output.stdout).unwrap_or_default();
    parse_installed(&String::from_utf8_lossy(&output))
}

fn parse_installed(output: &str) -> BTreeSet<String> {
    output.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

/// Packages with a candidate, from the output of `apt-cache policy`.
fn parse_policy(output: &str) -> BTreeSet<String> {
    let mut offered = BTreeSet::new();
    let mut package = "";
    for line in output.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            package = name;
        } else if line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)") {
            offered.insert(package.to_owned());
        }
    }
    offered
}

fn commands() -> BTreeSet<String> {
    let known = packages::COMMANDS.iter().chain(&packages::PEER_COMMANDS);
    known.filter(|name| on_path(name).next().is_some()).map(|name| (*name).to_owned()).collect()
}

fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let name = name.to_owned();
    folders.into_iter().map(move |folder| folder.join(&name)).filter(|path| path.is_file())
}

fn has_bpf_linker(cache: &Cache) -> bool {
    let in_cache = cache.tools_bin().join("bpf-linker");
    std::iter::once(in_cache).chain(on_path("bpf-linker")).any(|program| tools::is_bpf_linker(&program))
}

/// The versions of etcd in the cache that have this program.
fn etcds(cache: &Cache, program: &str) -> BTreeSet<EtcdVersion> {
    let folders = fs::read_dir(cache.peers()).into_iter().flatten().flatten();
    let complete = folders.filter(|folder| folder.path().join("usr/bin").join(program).is_file());
    complete.filter_map(|folder| EtcdVersion::from_folder(folder.file_name().to_str()?)).collect()
}

/// The first rustc whose sysroot has the sources of the library.
fn kernel_rustc() -> Option<KernelRustc> {
    let rustc = on_path("rustc")
        .chain([PathBuf::from("/usr/bin/rustc")])
        .filter(|rustc| !is_rustup_proxy(rustc))
        .find(|rustc| sysroot_of(rustc).is_some_and(|sysroot| has_library_sources(&sysroot)));
    let rustc = rustc.or_else(|| {
        let toolchains = fs::read_dir(rustup_home()?.join("toolchains")).ok()?;
        let sysroot =
            toolchains.flatten().map(|entry| entry.path()).find(|sysroot| has_library_sources(sysroot))?;
        Some(sysroot.join("bin/rustc"))
    })?;
    let version = process::query(Command::new(rustc).arg("-vV")).unwrap_or_default();
    Some(KernelRustc { llvm_major: parse_llvm_major(&version) })
}

/// Rustup's own `rustc` chooses a toolchain first, which takes long; the toolchains are looked at instead.
fn is_rustup_proxy(rustc: &Path) -> bool {
    let same_file = |other: &Path| match (fs::metadata(rustc), fs::metadata(other)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    };
    same_file(&rustc.with_file_name("rustup"))
}

fn rustup_home() -> Option<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".rustup"));
    env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(home)
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    let output = process::query(Command::new(rustc).args(["--print", "sysroot"]))?;
    Some(PathBuf::from(output.trim()))
}

fn has_library_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
        && sysroot.join("bin/cargo").is_file()
}

/// From the output of `rustc -vV`.
fn parse_llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version:"))?;
    llvm.trim().split('.').next()?.parse().ok()
}

fn find_mirror(apt: &Path, codename: &str) -> Option<Mirror> {
    let parts =
        fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = parts.chain([apt.join("sources.list")]).collect();
    files.sort();
    let contents = |extension: &str| -> Vec<String> {
        let of_kind = files.iter().filter(|file| file.extension().is_some_and(|found| found == extension));
        of_kind.filter_map(|file| fs::read_to_string(file).ok()).collect()
    };
    apt_sources::find_mirror(&contents("list"), &contents("sources"), codename)
}

fn disks(cache: &Cache) -> anyhow::Result<Vec<Disk>> {
    let mut places = vec![
        (Place::System, PathBuf::from("/usr")),
        (Place::Cache, cache.dir().to_path_buf()),
        (Place::Target, workspace::target_dir()),
    ];
    places.extend(rustup_home().map(|folder| (Place::Rustup, folder)));
    places.into_iter().map(|(place, folder)| disk(place, folder)).collect()
}

fn disk(place: Place, folder: PathBuf) -> anyhow::Result<Disk> {
    // A folder that is yet to be made will be on the file system of the nearest one above that exists.
    let existing = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let context = || format!("cannot read the free space of {}", existing.display());
    let device = fs::metadata(existing).with_context(context)?.dev();
    let space = rustix::fs::statvfs(existing).with_context(context)?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    Ok(Disk { place, folder, device, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_does_not_count_as_installed() {
        let output = "gcc installed\netcd-server config-files\nrustc not-installed\n";
        assert_eq!(parse_installed(output), BTreeSet::from(["gcc".to_owned()]));
    }

    #[test]
    fn only_packages_with_a_candidate_are_offered() {
        let output = "gcc:\n  Installed: (none)\n  Candidate: 4:12.2.0-3\n  Version table:\n\
            \x20    4:12.2.0-3 500\n\
            rustc-web:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(parse_policy(output), BTreeSet::from(["gcc".to_owned()]));
    }

    #[test]
    fn the_llvm_of_a_rustc_is_in_its_version() {
        let version = "rustc 1.96.0 (built from a source tarball)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm_major(version), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.96.0\n"), None);
    }
}
