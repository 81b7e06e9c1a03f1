//! Pods speak to the world under their node's address.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use landbridge_bpf_loader::maps::{Direction, MASQUERADE_PORTS, NodeConfig, Reason};
use landbridge_lab::Host;
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{
    Mesh, Pod, Routing, connect, echo_server, exchange, expect_refusal, ip, send_large, udp,
};

fn start(stem: &str, pods: u8) -> Mesh {
    Mesh::start_with(stem, pods, Routing::Overlay, |host, options| {
        let [v4, v6] = host.node_addresses().unwrap().underlay();
        options.uplink_interface = Some("eth0".to_owned());
        options.config.flags |= NodeConfig::MASQUERADE;
        (options.config.masquerade, options.config.masquerade6) = (v4.into(), v6.into());
    })
}

/// The router's addresses on the side of cluster a.
const WORLD: [&str; 2] = ["172.30.1.254", "fd30:1::fe"];

fn world() -> [IpAddr; 2] {
    WORLD.map(|address| address.parse().unwrap())
}

fn both(pod: &Pod) -> [IpAddr; 2] {
    [pod.address.into(), pod.address6.into()]
}

/// A TCP server that says whom it sees. Returns its address.
fn mirror(host: &Host, address: IpAddr) -> SocketAddr {
    let listener = host.inside(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let bound = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    bound
}

fn seen(mut stream: TcpStream) -> SocketAddr {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

#[test]
fn the_world_sees_the_node_and_every_pod_gets_its_own_answers() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = start("world", 2);
    let wan = mesh.lab.host("wan").unwrap();
    let nodes = mesh.a.host.node_addresses().unwrap().underlay();
    let (one, other) = (&mesh.a.pods[0], &mesh.a.pods[1]);
    for (family, (world, node)) in world().into_iter().zip(nodes).enumerate() {
        let to = mirror(&wan, world);
        for pod in [one, other] {
            let peer =
                seen(connect(&pod.host, to).unwrap_or_else(|error| panic!("{error} {}", mesh.a.drops())));
            assert_eq!(peer.ip(), node);
            assert!(MASQUERADE_PORTS.contains(&peer.port()), "{peer}");
        }
        let to = echo_server(&wan, world);
        for pod in [one, other] {
            exchange(&mut connect(&pod.host, to).unwrap(), 300_000);
        }

        // Both ask from one port, each gets its own answer; in pieces, whose checksum the receivers look at.
        let server = udp(&wan, world);
        let sockets = [one, other].map(|pod| {
            let socket = pod.host.inside(|| UdpSocket::bind((both(pod)[family], 7_777))).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        });
        for len in [5, 4_000] {
            let mut names = Vec::new();
            for socket in &sockets {
                socket.send_to(&vec![7; len], server.local_addr().unwrap()).unwrap();
                let mut received = vec![0; len + 1];
                let (count, from) = server.recv_from(&mut received).unwrap();
                assert_eq!((count, from.ip()), (len, node), "{}", mesh.a.drops());
                names.push(from);
            }
            assert_ne!(names[0], names[1]);
            for (place, (socket, name)) in sockets.iter().zip(&names).enumerate() {
                let answer = vec![u8::try_from(place).unwrap(); len];
                server.send_to(&answer, name).unwrap();
                let mut received = vec![9; len + 1];
                let (count, from) = socket.recv_from(&mut received).unwrap();
                assert_eq!((&received[..count], from), (&answer[..], server.local_addr().unwrap()));
            }
        }

        let pong = one.host.run("ping", ["-c", "2", "-i", "0.01", "-W", "5", &world.to_string()]).unwrap();
        assert!(pong.status.success(), "{} {}", String::from_utf8_lossy(&pong.stdout), mesh.a.drops());
        // Nobody listens there.
        let nobody = one.host.inside(|| UdpSocket::bind((both(one)[family], 0))).unwrap().unwrap();
        nobody.connect((world, 9)).unwrap();
        expect_refusal(&nobody);
    }
    assert_eq!(mesh.a.drops(), "");
    // Who listens no more is heard of in the world.
    for (family, world) in world().into_iter().enumerate() {
        let server = udp(&wan, world);
        let pod = one.host.inside(|| UdpSocket::bind((both(one)[family], 0))).unwrap().unwrap();
        pod.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let (_, name) = server.recv_from(&mut [0; 8]).unwrap();
        drop(pod);
        server.connect(name).unwrap();
        expect_refusal(&server);
    }
}

#[test]
fn who_comes_from_the_world_and_who_is_of_the_mesh_sees_the_pod() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = start("inward", 1);
    let wan = mesh.lab.host("wan").unwrap();
    let (pod, far) = (&mesh.a.pods[0], &mesh.b.pods[0]);
    let nodes = mesh.a.host.node_addresses().unwrap().underlay();
    for (((own, node), world), far_address) in both(pod).into_iter().zip(nodes).zip(world()).zip(both(far)) {
        ip(&wan, &format!("route add {own} via {node}\n"));
        let to = echo_server(&pod.host, own);
        let mut stream = connect(&wan, to).unwrap_or_else(|error| panic!("{error} {}", mesh.a.drops()));
        exchange(&mut stream, 100_000);
        let (server, client) = (udp(&pod.host, own), udp(&wan, world));
        assert!(send_large(&client, &server, 4_000), "{}", mesh.a.drops());
        let to = mirror(&far.host, far_address);
        assert_eq!(seen(connect(&pod.host, to).unwrap()).ip(), own);
    }
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");
}

#[test]
fn from_outside_nobody_is_a_pod_of_this_node() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = start("uplinkspoof", 2);
    let wan = mesh.lab.host("wan").unwrap();
    let (victim, stolen) = (&mesh.a.pods[0], &mesh.a.pods[1]);
    let nodes = mesh.a.host.node_addresses().unwrap().underlay();
    let remote = both(&mesh.b.pods[0]);
    for (family, node) in nodes.into_iter().enumerate() {
        let target = udp(&victim.host, both(victim)[family]);
        ip(&wan, &format!("route add {} via {node}\n", both(victim)[family]));
        for source in [both(stolen)[family], remote[family], node] {
            // An address of IPv6 is there at once only if nobody makes sure first that it is nobody else's.
            let (bits, at_once) = if source.is_ipv4() { (32, "") } else { (128, " nodad") };
            ip(&wan, &format!("addr add {source}/{bits} dev lo{at_once}\n"));
            let before = mesh.a.packets(Reason::INVALID_SOURCE, Direction::Ingress);
            udp(&wan, source).send_to(b"hello", target.local_addr().unwrap()).unwrap();
            super::fixture::wait_until(&format!("{source} is refused"), || {
                mesh.a.packets(Reason::INVALID_SOURCE, Direction::Ingress) == before + 1
            });
            ip(&wan, &format!("addr del {source}/{bits} dev lo\n"));
        }
    }
}
