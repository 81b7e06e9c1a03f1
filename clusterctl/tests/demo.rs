//! The program as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{LabName, remove};

fn clusterctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clusterctl")).args(args).output().unwrap()
}

/// Runs a command that has to work, and returns what it prints.
fn works(args: &[&str]) -> String {
    let output = clusterctl(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that has to fail with one line, and returns that line.
fn fails(args: &[&str]) -> String {
    let output = clusterctl(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{args:?}: {error}");
    error
}

/// Removes a kept lab when its test fails.
struct Removed(LabName);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}

fn kept(stem: &str) -> Removed {
    Removed(LabName::unique(stem).unwrap())
}

#[test]
fn a_kept_lab_outlives_the_commands_that_use_it() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("kept");
    let name = lab.0.as_str();
    works(&["demo", "up", "--lab", name, "--nodes", "1", "--pods", "1"]);
    assert!(fails(&["demo", "up", "--lab", name]).contains("exists already"));
    assert!(works(&["demo", "list"]).contains(name));
    assert!(works(&["demo", "list", "-o", "json"]).contains(&format!("\"name\": \"{name}\"")));
    assert!(works(&["demo", "hosts", "--lab", name]).contains("a1p1  pod     10.1.1.10   fd10:1:1::a"));

    // The first change starts a relay process, the next ones talk to it.
    let ping = ["demo", "exec", "--lab", name, "a1p1", "--", "ping", "-qc3", "-i0.1", "-W2", "10.2.1.10"];
    assert!(works(&ping).contains(" 0% packet loss"));
    let delayed = works(&["demo", "link", "--lab", name, "a", "--outbound", "--delay", "50ms"]);
    assert!(delayed.contains("outbound   delay 50ms") && delayed.contains("inbound    clear"), "{delayed}");
    works(&["demo", "link", "--lab", name, "a", "--inbound", "--cut"]);
    assert_eq!(clusterctl(&ping).status.code(), Some(1), "ping's own exit code is passed on");
    let json = works(&["demo", "link", "--lab", name, "a", "-o", "json"]);
    assert!(json.contains("\"cut\": true"), "{json}");
    let cleared = works(&["demo", "link", "--lab", name, "a", "--clear"]);
    assert!(!cleared.contains("delay") && !cleared.contains("cut "), "{cleared}");
    assert!(works(&ping).contains(" 0% packet loss"));

    assert!(works(&["demo", "clean"]).lines().all(|line| !line.contains(name)), "a kept lab is not stale");
    works(&["demo", "down", "--lab", name]);
    assert!(!works(&["demo", "list"]).contains(name));
    assert!(fails(&["demo", "down", "--lab", name]).contains("no lab is named"));
}

#[test]
fn a_link_recovers_from_the_death_of_its_relay() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("relay");
    let name = lab.0.as_str();
    works(&["demo", "up", "--lab", name, "--nodes", "1", "--pods", "1"]);
    works(&["demo", "link", "--lab", name, "b", "--delay", "1ms"]);
    let relays = Command::new("pgrep").args(["-f", &format!("demo relay {name} b")]).output().unwrap();
    let relay = String::from_utf8(relays.stdout).unwrap();
    assert!(Command::new("kill").args(["-9", relay.trim()]).status().unwrap().success(), "{relay:?}");
    works(&["demo", "link", "--lab", name, "b", "--clear"]);
    let ping =
        works(&["demo", "exec", "--lab", name, "a1p1", "--", "ping", "-qc3", "-i0.1", "-W2", "10.2.1.10"]);
    assert!(ping.contains(" 0% packet loss"), "{ping}");
}

#[test]
fn the_tour_cleans_up_after_itself() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let output = works(&["demo", "run"]);
    assert!(output.contains("100 answered") && output.contains("nothing is left"), "{output}");
}

#[test]
fn wrong_values_are_refused_with_an_example() {
    for (args, expected) in [
        (["demo", "link", "a", "--loss=ten"], "0.5%"),
        (["demo", "link", "a", "--rate=10"], "10mbit"),
        (["demo", "link", "a", "--delay=50"], "time unit needed"),
        (["demo", "up", "--lab=A.b", "--nodes=1"], "lower-case letters"),
    ] {
        let output = clusterctl(&args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(error.contains(expected), "{error}");
    }
}
