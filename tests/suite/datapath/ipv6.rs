//! What holds for IPv4 holds for IPv6.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use landbridge_bpf_loader::maps::{Direction, PeerKind, PolicyVerdict, Reason};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{
    Mesh, Node, addresses, arrives, captured, connect, echo_server, exchange, expect_refusal, ip, is_lost,
    tunnelled, udp, v6,
};

#[test]
fn pods_of_two_nodes_talk_through_the_tunnel_under_their_identities() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("tunnel6", 2);
    let (client, server) = (&mesh.a.pods[0], &mesh.b.pods[0]);
    let folder = mesh.a.host.data_folder().unwrap();
    let (underlay, inside) = (folder.join("underlay.pcap"), folder.join("inside.pcap"));
    let captures =
        [mesh.a.host.capture("eth0", &underlay).unwrap(), server.host.capture("eth0", &inside).unwrap()];
    let to = echo_server(&server.host, server.address6);
    let mut stream = connect(&client.host, to).unwrap_or_else(|error| {
        panic!("{error}; a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
    });
    exchange(&mut stream, 300_000);
    assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::V6(client.address6));
    for capture in captures {
        capture.stop().unwrap();
    }
    let tunnels = tunnelled(&captured(&underlay));
    let ways: Vec<_> = tunnels.keys().copied().collect();
    let (near, far) = (IpAddr::V6(client.address6), IpAddr::V6(server.address6));
    assert_eq!(ways, [(client.identity, near, far), (server.identity, far, near)]);
    // One router's worth of hops is taken.
    let arrived = captured(&inside);
    let hops: Vec<u8> = arrived
        .iter()
        .filter(|packet| addresses(packet).is_some_and(|(source, _)| source == near))
        .map(|packet| packet[21])
        .collect();
    assert!(!hops.is_empty() && hops.iter().all(|hops| *hops == 63), "{hops:?}");
    // The pod asked where its gateway is, and was told.
    let neighbours = client.host.run("ip", ["-6", "neigh", "show", "dev", "eth0"]).unwrap();
    let neighbours = String::from_utf8(neighbours.stdout).unwrap();
    let router = v6(mesh.a.host.node_addresses().unwrap().router());
    assert!(neighbours.contains(&format!("{router} lladdr 02:00:00:01:01:02 router")), "{neighbours}");

    let neighbour = &mesh.a.pods[1];
    let to = echo_server(&neighbour.host, neighbour.address6);
    exchange(&mut connect(&client.host, to).unwrap(), 300_000);
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");
}

#[test]
fn nodes_and_pods_reach_each_other_in_every_combination() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("reach6", 1);
    let (a, b) = (&mesh.a, &mesh.b);
    let own = |node: &Node| node.host.node_addresses().unwrap();
    let [a_router, b_router] = [a, b].map(|node| v6(own(node).router()));
    let b_health = v6(own(b).health());
    let [a_underlay, b_underlay] = [a, b].map(|node| v6(own(node).underlay()));
    let (a_pod, b_pod) = (&a.pods[0], &b.pods[0]);
    for (name, from, source, to, target) in [
        ("a node its pod", &a.host, a_router, &a_pod.host, a_pod.address6),
        ("a pod its node", &a_pod.host, a_pod.address6, &a.host, a_router),
        ("a pod its node's own address", &a_pod.host, a_pod.address6, &a.host, a_underlay),
        ("a node a remote pod", &a.host, a_router, &b_pod.host, b_pod.address6),
        ("a pod a remote node", &a_pod.host, a_pod.address6, &b.host, b_router),
        ("a pod a remote node's own address", &a_pod.host, a_pod.address6, &b.host, b_underlay),
        ("a node a remote node", &a.host, a_router, &b.host, b_health),
    ] {
        let (there, back) = (udp(from, source), udp(to, target));
        assert!(arrives(&there, &back), "{name}; a: {}; b: {}", a.drops(), b.drops());
        assert!(arrives(&back, &there), "{name}, answered; a: {}; b: {}", a.drops(), b.drops());
    }
    let output = a.host.run("ping", ["-c", "2", "-i", "0.01", "-W", "5", &b_health.to_string()]).unwrap();
    assert!(output.status.success(), "{}; b: {}", String::from_utf8_lossy(&output.stdout), b.drops());
    // With the error that nobody listens there, told through both datapaths.
    let nobody = a_pod.host.inside(|| UdpSocket::bind((a_pod.address6, 0))).unwrap().unwrap();
    nobody.connect((b_pod.address6, 9)).unwrap();
    expect_refusal(&nobody);
    assert_eq!(a.drops() + &b.drops(), "");
}

#[test]
fn a_pod_cannot_speak_as_another() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("spoof6", 2);
    let (liar, victim) = (&mesh.a.pods[0], &mesh.a.pods[1]);
    let target = udp(&mesh.b.pods[0].host, mesh.b.pods[0].address6);
    // It knows its gateway, so that what it sends next is sent at once.
    assert!(arrives(&udp(&liar.host, liar.address6), &target), "{}", mesh.a.drops());
    let unknown: Ipv6Addr = "fd10:1:1::99".parse().unwrap();
    for stolen in [victim.address6, unknown, mesh.b.pods[1].address6] {
        ip(&liar.host, &format!("addr add {stolen}/128 dev eth0 nodad\n"));
        let before = mesh.a.packets(Reason::INVALID_SOURCE, Direction::Egress);
        assert!(is_lost(&udp(&liar.host, stolen), &target), "{stolen}");
        assert!(mesh.a.packets(Reason::INVALID_SOURCE, Direction::Egress) > before, "{stolen}");
    }
    assert!(arrives(&udp(&liar.host, liar.address6), &target));
    assert_eq!(mesh.b.drops(), "");
}

#[test]
fn policy_knows_a_pod_by_both_of_its_addresses() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("policy6", 2);
    let (allowed, other) = (mesh.a.pods[0].clone(), mesh.a.pods[1].clone());
    let server = mesh.b.pods[0].clone();
    let to = echo_server(&server.host, server.address6);
    let rule = (PeerKind::Identity, allowed.identity, 6, to.port(), PolicyVerdict::Allow);
    mesh.b.enforce(0, Direction::Ingress, &[rule]);
    mesh.b.enforce(0, Direction::Egress, &[]);
    exchange(&mut connect(&allowed.host, to).unwrap(), 100_000);
    assert_eq!(mesh.b.drops(), "");
    assert!(connect(&other.host, to).is_err());
    assert!(mesh.b.packets(Reason::POLICY_DENIED, Direction::Ingress) > 0);
}

#[test]
fn tunnels_go_over_ipv6_too() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("underlay6", 1);
    let [a, b] = [&mesh.a, &mesh.b].map(|node| node.host.node_addresses().unwrap().underlay()[1]);
    mesh.a.set_underlay(b, 2);
    mesh.b.set_underlay(a, 1);
    let (client, server) = (&mesh.a.pods[0], &mesh.b.pods[0]);
    let underlay = mesh.a.host.data_folder().unwrap().join("underlay.pcap");
    let capture = mesh.a.host.capture("eth0", &underlay).unwrap();
    for address in [IpAddr::V4(server.address), IpAddr::V6(server.address6)] {
        let to = echo_server(&server.host, address);
        let mut stream = connect(&client.host, to).unwrap_or_else(|error| {
            panic!("{error}; a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
        });
        exchange(&mut stream, 300_000);
    }
    capture.stop().unwrap();
    let packets = captured(&underlay);
    let outer: Vec<_> = packets.iter().filter_map(|packet| addresses(packet)).collect();
    assert!(outer.contains(&(a, b)) && outer.contains(&(b, a)));
    assert_eq!(tunnelled(&packets).len(), 4, "{:?}", tunnelled(&packets));
}
