//! Pods and nodes reach each other as who they are, and nobody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use landbridge_bpf_loader::maps::{Direction, NodeNumber, Reason, identity};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{
    Mesh, arrives, captured, connect, echo_server, exchange, identity_of, ip, is_lost, tunnelled, udp, v4,
    wait_until,
};

#[test]
fn pods_of_two_nodes_talk_through_the_tunnel_under_their_identities() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("tunnel", 2);
    let (client, server) = (&mesh.a.pods[0], &mesh.b.pods[0]);
    let folder = mesh.a.host.data_folder().unwrap();
    let (underlay, inside) = (folder.join("underlay.pcap"), folder.join("inside.pcap"));
    let captures =
        [mesh.a.host.capture("eth0", &underlay).unwrap(), server.host.capture("eth0", &inside).unwrap()];

    let to = echo_server(&server.host, server.address);
    let mut stream = connect(&client.host, to).unwrap_or_else(|error| {
        panic!("{error}; a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
    });
    exchange(&mut stream, 300_000);
    assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::V4(client.address));
    for capture in captures {
        capture.stop().unwrap();
    }

    let tunnels = tunnelled(&captured(&underlay));
    let ways: Vec<_> = tunnels.keys().copied().collect();
    let there = (client.identity, client.address.into(), server.address.into());
    let back = (server.identity, server.address.into(), client.address.into());
    assert_eq!(ways, [there, back]);

    // One router's worth of hops is taken, and the checksum says so too.
    let arrived = captured(&inside);
    let from_client =
        arrived.iter().filter(|packet| packet[12..14] == [8, 0] && packet[26..30] == client.address.octets());
    let headers: Vec<&[u8]> = from_client.map(|packet| &packet[14..34]).collect();
    assert!(!headers.is_empty());
    for header in headers {
        assert_eq!(header[8], 63, "time to live");
        let sum: u32 =
            header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "checksum of {header:?}");
    }

    // Pods of one node do without the tunnel.
    let neighbour = &mesh.a.pods[1];
    let to = echo_server(&neighbour.host, neighbour.address);
    exchange(&mut connect(&client.host, to).unwrap(), 300_000);
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");
}

#[test]
fn nodes_and_pods_reach_each_other_in_every_combination() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("reach", 1);
    let (a, b) = (&mesh.a, &mesh.b);
    let addresses = |node: &super::fixture::Node| node.host.node_addresses().unwrap();
    let [a_router, b_router] = [a, b].map(|node| v4(addresses(node).router()));
    let b_health = v4(addresses(b).health());
    let [a_underlay, b_underlay] = [a, b].map(|node| v4(addresses(node).underlay()));
    let (a_pod, b_pod) = (&a.pods[0], &b.pods[0]);
    for (name, from, source, to, target) in [
        ("a node its pod", &a.host, a_router, &a_pod.host, a_pod.address),
        ("a pod its node", &a_pod.host, a_pod.address, &a.host, a_router),
        ("a pod its node's own address", &a_pod.host, a_pod.address, &a.host, a_underlay),
        ("a node a remote pod", &a.host, a_router, &b_pod.host, b_pod.address),
        ("a pod a remote node", &a_pod.host, a_pod.address, &b.host, b_router),
        ("a pod a remote node's own address", &a_pod.host, a_pod.address, &b.host, b_underlay),
        ("a node a remote node", &a.host, a_router, &b.host, b_health),
    ] {
        let (there, back) = (udp(from, source), udp(to, target));
        assert!(arrives(&there, &back), "{name}; a: {}; b: {}", a.drops(), b.drops());
        assert!(arrives(&back, &there), "{name}, answered; a: {}; b: {}", a.drops(), b.drops());
    }
    // What other nodes probe is answered by the kernel.
    let output = a.host.run("ping", ["-c", "2", "-i", "0.01", "-W", "5", &b_health.to_string()]).unwrap();
    assert!(output.status.success(), "{}; b: {}", String::from_utf8_lossy(&output.stdout), b.drops());
    // With the error that nobody listens there, told through both datapaths.
    let nobody = a_pod.host.inside(|| UdpSocket::bind((a_pod.address, 0))).unwrap().unwrap();
    nobody.connect((b_pod.address, 9)).unwrap();
    nobody.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    nobody.send(b"hello").unwrap();
    let error = nobody.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(a.drops() + &b.drops(), "");
}

#[test]
fn every_packet_is_counted_once_on_each_side() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("counts", 2);
    let forwarded = |node: &super::fixture::Node| {
        let counts = node.datapath.counts().unwrap();
        let of = |direction| {
            let count = counts.iter().find(|(reason, d, _)| (*reason, *d) == (Reason::FORWARDED, direction));
            count.map_or((0, 0), |(_, _, count)| (count.packets, count.bytes))
        };
        [of(Direction::Egress), of(Direction::Ingress)]
    };
    // Five bytes in a UDP datagram over IPv4 in an Ethernet frame.
    const FRAME: u64 = 14 + 20 + 8 + 5;
    let (sender, near, far) = (&mesh.a.pods[0], &mesh.a.pods[1], &mesh.b.pods[0]);
    let from = udp(&sender.host, sender.address);
    for _ in 0..3 {
        assert!(arrives(&from, &udp(&far.host, far.address)));
    }
    assert_eq!(forwarded(&mesh.a), [(3, 3 * FRAME), (0, 0)]);
    assert_eq!(forwarded(&mesh.b), [(0, 0), (3, 3 * FRAME)]);
    for _ in 0..2 {
        assert!(arrives(&from, &udp(&near.host, near.address)));
    }
    assert_eq!(forwarded(&mesh.a), [(5, 5 * FRAME), (2, 2 * FRAME)]);
}

#[test]
fn a_pod_cannot_speak_as_another() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("spoof", 2);
    let (liar, victim) = (&mesh.a.pods[0], &mesh.a.pods[1]);
    let target = udp(&mesh.b.pods[0].host, mesh.b.pods[0].address);
    for stolen in [victim.address, Ipv4Addr::new(10, 1, 1, 99), v4(mesh.b.pods[1].host.addresses().unwrap())]
    {
        ip(&liar.host, &format!("addr add {stolen}/32 dev eth0\n"));
        let before = mesh.a.packets(Reason::INVALID_SOURCE, Direction::Egress);
        assert!(is_lost(&udp(&liar.host, stolen), &target), "{stolen}");
        assert_eq!(mesh.a.packets(Reason::INVALID_SOURCE, Direction::Egress), before + 1, "{stolen}");
    }
    assert!(arrives(&udp(&liar.host, liar.address), &target));
    assert_eq!(mesh.b.drops(), "");
}

#[test]
fn from_outside_of_the_tunnel_nobody_is_believed_to_be_behind_one() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("outside", 1);
    let router = mesh.lab.host("wan").unwrap();
    let pod = &mesh.a.pods[0];
    let stolen = mesh.b.pods[0].address;
    let a = v4(mesh.a.host.node_addresses().unwrap().underlay());
    ip(&router, &format!("addr add {stolen}/32 dev lo\nroute add {}/32 via {a}\n", pod.address));
    let target = udp(&pod.host, pod.address);
    assert!(is_lost(&udp(&router, stolen), &target));
    assert_eq!(mesh.a.packets(Reason::INVALID_SOURCE, Direction::Ingress), 1, "{}", mesh.a.drops());
    // Under its own address it is the world, which may.
    let [world, _] = mesh.a.host.node_addresses().unwrap().underlay();
    let IpAddr::V4(world) = world else { panic!("IPv4 comes first") };
    let [a, b, c, _] = world.octets();
    assert!(arrives(&udp(&router, Ipv4Addr::new(a, b, c, 254)), &target), "{}", mesh.a.drops());
}

#[test]
fn from_outside_nobody_is_sent_on_as_a_pod() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("transit", 1);
    let router = mesh.lab.host("wan").unwrap();
    let (stolen, pod) = (mesh.a.pods[0].address, &mesh.b.pods[0]);
    let a = v4(mesh.a.host.node_addresses().unwrap().underlay());
    ip(&router, &format!("addr add {stolen}/32 dev lo\nroute add {}/32 via {a}\n", pod.address));
    let target = udp(&pod.host, pod.address);
    assert!(is_lost(&udp(&router, stolen), &target), "under the identity of a pod of the node on the way");
    assert_eq!(mesh.a.packets(Reason::INVALID_SOURCE, Direction::Egress), 1, "{}", mesh.a.drops());
    assert!(arrives(&udp(&mesh.a.pods[0].host, stolen), &target), "{}", mesh.a.drops());
}

/// A VXLAN packet without its outer headers, with an empty UDP datagram inside.
fn vxlan(vni: u32, source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(&vni.to_be_bytes()[1..]);
    packet.push(0);
    packet.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum: u32 = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(header);
    packet.extend(1234u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

#[test]
fn what_comes_out_of_the_tunnel_is_not_taken_on_trust() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("hostile", 2);
    let (receiver, pod, other) = (&mesh.a.pods[0], &mesh.b.pods[0], &mesh.b.pods[1]);
    let target = udp(&receiver.host, receiver.address);
    let port = target.local_addr().unwrap().port();
    let a = SocketAddr::from((v4(mesh.a.host.node_addresses().unwrap().underlay()), 8472));
    let b_router = v4(mesh.b.host.node_addresses().unwrap().router());
    let b = udp(&mesh.b.host, v4(mesh.b.host.node_addresses().unwrap().underlay()));
    let stranger = udp(&mesh.lab.host("wan").unwrap(), Ipv4Addr::UNSPECIFIED);
    // Of the `PodCIDR`, without a record of its own.
    let new_pod = Ipv4Addr::new(10, 2, 1, 77);

    let refused = |name: &str, socket: &UdpSocket, vni: u32, source: Ipv4Addr, reason: Reason| {
        let before = mesh.a.packets(reason, Direction::Ingress);
        socket.send_to(&vxlan(vni, source, receiver.address, port), a).unwrap();
        wait_until(name, || mesh.a.packets(reason, Direction::Ingress) == before + 1);
    };
    let (invalid, unknown) = (Reason::INVALID_IDENTITY, Reason::UNKNOWN_SENDER);
    refused("a pod as another", &b, other.identity, pod.address, invalid);
    refused("a pod as one of this cluster", &b, receiver.identity, pod.address, invalid);
    refused("a pod as the host", &b, identity::HOST, pod.address, invalid);
    refused("a pod as a node", &b, identity::REMOTE_NODE, pod.address, invalid);
    refused("a pod as nobody", &b, 0, pod.address, invalid);
    refused("a node's router as a pod", &b, pod.identity, b_router, invalid);
    refused("a new pod of another cluster", &b, identity_of(3, 300), new_pod, invalid);
    refused("a pod of this node", &b, receiver.identity, mesh.a.pods[1].address, unknown);
    refused("an address of nobody", &b, pod.identity, Ipv4Addr::new(10, 9, 9, 9), unknown);
    refused("the right words from a stranger", &stranger, pod.identity, pod.address, unknown);
    assert!(target.recv(&mut [0; 8]).is_err(), "nothing of it arrives");

    for (name, vni, source) in [
        ("a pod", pod.identity, pod.address),
        ("a new pod", identity_of(2, 999), new_pod),
        ("a node", identity::REMOTE_NODE, b_router),
    ] {
        b.send_to(&vxlan(vni, source, receiver.address, port), a).unwrap();
        assert!(matches!(target.recv(&mut [0; 8]), Ok(0)), "{name} as itself: {}", mesh.a.drops());
    }
    // Not for anyone here.
    let before = mesh.a.packets(Reason::UNKNOWN_TARGET, Direction::Ingress);
    b.send_to(&vxlan(pod.identity, pod.address, new_pod, port), a).unwrap();
    wait_until("no transit", || mesh.a.packets(Reason::UNKNOWN_TARGET, Direction::Ingress) == before + 1);
}

#[test]
fn a_node_that_is_cleared_is_neither_sent_to_nor_believed() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("cleared", 1);
    let (near, far) = (
        udp(&mesh.a.pods[0].host, mesh.a.pods[0].address),
        udp(&mesh.b.pods[0].host, mesh.b.pods[0].address),
    );
    assert!(arrives(&near, &far) && arrives(&far, &near));
    mesh.a.datapath.nodes().clear(NodeNumber(1)).unwrap();
    assert!(is_lost(&near, &far) && is_lost(&far, &near));
    assert_eq!(mesh.a.packets(Reason::NO_TUNNEL_ENDPOINT, Direction::Egress), 1);
    assert_eq!(
        mesh.a.packets(Reason::FORWARDED, Direction::Egress),
        1,
        "what is dropped is not forwarded as well"
    );
    assert_eq!(mesh.a.packets(Reason::UNKNOWN_SENDER, Direction::Ingress), 1);
}

#[test]
fn a_pod_cannot_send_what_only_nodes_send() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("tunneller", 2);
    let (pod, other) = (&mesh.a.pods[0], &mesh.b.pods[0]);
    let liar = udp(&pod.host, pod.address);
    let [near, far] = [&mesh.a, &mesh.b].map(|node| v4(node.host.node_addresses().unwrap().underlay()));
    for (number, node) in (1..).zip([near, far, Ipv4Addr::new(172, 30, 2, 254)]) {
        let packet = vxlan(pod.identity, pod.address, other.address, 9);
        liar.send_to(&packet, (node, 8472)).unwrap();
        let prohibited = || mesh.a.packets(Reason::ENCAPSULATION_PROHIBITED, Direction::Egress) == number;
        wait_until("it is dropped", prohibited);
    }
    // To another pod it is a port like any other.
    let target = other.host.inside(|| UdpSocket::bind((other.address, 8472))).unwrap().unwrap();
    target.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(arrives(&liar, &target), "{}", mesh.a.drops());
}
