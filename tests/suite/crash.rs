//! What a lab leaves when its process is killed, and how that is cleaned up.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use landbridge_bpf_loader::Datapath;
use landbridge_bpf_loader::maps::SCHEMA;
use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Direction, Lab, LabName, LabSpec, traces};

use super::datapath::fixture;

/// Names the lab that a second run of this very test is to start and then to wait in.
const VICTIM: &str = "LANDBRIDGE_TEST_VICTIM_LAB";
const READY: &str = "the lab stands";

/// The processes whose network namespace is one of `namespaces`, by device and inode.
fn processes_inside(namespaces: &[(u64, u64)]) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let inside = processes.filter(|process| {
        fs::metadata(process.join("ns/net")).is_ok_and(|own| namespaces.contains(&(own.dev(), own.ino())))
    });
    inside.map(|process| process.display().to_string()).collect()
}

/// What the killed process does: fills a lab with everything that can be left, and waits.
fn be_the_victim(name: &str) -> ! {
    let spec = LabSpec::new(name.parse().unwrap()).with_clusters(2, 1, 1);
    let lab = Lab::start(spec).unwrap();
    let node = lab.host("a1").unwrap();
    fixture::make_overlay(&node);
    let options = fixture::options(&node, 1);
    let _datapath = node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let mut sleep = node.command("sleep").unwrap();
    sleep.arg("600");
    let _program = node.spawn("sleeper", sleep).unwrap();
    lab.link("b").unwrap().cut(Direction::Inbound).unwrap();
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

/// Starts this test a second time as the victim and waits until its lab stands.
fn start_victim(name: &LabName, test: &str) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(VICTIM, name.as_str());
    let mut victim = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(READY)), "the victim failed before its lab stood");
    victim
}

#[test]
fn a_killed_process_leaves_a_lab_that_clean_removes() {
    if let Ok(name) = env::var(VICTIM) {
        be_the_victim(&name);
    }
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let name = LabName::unique("crash").unwrap();
    let mut victim = start_victim(&name, "crash::a_killed_process_leaves_a_lab_that_clean_removes");
    assert!(landbridge_lab::remove_stale().unwrap().iter().all(|removed| *removed != name), "it is in use");
    victim.kill().unwrap();
    victim.wait().unwrap();

    let left = traces(&name);
    let namespaces: Vec<(u64, u64)> = left
        .iter()
        .filter(|path| path.starts_with("/run/netns/"))
        .map(|path| fs::metadata(path).map(|file| (file.dev(), file.ino())).unwrap())
        .collect();
    assert_eq!(namespaces.len(), 7, "{left:?}");
    assert_eq!(processes_inside(&namespaces).len(), 1, "the program outlives its lab's process");
    let pin =
        Path::new("/run/landbridge/lab").join(name.as_str()).join(format!("bpf/a1/landbridge/v{SCHEMA}"));
    assert!(
        pin.join("maps/IPCACHE").exists() && pin.join("overlay").exists(),
        "the programs are still attached"
    );

    // Another test's clean may come first, and not be done yet; either way nothing is left.
    landbridge_lab::remove_stale().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && !traces(&name).is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(traces(&name), [""; 0]);
    assert_eq!(processes_inside(&namespaces), [""; 0]);
}

#[test]
fn a_terminated_process_removes_its_lab_itself() {
    if let Ok(name) = env::var(VICTIM) {
        be_the_victim(&name);
    }
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    const SIGINT: i32 = 2;
    for (signal, number) in [("-INT", SIGINT), ("-TERM", 15), ("-HUP", 1)] {
        let name = LabName::unique("ctrl-c").unwrap();
        let mut victim = start_victim(&name, "crash::a_terminated_process_removes_its_lab_itself");
        let sent = Command::new("kill").args([signal, &victim.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(
            victim.wait().unwrap().signal(),
            Some(number),
            "it ends by the signal, as its parent expects"
        );
        assert_eq!(traces(&name), [""; 0]);
    }
}
