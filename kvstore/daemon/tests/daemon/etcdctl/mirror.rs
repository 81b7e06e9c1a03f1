//! `etcdctl make-mirror`, from ours to etcd and back: how keys are brought over.

use std::thread;
use std::time::{Duration, Instant};

use landbridge_lab::requirement;

use super::command::{Etcdctl, Line};
use super::stores::{Program, Stores};
use super::{newer, of_system};
use crate::program::Running;

/// Nothing takes as long.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn etcdctl_of_the_system_mirrors_both_ways() {
    if let Some(etcdctl) = of_system() {
        mirror_both_ways(&etcdctl);
    }
}

#[test]
fn a_newer_etcdctl_mirrors_both_ways() {
    if let Some(etcdctl) = newer() {
        mirror_both_ways(&etcdctl);
    }
}

fn mirror_both_ways(etcdctl: &Etcdctl) {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Program::Etcd(requirement::etcd().unwrap());
    let [ours, etcd] = [&Program::Ours, &etcd].map(|program| Stores::start(program, 1, dir.path(), &[]));
    for (number, (from, to)) in [(&ours, &etcd), (&etcd, &ours)].into_iter().enumerate() {
        let [from, to] = [from, to].map(Stores::endpoints);
        let run = |url: &str, line: &str| etcdctl.run(url, &Line::parse(line));
        // More keys than a page of the mirror has.
        let many: Vec<String> = (0..120).map(|key| format!("put m{number}/many/{key:03} v|")).collect();
        let many = many.concat();
        run(&from, &format!("txn < |{many}||"));
        run(&from, &format!("put m{number}/before 1"));
        run(&from, "put other 1");
        let mut mirror = etcdctl.command(&from);
        mirror.args(["make-mirror", "--prefix", &format!("m{number}/")]);
        let mut mirror =
            Running(mirror.args(["--dest-prefix", &format!("copy{number}/"), &to]).spawn().unwrap());
        let copy = || run(&to, &format!("get copy{number}/ --prefix"));
        let soon = |holds: &dyn Fn(&str) -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !holds(&copy()) {
                assert!(Instant::now() < deadline, "{}", copy());
                thread::sleep(Duration::from_millis(20));
            }
        };
        let (before, after) = (format!("copy{number}/before\n1\n"), format!("copy{number}/after\n2\n"));
        soon(&|copy| copy.contains(&before));
        run(&from, &format!("put m{number}/after 2"));
        soon(&|copy| copy.contains(&after));
        run(&from, &format!("del m{number}/before"));
        soon(&|copy| !copy.contains(&before) && copy.contains(&after));
        mirror.terminate();
        let expected = run(&from, &format!("get m{number}/ --prefix"));
        assert_eq!(copy(), expected.replace(&format!("m{number}/"), &format!("copy{number}/")));
        assert!(expected.contains("/many/119"), "{expected}");
    }
    ours.stop();
    etcd.stop();
}
