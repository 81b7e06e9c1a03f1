//! Service addresses, for traffic that no socket program sees: the sockets here are this process's, which is in no pod's
//! cgroup.

pub(super) mod crafted;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use landbridge_bpf_loader::Datapath;
use landbridge_bpf_loader::maps::{
    Algorithm, Backend, Direction, PeerKind, PolicyVerdict, Reason, ServiceKey, ServiceSettings,
};
use landbridge_lab::Host;
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, Pod, Routing, connect, echo_server, exchange, expect_refusal, udp};

const TCP: u8 = 6;
const UDP: u8 = 17;
const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)), IpAddr::V6(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 7))];
const SETTINGS: ServiceSettings =
    ServiceSettings { service: 5, algorithm: Algorithm::RoundRobin, affinity_seconds: 0 };

/// A service of one of both families, at port 80.
fn service(family: usize) -> SocketAddr {
    (VIPS[family], 80).into()
}

fn key(protocol: u8, service: SocketAddr) -> ServiceKey {
    ServiceKey { address: service.ip().into(), port: service.port().to_be_bytes(), protocol, scope: 0 }
}

fn backend(at: SocketAddr) -> Backend {
    Backend::new(at.ip().into(), at.port().to_be_bytes(), 1)
}

fn address_of(pod: &Pod, family: usize) -> IpAddr {
    [pod.address.into(), pod.address6.into()][family]
}

impl super::fixture::Node {
    fn serve(&mut self, protocol: u8, service: SocketAddr, backends: &[SocketAddr]) {
        let backends: Vec<Backend> = backends.iter().copied().map(backend).collect();
        self.datapath.services().set(key(protocol, service), SETTINGS, &backends).unwrap();
    }
}

fn connected(client: &Host, to: SocketAddr, mesh: &Mesh) -> TcpStream {
    let stream = connect(client, to);
    stream.unwrap_or_else(|error| panic!("{to}: {error}: {} / {}", mesh.a.drops(), mesh.b.drops()))
}

#[test]
fn services_by_packet_outlive_their_owner_and_its_replacement() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let Mesh { lab: _lab, mut a, b } = Mesh::start("packetowner", 1);
    let client = a.pods[0].host.clone();
    let far = echo_server(&b.pods[0].host, b.pods[0].address);
    a.serve(TCP, service(0), &[far]);
    let mut stream = connect(&client, service(0)).unwrap();
    exchange(&mut stream, 1000);
    let (host, options) = (a.host.clone(), a.options.clone());
    drop(a);
    for _ in 0..2 {
        exchange(&mut stream, 1000);
        exchange(&mut connect(&client, service(0)).unwrap(), 1000);
        let datapath = host.inside(|| Datapath::open(&options)).unwrap().unwrap();
        exchange(&mut stream, 1000);
        drop(datapath);
    }
}

fn packets_reach_backends(stem: &str, routing: Routing) {
    let mut mesh = Mesh::start_with(stem, 2, routing, |_, _| ());
    let client = mesh.a.pods[0].clone();
    for family in 0..2 {
        let service = service(family);
        let [near, far, own] = [&mesh.a.pods[1], &mesh.b.pods[0], &client]
            .map(|pod| echo_server(&pod.host, address_of(pod, family)));
        let node = mesh.a.host.node_addresses().unwrap().router()[family];
        let on_node = echo_server(&mesh.a.host, node);
        let mut before: Option<TcpStream> = None;
        for backend in [near, far, own, on_node] {
            mesh.a.serve(TCP, service, &[backend]);
            let mut stream = connected(&client.host, service, &mesh);
            assert_eq!(stream.peer_addr().unwrap(), service);
            exchange(&mut stream, 100_000);
            // The connection stays where it is, and so does the one before.
            mesh.a.serve(TCP, service, &[]);
            exchange(&mut stream, 100_000);
            if let Some(before) = &mut before {
                exchange(before, 1000);
            }
            before = Some(stream);
        }
        let refused = || mesh.a.packets(Reason::NO_SERVICE_BACKEND, Direction::Egress);
        let dropped = refused();
        assert!(connect(&client.host, service).is_err());
        assert!(refused() > dropped, "{}", mesh.a.drops());
    }
    assert_eq!(mesh.b.drops(), "");
}

#[test]
fn packets_reach_backends_by_the_name_of_their_service() {
    if met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        packets_reach_backends("packetservice", Routing::Overlay);
    }
}

#[test]
fn packets_reach_backends_of_services_without_tunnels() {
    if met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        packets_reach_backends("packetdirect", Routing::Direct);
    }
}

#[test]
fn policy_is_about_the_backend_and_not_about_the_service() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("packetpolicy", 2);
    let client = mesh.a.pods[0].clone();
    let far = echo_server(&mesh.b.pods[0].host, mesh.b.pods[0].address);
    let itself = echo_server(&client.host, client.address);
    mesh.a.serve(TCP, service(0), &[far]);
    let rule = (PeerKind::Identity, mesh.b.pods[0].identity, TCP, far.port());
    let enforce = |mesh: &mut Mesh, verdict| {
        let (kind, peer, protocol, port) = rule;
        mesh.a.enforce(0, Direction::Egress, &[(kind, peer, protocol, port, verdict)]);
    };
    enforce(&mut mesh, PolicyVerdict::Allow);
    let mut stream = connected(&client.host, service(0), &mesh);
    exchange(&mut stream, 1000);
    enforce(&mut mesh, PolicyVerdict::Deny);
    assert!(connect(&client.host, service(0)).is_err());
    assert!(mesh.a.packets(Reason::POLICY_DENIED_BY_DENYLIST, Direction::Egress) > 0, "{}", mesh.a.drops());
    // Nothing allows it to speak to itself, and nothing has to.
    mesh.a.enforce(0, Direction::Ingress, &[]);
    mesh.a.serve(TCP, service(0), &[itself]);
    exchange(&mut connected(&client.host, service(0), &mesh), 1000);
}

/// Sends a datagram of a length from one socket, and the answer of a server that tells it. Returns whom the server saw.
fn asked(client: &UdpSocket, server: &UdpSocket, service: SocketAddr, len: usize, mesh: &Mesh) -> SocketAddr {
    let sent: Vec<u8> = (0..len).map(|place| u8::try_from(place % 251).unwrap()).collect();
    let mut received = vec![0; len + 1];
    client.send_to(&sent, service).unwrap();
    let (count, from) = server
        .recv_from(&mut received)
        .unwrap_or_else(|error| panic!("{error}: {} / {}", mesh.a.drops(), mesh.b.drops()));
    assert_eq!(received[..count], sent);
    server.send_to(&sent, from).unwrap();
    let (count, answerer) = client
        .recv_from(&mut received)
        .unwrap_or_else(|error| panic!("{error}: {} / {}", mesh.a.drops(), mesh.b.drops()));
    assert_eq!((&received[..count], answerer), (&sent[..], service));
    from
}

#[test]
fn datagrams_in_pieces_and_errors_come_back_under_the_name_of_the_service() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("packetdatagram", 2);
    let client = mesh.a.pods[0].clone();
    for family in 0..2 {
        let service = service(family);
        let own = |pod: &Pod| address_of(pod, family);
        let servers = [&mesh.a.pods[1], &mesh.b.pods[0], &client].map(|pod| udp(&pod.host, own(pod)));
        for server in servers {
            let backend = server.local_addr().unwrap();
            mesh.a.serve(UDP, service, &[backend]);
            let socket = udp(&client.host, own(&client));
            for len in [5, 4_000] {
                let seen = asked(&socket, &server, service, len, &mesh);
                assert_eq!(seen.port(), socket.local_addr().unwrap().port());
                assert_eq!(seen.ip() == own(&client), backend.ip() != own(&client), "{seen} at {backend}");
            }
            // The client does not listen any more, and the backend is told.
            let socket = udp(&client.host, own(&client));
            socket.send_to(b"hello", service).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            drop(socket);
            server.connect(from).unwrap();
            expect_refusal(&server);
            // Nobody listens there: the error is one of the service.
            drop(server);
            let socket = udp(&client.host, own(&client));
            socket.connect(service).unwrap();
            expect_refusal(&socket);
        }
        // Too large for a tunnel, and for the interface of the backend: the client learns how large it may be.
        let far = udp(&mesh.b.pods[0].host, own(&mesh.b.pods[0]));
        mesh.a.serve(UDP, service, &[far.local_addr().unwrap()]);
        let mut stream_server = echo_server(&mesh.b.pods[0].host, own(&mesh.b.pods[0]));
        stream_server.set_ip(own(&mesh.b.pods[0]));
        mesh.a.serve(TCP, service, &[stream_server]);
        exchange(&mut connected(&client.host, service, &mesh), 300_000);
    }
    assert_eq!(mesh.a.drops() + &mesh.b.drops(), "");
    let socket = udp(&client.host, client.address);
    socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    mesh.a.serve(UDP, service(0), &[]);
    socket.send_to(b"hello", service(0)).unwrap();
    let kind = socket.recv(&mut [0; 8]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
}
