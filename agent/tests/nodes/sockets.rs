//! Sockets and what becomes of their backends.
//!
//! Socket programs work by cgroup, so a client is this test binary once more, as a process of the pod.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use landbridge_kvstore_schema::{
    LocalBackend, LocalBackendPort, LocalPort, LocalService, NamespacedName, ObjectName, OwnRecord, Protocol,
};
use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Direction, Host};

use rustix::io::Errno;

use crate::world::{World, until};

/// What the client is to call: a protocol and an address, separated by a space.
const ORDER: &str = "LANDBRIDGE_TEST_SOCKET_ORDER";
const TEST: &str = "sockets::sockets_end_with_their_backends";
const SERVICE: &str = "10.96.0.5:80";
const PORT: u16 = 8080;
/// How long the client waits for an answer before it asks again.
const ROUND: Duration = Duration::from_millis(100);

/// Asks for a name, and reads the answer.
type Ask = Box<dyn FnMut(&mut [u8]) -> std::io::Result<usize>>;

/// Asks for names on one socket until that fails; prints each name that is not the one before, and the failure.
fn obey(order: &str) {
    let (protocol, to) = order.split_once(' ').unwrap();
    let to: SocketAddr = to.parse().unwrap();
    let mut ask: Ask = if protocol == "tcp" {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(ROUND)).unwrap();
        Box::new(move |name| {
            stream.write_all(b"?")?;
            stream.read(name)
        })
    } else {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(ROUND)).unwrap();
        socket.connect(to).unwrap();
        Box::new(move |name| {
            socket.send(b"?")?;
            socket.recv(name)
        })
    };
    let mut last = String::new();
    loop {
        let mut name = [0; 16];
        match ask(&mut name) {
            Ok(0) => return println!("says end"),
            Ok(_) => {
                let name = String::from_utf8_lossy(&name[..4]).into_owned();
                if name != last {
                    println!("says {name}");
                    last = name;
                }
                thread::sleep(ROUND);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Of a socket of UDP, whichever call is first: reading, or sending without a peer.
            Err(error) if error.raw_os_error() == Some(Errno::DESTADDRREQ.raw_os_error()) => {
                return println!("says {:?}", ErrorKind::ConnectionAborted);
            }
            Err(error) => return println!("says {:?}", error.kind()),
        }
    }
}

/// A client in a pod, and what it says line by line.
struct Client {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Client {
    fn start(pod: &Host, protocol: &str) -> Self {
        let mut command = pod.command(env::current_exe().unwrap()).unwrap();
        command.args(["--exact", TEST, "--nocapture"]).env(ORDER, format!("{protocol} {SERVICE}"));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The next thing that it says.
    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the client ended");
            if let Some((_, said)) = line.split_once("says ") {
                return said.trim().to_owned();
            }
        }
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server in a pod that says the pod's name, four bytes, to whoever asks.
fn serve(pod: &Host, at: Ipv4Addr, name: &'static str) {
    let (tcp, udp) = pod
        .inside(|| (TcpListener::bind((at, PORT)).unwrap(), UdpSocket::bind((at, PORT)).unwrap()))
        .unwrap();
    thread::spawn(move || {
        while let Ok((_, from)) = udp.recv_from(&mut [0; 16]) {
            let _ = udp.send_to(name.as_bytes(), from);
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                while let Ok(1..) = stream.read(&mut [0; 1]) {
                    if stream.write_all(name.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn publish(world: &World, backends: &[(Ipv4Addr, &str, bool)]) {
    let port = |protocol, port: u16| (protocol, port.try_into().unwrap());
    let names = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let ports = names.map(|(name, protocol)| {
        let (protocol, port) = port(protocol, 80);
        LocalPort { name: name.to_owned(), protocol, port }
    });
    let backend_ports: BTreeMap<_, _> = names
        .into_iter()
        .map(|(name, protocol)| {
            let (protocol, port) = port(protocol, PORT);
            (name.to_owned(), LocalBackendPort { protocol, port })
        })
        .collect();
    let backends = backends.iter().map(|(address, node, ready)| {
        let backend = LocalBackend {
            node: Some(ObjectName::new(node).unwrap()),
            ports: backend_ports.clone(),
            ready: *ready,
            serving: true,
            terminating: !ready,
        };
        ((*address).into(), backend)
    });
    let service = LocalService {
        addresses: vec![SERVICE.parse::<SocketAddr>().unwrap().ip()],
        ports: ports.into(),
        backends: backends.collect(),
        ..LocalService::default()
    };
    let name = NamespacedName::new("shop", "names").unwrap();
    world.put(&LocalService::key(&name).to_string(), service.encode());
}

#[test]
fn sockets_end_with_their_backends() {
    if let Ok(order) = env::var(ORDER) {
        return obey(&order);
    }
    if !met(&[Requirement::Namespaces, Requirement::Ebpf, Requirement::Etcd]) {
        return;
    }
    let world = World::start("sockets");
    let (one, two) = (world.start_agent("a1"), world.start_agent("a2"));
    world.add_pod(&one, "a1p1");
    let (near, far) = (world.add_pod(&one, "a1p2"), world.add_pod(&two, "a2p1"));
    serve(&world.host("a1p2"), near, "near");
    serve(&world.host("a2p1"), far, "far!");
    let client = world.host("a1p1");
    until("the far pod to be reached", || client.reaches(far.into()).unwrap().then_some(()));

    publish(&world, &[(far, "a2", true)]);
    let service: SocketAddr = SERVICE.parse().unwrap();
    let node = world.host("a1");
    until("the service", || {
        let mut command = client.command("bash").unwrap();
        command.args(["-c", &format!("exec 3<>/dev/tcp/{}/{}", service.ip(), service.port())]);
        command.stderr(Stdio::null()).status().unwrap().success().then_some(())
    });
    let (mut udp, mut tcp) = (Client::start(&client, "udp"), Client::start(&client, "tcp"));
    // The node itself is a client like any other.
    let mut udp_of_node = Client::start(&node, "udp");
    for client in [&mut udp, &mut tcp, &mut udp_of_node] {
        assert_eq!(client.says(), "far!");
    }

    // On its way out, a backend keeps its TCP connections, and gets no more datagrams.
    publish(&world, &[(far, "a2", false), (near, "a1", true)]);
    for client in [&mut udp, &mut udp_of_node] {
        assert_eq!(client.says(), "ConnectionAborted");
    }
    let mut next = Client::start(&client, "udp");
    assert_eq!(next.says(), "near");
    assert!(tcp.is_running());

    // One that is on a node which does not answer is of no use to anybody.
    world.lab.link("a2").unwrap().cut(Direction::Outbound).unwrap();
    assert_eq!(tcp.says(), "ConnectionAborted");
    assert!(next.is_running());
}
