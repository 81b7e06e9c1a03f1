//! A store that is full, and how its keeper brings it back with etcdctl.

use std::thread;

use landbridge_lab::requirement;

use super::command::{Etcdctl, Line};
use super::normal::normal;
use super::stores::{Program, Stores};
use super::{newer, of_system};

/// Bytes of keys and history, or of etcd's file.
const QUOTA: &str = "--quota-backend-bytes=4000000";
/// So many values of a size are more than that.
const VALUES: usize = 20;
const VALUE_BYTES: usize = 400_000;

/// What is refused and what is not, until `alarm disarm`, and afterwards.
const FULL: &str = "\
put key more
txn < |put key more|||
lease grant 60
get key
alarm list
alarm list -w json
endpoint health
endpoint status -w json
del key";
const MENDED: &str = "\
alarm disarm
alarm list
endpoint health
put key more
get key";

#[test]
fn etcdctl_of_the_system_mends_a_full_store_as_it_mends_etcd() {
    if let Some(etcdctl) = of_system() {
        fill_and_mend(&etcdctl);
    }
}

#[test]
fn a_newer_etcdctl_mends_a_full_store_as_it_mends_etcd() {
    if let Some(etcdctl) = newer() {
        fill_and_mend(&etcdctl);
    }
}

fn fill_and_mend(etcdctl: &Etcdctl) {
    let dir = tempfile::tempdir().unwrap();
    let said = |program: &Program| {
        let stores = Stores::start(program, 1, dir.path(), &[QUOTA]);
        let url = stores.endpoints();
        let run = |line: &str| etcdctl.run(&url, &Line::parse(line));
        let said = |lines: &str| -> Vec<String> {
            lines.lines().map(|line| without_revision(&normal(&run(line).replace(&url, "URL")))).collect()
        };
        run("put key value");
        let value = "v".repeat(VALUE_BYTES);
        let refused = (0..VALUES).find(|number| {
            let put = run(&format!("put large/{number} < {value}"));
            if put == "OK\ncode Some(0)" {
                return false;
            }
            assert!(put.contains("etcdserver: mvcc: database space exceeded"), "{put}");
            true
        });
        assert!(refused.is_some(), "{VALUES} values were taken");
        let mut all = said(FULL);
        assert!(run("del large/ --prefix").ends_with("code Some(0)"));
        let status = run("get key -w json");
        let revision = status.split_once("\"revision\":").unwrap().1.split(',').next().unwrap();
        assert!(run(&format!("compaction {revision} --physical")).ends_with("code Some(0)"));
        assert!(run("defrag").ends_with("code Some(0)"));
        all.extend(said(MENDED));
        stores.stop();
        all
    };
    let etcd = Program::Etcd(requirement::etcd().unwrap());
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = scope.spawn(|| said(&etcd));
        (said(&Program::Ours), theirs.join().unwrap())
    });
    for (line, (ours, theirs)) in FULL.lines().chain(MENDED.lines()).zip(ours.iter().zip(&theirs)) {
        assert_eq!(ours, theirs, "{line}");
    }
}

/// How many revisions there are depends on when it was full.
fn without_revision(text: &str) -> String {
    let mut parts = text.split("\"revision\":");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}
