//! Without tunnels: by the routes of the underlay, under the identities of the ipcache.

use std::net::IpAddr;

use landbridge_bpf_loader::maps::{Direction, PeerKind, PolicyVerdict, Reason};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{
    Mesh, Pod, Routing, addresses, captured, connect, echo_server, exchange, ip, send_large, tunnelled, udp,
    wait_until,
};

fn both(pod: &Pod) -> [IpAddr; 2] {
    [pod.address.into(), pod.address6.into()]
}

#[test]
fn pods_of_two_nodes_talk_without_a_tunnel() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start_with("direct", 2, Routing::Direct, |_, _| ());
    let (client, other, server) = (mesh.a.pods[0].clone(), mesh.a.pods[1].clone(), mesh.b.pods[0].clone());
    let underlay = mesh.a.host.data_folder().unwrap().join("underlay.pcap");
    let capture = mesh.a.host.capture("eth0", &underlay).unwrap();
    // Who it is says the ipcache.
    let rule = (PeerKind::Identity, client.identity, 0, 0, PolicyVerdict::Allow);
    mesh.b.enforce(0, Direction::Ingress, &[rule]);
    for (near, far) in both(&client).into_iter().zip(both(&server)) {
        let to = echo_server(&server.host, far);
        let mut stream = connect(&client.host, to).unwrap_or_else(|error| {
            panic!("{error}; a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
        });
        exchange(&mut stream, 300_000);
        let (from, target) = (udp(&client.host, near), udp(&server.host, far));
        assert!(send_large(&from, &target, 4_000) && send_large(&target, &from, 4_000));
    }
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");
    capture.stop().unwrap();
    let packets = captured(&underlay);
    assert_eq!(tunnelled(&packets).len(), 0);
    let seen: Vec<_> = packets.iter().filter_map(|packet| addresses(packet)).collect();
    for (near, far) in both(&client).into_iter().zip(both(&server)) {
        assert!(seen.contains(&(near, far)) && seen.contains(&(far, near)), "{near} {far}");
    }

    for (near, far) in both(&other).into_iter().zip(both(&server)) {
        let before = mesh.b.packets(Reason::POLICY_DENIED, Direction::Ingress);
        udp(&other.host, near).send_to(b"hello", udp(&server.host, far).local_addr().unwrap()).unwrap();
        wait_until("who is not allowed is denied", || {
            mesh.b.packets(Reason::POLICY_DENIED, Direction::Ingress) == before + 1
        });
    }
    // Nodes reach each other and each other's pods.
    let routers = mesh.a.host.node_addresses().unwrap().router();
    let far_node = mesh.b.host.node_addresses().unwrap().health();
    for (own, far) in routers.into_iter().zip(far_node) {
        let output = client.host.run("ping", ["-c", "1", "-W", "5", &far.to_string()]).unwrap();
        assert!(output.status.success(), "{}", mesh.a.drops() + &mesh.b.drops());
        let output = mesh.b.host.run("ping", ["-c", "1", "-W", "5", &own.to_string()]).unwrap();
        assert!(output.status.success(), "{}", mesh.a.drops() + &mesh.b.drops());
    }
}

#[test]
fn a_pod_of_this_node_is_not_out_there() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start_with("directspoof", 2, Routing::Direct, |_, _| ());
    let wan = mesh.lab.host("wan").unwrap();
    let (victim, stolen) = (&mesh.a.pods[0], &mesh.a.pods[1]);
    for (number, (target, source)) in (1..).zip(both(victim).into_iter().zip(both(stolen))) {
        let bits = if source.is_ipv4() { 32 } else { 128 };
        ip(&wan, &format!("addr add {source}/{bits} dev lo\n"));
        let target = udp(&victim.host, target);
        udp(&wan, source).send_to(b"hello", target.local_addr().unwrap()).unwrap();
        wait_until("it is refused", || mesh.a.packets(Reason::INVALID_SOURCE, Direction::Ingress) == number);
    }
}
