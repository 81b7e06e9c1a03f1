//! Decides what setup does: facts in, steps out. Pure, so that machines that nobody has at hand are tested too.

use std::fmt;

use super::{
    apt_sources::Mirror,
    disk::{Need, Place},
    distro::Distro,
    etcd_version::{EtcdVersion, WANTED_BY_BENCHES},
    facts::{Facts, Offered},
    packages,
    tools::BPF_LINKER_VERSION,
};

/// What setup will do, and what it leaves to the user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order in which they have to happen.
    pub(crate) steps: Vec<Step>,
    /// What only the user can do; setup fails with it after its steps.
    pub(crate) by_hand: Vec<String>,
    /// What will not be there, without being an error.
    pub(crate) notes: Vec<String>,
}

/// One change to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reads the package lists; the plan is then made again, since what is on offer may be something else.
    RefreshPackageLists,
    InstallPackages(Vec<String>),
    /// A nightly with library sources, where the distribution has none.
    InstallRustNightly,
    InstallBpfLinker {
        llvm_major: u32,
    },
    /// The distribution's own etcd.
    UnpackEtcd,
    /// One that is new enough to compare with, and its etcdctl, from a newer release of Debian.
    UnpackNewerEtcd(Mirror),
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.by_hand.is_empty()
    }

    /// How much disk space the steps take, downloads included, and the build after them. Measured on Debian 12, rounded up.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let needs = self.steps.iter().map(Step::needs);
        let build = (!self.steps.is_empty()).then_some(Need { place: Place::Target, megabytes: 2000 });
        needs.chain(build).collect()
    }
}

impl Step {
    fn needs(&self) -> Need {
        let (place, megabytes) = match self {
            Self::RefreshPackageLists => (Place::System, 100),
            Self::InstallPackages(names) => {
                let toolchain =
                    names.iter().any(|name| name.starts_with("llvm-") || name == packages::RUST[0]);
                (Place::System, if toolchain { 2000 } else { 100 })
            }
            Self::InstallRustNightly => (Place::Rustup, 1000),
            Self::InstallBpfLinker { .. } => (Place::Cache, 500),
            Self::UnpackEtcd => (Place::Cache, 100),
            Self::UnpackNewerEtcd(_) => (Place::Cache, 200),
        };
        Need { place, megabytes }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshPackageLists => f.write_str("read the package lists (apt-get update)"),
            Self::InstallPackages(names) => write!(f, "install {} (apt-get)", names.join(" ")),
            Self::InstallRustNightly => f.write_str("install a nightly Rust with library sources (rustup)"),
            Self::InstallBpfLinker { llvm_major } => {
                write!(f, "build bpf-linker {BPF_LINKER_VERSION} with LLVM {llvm_major} (cargo install)")
            }
            Self::UnpackEtcd => f.write_str("unpack the distribution's etcd into the cache"),
            Self::UnpackNewerEtcd(_) => {
                write!(
                    f,
                    "unpack etcd {WANTED_BY_BENCHES} or newer, with etcdctl, from a newer Debian release into the cache"
                )
            }
        }
    }
}

/// What brings a machine from `facts` to where everything builds and runs, with what benches compare with if `peers`.
pub(crate) fn plan(facts: &Facts, peers: bool) -> Plan {
    match &facts.distro {
        Distro::Other { name } => plan_without_apt(facts, name, peers),
        Distro::Debian { .. } | Distro::DebianLike { .. } => plan_with_apt(facts, peers),
    }
}

fn plan_with_apt(facts: &Facts, peers: bool) -> Plan {
    let mut plan = Plan::default();
    let kernel_build = plan_kernel_build(facts);
    let peer_packages = if peers { packages::PEERS.as_slice() } else { &[] };
    let fixed =
        packages::BUILD.iter().chain(&packages::TEST).chain(peer_packages).map(|name| (*name).to_owned());
    let missing =
        kernel_build.packages.iter().cloned().chain(fixed).filter(|name| !facts.installed.contains(name));
    let (missing, not_offered): (Vec<_>, Vec<_>) = missing.partition(|name| facts.offers(name));
    let waits_for_packages =
        !facts.is_root && kernel_build.packages.iter().any(|name| missing.contains(name));

    if !not_offered.is_empty() {
        let names = not_offered.join(" ");
        plan.notes
            .push(format!("apt offers no {names} here, tests and benches that need it will be skipped"));
    }
    if !missing.is_empty() && facts.is_root {
        plan.steps.push(Step::InstallPackages(missing));
    } else if !missing.is_empty() {
        plan.by_hand.push(apt_by_hand(facts, &missing));
    }
    if !waits_for_packages {
        plan.steps.extend(kernel_build.steps);
    }
    plan.by_hand.extend(kernel_build.by_hand);
    plan_etcd(facts, peers, &mut plan);

    let uses_apt = plan.steps.iter().any(|step| matches!(step, Step::InstallPackages(_) | Step::UnpackEtcd));
    if uses_apt && facts.is_root && facts.offered == Offered::Unknown {
        plan.steps.insert(0, Step::RefreshPackageLists);
    }
    plan
}

fn apt_by_hand(facts: &Facts, missing: &[String]) -> String {
    let update = if facts.offered == Offered::Unknown { "sudo apt-get update && " } else { "" };
    let names = missing.join(" ");
    format!(
        "packages are missing and only root may install them: run \
         `{update}sudo apt-get install -y --no-install-recommends {names}`, then `cargo xtask setup` again"
    )
}

/// What it takes to build the kernel side.
#[derive(Default)]
struct KernelBuild {
    /// All that are needed, also those that are installed.
    packages: Vec<String>,
    steps: Vec<Step>,
    by_hand: Option<String>,
}

fn plan_kernel_build(facts: &Facts) -> KernelBuild {
    let mut build = KernelBuild::default();
    let llvm_of_rustc = match &facts.rustc {
        Some(rustc) => rustc.llvm_major,
        None if packages::RUST.iter().all(|name| facts.offers(name)) => {
            build.packages.extend(packages::RUST.map(str::to_owned));
            Some(packages::RUST_LLVM_MAJOR)
        }
        None if facts.has_rustup => {
            build.steps.push(Step::InstallRustNightly);
            None
        }
        None => {
            build.by_hand = Some(
                "no rustc with library sources, which the kernel side needs, and none on offer here: install rustup \
                 (https://rustup.rs), then run `cargo xtask setup` again"
                    .to_owned(),
            );
            return build;
        }
    };
    if facts.has_bpf_linker {
        return build;
    }
    if let Some(llvm_major) = choose_llvm(facts, llvm_of_rustc) {
        build.packages.push(packages::llvm_dev(llvm_major));
        build.packages.extend(packages::LLVM_LIBRARIES.map(str::to_owned));
        build.steps.push(Step::InstallBpfLinker { llvm_major });
    } else {
        let oldest = llvm_of_rustc.unwrap_or(packages::LLVM_MAJORS[0]);
        build.by_hand = Some(format!(
            "bpf-linker {BPF_LINKER_VERSION} is missing, and apt offers no LLVM for it ({}, not older than rustc's {oldest}): \
             put a bpf-linker {BPF_LINKER_VERSION} on the PATH, then run `cargo xtask setup` again",
            packages::LLVM_MAJORS.map(|major| major.to_string()).join(", ")
        ));
    }
    build
}

/// The LLVM to build bpf-linker with. LLVM reads bitcode of its own version and of older ones, so the nearest that is not
/// older than rustc's is the safest; for an unknown rustc it is the newest.
fn choose_llvm(facts: &Facts, llvm_of_rustc: Option<u32>) -> Option<u32> {
    let available = |major: &u32| {
        let name = packages::llvm_dev(*major);
        facts.installed.contains(&name) || facts.offers(&name)
    };
    let mut majors = packages::LLVM_MAJORS.into_iter().filter(available);
    match llvm_of_rustc {
        Some(oldest) => majors.find(|major| *major >= oldest),
        None => majors.next_back(),
    }
}

fn plan_etcd(facts: &Facts, peers: bool, plan: &mut Plan) {
    let waits_for_lists = !facts.is_root && facts.offered == Offered::Unknown;
    if facts.etcds.is_empty() && !waits_for_lists {
        if facts.offers(packages::ETCD_SERVER) {
            plan.steps.push(Step::UnpackEtcd);
        } else {
            let name = packages::ETCD_SERVER;
            plan.notes.push(format!("apt offers no {name} here, tests against real etcd will be skipped"));
        }
    }
    let is_new = |newest: &EtcdVersion| *newest >= WANTED_BY_BENCHES;
    if peers && ![&facts.etcds, &facts.etcdctls].iter().all(|found| found.last().is_some_and(is_new)) {
        match (&facts.distro, &facts.mirror) {
            (Distro::Debian { .. }, Some(mirror)) => plan.steps.push(Step::UnpackNewerEtcd(mirror.clone())),
            (Distro::DebianLike { name } | Distro::Other { name }, _) => {
                plan.notes.push(format!(
                    "{name} has no newer Debian releases to take etcd from, benches use its own"
                ));
            }
            (Distro::Debian { .. }, None) => {
                plan.notes.push("no Debian mirror in apt's sources to take a newer etcd from".to_owned());
            }
        }
    }
}

/// An unknown distribution: names what is missing, and changes nothing.
fn plan_without_apt(facts: &Facts, name: &str, peers: bool) -> Plan {
    let peer_commands = if peers { packages::PEER_COMMANDS.as_slice() } else { &[] };
    let commands = packages::COMMANDS.iter().chain(peer_commands);
    let mut missing: Vec<String> = commands
        .filter(|command| !facts.commands.contains(**command))
        .map(|command| format!("`{command}`"))
        .collect();
    if facts.rustc.is_none() {
        missing.push(
            "a rustc with library sources (`rustup toolchain install nightly --component rust-src`)".into(),
        );
    }
    if !facts.has_bpf_linker {
        let llvm =
            facts.rustc.as_ref().and_then(|rustc| rustc.llvm_major).unwrap_or(packages::RUST_LLVM_MAJOR);
        missing.push(format!(
            "bpf-linker (LLVM {llvm} with headers, then `LLVM_PREFIX=<its folder> cargo install --locked \
             bpf-linker@{BPF_LINKER_VERSION} --no-default-features --features llvm-{llvm}`)"
        ));
    }
    let mut plan = Plan::default();
    if !missing.is_empty() {
        plan.by_hand.push(format!(
            "setup cannot install packages on {name}: install {}, then run `cargo xtask setup` again",
            missing.join(", ")
        ));
    }
    plan
}

impl Facts {
    /// Whether apt can install `name`. Before the package lists are read: what Debian has, and Ubuntu probably has.
    fn offers(&self, name: &str) -> bool {
        match &self.offered {
            Offered::Known(names) => names.contains(name),
            Offered::Unknown => {
                matches!(self.distro, Distro::Debian { .. }) || !packages::RUST.contains(&name)
            }
        }
    }
}

#[cfg(test)]
mod tests;
