//! How the binary starts, says that it is there, and ends.

use std::process::Command;

use landbridge_lab::requirement::{Requirement, met};

use crate::program::{Running, etcdctl, free_url, store};

#[test]
fn a_service_manager_hears_that_it_is_ready_and_sigterm_ends_it_in_order() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (url, data) = (free_url(), dir.path().join("data"));
    for round in 0..2 {
        let mut running = Running::start(&data, &url, &[]);
        if round == 0 {
            assert_eq!(etcdctl(&url, &["put", "k", "v"]).stdout, b"OK\n");
        }
        assert_eq!(etcdctl(&url, &["get", "k", "--print-value-only"]).stdout, b"v\n");
        assert_eq!(running.terminate().code(), Some(0));
    }
}

#[test]
fn what_it_does_not_understand_ends_it_with_the_code_of_etcd() {
    let output = store(&["--bogus"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("flag provided but not defined: -bogus"));
    let output = store(&["--election-timeout=200"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["error"].as_str().unwrap().contains("at least as 5 times"), "{line}");
}

#[test]
fn help_tells_of_every_flag_of_etcd() {
    let help = String::from_utf8(store(&["--help"]).output().unwrap().stdout).unwrap();
    let Some(etcd) = landbridge_lab::requirement::etcd().filter(|_| met(&[Requirement::Etcd])) else {
        return;
    };
    let output = Command::new(etcd).arg("--help").output().unwrap();
    let theirs =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let flags = theirs.lines().filter_map(|line| line.strip_prefix("  --")?.split_whitespace().next());
    let missing: Vec<&str> = flags.filter(|flag| !help.contains(&format!("  --{flag}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
