//! The benchmark of the datapath measures what it says, in small.

use std::process::Command;

use landbridge_lab::requirement::{Requirement, met};
use serde_json::Value;

/// The kernel takes everybody's rules, and connections reach a pod through them: a client whose rounds fail has no figure.
#[test]
fn every_contender_is_measured() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Firewall]) {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_landbridge-bench"));
    command.args(["datapath", "-o", "json", "--repeats", "1", "--milliseconds", "20"]);
    command.args(["--case", "services", "--services", "5", "--case", "paths"]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let metrics: Vec<&str> = rows.iter().map(|row| row["metric"].as_str().unwrap()).collect();
    for peer in ["direct", "direct with conntrack", "nftables", "iptables-nft", "iptables-legacy"] {
        let of_peer = metrics.iter().filter(|metric| metric.ends_with(&format!("beside {peer}")));
        assert!(of_peer.count() >= 3, "{peer} is not in {metrics:?}\n{errors}");
    }
    for row in rows {
        for figure in ["ours", "peer"] {
            let figure = row[figure].as_f64();
            assert!(figure.is_some_and(|figure| figure > 0.0), "{row}\n{errors}");
        }
    }
}
