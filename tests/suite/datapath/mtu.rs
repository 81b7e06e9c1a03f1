//! Packets that are too large, and such that came too far: their sender is told.

use std::net::IpAddr;

use landbridge_bpf_loader::maps::{Direction, Reason};
use landbridge_lab::Host;
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, Pod, connect, echo_server, exchange, ip};

fn both(pod: &Pod) -> [IpAddr; 2] {
    [pod.address.into(), pod.address6.into()]
}

fn output(host: &Host, program: &str, arguments: &[&str]) -> String {
    let output = host.run(program, arguments.iter().copied()).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_pod_learns_how_large_its_packets_may_be() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("mtu", 1);
    let (client, server) = (mesh.a.pods[0].clone(), mesh.b.pods[0].clone());
    // As large as on the underlay, so that a tunnel has no room.
    for (node, pod) in [(&mesh.a, &client), (&mesh.b, &server)] {
        ip(&node.host, &format!("link set {} mtu 1500\n", pod.interface));
        ip(&pod.host, "link set eth0 mtu 1500\n");
    }
    let learnt = |room: u32| {
        for address in both(&server) {
            let to = echo_server(&server.host, address);
            let mut stream = connect(&client.host, to).unwrap();
            exchange(&mut stream, 300_000);
            let route = output(&client.host, "ip", &["route", "get", &address.to_string()]);
            assert!(route.contains(&format!("mtu {room}")), "{address}: {route} {}", mesh.a.drops());
        }
    };
    learnt(1450);
    assert!(mesh.a.packets(Reason::FRAGMENTATION_NEEDED, Direction::Egress) >= 2);
    assert!(mesh.b.packets(Reason::FRAGMENTATION_NEEDED, Direction::Egress) >= 2, "the answers, too");

    // What may be divided is.
    let to = server.address.to_string();
    let pong = output(&client.host, "ping", &["-c", "1", "-W", "5", "-M", "dont", "-s", "1472", &to]);
    assert!(pong.contains("1 received"), "{pong}");

    // A tunnel over IPv6 has less room.
    let [a, b] = [&mesh.a, &mesh.b].map(|node| node.host.node_addresses().unwrap().underlay()[1]);
    mesh.a.set_underlay(b, 2);
    mesh.b.set_underlay(a, 1);
    for address in both(&server) {
        let large = if address.is_ipv4() { "1450" } else { "1430" };
        let pings = ["-c", "1", "-W", "5", "-M", "do", "-s"];
        let size = (large.parse::<u32>().unwrap() - 28).to_string();
        let told = output(&client.host, "ping", &[&pings[..], &[&size, &address.to_string()]].concat());
        assert!(told.contains("1430"), "{told}");
    }
}

#[test]
fn a_packet_that_came_too_far_is_told_of_by_the_node_that_drops_it() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("hops", 2);
    let (client, near, far) = (&mesh.a.pods[0], &mesh.a.pods[1], &mesh.b.pods[0]);
    let ends = [(&mesh.a, near, Direction::Egress), (&mesh.b, far, Direction::Ingress)];
    for (node, pod, direction) in ends {
        let routers = node.host.node_addresses().unwrap().router();
        for (number, (address, router)) in (1..).zip(both(pod).into_iter().zip(routers)) {
            let (address, router) = (address.to_string(), router.to_string());
            let told = output(&client.host, "ping", &["-c", "1", "-W", "5", "-t", "1", &address]);
            assert!(told.contains(&format!("From {router} icmp_seq=1 Time")), "{told} {}", node.drops());
            assert_eq!(node.packets(Reason::TTL_EXCEEDED, direction), number);
            let told = output(&client.host, "ping", &["-c", "1", "-W", "5", "-t", "2", &address]);
            assert!(told.contains("1 received"), "{told}");
        }
    }
}
