//! A node with pods, as Landbridge wires it and as others do, in a lab of its own.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use landbridge_bpf_loader::maps::{
    Endpoint, IpcacheEntry, KeyForms, NodeConfig, NodeEntry, NodeNumber, PeerKind, PolicyEntry, PolicyKey,
    PolicySet, PolicyVerdict, identity,
};
use landbridge_bpf_loader::{Datapath, DatapathOptions, MapSizes};
use landbridge_lab::{Host, Lab, LabName, LabSpec, Process};

/// The tunnel interface of a node.
pub(super) const OVERLAY: &str = "lb_vxlan";
/// Packets of pods have to fit a tunnel, of whomever.
const POD_MTU: u32 = 1450;
/// How many bits of an identity are below the cluster.
const SHIFT: u32 = 16;
/// Ports of the backends.
const BACKEND_PORTS: [u16; 3] = [8080, 8081, 8082];
const TCP: u8 = 6;
/// The number that each of two nodes gives the other.
const PEER: NodeNumber = NodeNumber(1);

/// A lab of one cluster whose pods reach each other by plain routing.
pub(super) struct Network {
    pub(super) lab: Lab,
    _servers: Vec<Process>,
}

impl Network {
    /// Starts `nodes` nodes with `pods` pods each. The last pod of the last node serves.
    pub(super) fn start(nodes: u8, pods: u8) -> Result<Self> {
        let spec = LabSpec::new(LabName::unique("bench")?).with_clusters(1, nodes, pods);
        let lab = Lab::start(spec)?;
        for node in 1..=nodes {
            for pod in 1..=pods {
                let name = format!("a{node}p{pod}");
                ip(&lab.host(&format!("a{node}"))?, &format!("link set lxc-{name} mtu {POD_MTU}\n"))?;
                let host = lab.host(&name)?;
                ip(&host, &format!("link set eth0 mtu {POD_MTU}\n"))?;
                host.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000"))?
                    .with_context(|| format!("the ports of {name}"))?;
            }
        }
        let host = lab.host(&format!("a{nodes}p{pods}"))?;
        let mut command = host.command(std::env::current_exe().context("cannot find the build")?)?;
        let address = v4(host.addresses().context("a pod has addresses")?);
        let addresses = BACKEND_PORTS.map(|port| SocketAddr::from((address, port)).to_string());
        command.args(["load", "server"]).args(addresses);
        let server = host.spawn("server", command)?;
        let network = Self { lab, _servers: vec![server] };
        let to = network.backends(nodes, pods)?;
        let client = network.lab.host("a1p1")?;
        wait_for(&client, to[2].into())?;
        Ok(network)
    }

    /// Where a pod serves.
    pub(super) fn backends(&self, node: u8, pod: u8) -> Result<[SocketAddrV4; 3]> {
        let host = self.lab.host(&format!("a{node}p{pod}"))?;
        let address = v4(host.addresses().context("a pod has addresses")?);
        Ok(BACKEND_PORTS.map(|port| SocketAddrV4::new(address, port)))
    }
}

/// Waits until somebody listens.
fn wait_for(client: &Host, to: SocketAddr) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let outcome = client.inside(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)))?;
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(std::time::Instant::now() < deadline, "{to} does not answer: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Runs lines of ip(8) inside a host.
pub(super) fn ip(host: &Host, lines: &str) -> Result<()> {
    feed(host, "ip", &["-batch", "-"], lines)
}

/// Runs a program inside a host with this text as its input.
pub(super) fn feed(host: &Host, program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut command = host.command(program)?;
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("a pipe that was asked for")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} in {} failed: {}", host.name(), errors.trim());
    written.with_context(|| format!("cannot write to {program}"))
}

pub(super) fn v4(addresses: [IpAddr; 2]) -> Ipv4Addr {
    match addresses[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// Puts our datapath onto a node of `network`, with every pod's policy enforced in both directions.
pub(super) fn take_over(network: &Network, node: u8, pods: u8, sizes: MapSizes) -> Result<Datapath> {
    let host = network.lab.host(&format!("a{node}"))?;
    ip(
        &host,
        &format!(
            "link add {OVERLAY} mtu {POD_MTU} type vxlan external dstport 8472\nlink set {OVERLAY} arp off up\n"
        ),
    )?;
    let addresses = host.node_addresses().context("a node has addresses")?;
    let config = NodeConfig {
        router: v4(addresses.router()).into(),
        health: v4(addresses.health()).into(),
        cluster: 1,
        cluster_shift: SHIFT,
        ..NodeConfig::default()
    };
    let options = DatapathOptions {
        pins: host.bpf_folder()?.join("landbridge"),
        cgroup: host.cgroup().to_owned(),
        overlay_interface: OVERLAY.to_owned(),
        uplink_interface: None,
        config,
        sizes,
        attachment: None,
    };
    let mut datapath = host.inside(|| Datapath::open(&options))??;
    for own in [addresses.router(), addresses.underlay()] {
        datapath.ipcache().upsert(&v4(own).into(), &owner(identity::HOST, NodeNumber::NONE))?;
    }
    let set = PolicySet(1);
    let rules = BACKEND_PORTS.map(|port| PolicyKey {
        set,
        port: port.to_be_bytes(),
        port_bits: PolicyKey::ONE_PORT,
        protocol: TCP,
        kind: PeerKind::Mesh as u8,
        ..PolicyKey::default()
    });
    for key in &rules {
        let entry = PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() };
        datapath.policy().upsert(key, &entry)?;
    }
    for number in 1..=pods {
        let interface = format!("lxc-a{node}p{number}");
        let pod = network.lab.host(&format!("a{node}p{number}"))?;
        let address = v4(pod.addresses().context("a pod has addresses")?);
        let (index, host_mac) = link(&host, &interface)?;
        let (_, mac) = link(&pod, "eth0")?;
        let endpoint = Endpoint {
            interface: index,
            identity: pod_identity(node, number),
            ingress: set,
            egress: set,
            mac,
            host_mac,
            id: u16::from(number),
            port_prefixes: 0,
            ingress_lacks: KeyForms::lacked_by(&rules),
            egress_lacks: KeyForms::lacked_by(&rules),
        };
        datapath.endpoints().upsert(&address.into(), &endpoint)?;
        datapath.ipcache().upsert(&address.into(), &owner(endpoint.identity, NodeNumber::NONE))?;
        host.inside(|| datapath.attach_endpoint(&interface))??;
    }
    Ok(datapath)
}

/// Tells a node of the other one and its pods, behind the tunnel.
pub(super) fn introduce(network: &Network, datapath: &mut Datapath, other: u8, pods: u8) -> Result<()> {
    let host = network.lab.host(&format!("a{other}"))?;
    let underlay = v4(host.node_addresses().context("a node has addresses")?.underlay());
    datapath.nodes().set(PEER, NodeEntry { underlay: underlay.into(), cluster: 1 })?;
    for number in 1..=pods {
        let pod = network.lab.host(&format!("a{other}p{number}"))?;
        let address = v4(pod.addresses().context("a pod has addresses")?);
        datapath.ipcache().upsert(&address.into(), &owner(pod_identity(other, number), PEER))?;
    }
    Ok(())
}

fn owner(identity: u32, node: NodeNumber) -> IpcacheEntry {
    IpcacheEntry { identity, node }
}

fn pod_identity(node: u8, pod: u8) -> u32 {
    1 << SHIFT | (256 * u32::from(node) + u32::from(pod))
}

/// Index and link-layer address of an interface.
fn link(host: &Host, interface: &str) -> Result<(u32, [u8; 6])> {
    let output = host.run("ip", ["-o", "link", "show", "dev", interface])?;
    let text = String::from_utf8(output.stdout).context("ip(8) prints text")?;
    let index = text.split(':').next().and_then(|index| index.trim().parse().ok());
    let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    let mac: Option<Vec<u8>> =
        mac.and_then(|mac| mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect());
    let found = index.zip(mac.and_then(|mac| mac.try_into().ok()));
    found.with_context(|| format!("{interface} in {} has no link-layer address: {text}", host.name()))
}
