//! Two nodes of two clusters with pods of both families, wired as an agent would.

mod traffic;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

pub(crate) use traffic::{
    addresses, arrives, captured, connect, echo_server, exchange, expect_refusal, is_lost, send_large,
    tunnelled, udp,
};

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
    pub(super) address6: Ipv6Addr,
    pub(super) identity: u32,
    /// The node's side.
    pub(super) interface: String,
    endpoint: Endpoint,
}

/// How nodes reach each other's pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    Overlay,
    /// By the router between them.
    Direct,
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
    known_flows: 1 << 10,
    fragments: 1 << 10,
    masquerade: 1 << 10,
    service_flows: 1 << 10,
    sockets: 1 << 10,
    udp_peers: 1 << 10,
    events: 1 << 14,
};

pub(super) fn v4(addresses: [IpAddr; 2]) -> Ipv4Addr {
    match addresses[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("IPv4 comes first, not {address}"),
    }
}

pub(super) fn v6(addresses: [IpAddr; 2]) -> Ipv6Addr {
    match addresses[1] {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("IPv6 comes second, not {address}"),
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

/// Interfaces that are made from now on have no address of their own, so that nothing is said under one.
fn without_link_local(host: &Host) {
    let write = || std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
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
    without_link_local(host);
    let mut lines = format!(
        "link add {OVERLAY} mtu 1450 type vxlan external dstport 8472\nlink set {OVERLAY} arp off up\n"
    );
    for address in addresses.router().into_iter().chain(addresses.health()) {
        let _ = writeln!(lines, "addr add {}/{} dev {OVERLAY}", address, bits(address));
    }
    ip(host, &lines);
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(crate) fn options(host: &Host, cluster: u32) -> DatapathOptions {
    let addresses = host.node_addresses().unwrap();
    let pins = host.bpf_folder().unwrap().join("landbridge");
    options_at(pins, host.cgroup().to_owned(), addresses.router(), addresses.health(), cluster)
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
    router: [IpAddr; 2],
    health: [IpAddr; 2],
    cluster: u32,
) -> DatapathOptions {
    let config = NodeConfig {
        router: router[0].into(),
        health: health[0].into(),
        router6: router[1].into(),
        health6: health[1].into(),
        overlay_mtu: 1450,
        overlay_port: 8472,
        cluster,
        cluster_shift: SHIFT,
        ..NodeConfig::default()
    };
    DatapathOptions {
        pins,
        cgroup,
        overlay_interface: OVERLAY.to_owned(),
        uplink_interface: None,
        config,
        sizes: SIZES,
        attachment: attachment(),
    }
}

/// Connects a pod to its node: `number` counts from 1.
fn wire(node: &Host, pod: Host, cluster: u32, number: u8) -> Pod {
    let interface = format!("lxc-{}", pod.name());
    let own = pod.addresses().unwrap();
    let (address, address6) = (v4(own), v6(own));
    let routers = node.node_addresses().unwrap().router();
    let (router, router6) = (v4(routers), v6(routers));
    let cluster_byte = u8::try_from(cluster).unwrap();
    let (mac, host_mac) = ([2, 0, 0, cluster_byte, number, 1], [2, 0, 0, cluster_byte, number, 2]);
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let netns = pod.namespace_path().file_name().unwrap().to_str().unwrap().to_owned();
    ip(
        node,
        &format!(
            "link add {interface} mtu 1450 address {host} type veth peer name eth0 mtu 1450 address {pod} netns {netns}\n\
             link set {interface} up\n\
             route add {address}/32 dev {interface}\n\
             route add {address6}/128 dev {interface}\n\
             neigh add {address} lladdr {pod} dev {interface} nud permanent\n\
             neigh add {address6} lladdr {pod} dev {interface} nud permanent\n",
            host = text(host_mac),
            pod = text(mac),
        ),
    );
    // Where the gateway of IPv6 is the pod asks.
    ip(
        &pod,
        &format!(
            "addr add {address}/32 dev eth0\naddr add {address6}/128 dev eth0\nlink set eth0 up\nlink set lo up\n\
             route add {router}/32 dev eth0 scope link\nroute add default via {router}\n\
             route add {router6}/128 dev eth0\nroute add default via {router6}\n\
             neigh add {router} lladdr {host} dev eth0 nud permanent\n",
            host = text(host_mac),
        ),
    );
    let identity = identity_of(cluster, 255 + u32::from(number));
    let index = interface_index(node, &interface);
    let endpoint =
        Endpoint { interface: index, identity, mac, host_mac, id: u16::from(number), ..Endpoint::default() };
    Pod { host: pod, address, address6, identity, interface, endpoint }
}

impl Pod {
    /// Both of its addresses, as the maps have them.
    pub(super) fn keys(&self) -> [Address; 2] {
        [self.address.into(), IpAddr::V6(self.address6).into()]
    }
}

impl Mesh {
    /// Two nodes with `pods` pods each, everybody known to everybody, no policy.
    pub(super) fn start(stem: &str, pods: u8) -> Self {
        Self::start_with(stem, pods, Routing::Overlay, |_, _| ())
    }

    /// The same with options of one's own: `set` is shown those of each node.
    pub(super) fn start_with(
        stem: &str,
        pods: u8,
        routing: Routing,
        set: impl Fn(&Host, &mut DatapathOptions),
    ) -> Self {
        let spec = LabSpec::new(LabName::unique(stem).unwrap()).with_clusters(2, 1, pods);
        let lab = Lab::start(spec.with_pods(PodWiring::Unwired)).unwrap();
        let start = |name, cluster| {
            let host = lab.host(name).unwrap();
            let mut options = options(&host, cluster);
            if routing == Routing::Direct {
                options.uplink_interface = Some("eth0".to_owned());
                options.config.flags |= NodeConfig::DIRECT;
                let wan = lab.host("wan").unwrap();
                let addresses = host.node_addresses().unwrap();
                for (cidr, node) in addresses.pod_cidrs().into_iter().zip(addresses.underlay()) {
                    ip(&wan, &format!("route add {cidr} via {node}\n"));
                }
            }
            set(&host, &mut options);
            Node::start(&lab, host, options, pods)
        };
        let (mut a, mut b) = (start("a1", 1), start("b1", 2));
        a.meet(&b, routing);
        b.meet(&a, routing);
        Self { lab, a, b }
    }
}

impl Node {
    fn start(lab: &Lab, host: Host, options: DatapathOptions, pods: u8) -> Self {
        make_overlay(&host);
        let mut datapath = host.inside(|| Datapath::open(&options)).unwrap().unwrap();
        let addresses = host.node_addresses().unwrap();
        for own in [addresses.router(), addresses.health(), addresses.underlay()].concat() {
            let entry = IpcacheEntry { identity: identity::HOST, node: NodeNumber::NONE };
            datapath.ipcache().upsert(&own.into(), &entry).unwrap();
        }
        let name = host.name().to_owned();
        let pod = |number| lab.host(&format!("{name}p{number}")).unwrap();
        let pods: Vec<Pod> =
            (1..=pods).map(|number| wire(&host, pod(number), options.config.cluster, number)).collect();
        for pod in &pods {
            let entry = IpcacheEntry { identity: pod.identity, node: NodeNumber::NONE };
            for key in pod.keys() {
                datapath.ipcache().upsert(&key, &entry).unwrap();
                datapath.endpoints().upsert(&key, &pod.endpoint).unwrap();
            }
            host.inside(|| datapath.attach_endpoint(&pod.interface)).unwrap().unwrap();
        }
        Self { host, pods, options, datapath }
    }

    /// Tells this node of another one.
    fn meet(&mut self, other: &Node, routing: Routing) {
        let addresses = other.host.node_addresses().unwrap();
        let cluster = other.options.config.cluster;
        let own = self.host.node_addresses().unwrap().router();
        for (cidr, own) in addresses.pod_cidrs().into_iter().zip(own) {
            if routing == Routing::Overlay {
                ip(&self.host, &format!("route add {cidr} dev {OVERLAY} src {own}\n"));
            }
            let before = if cidr.address.is_ipv4() { IPV4_PREFIX_BITS } else { 0 };
            let key = CidrKey { prefix_len: before + u32::from(cidr.len), address: cidr.address.into() };
            let entry = IpcacheEntry { identity: identity_of(cluster, 0), node: PEER };
            self.datapath.cidrs().upsert(&key, &entry).unwrap();
        }
        self.set_underlay(addresses.underlay()[0], cluster);
        let remote_node = |node| IpcacheEntry { identity: identity::REMOTE_NODE, node };
        let mut ipcache = self.datapath.ipcache();
        // A node speaks outside of tunnels under the address that they begin at, and under no other.
        let [underlay, second] = addresses.underlay();
        let is_direct = routing == Routing::Direct;
        ipcache.upsert(&underlay.into(), &remote_node(NodeNumber::NONE)).unwrap();
        ipcache
            .upsert(&second.into(), &remote_node(if is_direct { NodeNumber::NONE } else { PEER }))
            .unwrap();
        for address in [addresses.router(), addresses.health()].concat() {
            ipcache.upsert(&address.into(), &remote_node(PEER)).unwrap();
        }
        for pod in &other.pods {
            let entry = IpcacheEntry { identity: pod.identity, node: PEER };
            for key in pod.keys() {
                ipcache.upsert(&key, &entry).unwrap();
            }
        }
    }

    /// Says where tunnels to the other node end.
    pub(super) fn set_underlay(&mut self, address: IpAddr, cluster: u32) {
        self.datapath.nodes().set(PEER, NodeEntry { underlay: address.into(), cluster }).unwrap();
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
                // No port is every port.
                port_bits: if *port == 0 { 0 } else { PolicyKey::ONE_PORT },
                reserved: [0; 3],
            };
            let entry = PolicyEntry { verdict: *verdict as u8, ..PolicyEntry::default() };
            self.datapath.policy().upsert(&key, &entry).unwrap();
        }
        match direction {
            Direction::Ingress => pod.endpoint.ingress = set,
            Direction::Egress => pod.endpoint.egress = set,
        }
        for key in pod.keys() {
            self.datapath.endpoints().upsert(&key, &pod.endpoint).unwrap();
        }
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

pub(super) fn address(of: Ipv4Addr) -> Address {
    of.into()
}
