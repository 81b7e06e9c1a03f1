//! The first program of the kernel side, through the whole chain: compiled, embedded, loaded, attached, read back.

use std::net::{IpAddr, UdpSocket};

use landbridge_bpf_loader::TrafficCounter;
use landbridge_bpf_loader::maps::{Direction, TrafficCount};
use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Host, Lab, LabName, LabSpec};

/// A UDP datagram of `PAYLOAD` bytes is this long in an Ethernet frame over IPv4.
const FRAME_LEN: u64 = 14 + 20 + 8 + PAYLOAD as u64;
const PAYLOAD: usize = 100;

fn one_node_with_two_pods(stem: &str) -> Lab {
    Lab::start(LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(1, 1, 2)).unwrap()
}

fn v4(host: &Host) -> IpAddr {
    host.addresses().unwrap()[0]
}

/// Sends datagrams from one pod to the other and waits until all have arrived.
fn send(from: &Host, to: &Host, count: usize) {
    let receiver = to.inside(|| UdpSocket::bind((v4(to), 0))).unwrap().unwrap();
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let target = receiver.local_addr().unwrap();
    let sender = from.inside(|| UdpSocket::bind((v4(from), 0))).unwrap().unwrap();
    for _ in 0..count {
        sender.send_to(&[0; PAYLOAD], target).unwrap();
        receiver.recv(&mut [0; PAYLOAD]).unwrap();
    }
}

fn increase(before: TrafficCount, after: TrafficCount) -> TrafficCount {
    TrafficCount { packets: after.packets - before.packets, bytes: after.bytes - before.bytes }
}

#[test]
fn the_packets_of_a_veth_are_counted_in_the_kernel() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let lab = one_node_with_two_pods("count");
    let (node, from, to) = (lab.host("a1").unwrap(), lab.host("a1p1").unwrap(), lab.host("a1p2").unwrap());
    // Both sides know each other's link addresses before the first count.
    send(&from, &to, 1);
    send(&to, &from, 1);

    let mut counter = TrafficCounter::load(&node.bpf_folder().unwrap()).unwrap();
    node.inside(|| counter.attach("lxc-a1p1")).unwrap().unwrap();
    let counts = || (counter.count(Direction::Ingress).unwrap(), counter.count(Direction::Egress).unwrap());

    let before = counts();
    send(&from, &to, 50);
    let between = counts();
    send(&to, &from, 20);
    let after = counts();
    // Neighbours may be asked about again at any time; nothing else talks here.
    let exactly = |increase: TrafficCount, sent: u64| {
        let (packets, bytes) = (increase.packets - sent, increase.bytes - sent * FRAME_LEN);
        assert!(packets <= 4 && bytes <= packets * 86, "{increase:?} for {sent} datagrams");
    };
    exactly(increase(before.0, between.0), 50);
    exactly(increase(before.1, between.1), 0);
    exactly(increase(between.0, after.0), 0);
    exactly(increase(between.1, after.1), 20);
}

#[test]
fn counting_survives_the_process_that_started_it() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let lab = one_node_with_two_pods("survive");
    let (node, from, to) = (lab.host("a1").unwrap(), lab.host("a1p1").unwrap(), lab.host("a1p2").unwrap());
    let pins = node.bpf_folder().unwrap();
    let mut counter = TrafficCounter::load(&pins).unwrap();
    node.inside(|| counter.attach("lxc-a1p1")).unwrap().unwrap();
    drop(counter);
    send(&from, &to, 30);
    let mut counter = TrafficCounter::load(&pins).unwrap();
    let count = counter.count(Direction::Ingress).unwrap();
    assert!(count.packets >= 30, "{count:?}");

    // The next process takes the links over: one program counts, not two.
    node.inside(|| counter.attach("lxc-a1p1")).unwrap().unwrap();
    drop(counter);
    send(&from, &to, 30);
    let more =
        TrafficCounter::load(&pins).unwrap().count(Direction::Ingress).unwrap().packets - count.packets;
    assert!((30..60).contains(&more), "{more} packets were counted for 30 datagrams");
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let lab = one_node_with_two_pods("missing");
    let node = lab.host("a1").unwrap();
    let mut counter = TrafficCounter::load(&node.bpf_folder().unwrap()).unwrap();
    let error = node.inside(|| counter.attach("lxc-none")).unwrap().unwrap_err().to_string();
    assert!(error.starts_with(r#"cannot attach program count_ingress to interface "lxc-none""#), "{error}");
}
