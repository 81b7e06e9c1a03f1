//! Service addresses, as applications of a pod see them.
//!
//! Socket programs work by cgroup, so the client is this test binary once more, as a process of the pod.

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use landbridge_bpf_loader::maps::{Algorithm, Backend, Direction, Reason, ServiceKey, ServiceSettings};
use landbridge_lab::Host;
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, address};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// What the client is to do: a word and addresses, separated by spaces.
const ORDER: &str = "LANDBRIDGE_TEST_SOCKET_ORDER";
const TEST: &str = "datapath::services::sockets_reach_backends_by_the_name_of_their_service";
const PREFIX: &str = "answer: ";

fn numbered(service: u32) -> ServiceSettings {
    ServiceSettings { service, ..ServiceSettings::default() }
}

/// Follows an order in a process of the pod, and prints what it saw.
fn obey(order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    let to: SocketAddr = words[1].parse().unwrap();
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let udp = || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let mut buffer = [0; 64];
    let answer = match words[0] {
        "connect" => TcpStream::connect_timeout(&to, Duration::from_secs(5))
            .and_then(|mut stream| {
                let len = stream.read(&mut buffer)?;
                Ok(format!("{} says {}", stream.peer_addr()?, String::from_utf8_lossy(&buffer[..len])))
            })
            .unwrap_or_else(|error| format!("{:?}", error.kind())),
        "count" => {
            let mut names: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..words[2].parse().unwrap() {
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
                let mut name = String::new();
                stream.read_to_string(&mut name).unwrap();
                *names.entry(name).or_default() += 1;
            }
            names.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
        }
        "send" => {
            let socket = udp();
            let outcome = socket.send_to(b"who?", to).and_then(|_| {
                let (len, from) = socket.recv_from(&mut buffer)?;
                // The same socket stays with its backend.
                for _ in 0..10 {
                    socket.send_to(b"who?", to)?;
                    let mut again = [0; 64];
                    let (len_again, from_again) = socket.recv_from(&mut again)?;
                    assert_eq!((&again[..len_again], from_again), (&buffer[..len], from));
                }
                Ok(format!("{from} says {}", String::from_utf8_lossy(&buffer[..len])))
            });
            outcome.unwrap_or_else(|error| format!("{:?}", error.kind()))
        }
        "send-connected" => {
            let socket = udp();
            socket.connect(to).unwrap();
            socket.send(b"who?").unwrap();
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), from);
            format!("{from} says {}", String::from_utf8_lossy(&buffer[..len]))
        }
        "send-both" => {
            let socket = udp();
            let mut ask = |to: &str| {
                socket.send_to(b"who?", to).unwrap();
                socket.recv_from(&mut buffer).unwrap().1.to_string()
            };
            [ask(words[1]), ask(words[2]), ask(words[1])].join(" ")
        }
        "reconnect" => {
            let socket = udp();
            socket.connect(to).unwrap();
            socket.connect(words[2]).unwrap();
            socket.peer_addr().unwrap().to_string()
        }
        other => panic!("no such order: {other}"),
    };
    println!("{PREFIX}{answer}");
}

/// What a process of the pod saw.
pub(super) fn ask(pod: &Host, order: &str) -> String {
    let mut command = pod.command(env::current_exe().unwrap()).unwrap();
    let output = command.args(["--exact", TEST, "--nocapture"]).env(ORDER, order).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = text.lines().find_map(|line| line.split_once(PREFIX).map(|(_, answer)| answer.to_owned()));
    answer.unwrap_or_else(|| panic!("{order}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// A server in a host that says its name to whoever comes, by TCP and UDP. Returns its port.
pub(super) fn named_server(host: &Host, at: Ipv4Addr, name: &'static str) -> u16 {
    let (tcp, udp) = host
        .inside(|| {
            let tcp = TcpListener::bind((at, 0))?;
            let udp = UdpSocket::bind((at, tcp.local_addr()?.port()))?;
            std::io::Result::Ok((tcp, udp))
        })
        .unwrap()
        .unwrap();
    let port = tcp.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let _ = stream.unwrap().write_all(name.as_bytes());
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(name.as_bytes(), from);
        }
    });
    port
}

#[test]
fn sockets_reach_backends_by_the_name_of_their_service() {
    if let Ok(order) = env::var(ORDER) {
        return obey(&order);
    }
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("service", 2);
    let client = mesh.a.pods[0].host.clone();
    let backend = |pod: &super::fixture::Pod, name, cluster| {
        let port = named_server(&pod.host, pod.address, name).to_be_bytes();
        Backend::new(address(pod.address), port, cluster)
    };
    let near = backend(&mesh.a.pods[1], "near", 1);
    let far = backend(&mesh.b.pods[0], "far", 2);
    let key = |protocol| ServiceKey {
        address: address(Ipv4Addr::new(10, 96, 0, 5)),
        port: 80u16.to_be_bytes(),
        protocol,
        scope: 0,
    };
    let mut services = mesh.a.datapath.services();
    services.set(key(TCP), numbered(7), &[near, far]).unwrap();
    services.set(key(UDP), numbered(8), &[far]).unwrap();

    // Each of them gets its share, and the application never sees which.
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..24 {
        *answers.entry(ask(&client, "connect 10.96.0.5:80")).or_default() += 1;
    }
    let names: Vec<&str> = answers.keys().map(String::as_str).collect();
    assert_eq!(names, ["10.96.0.5:80 says far", "10.96.0.5:80 says near"], "{}", mesh.a.drops());
    // The same from a socket of family IPv6.
    let answer = ask(&client, "connect [::ffff:10.96.0.5]:80");
    assert!(answer.starts_with("[::ffff:10.96.0.5]:80 says "), "{answer}");

    for order in ["send", "send-connected"] {
        assert_eq!(ask(&client, &format!("{order} 10.96.0.5:80")), "10.96.0.5:80 says far");
        assert_eq!(ask(&client, &format!("{order} [::ffff:10.96.0.5]:80")), "[::ffff:10.96.0.5]:80 says far");
    }
    // Who is called directly is shown as he is.
    let direct = SocketAddr::from((mesh.b.pods[0].address, u16::from_be_bytes(far.port)));
    assert_eq!(ask(&client, &format!("connect {direct}")), format!("{direct} says far"));

    // Also by a socket that had called the service before.
    assert_eq!(ask(&client, &format!("reconnect 10.96.0.5:80 {direct}")), direct.to_string());

    let both = ask(&client, &format!("send-both 10.96.0.5:80 {direct}"));
    assert_eq!(both, format!("10.96.0.5:80 {direct} 10.96.0.5:80"));

    // Fewer backends, then none, then no service.
    mesh.a.datapath.services().set(key(TCP), numbered(7), &[near]).unwrap();
    for _ in 0..6 {
        assert_eq!(ask(&client, "connect 10.96.0.5:80"), "10.96.0.5:80 says near");
    }
    mesh.a.datapath.services().set(key(TCP), numbered(7), &[]).unwrap();
    mesh.a.datapath.services().set(key(UDP), numbered(8), &[]).unwrap();
    assert_eq!(ask(&client, "connect 10.96.0.5:80"), "ConnectionRefused");
    assert_eq!(ask(&client, "connect [::ffff:10.96.0.5]:80"), "ConnectionRefused");
    assert_eq!(ask(&client, "send 10.96.0.5:80"), "ConnectionRefused");
    assert_eq!(mesh.a.packets(Reason::NO_SERVICE_BACKEND, Direction::Egress), 3);
}

/// Says how often each name answered.
fn shares(pod: &Host, to: &str, connections: u32) -> BTreeMap<String, u32> {
    let answer = ask(pod, &format!("count {to} {connections}"));
    let share = |text: &str| {
        let (name, count) = text.split_once('=').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    answer.split(' ').map(share).collect()
}

#[test]
fn connections_are_spread_as_the_service_says() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut mesh = Mesh::start("spread", 2);
    let client = mesh.a.pods[0].host.clone();
    let node = mesh.a.host.clone();
    let backend = |pod: &super::fixture::Pod, name, weight| Backend {
        weight,
        ..Backend::new(address(pod.address), named_server(&pod.host, pod.address, name).to_be_bytes(), 1)
    };
    let near = backend(&mesh.a.pods[1], "near", 3);
    let far = backend(&mesh.b.pods[0], "far", 1);
    let key = ServiceKey {
        address: address(Ipv4Addr::new(10, 96, 0, 6)),
        port: 80u16.to_be_bytes(),
        protocol: TCP,
        scope: 0,
    };
    let to = "10.96.0.6:80";
    let with = |algorithm| ServiceSettings { algorithm, ..numbered(9) };
    let alike = [Backend { weight: 1, ..near }, far];

    // Exactly in turn, whoever asks, and after a change of the backends too.
    mesh.a.datapath.services().set(key, with(Algorithm::RoundRobin), &alike).unwrap();
    let half = BTreeMap::from([("far".to_owned(), 10), ("near".to_owned(), 10)]);
    assert_eq!(shares(&client, to, 20), half);
    assert_eq!(shares(&node, to, 20), half, "also from the node itself");
    assert_eq!(shares(&client, to, 1).len(), 1);
    let first = shares(&client, to, 1);
    mesh.a.datapath.services().set(key, with(Algorithm::RoundRobin), &alike).unwrap();
    assert_ne!(shares(&client, to, 1), first);

    // Three of four, of 400: 300 and six times the standard deviation.
    for algorithm in [Algorithm::Random, Algorithm::Maglev] {
        mesh.a.datapath.services().set(key, with(algorithm), &[near, far]).unwrap();
        let near = shares(&client, to, 400)["near"];
        assert!((248..=352).contains(&near), "{algorithm:?}: {near} of 400");
    }

    // A pod stays with its backend while the service has it, and so does another pod with its own.
    let sticky = ServiceSettings { affinity_seconds: 3600, ..with(Algorithm::RoundRobin) };
    mesh.a.datapath.services().set(key, sticky, &alike).unwrap();
    let first = shares(&client, to, 10);
    let second = shares(&mesh.a.pods[1].host, to, 10);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "the second had the next turn");
    let kept = if first.contains_key("near") { near } else { far };
    mesh.a.datapath.services().set(key, sticky, &[kept]).unwrap();
    assert_eq!(
        (shares(&client, to, 1).len(), shares(&mesh.a.pods[1].host, to, 1).keys().next()),
        (1, first.keys().next())
    );
    mesh.a.datapath.services().set(key, sticky, &alike).unwrap();
    assert_eq!(shares(&mesh.a.pods[1].host, to, 10), first, "it moved, and stays");
}
