//! Datagrams that come in pieces.

use std::net::IpAddr;

use landbridge_bpf_loader::maps::{Direction, PeerKind, PolicyVerdict, Reason};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, Pod, is_lost, send_large, udp, wait_until};

/// Three pieces.
const LEN: usize = 4_000;
const UDP: u8 = 17;

fn both(pod: &Pod) -> [IpAddr; 2] {
    [pod.address.into(), pod.address6.into()]
}

#[test]
fn a_datagram_in_pieces_arrives_whole_where_its_ports_may() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("pieces", 2);
    let (client, server, neighbour) =
        (mesh.a.pods[0].clone(), mesh.b.pods[0].clone(), mesh.a.pods[1].clone());
    for (from, far, near) in
        both(&client).into_iter().zip(both(&server)).zip(both(&neighbour)).map(|((a, b), c)| (a, b, c))
    {
        let from = udp(&client.host, from);
        let (far, near) = (udp(&server.host, far), udp(&neighbour.host, near));
        assert!(send_large(&from, &far, LEN), "a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
        assert!(send_large(&far, &from, LEN), "a: {}; b: {}", mesh.a.drops(), mesh.b.drops());
        assert!(send_large(&from, &near, LEN), "{}", mesh.a.drops());
    }
    for (from, to) in both(&client).into_iter().zip(both(&server)) {
        let (from, to) = (udp(&client.host, from), udp(&server.host, to));
        let other = udp(&server.host, to.local_addr().unwrap().ip());
        let port = to.local_addr().unwrap().port();
        mesh.b.enforce(
            0,
            Direction::Ingress,
            &[(PeerKind::Identity, client.identity, UDP, port, PolicyVerdict::Allow)],
        );
        assert!(send_large(&from, &to, LEN), "{}", mesh.b.drops());
        // What comes after a piece that is denied has no ports.
        let count = |reason| mesh.b.packets(reason, Direction::Ingress);
        let before = (count(Reason::POLICY_DENIED), count(Reason::FRAGMENT_NOT_FOUND));
        from.send_to(&[0; LEN], other.local_addr().unwrap()).unwrap();
        wait_until("all pieces are dropped", || {
            (count(Reason::POLICY_DENIED), count(Reason::FRAGMENT_NOT_FOUND)) == (before.0 + 1, before.1 + 2)
        });
        assert!(is_lost(&from, &other));
    }
    assert_eq!(mesh.a.drops(), "");
}
