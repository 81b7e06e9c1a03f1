//! Who may reach whom.

use std::net::{SocketAddr, UdpSocket};

use landbridge_bpf_loader::maps::{Direction, PeerKind, PolicyVerdict, Reason};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, Node, Pod, arrives, connect, echo_server, exchange, is_lost, udp};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn socket(pod: &Pod) -> UdpSocket {
    udp(&pod.host, pod.address)
}

/// Expects that a datagram is dropped at `node` for this reason.
fn denied(node: &Node, from: &UdpSocket, to: &UdpSocket, reason: Reason, direction: Direction) {
    let before = node.packets(reason, direction);
    assert!(is_lost(from, to));
    assert_eq!(node.packets(reason, direction), before + 1, "{}", node.drops());
}

#[test]
fn ingress_is_judged_by_identity_and_cluster_where_the_pod_is() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("ingress", 2);
    let (allowed, other) = (mesh.a.pods[0].clone(), mesh.a.pods[1].clone());
    let server = mesh.b.pods[0].clone();
    let neighbour = mesh.b.pods[1].clone();
    let [from_allowed, from_other, from_neighbour, target] =
        [&allowed, &other, &neighbour, &server].map(socket);
    let (no_match, deny) = (Reason::POLICY_DENIED, Reason::POLICY_DENIED_BY_DENYLIST);
    const IN: Direction = Direction::Ingress;

    mesh.b.enforce(0, IN, &[(PeerKind::Identity, allowed.identity, 0, 0, PolicyVerdict::Allow)]);
    assert!(arrives(&from_allowed, &target), "{}", mesh.b.drops());
    denied(&mesh.b, &from_other, &target, no_match, IN);
    denied(&mesh.b, &from_neighbour, &target, no_match, IN);
    let host = udp(&mesh.b.host, super::fixture::v4(mesh.b.host.node_addresses().unwrap().router()));
    assert!(arrives(&host, &target), "the node itself may always: {}", mesh.b.drops());
    super::fixture::ip(&mesh.b.host, "addr add 192.0.2.77/32 dev lo\n");
    let host = udp(&mesh.b.host, std::net::Ipv4Addr::new(192, 0, 2, 77));
    assert!(arrives(&host, &target), "under whatever address it has: {}", mesh.b.drops());
    let far_host = udp(&mesh.a.host, super::fixture::v4(mesh.a.host.node_addresses().unwrap().router()));
    denied(&mesh.b, &far_host, &target, no_match, IN);

    // All of cluster 1, but for one.
    mesh.b.enforce(0, IN, &[(PeerKind::Cluster, 1, 0, 0, PolicyVerdict::Allow)]);
    assert!(arrives(&from_other, &target), "{}", mesh.b.drops());
    denied(&mesh.b, &from_neighbour, &target, no_match, IN);
    mesh.b.enforce(0, IN, &[(PeerKind::Identity, other.identity, UDP, 0, PolicyVerdict::Deny)]);
    denied(&mesh.b, &from_other, &target, deny, IN);
    assert!(arrives(&from_allowed, &target));
    // And the whole mesh.
    mesh.b.enforce(0, IN, &[(PeerKind::Mesh, 0, UDP, 0, PolicyVerdict::Allow)]);
    assert!(arrives(&from_neighbour, &target));
    assert_eq!(mesh.a.drops(), "");
}

#[test]
fn replies_pass_in_both_directions_and_nothing_else_does() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("replies", 1);
    let (client, server) = (mesh.a.pods[0].clone(), mesh.b.pods[0].clone());
    let to = echo_server(&server.host, server.address);
    let other_port = echo_server(&server.host, server.address);
    let identity = |pod: &Pod| (PeerKind::Identity, pod.identity);
    let ((server_kind, server_id), (client_kind, client_id)) = (identity(&server), identity(&client));
    // The client may only call the server's port, and nobody may call the client; the other way round at the server.
    mesh.a.enforce(0, Direction::Egress, &[(server_kind, server_id, TCP, to.port(), PolicyVerdict::Allow)]);
    mesh.a.enforce(0, Direction::Ingress, &[]);
    mesh.b.enforce(0, Direction::Ingress, &[(client_kind, client_id, TCP, to.port(), PolicyVerdict::Allow)]);
    mesh.b.enforce(0, Direction::Egress, &[]);
    let mut stream = connect(&client.host, to)
        .unwrap_or_else(|error| panic!("{error} {} {}", mesh.a.drops(), mesh.b.drops()));
    exchange(&mut stream, 100_000);
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");

    assert!(connect(&client.host, other_port).is_err());
    assert!(mesh.a.packets(Reason::POLICY_DENIED, Direction::Egress) > 0);
    let listening = echo_server(&client.host, client.address);
    assert!(connect(&server.host, listening).is_err());
    assert!(mesh.b.packets(Reason::POLICY_DENIED, Direction::Egress) > 0);

    // A rule that is taken back ends what it allowed.
    exchange(&mut stream, 1_000);
    mesh.b.enforce(0, Direction::Ingress, &[(client_kind, client_id, TCP, to.port(), PolicyVerdict::Deny)]);
    use std::io::Write as _;
    let before = mesh.b.packets(Reason::POLICY_DENIED_BY_DENYLIST, Direction::Ingress);
    stream.write_all(b"still there?").unwrap();
    super::fixture::wait_until("the connection is cut", || {
        mesh.b.packets(Reason::POLICY_DENIED_BY_DENYLIST, Direction::Ingress) > before
    });
}

#[test]
fn a_policy_that_comes_into_force_leaves_running_replies_alone() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("running", 1);
    let (client, server) = (mesh.a.pods[0].clone(), mesh.b.pods[0].clone());
    let to: SocketAddr = echo_server(&server.host, server.address);
    let mut stream = connect(&client.host, to).unwrap();
    exchange(&mut stream, 1_000);
    mesh.a.enforce(0, Direction::Ingress, &[]);
    exchange(&mut stream, 100_000);
    assert_eq!(mesh.a.drops(), "");
}
