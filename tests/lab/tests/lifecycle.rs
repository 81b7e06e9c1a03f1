//! Labs from start to removal: names, side by side, failures that leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Direction, Host, Impairment, Lab, LabError, LabName, LabSpec, PodWiring, Role, traces};

use support::{addresses, reaches, two_clusters};

#[test]
fn a_dropped_lab_leaves_nothing() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("dropped", 1);
    let name = lab.spec().name.clone();
    let host = lab.host("a1").unwrap();
    let program = host.spawn("sleeper", with_args(&host, "sleep", &["600"])).unwrap();
    let process = Path::new("/proc").join(program.id().to_string());
    fs::write(host.data_folder().unwrap().join("file"), "data").unwrap();
    lab.link("a").unwrap().cut(Direction::Inbound).unwrap();
    assert!(!traces(&name).is_empty() && process.join("ns").exists());
    drop(lab);
    assert_eq!(traces(&name), [""; 0]);
    // The handle still holds the number of the process, which is dead.
    assert!(fs::read_to_string(process.join("status")).unwrap().contains("State:\tZ"));
}

fn with_args(host: &Host, program: &str, args: &[&str]) -> std::process::Command {
    let mut command = host.command(program).unwrap();
    command.args(args);
    command
}

#[test]
fn what_a_host_mounted_is_unmounted_and_not_deleted() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("mount", 1);
    let precious = tempfile::tempdir().unwrap();
    fs::write(precious.path().join("file"), "precious").unwrap();
    let target = lab.host("a1").unwrap().data_folder().unwrap().join("mounted");
    fs::create_dir(&target).unwrap();
    let mount = std::process::Command::new("mount").arg("--bind").args([precious.path(), &target]).status();
    assert!(mount.unwrap().success() && target.join("file").exists());
    let name = lab.spec().name.clone();
    lab.remove().unwrap();
    assert_eq!(traces(&name), [""; 0]);
    assert_eq!(fs::read_to_string(precious.path().join("file")).unwrap(), "precious");
}

#[test]
fn a_panic_removes_the_lab() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let name = LabName::unique("panic").unwrap();
    let spec = LabSpec::new(name.clone()).with_clusters(1, 1, 0);
    let outcome = std::panic::catch_unwind(|| {
        let _lab = Lab::start(spec).unwrap();
        assert!(!traces(&name).is_empty());
        panic!("on purpose");
    });
    assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(traces(&name), [""; 0]);
}

#[test]
fn a_taken_name_is_refused_and_the_first_lab_stays() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("taken", 1);
    let name = lab.spec().name.clone();
    let before = traces(&name);
    let error = Lab::start(lab.spec().clone()).unwrap_err();
    assert!(matches!(&error, LabError::NameTaken(taken) if *taken == name), "{error}");
    assert!(matches!(landbridge_lab::remove(&name).unwrap_err(), LabError::InUse(_)));
    assert!(landbridge_lab::remove_stale().unwrap().iter().all(|removed| *removed != name));
    assert_eq!(traces(&name), before);
    assert!(reaches(&lab.host("a1p1").unwrap(), addresses(&lab.host("b1p1").unwrap())[0]));
}

#[test]
fn labs_stand_side_by_side_with_the_same_addresses() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let labs = [two_clusters("side", 1), two_clusters("side", 1)];
    for lab in &labs {
        assert!(reaches(&lab.host("a1p1").unwrap(), addresses(&lab.host("b1p1").unwrap())[0]));
    }
    labs[0].link("a").unwrap().set_both(Impairment::CUT).unwrap();
    assert!(!reaches(&labs[0].host("a1p1").unwrap(), addresses(&labs[0].host("b1p1").unwrap())[0]));
    assert!(reaches(&labs[1].host("a1p1").unwrap(), addresses(&labs[1].host("b1p1").unwrap())[0]));
}

#[test]
fn unwired_pods_have_only_loopback_and_nodes_know_no_pods() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let spec = LabSpec::new(LabName::unique("unwired").unwrap()).with_pods(PodWiring::Unwired).with_mtu(9000);
    let lab = Lab::start(spec).unwrap();
    let interfaces = |host: &str| {
        let output = lab.host(host).unwrap().run("ip", ["-br", "link"]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split(['@', ' ']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(interfaces("a1p1"), ["lo"]);
    assert_eq!(interfaces("a1"), ["lo", "eth0"]);
    let (a1, b2) = (lab.host("a1").unwrap(), lab.host("b2").unwrap());
    assert!(reaches(&a1, addresses(&b2)[1]));
    let target = addresses(&b2)[0].to_string();
    let full_size = || a1.run("ping", ["-c1", "-W2", "-Mdo", "-s8972", &target]).unwrap();
    assert!(full_size().status.success());
    let link = lab.link("a").unwrap();
    link.set(Direction::Outbound, Impairment { delay: Duration::from_millis(1), ..Impairment::NONE })
        .unwrap();
    assert!(full_size().status.success(), "a relay carries packets of that size too");
    assert_eq!(lab.hosts().filter(|host| host.role() == Role::Pod).count(), 8);
}

#[test]
fn a_wrong_host_or_link_is_answered_with_those_there_are() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("wrong", 1);
    let error = lab.host("c1").unwrap_err().to_string();
    assert!(error.ends_with(r#"has no host "c1": its hosts are wan a a1 a1p1 b b1 b1p1"#), "{error}");
    let error = lab.link("a1p1").unwrap_err().to_string();
    assert!(error.ends_with("here a a1 b b1"), "{error}");
}

#[test]
fn processes_are_paused_killed_and_restarted() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("process", 1);
    let node = lab.host("a1").unwrap();
    let pod = lab.host("a1p1").unwrap();
    let state = |id: u32| {
        fs::read_to_string(format!("/proc/{id}/stat")).unwrap().split(' ').nth(2).unwrap().to_owned()
    };
    let mut program =
        node.spawn("sleeper", with_args(&node, "sh", &["-c", "echo started; exec sleep 600"])).unwrap();
    let in_pod = pod.spawn("sleeper", with_args(&pod, "sleep", &["600"])).unwrap();
    let mut both = vec![program.id(), in_pod.id()];
    both.sort_unstable();
    let mut processes = node.processes();
    processes.sort_unstable();
    assert_eq!(processes, both, "a node's tree covers its pods");
    assert_eq!(pod.processes(), [in_pod.id()]);

    program.pause().unwrap();
    wait_until("the program is stopped", || state(program.id()) == "T");
    program.resume().unwrap();
    wait_until("the program goes on", || state(program.id()) == "S");

    let first = program.id();
    wait_until("the program has started", || program.log() == "started\n");
    program.restart().unwrap();
    assert_ne!(program.id(), first);
    wait_until("it has started again, with the first log kept", || program.log() == "started\nstarted\n");

    node.pause().unwrap();
    node.resume().unwrap();
    assert!(program.terminate(Duration::from_secs(10)).unwrap().code().is_none(), "ended by the signal");
    node.kill().unwrap();
    assert_eq!(node.processes(), [0; 0]);
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited 10 s until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_capture_holds_what_passed() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("capture", 1);
    let (near, far) = (lab.host("a1p1").unwrap(), addresses(&lab.host("b1p1").unwrap())[0]);
    let router = lab.host("wan").unwrap();
    let file = router.data_folder().unwrap().join("wan.pcap");
    let capture = router.capture("a", &file).unwrap();
    let summary = near.ping(far, 5, Duration::from_millis(10)).unwrap();
    assert_eq!(summary.received, 5);
    let captured = capture.stop().unwrap();
    assert_eq!(captured.missed, 0);
    let output =
        std::process::Command::new("tcpdump").args(["-n", "-r"]).arg(&file).arg("icmp").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |kind: &str| text.lines().filter(|line| line.contains(kind)).count();
    assert_eq!((count("echo request"), count("echo reply")), (5, 5), "{text}");
    assert!(captured.packets >= 10);
}
