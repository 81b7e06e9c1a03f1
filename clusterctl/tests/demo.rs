//! The program as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{LabName, remove, traces};

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

/// Builds a lab of two clusters of one node and one pod, which `demo clean` removes should this process be killed.
fn kept(stem: &str) -> Removed {
    let lab = Removed(LabName::unique(stem).unwrap());
    let keeper = std::process::id().to_string();
    works(&["demo", "up", "--lab", lab.0.as_str(), "--nodes=1", "--pods=1", "--until-exit", &keeper]);
    lab
}

fn link(lab: &Removed, link: &str, args: &[&str]) -> String {
    works(&[&["demo", "link", "--lab", lab.0.as_str(), link], args].concat())
}

/// Whether a pod of cluster a reaches one of cluster b.
fn reaches(lab: &Removed) -> bool {
    let ping = ["a1p1", "--", "ping", "-qc3", "-i0.1", "-W2", "10.2.1.10"];
    clusterctl(&[&["demo", "exec", "--lab", lab.0.as_str()], &ping[..]].concat()).status.success()
}

/// The relay process of a link.
fn relay_of(lab: &Removed, link: &str) -> String {
    let pattern = format!("demo relay {} {link}", lab.0);
    let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_kept_lab_outlives_the_commands_that_use_it() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("kept");
    let name = lab.0.as_str();
    assert!(fails(&["demo", "up", "--lab", name]).contains("exists already"));
    assert!(works(&["demo", "list"]).contains(name));
    assert!(works(&["demo", "list", "-o", "json"]).contains(&format!("\"name\": \"{name}\"")));
    assert!(works(&["demo", "hosts", "--lab", name]).contains("a1p1  pod     10.1.1.10   fd10:1:1::a"));

    // The first change starts a relay process, the next ones talk to it.
    assert!(reaches(&lab));
    let delayed = link(&lab, "a", &["--outbound", "--delay", "50ms"]);
    assert!(delayed.contains("outbound   delay 50ms") && delayed.contains("inbound    clear"), "{delayed}");
    link(&lab, "a", &["--inbound", "--cut"]);
    assert!(!reaches(&lab));
    let json = link(&lab, "a", &["-o", "json"]);
    assert!(json.contains("\"cut\": true"), "{json}");
    link(&lab, "a", &["--clear"]);
    assert_eq!(link(&lab, "a", &[]).matches("clear ").count(), 2);
    assert!(reaches(&lab));
    let exit = clusterctl(&["demo", "exec", "--lab", name, "a1", "--", "sh", "-c", "exit 7"]);
    assert_eq!(exit.status.code(), Some(7), "the program's own exit code is passed on");

    assert!(works(&["demo", "clean"]).lines().all(|line| !line.contains(name)), "a kept lab is not stale");
    works(&["demo", "down", "--lab", name]);
    assert!(!works(&["demo", "list"]).contains(name));
    assert!(fails(&["demo", "down", "--lab", name]).contains("no lab is named"));
}

#[test]
fn a_link_whose_relay_died_is_shown_as_broken_and_can_be_mended() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("relay");
    let name = lab.0.as_str();
    for mend in [&["--clear"][..], &["--outbound", "--delay", "1ms"]] {
        link(&lab, "b", &["--delay", "1ms"]);
        let relay = relay_of(&lab, "b");
        assert!(Command::new("kill").args(["-9", &relay]).status().unwrap().success(), "{relay:?}");
        let error = fails(&["demo", "link", "--lab", name, "b"]);
        assert!(error.contains(&format!("`clusterctl demo link --lab {name} b --clear`")), "{error}");
        link(&lab, "b", mend);
        assert!(reaches(&lab), "{mend:?}");
    }
}

#[test]
fn a_stopped_relay_is_not_waited_for_without_end() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("stopped");
    link(&lab, "b", &["--delay", "1ms"]);
    let relay = relay_of(&lab, "b");
    assert!(Command::new("kill").args(["-STOP", &relay]).status().unwrap().success(), "{relay:?}");
    let error = fails(&["demo", "link", "--lab", lab.0.as_str(), "b", "--clear"]);
    assert!(error.contains(&format!("the relay of link b, process {relay}")), "{error}");
    assert!(Command::new("kill").args(["-CONT", &relay]).status().unwrap().success(), "{relay:?}");
    link(&lab, "b", &["--clear"]);
    assert!(reaches(&lab));
}

#[test]
fn changes_of_one_link_at_once_take_their_turns() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("turns");
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for direction in ["--outbound", "--inbound", "--outbound", "--inbound"] {
                let lab = &lab;
                scope.spawn(move || link(lab, "a", &[direction, "--delay", "1ms"]));
            }
        });
        let shown = link(&lab, "a", &[]);
        assert_eq!(shown.matches("delay 1ms").count(), 2, "{shown}");
        assert_eq!(relay_of(&lab, "a").lines().count(), 1);
        link(&lab, "a", &["--clear"]);
        assert!(reaches(&lab));
    }
}

#[test]
fn a_lab_whose_keeper_has_ended_is_stale() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = Removed(LabName::unique("stale").unwrap());
    let name = lab.0.as_str();
    let mut keeper = Command::new("sleep").arg("600").spawn().unwrap();
    works(&["demo", "up", "--lab", name, "--nodes=1", "--pods=0", "--until-exit", &keeper.id().to_string()]);
    let line_of = |list: String| list.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    assert!(line_of(works(&["demo", "list"])).unwrap().ends_with("until `demo down`"));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    // Another test's clean may come first.
    assert!(line_of(works(&["demo", "list"])).is_none_or(|line| line.ends_with("run `demo clean`")));
    works(&["demo", "clean"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && line_of(works(&["demo", "list"])).is_some() {}
    assert_eq!(line_of(works(&["demo", "list"])), None);
}

#[test]
fn clean_beside_up_and_down_disturbs_neither() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                works(&["demo", "clean"]);
            }
        });
        let churned = std::panic::catch_unwind(|| {
            for _ in 0..10 {
                let lab = kept("churn");
                works(&["demo", "down", "--lab", lab.0.as_str()]);
            }
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        churned.unwrap();
    });
}

#[test]
fn a_lab_is_not_removed_from_within() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("within");
    let name = lab.0.as_str();
    let down = [env!("CARGO_BIN_EXE_clusterctl"), "demo", "down", "--lab", name];
    let error = fails(&[&["demo", "exec", "--lab", name, "a1", "--"], &down[..]].concat());
    assert!(error.contains("leave the host first"), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = kept("pipe");
    let script = format!("{} demo hosts --lab {} | true", env!("CARGO_BIN_EXE_clusterctl"), lab.0);
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn the_tour_works_twice_in_a_row_and_leaves_nothing() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    for _ in 0..2 {
        let mut tour = Command::new(env!("CARGO_BIN_EXE_clusterctl"));
        let tour = tour.args(["demo", "run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lab: LabName = format!("tour-{}-0", tour.id()).parse().unwrap();
        let output = tour.wait_with_output().unwrap();
        let (said, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && said.contains("nothing is left"), "{said}\n{error}");
        assert_eq!(traces(&lab), [""; 0]);
    }
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
