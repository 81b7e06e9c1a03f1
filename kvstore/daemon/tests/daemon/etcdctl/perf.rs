//! `etcdctl check perf`: a minute of writes at a rate that it chooses. How fast they are is not looked at here.

use std::thread;

use landbridge_lab::requirement::{self, Requirement, met};

use super::command::{Etcdctl, Line};
use super::stores::{Program, Stores};

#[test]
fn check_perf_measures_and_leaves_nothing_behind() {
    let mut versions = Vec::new();
    if met(&[Requirement::Etcd]) {
        versions.push(Etcdctl("etcdctl".into()));
    }
    versions.extend(requirement::newer_etcdctl().map(Etcdctl));
    if versions.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::start(&Program::Ours, 1, dir.path(), &[]);
    let url = stores.endpoints();
    thread::scope(|scope| {
        for (number, etcdctl) in versions.iter().enumerate() {
            let url = &url;
            scope.spawn(move || {
                // Of two that compact, the slower one may find it done.
                let upkeep = if number == 0 { "--auto-compact --auto-defrag" } else { "" };
                let line = format!("check perf --load=s --prefix=/perf{number}/ {upkeep}");
                let said = etcdctl.run_within_minutes(url, &Line::parse(&line));
                if number == 0 {
                    assert!(
                        said.contains("Compacted with revision") && said.contains("Defragmented"),
                        "{said}"
                    );
                }
                for part in ["Throughput", "Slowest request", "Stddev"] {
                    assert!(said.contains(part), "{said}");
                }
                assert!(!said.contains("too many errors"), "{said}");
            });
        }
    });
    let left = versions[0].run(&url, &Line::parse("get \"\" --from-key --keys-only"));
    assert_eq!(left, "code Some(0)");
    stores.stop();
}
