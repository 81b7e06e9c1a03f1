use std::collections::BTreeSet;

use super::*;
use crate::setup::facts::KernelRustc;

const LINKER_PACKAGES: [&str; 3] = ["llvm-22-dev", "libzstd-dev", "zlib1g-dev"];

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn offering(offered: &[&str]) -> Offered {
    Offered::Known(names(offered).into_iter().collect())
}

fn everything_but(missing: &[&str]) -> Offered {
    Offered::Known(packages::all().into_iter().filter(|name| !missing.contains(&name.as_str())).collect())
}

fn mirror() -> Mirror {
    Mirror { uri: "http://mirror.example/debian".into(), signed_by: None }
}

/// Root on a minimal Debian 12, before anything.
fn fresh_debian() -> Facts {
    Facts {
        distro: Distro::Debian { codename: "bookworm".into() },
        is_root: true,
        installed: BTreeSet::new(),
        offered: Offered::Unknown,
        commands: BTreeSet::new(),
        rustc: None,
        has_rustup: false,
        has_bpf_linker: false,
        etcds: BTreeSet::new(),
        etcdctls: BTreeSet::new(),
        mirror: Some(mirror()),
        disks: Vec::new(),
    }
}

/// The same after `plan` was carried out.
fn after(mut facts: Facts, plan: &Plan) -> Facts {
    for step in &plan.steps {
        match step {
            Step::RefreshPackageLists => facts.offered = everything_but(&[]),
            Step::InstallPackages(names) => {
                facts.installed.extend(names.iter().cloned());
                if names.iter().any(|name| name == "rustc-web") {
                    facts.rustc = Some(KernelRustc { llvm_major: Some(22) });
                }
            }
            Step::InstallRustNightly => facts.rustc = Some(KernelRustc { llvm_major: Some(22) }),
            Step::InstallBpfLinker { .. } => facts.has_bpf_linker = true,
            Step::UnpackEtcd => drop(facts.etcds.insert(EtcdVersion(3, 4, 23))),
            Step::UnpackNewerEtcd(_) => {
                facts.etcds.insert(EtcdVersion(3, 5, 16));
                facts.etcdctls.insert(EtcdVersion(3, 5, 16));
            }
        }
    }
    facts
}

#[test]
fn a_fresh_debian_gets_everything_in_order() {
    let plan = plan(&fresh_debian(), false);
    let [refresh, Step::InstallPackages(installed), linker, etcd] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(*refresh, Step::RefreshPackageLists);
    let wanted = packages::RUST.iter().chain(&LINKER_PACKAGES).chain(&packages::BUILD).chain(&packages::TEST);
    assert_eq!(*installed, wanted.map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!((linker, etcd), (&Step::InstallBpfLinker { llvm_major: 22 }, &Step::UnpackEtcd));
    assert_eq!((plan.by_hand, plan.notes), (Vec::new(), Vec::new()));
}

#[test]
fn a_second_run_has_nothing_to_do() {
    for peers in [false, true] {
        let fresh = fresh_debian();
        let done = after(fresh.clone(), &plan(&fresh, peers));
        assert_eq!(plan(&done, peers), Plan::default());
        // The lists of a second process are unknown again.
        assert!(plan(&Facts { offered: Offered::Unknown, ..done }, peers).is_empty());
    }
}

#[test]
fn etcd_server_is_never_installed() {
    let mut facts = fresh_debian();
    for offered in [Offered::Unknown, everything_but(&[])] {
        facts.offered = offered;
        for step in plan(&facts, true).steps {
            assert!(
                !matches!(step, Step::InstallPackages(names) if names.contains(&"etcd-server".to_owned()))
            );
        }
    }
}

#[test]
fn a_rustc_with_sources_is_enough() {
    let facts =
        Facts { rustc: Some(KernelRustc { llvm_major: Some(22) }), has_rustup: true, ..fresh_debian() };
    let steps = plan(&facts, false).steps;
    assert!(!steps.contains(&Step::InstallRustNightly));
    let installs_rust =
        |step: &Step| matches!(step, Step::InstallPackages(names) if names.contains(&"rustc-web".into()));
    assert!(!steps.iter().any(installs_rust), "{steps:?}");
}

#[test]
fn a_bpf_linker_on_the_path_needs_no_llvm() {
    let facts = Facts { has_bpf_linker: true, ..fresh_debian() };
    let text = plan(&facts, false).steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(!text.contains("llvm") && !text.contains("bpf-linker"), "{text}");
}

#[test]
fn ubuntu_with_rustup_gets_a_nightly_and_the_newest_llvm_that_fits() {
    let facts = Facts {
        distro: Distro::DebianLike { name: "Ubuntu 26.04".into() },
        has_rustup: true,
        offered: everything_but(&["rustc-web", "cargo-web", "rust-web-src", "llvm-23-dev"]),
        ..fresh_debian()
    };
    let plan = plan(&facts, false);
    let [Step::InstallPackages(installed), rust, linker, Step::UnpackEtcd] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!((rust, linker), (&Step::InstallRustNightly, &Step::InstallBpfLinker { llvm_major: 22 }));
    assert!(installed.contains(&"llvm-22-dev".to_owned()) && !installed.contains(&"rustc-web".to_owned()));
}

#[test]
fn the_linkers_llvm_is_never_older_than_rustcs() {
    let with_rustc = |llvm_major| Facts { rustc: Some(KernelRustc { llvm_major }), ..fresh_debian() };
    let chosen = |facts: &Facts| choose_llvm(facts, facts.rustc.as_ref().unwrap().llvm_major);
    assert_eq!(chosen(&Facts { offered: everything_but(&[]), ..with_rustc(Some(21)) }), Some(21));
    assert_eq!(
        chosen(&Facts { offered: offering(&["llvm-21-dev", "llvm-23-dev"]), ..with_rustc(Some(22)) }),
        Some(23)
    );
    assert_eq!(chosen(&Facts { offered: offering(&["llvm-21-dev"]), ..with_rustc(Some(22)) }), None);
    assert_eq!(chosen(&Facts { offered: everything_but(&[]), ..with_rustc(None) }), Some(23));
    let installed = BTreeSet::from(["llvm-22-dev".to_owned()]);
    assert_eq!(chosen(&Facts { offered: offering(&[]), installed, ..with_rustc(Some(22)) }), Some(22));
}

#[test]
fn without_any_toolchain_on_offer_there_is_one_error_that_says_what_to_do() {
    let ubuntu = Facts {
        distro: Distro::DebianLike { name: "Ubuntu 22.04".into() },
        offered: everything_but(&["rustc-web", "cargo-web", "rust-web-src"]),
        ..fresh_debian()
    };
    let by_hand = plan(&ubuntu, false).by_hand;
    assert!(matches!(by_hand.as_slice(), [only] if only.contains("install rustup")), "{by_hand:?}");

    let old_llvm =
        Facts { rustc: Some(KernelRustc { llvm_major: Some(22) }), offered: offering(&["gcc"]), ..ubuntu };
    let by_hand = plan(&old_llvm, false).by_hand;
    assert!(
        matches!(by_hand.as_slice(), [only] if only.contains("not older than rustc's 22")),
        "{by_hand:?}"
    );
}

#[test]
fn without_root_the_command_is_printed_and_the_rest_is_done() {
    let mut facts = Facts { is_root: false, offered: everything_but(&[]), ..fresh_debian() };
    facts.installed = packages::all().into_iter().filter(|name| name != "tcpdump").collect();
    facts.rustc = Some(KernelRustc { llvm_major: Some(22) });
    let plan = plan(&facts, false);
    assert_eq!(plan.steps, [Step::InstallBpfLinker { llvm_major: 22 }, Step::UnpackEtcd]);
    let command = "`sudo apt-get install -y --no-install-recommends tcpdump`";
    assert!(matches!(plan.by_hand.as_slice(), [only] if only.contains(command)), "{:?}", plan.by_hand);
}

#[test]
fn without_root_nothing_is_built_that_waits_for_packages() {
    let facts = Facts { is_root: false, offered: everything_but(&[]), ..fresh_debian() };
    let plan = plan(&facts, false);
    assert_eq!(plan.steps, [Step::UnpackEtcd]);
    assert!(plan.by_hand[0].contains("rustc-web") && plan.by_hand[0].contains("llvm-22-dev"));
}

#[test]
fn without_root_and_without_package_lists_the_command_reads_them_first() {
    let facts = Facts {
        is_root: false,
        rustc: Some(KernelRustc { llvm_major: Some(22) }),
        has_bpf_linker: true,
        ..fresh_debian()
    };
    assert_eq!(plan(&facts, false).steps, []);
    let by_hand = plan(&facts, false).by_hand;
    let command = "`sudo apt-get update && sudo apt-get install -y --no-install-recommends gcc";
    assert!(matches!(by_hand.as_slice(), [only] if only.contains(command)), "{by_hand:?}");
}

#[test]
fn an_unknown_distribution_is_told_what_is_missing() {
    let mut facts = Facts {
        distro: Distro::Other { name: "Fedora Linux 43".into() },
        commands: BTreeSet::from(["cc".to_owned(), "ip".to_owned(), "ping".to_owned()]),
        ..fresh_debian()
    };
    let plan_before = plan(&facts, false);
    assert_eq!(plan_before.steps, []);
    let [text] = plan_before.by_hand.as_slice() else { panic!("{:?}", plan_before.by_hand) };
    for part in ["Fedora Linux 43", "`tcpdump`", "`etcdctl`", "rust-src", "bpf-linker@0.13.0"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("`cc`"), "{text}");

    facts.commands = packages::COMMANDS.map(str::to_owned).into();
    facts.rustc = Some(KernelRustc { llvm_major: None });
    facts.has_bpf_linker = true;
    assert!(plan(&facts, false).is_empty());
}

#[test]
fn peers_bring_a_newer_etcd_and_the_packet_filters() {
    let mut facts = fresh_debian();
    let plan_for_peers = plan(&facts, true);
    assert_eq!(plan_for_peers.steps.last(), Some(&Step::UnpackNewerEtcd(mirror())));
    assert!(plan_for_peers.steps[1].to_string().contains("iptables nftables"));

    facts.etcds = BTreeSet::from([EtcdVersion(3, 5, 16)]);
    let unpacks = |step: &Step| matches!(step, Step::UnpackEtcd | Step::UnpackNewerEtcd(_));
    // An earlier setup took the server alone.
    assert!(plan(&facts, true).steps.iter().any(unpacks));
    facts.etcdctls = facts.etcds.clone();
    assert!(!plan(&facts, true).steps.iter().any(unpacks));
}

#[test]
fn ubuntu_benches_with_its_own_etcd_and_says_so() {
    let facts = Facts { distro: Distro::DebianLike { name: "Ubuntu 24.04".into() }, ..fresh_debian() };
    let plan = plan(&facts, true);
    assert!(plan.steps.contains(&Step::UnpackEtcd));
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::UnpackNewerEtcd(_))));
    assert!(plan.notes.iter().any(|note| note.contains("Ubuntu 24.04")), "{:?}", plan.notes);
}

#[test]
fn space_is_asked_for_what_the_steps_bring_and_for_nothing_else() {
    let total = |plan: &Plan| plan.needs().iter().map(|need| need.megabytes).sum::<u64>();
    assert_eq!(total(&Plan::default()), 0);
    let small = Plan { steps: vec![Step::InstallPackages(names(&["tcpdump"]))], ..Plan::default() };
    let large = Plan { steps: vec![Step::InstallPackages(names(&["llvm-22-dev"]))], ..Plan::default() };
    assert!(total(&small) < total(&large));
    assert!(small.needs().iter().any(|need| need.place == Place::Target));
}
