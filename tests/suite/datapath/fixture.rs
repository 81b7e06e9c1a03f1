//! Two nodes of two clusters, wired as an agent would, and little programs that talk between their pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use landbridge_bpf_loader::maps::{
    Address, CidrKey, Direction, Endpoint, IPV4_PREFIX_BITS, IpcacheEntry, NodeConfig, NodeEntry, NodeNumber,
    PeerKind, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict, Reason, SCHEMA, identity,
};
use landbridge_bpf_loader::{Attachment, Build, Datapath, DatapathOptions, MapSizes};
use landbridge_lab::{Host, Lab, LabName, LabSpec, PodWiring};

const OVERLAY: &str = "lb_vxlan";
/// How many bits of an identity are below the cluster.
pub(super) const SHIFT: u32 = 16;
/// Longest wait for something that is going to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number that each node gives the other.
const PEER: NodeNumber = NodeNumber(1);

/// A lab of nodes `a1` and `b1` with their datapaths open.
pub(super) struct Mesh {
    pub(super) lab: Lab,
    pub(super) a: Node,
    pub(super) b: Node,
}

pub(super) struct Node {
    pub(super) host: Host,
    pub(super) pods: Vec<Pod>,
    pub(super) options: DatapathOptions,
    pub(super) datapath: Datapath,
}

#[derive(Clone)]
pub(super) struct Pod {
    pub(super) host: Host,
    pub(super) address: Ipv4Addr,
    pub(super) identity: u32,
    /// The node's side.
    pub(super) interface: String,
    endpoint: Endpoint,
}

/// Small ones, so that many labs fit beside each other.
pub(super) const SIZES: MapSizes = MapSizes {
    ipcache: 1 << 10,
    cidrs: 1 << 8,
    endpoints: 1 << 6,
    policy: 1 << 10,
    nodes: 1 << 6,
    services: 1 << 6,
    backends: 1 << 8,
    tables: 1 << 7,
    affinity: 1 << 8,
    connections: 1 << 12,
    udp_peers: 1 << 10,
    events: 1 << 14,
};

pub(super) fn v4(addresses: [IpAddr; 2]) -> Ipv4Addr {
    match addresses[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("IPv4 comes first, not {address}"),
    }
}

pub(super) fn identity_of(cluster: u32, number: u32) -> u32 {
    cluster << SHIFT | number
}

/// Runs lines of iproute2 commands inside a host.
pub(super) fn ip(host: &Host, lines: &str) {
    let mut command = host.command("ip").unwrap();
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Interfaces that are made from now on talk no IPv6 by themselves, so that every drop that is counted is the test's.
fn without_ipv6(host: &Host) {
    let write = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    host.inside(write).unwrap().unwrap();
}

pub(super) fn interface_index(host: &Host, interface: &str) -> u32 {
    let output = host.run("ip", ["-o", "link", "show", "dev", interface]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(':').next().unwrap().trim().parse().unwrap()
}

/// Makes the tunnel interface of a node, with the node's overlay addresses.
pub(crate) fn make_overlay(host: &Host) {
    let addresses = host.node_addresses().unwrap();
    let (router, health) = (v4(addresses.router()), v4(addresses.health()));
    without_ipv6(host);
    let lines = format!(
        "link add {OVERLAY} mtu 1450 type vxlan external dstport 8472\n\
         link set {OVERLAY} arp off up\n\
         addr add {router}/32 dev {OVERLAY}\n\
         addr add {health}/32 dev {OVERLAY}\n"
    );
    ip(host, &lines);
}

pub(crate) fn options(host: &Host, cluster: u32) -> DatapathOptions {
    let addresses = host.node_addresses().unwrap();
    let pins = host.bpf_folder().unwrap().join("landbridge");
    options_at(pins, host.cgroup().to_owned(), v4(addresses.router()), v4(addresses.health()), cluster)
}

/// Set where the tests are to run the older way, see [`older_way`](super::older_way).
pub(super) const OLDER_WAY: &str = "LANDBRIDGE_TEST_OLDER_WAY";

/// How programs are held at interfaces.
fn attachment() -> Option<Attachment> {
    std::env::var_os(OLDER_WAY).map(|_| Attachment::Clsact)
}

/// The folder of the pins that this version makes.
pub(super) fn version_folder(pins: &Path) -> PathBuf {
    pins.join(format!("v{SCHEMA}"))
}

pub(super) fn options_at(
    pins: PathBuf,
    cgroup: PathBuf,
    router: Ipv4Addr,
    health: Ipv4Addr,
    cluster: u32,
) -> DatapathOptions {
    let (router, health) = (router.into(), health.into());
    let config = NodeConfig { router, health, overlay_interface: 0, cluster, cluster_shift: SHIFT, flags: 0 };
    DatapathOptions {
        pins,
        cgroup,
        overlay_interface: OVERLAY.to_owned(),
        config,
        sizes: SIZES,
        attachment: attachment(),
    }
}

/// Connects a pod to its node: `number` counts from 1.
fn wire(node: &Host, pod: Host, cluster: u32, number: u8) -> Pod {
    let interface = format!("lxc-{}", pod.name());
    let address = v4(pod.addresses().unwrap());
    let router = v4(node.node_addresses().unwrap().router());
    let cluster_byte = u8::try_from(cluster).unwrap();
    let (mac, host_mac) = ([2, 0, 0, cluster_byte, number, 1], [2, 0, 0, cluster_byte, number, 2]);
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    without_ipv6(&pod);
    let netns = pod.namespace_path().file_name().unwrap().to_str().unwrap().to_owned();
    ip(
        node,
        &format!(
            "link add {interface} mtu 1450 address {host} type veth peer name eth0 mtu 1450 address {pod} netns {netns}\n\
             link set {interface} up\n\
             route add {address}/32 dev {interface}\n\
             neigh add {address} lladdr {pod} dev {interface} nud permanent\n",
            host = text(host_mac),
            pod = text(mac),
        ),
    );
    ip(
        &pod,
        &format!(
            "addr add {address}/32 dev eth0\nlink set eth0 up\nlink set lo up\n\
             route add {router}/32 dev eth0 scope link\nroute add default via {router}\n\
             neigh add {router} lladdr {host} dev eth0 nud permanent\n",
            host = text(host_mac),
        ),
    );
    let identity = identity_of(cluster, 255 + u32::from(number));
    let index = interface_index(node, &interface);
    let endpoint =
        Endpoint { interface: index, identity, mac, host_mac, id: u16::from(number), ..Endpoint::default() };
    Pod { host: pod, address, identity, interface, endpoint }
}

impl Mesh {
    /// Two nodes with `pods` pods each, everybody known to everybody, no policy.
    pub(super) fn start(stem: &str, pods: u8) -> Self {
        let spec = LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(2, 1, pods);
        let lab = Lab::start(spec.with_pods(PodWiring::Unwired)).unwrap();
        let mut a = Node::start(&lab, "a1", 1, pods);
        let mut b = Node::start(&lab, "b1", 2, pods);
        a.meet(&b, 2);
        b.meet(&a, 1);
        Self { lab, a, b }
    }
}

impl Node {
    fn start(lab: &Lab, name: &str, cluster: u32, pods: u8) -> Self {
        let host = lab.host(name).unwrap();
        make_overlay(&host);
        let options = options(&host, cluster);
        let mut datapath = host.inside(|| Datapath::open(&options)).unwrap().unwrap();
        let addresses = host.node_addresses().unwrap();
        for own in [addresses.router(), addresses.health(), addresses.underlay()] {
            let entry = IpcacheEntry { identity: identity::HOST, node: NodeNumber::NONE };
            datapath.ipcache().upsert(&v4(own).into(), &entry).unwrap();
        }
        let pods: Vec<Pod> = (1..=pods)
            .map(|number| wire(&host, lab.host(&format!("{name}p{number}")).unwrap(), cluster, number))
            .collect();
        for pod in &pods {
            let entry = IpcacheEntry { identity: pod.identity, node: NodeNumber::NONE };
            datapath.ipcache().upsert(&pod.address.into(), &entry).unwrap();
            datapath.endpoints().upsert(&pod.address.into(), &pod.endpoint).unwrap();
            host.inside(|| datapath.attach_endpoint(&pod.interface)).unwrap().unwrap();
        }
        Self { host, pods, options, datapath }
    }

    /// Tells this node of another one.
    fn meet(&mut self, other: &Node, cluster: u32) {
        let addresses = other.host.node_addresses().unwrap();
        let own = v4(self.host.node_addresses().unwrap().router());
        let [pod_cidr, _] = addresses.pod_cidrs();
        ip(&self.host, &format!("route add {pod_cidr} dev {OVERLAY} src {own}\n"));
        let underlay = v4(addresses.underlay());
        self.datapath.nodes().set(PEER, NodeEntry { underlay: underlay.into(), cluster }).unwrap();
        let remote_node = |node| IpcacheEntry { identity: identity::REMOTE_NODE, node };
        let mut ipcache = self.datapath.ipcache();
        ipcache.upsert(&underlay.into(), &remote_node(NodeNumber::NONE)).unwrap();
        for address in [addresses.router(), addresses.health()] {
            ipcache.upsert(&v4(address).into(), &remote_node(PEER)).unwrap();
        }
        for pod in &other.pods {
            ipcache
                .upsert(&pod.address.into(), &IpcacheEntry { identity: pod.identity, node: PEER })
                .unwrap();
        }
        let IpAddr::V4(range) = pod_cidr.address else { panic!("IPv4 comes first") };
        let key = CidrKey { prefix_len: IPV4_PREFIX_BITS + u32::from(pod_cidr.len), address: range.into() };
        let entry = IpcacheEntry { identity: identity_of(cluster, 0), node: PEER };
        self.datapath.cidrs().upsert(&key, &entry).unwrap();
    }

    /// Enforces these rules for a pod.
    pub(super) fn enforce(
        &mut self,
        pod: usize,
        direction: Direction,
        rules: &[(PeerKind, u32, u8, u16, PolicyVerdict)],
    ) {
        let pod = &mut self.pods[pod];
        let set = PolicySet(2 * u32::from(pod.endpoint.id) + direction as u32);
        for (kind, peer, protocol, port, verdict) in rules {
            let key = PolicyKey {
                set,
                peer: *peer,
                port: port.to_be_bytes(),
                protocol: *protocol,
                kind: *kind as u8,
            };
            let entry = PolicyEntry { verdict: *verdict as u8, ..PolicyEntry::default() };
            self.datapath.policy().upsert(&key, &entry).unwrap();
        }
        match direction {
            Direction::Ingress => pod.endpoint.ingress = set,
            Direction::Egress => pod.endpoint.egress = set,
        }
        self.datapath.endpoints().upsert(&pod.address.into(), &pod.endpoint).unwrap();
    }

    /// How many packets ended so until now.
    pub(super) fn packets(&self, reason: Reason, direction: Direction) -> u64 {
        let counts = self.datapath.counts().unwrap();
        let count = counts.iter().find(|(r, d, _)| (*r, *d) == (reason, direction));
        count.map_or(0, |(_, _, count)| count.packets)
    }

    /// All drops until now, as text for messages.
    pub(super) fn drops(&self) -> String {
        self.datapath.counts().unwrap().iter().filter(|(reason, ..)| *reason != Reason::FORWARDED).fold(
            String::new(),
            |mut text, (reason, direction, count)| {
                let name = reason.name();
                let _ = write!(text, "{name} {direction:?} {} ", count.packets);
                text
            },
        )
    }
}

/// One node with a tunnel interface, without pods.
pub(super) fn one_node(stem: &str) -> (Lab, Host) {
    let spec = LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(1, 1, 0);
    let lab = Lab::start(spec.with_pods(PodWiring::Unwired)).unwrap();
    let node = lab.host("a1").unwrap();
    make_overlay(&node);
    (lab, node)
}

/// The datapath of a node, with the programs of this build.
pub(super) fn opened(host: &Host, build: Build) -> Datapath {
    host.inside(|| Datapath::open_build(&options(host, 1), build)).unwrap().unwrap()
}

/// Waits until `condition` holds; `what` says what did not.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        thread::yield_now();
    }
}

/// A TCP server in a host that sends back what it gets, until the test ends. Returns its address.
pub(super) fn echo_server(host: &Host, address: Ipv4Addr) -> SocketAddr {
    let listener = host.inside(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let bound = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..len]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    bound
}

pub(super) fn connect(host: &Host, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = host.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `len` bytes over a connection to an echo server, and expects them back.
pub(super) fn exchange(stream: &mut TcpStream, len: usize) {
    let sent: Vec<u8> = (0..len).map(|place| u8::try_from(place % 251).unwrap()).collect();
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&sent).unwrap());
        let mut received = vec![0; len];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, sent);
    });
}

/// A UDP socket in a host.
pub(super) fn udp(host: &Host, address: Ipv4Addr) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// Whether a datagram from one socket reaches the other. Only for what is not dropped, or with a count to wait for.
pub(super) fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    matches!(to.recv(&mut [0; 16]), Ok(5))
}

/// A packet of a capture, from its Ethernet header on.
pub(super) fn captured(file: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(file).unwrap();
    let mut packets = Vec::new();
    let mut rest = &bytes[24..];
    while let Some((header, more)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        packets.push(more[..len].to_vec());
        rest = &more[len..];
    }
    packets
}

/// What the tunnel packets of a capture say: how many with which VNI between which inner addresses.
pub(super) fn tunnelled(packets: &[Vec<u8>]) -> BTreeMap<(u32, Ipv4Addr, Ipv4Addr), usize> {
    let mut seen = BTreeMap::new();
    for packet in packets {
        let is_vxlan = packet.len() > 84
            && packet[12..14] == [8, 0]
            && packet[23] == 17
            && packet[36..38] == 8472u16.to_be_bytes();
        if is_vxlan {
            let vni = u32::from_be_bytes([0, packet[46], packet[47], packet[48]]);
            let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            *seen.entry((vni, address(76), address(80))).or_default() += 1;
        }
    }
    seen
}

pub(super) fn address(of: Ipv4Addr) -> Address {
    of.into()
}
