//! etcdctl against our binary and against etcd: it must say the same of both, of whichever version it is.

mod command;
mod mirror;
mod normal;
mod perf;
mod quota;
mod stores;

use std::thread;

use command::Etcdctl;
use landbridge_lab::requirement::{self, Requirement, met};
use stores::{Program, Stores, commands};

/// Commands, a line each; [`command::Line`] says how they are written. `LEASE` and `MEMBER` are the last ones made, `FILE` is a
/// file to be written, `URL0` and `ID0` are of the first member. Each script has stores of its own.
const SCRIPTS: &[&str] = &[
    include_str!("etcdctl/script/keys.txt"),
    include_str!("etcdctl/script/txns.txt"),
    include_str!("etcdctl/script/leases.txt"),
    include_str!("etcdctl/script/members.txt"),
    include_str!("etcdctl/script/users.txt"),
];

/// Commands for three members.
const CLUSTER: &str = include_str!("etcdctl/script/cluster.txt");

/// Where ours says something else: the line, what ours says, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("lease grant 600", NAMELESS, EVERYONE),
    ("member list", NAMELESS, EVERYONE),
    ("alarm list", NAMELESS, EVERYONE),
    ("endpoint hashkv", NAMELESS, CODE),
    ("defrag", NAMELESS, CODE),
    ("--user alice:hers endpoint hashkv", DENIED, CODE),
    ("--user alice:hers defrag", DENIED, CODE),
    ("--user alice:hers snapshot save FILE", DENIED, CODE),
    ("--user alice:hers compaction 2", DENIED, EVERYONE),
    ("--user alice:hers move-leader 77", DENIED, EVERYONE),
    ("--user alice:hers lease keep-alive LEASE --once", DENIED, EVERYONE),
];
const NAMELESS: &str = "etcdserver: user name is empty";
const DENIED: &str = "etcdserver: permission denied";
const EVERYONE: &str = "etcd leaves this to everyone until 3.5.28";
const CODE: &str = "here etcd 3.5 forgets the code of the error and the beginning of its text";

/// The one of the system, which is that of etcd 3.4 on Debian 12.
fn of_system() -> Option<Etcdctl> {
    met(&[Requirement::Etcd]).then(|| Etcdctl("etcdctl".into()))
}

fn newer() -> Option<Etcdctl> {
    let path = met(&[Requirement::Etcd, Requirement::NewerEtcdctl]).then(requirement::newer_etcdctl);
    path.flatten().map(Etcdctl)
}

#[test]
fn etcdctl_of_the_system_says_of_ours_what_it_says_of_etcd() {
    if let Some(etcdctl) = of_system() {
        compare_all(&etcdctl);
    }
}

#[test]
fn a_newer_etcdctl_says_of_ours_what_it_says_of_etcd() {
    if let Some(etcdctl) = newer() {
        compare_all(&etcdctl);
    }
}

#[test]
fn etcdctl_of_the_system_says_of_three_members_what_it_says_of_etcds() {
    if let Some(etcdctl) = of_system() {
        compare(&etcdctl, CLUSTER, 3);
    }
}

#[test]
fn a_newer_etcdctl_says_of_three_members_what_it_says_of_etcds() {
    if let Some(etcdctl) = newer() {
        compare(&etcdctl, CLUSTER, 3);
    }
}

fn compare_all(etcdctl: &Etcdctl) {
    for script in SCRIPTS {
        compare(etcdctl, script, 1);
    }
}

fn compare(etcdctl: &Etcdctl, script: &str, size: usize) {
    let dir = tempfile::tempdir().unwrap();
    let said = |program: &Program| {
        let stores = Stores::start(program, size, dir.path(), &[]);
        let said = stores.said(etcdctl, script);
        stores.stop();
        said
    };
    let etcd = Program::Etcd(requirement::etcd().unwrap());
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = scope.spawn(|| said(&etcd));
        (said(&Program::Ours), theirs.join().unwrap())
    });
    let mut differences = Vec::new();
    for (line, (ours, theirs)) in commands(script).zip(ours.iter().zip(&theirs)) {
        let allowed = ALLOWED.iter().any(|(of, says, _)| *of == line && ours.contains(says));
        if ours != theirs && !allowed {
            differences.push(format!("etcdctl {line}\nours:\n{ours}\netcd:\n{theirs}\n"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
