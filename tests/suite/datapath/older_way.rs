//! The same without tcx links: programs are filters of a clsact qdisc.

use std::env;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use landbridge_bpf_loader::Attachment::{self, Clsact, Tcx};
use landbridge_bpf_loader::maps::{Direction, Reason};
use landbridge_bpf_loader::{Datapath, DatapathOptions};
use landbridge_lab::Host;
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, OLDER_WAY, connect, echo_server, wait_until};

/// Tests that ask for nothing but what a datapath does, of which links are no part.
const TESTS: [&str; 6] = [
    "datapath::overlay::",
    "datapath::policy::",
    "datapath::services::",
    "datapath::maps::what_",
    "datapath::takeover::another_process",
    "datapath::takeover::without_its_pins",
];

#[test]
fn a_datapath_does_the_same_the_older_way() {
    if env::var_os(OLDER_WAY).is_some() || !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.args(TESTS).env(OLDER_WAY, "yes").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let passed = text.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
    let passed: u32 = passed.and_then(|passed| passed.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    assert!(passed >= 15, "only {passed} tests ran: {text}");
}

/// How many filters there are on both sides of an interface.
fn filters(host: &Host, interface: &str) -> usize {
    let on = |side| {
        let output = host.run("tc", ["filter", "show", "dev", interface, side]).unwrap();
        String::from_utf8_lossy(&output.stdout).matches("direct-action").count()
    };
    on("ingress") + on("egress")
}

#[test]
fn a_node_changes_between_the_two_ways_under_traffic() {
    if env::var_os(OLDER_WAY).is_some() || !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let Mesh { lab: _lab, a, b } = Mesh::start("ways", 1);
    let to = echo_server(&b.pods[0].host, b.pods[0].address);
    let mut stream = connect(&a.pods[0].host, to).unwrap();
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let (host, pod, options) = (a.host.clone(), a.pods[0].clone(), a.options.clone());
    drop(a);
    let open = |attachment: Attachment| {
        let options = DatapathOptions { attachment: Some(attachment), ..options.clone() };
        host.inside(|| Datapath::open(&options)).unwrap().unwrap()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            while !done.load(Ordering::Relaxed) {
                stream.write_all(&[7]).unwrap();
                stream.read_exact(&mut byte).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        for attachment in [Clsact, Clsact, Tcx, Tcx, Clsact] {
            let mut datapath = open(attachment);
            let attached = host.inside(|| datapath.attached_endpoints()).unwrap().unwrap();
            assert_eq!(attached, [pod.interface.as_str()]);
            host.inside(|| datapath.attach_endpoint(&pod.interface)).unwrap().unwrap();
            for interface in ["lb_vxlan", &pod.interface] {
                let expected = if attachment == Clsact { 2 } else { 0 };
                assert_eq!(filters(&host, interface), expected, "{attachment:?} {interface}");
            }
            let start = rounds.load(Ordering::Relaxed);
            wait_until("traffic goes on", || rounds.load(Ordering::Relaxed) > start + 100);
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut datapath = open(Clsact);
    // One program at each hook counts, not two.
    let sent = |datapath: &Datapath| datapath.count(Reason::FORWARDED, Direction::Egress).unwrap().packets;
    let before = sent(&datapath);
    stream.write_all(&[7]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert!((before + 1..=before + 2).contains(&sent(&datapath)), "a byte, and at most an acknowledgement");
    let dropped = datapath.counts().unwrap().into_iter().find(|(reason, ..)| *reason != Reason::FORWARDED);
    assert_eq!(dropped, None);
    host.inside(|| datapath.detach_endpoint(&pod.interface)).unwrap().unwrap();
    assert_eq!(filters(&host, &pod.interface), 0);
    host.inside(|| Datapath::remove(&options.pins)).unwrap().unwrap();
    assert_eq!(filters(&host, "lb_vxlan"), 0);
}
