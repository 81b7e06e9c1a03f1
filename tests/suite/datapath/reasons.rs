//! Every reason that a packet can be dropped for is one that a packet was dropped for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use landbridge_bpf_loader::maps::{
    Address, Direction, Endpoint, IpcacheEntry, NodeConfig, NodeEntry, NodeNumber, PeerKind, Planted,
    PolicyEntry, PolicyKey, PolicySet, PolicyVerdict, Reason, ServiceKey, ServiceSettings, Step, identity,
};
use landbridge_bpf_loader::{Build, Scarce, Trial, TrialAction, TrialPacket};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{SIZES, identity_of, one_node, opened};
use super::packets::{self, DONT_FRAGMENT, FIN, ICMP, ICMP6, Ip, ROUTING, SCTP, SYN, TCP, UDP};
use super::services::ask;
use super::trial;

const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 10);
const LOST: Ipv4Addr = Ipv4Addr::new(10, 3, 1, 10);
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 30, 2, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// The reasons that were seen, and how to see one.
#[derive(Default)]
struct Seen(BTreeSet<Reason>);

impl Seen {
    /// Runs a program on a packet, which is to end so.
    fn ends(
        &mut self,
        trial: &Trial,
        program: &'static str,
        packet: &TrialPacket<'_>,
        (reason, direction): (Reason, Direction),
    ) {
        let action = self.counted(trial, program, packet, (reason, direction));
        assert_eq!(action == TrialAction::Drop, reason != Reason::FORWARDED, "{}", reason.name());
    }

    /// Runs a program on a packet, which is to be counted so. Returns what becomes of it.
    fn counted(
        &mut self,
        trial: &Trial,
        program: &'static str,
        packet: &TrialPacket<'_>,
        (reason, direction): (Reason, Direction),
    ) -> TrialAction {
        let count = || trial.tables.count(reason, direction).unwrap();
        let before = count();
        let result = trial.run(program, packet).unwrap();
        let after = count();
        let name = reason.name();
        assert_eq!(after.packets, before.packets + 1, "{name}: {:?}", trial.tables.counts());
        assert_eq!(after.bytes, before.bytes + packet.frame.len() as u64, "{name}");
        self.0.insert(reason);
        result.action
    }

    /// What a pod sends, and is told that it cannot go on.
    fn refused(&mut self, trial: &Trial, frame: &[u8], reason: Reason) {
        let action = self.counted(trial, "from_pod", &TrialPacket::new(frame), (reason, OUT));
        assert_eq!(action, TrialAction::Redirect, "back to its sender: {}", reason.name());
    }

    /// What a pod sends to the world, as it leaves the node.
    fn left(&mut self, trial: &Trial, frame: &[u8], reason: Reason) {
        let arrival_interface = trial::INTERFACE;
        self.ends(
            trial,
            "to_uplink",
            &TrialPacket { arrival_interface, ..TrialPacket::new(frame) },
            (reason, OUT),
        );
    }

    /// What a pod sends.
    fn sent(&mut self, trial: &Trial, frame: &[u8], reason: Reason, direction: Direction) {
        self.ends(trial, "from_pod", &TrialPacket::new(frame), (reason, direction));
    }

    /// What comes out of the tunnel from the node of [`UNDERLAY`].
    fn tunnelled(&mut self, trial: &Trial, frame: &[u8], claimed: u32, reason: Reason) {
        let tunnel = Some((claimed, UNDERLAY.into()));
        self.ends(trial, "from_overlay", &TrialPacket { tunnel, ..TrialPacket::new(frame) }, (reason, IN));
    }
}

/// A pod that may do everything, its neighbour with rules, a pod of another node, and one of a node that is not known.
fn node(build: Build) -> Trial {
    let mut trial = Trial::load(build, trial::config(), &SIZES).unwrap();
    fill(&mut trial);
    trial
}

fn fill(trial: &mut Trial) {
    let pod = |interface: u32, number: u32, ingress: u32| Endpoint {
        interface,
        identity: identity_of(1, number),
        ingress: PolicySet(ingress),
        ..Endpoint::default()
    };
    let tables = &mut trial.tables;
    for address in [POD.into(), trial::v6(1, 10)] {
        tables.endpoints().upsert(&address, &pod(trial::INTERFACE, 300, 0)).unwrap();
    }
    tables.endpoints().upsert(&NEIGHBOUR.into(), &pod(7, 301, 9)).unwrap();
    for (address, node) in [(FAR, 1), (LOST, 2)] {
        let entry = IpcacheEntry { identity: identity_of(2, 300), node: NodeNumber(node) };
        tables.ipcache().upsert(&address.into(), &entry).unwrap();
    }
    tables.nodes().set(NodeNumber(1), NodeEntry { underlay: UNDERLAY.into(), cluster: 2 }).unwrap();
    for (protocol, verdict) in [(UDP, PolicyVerdict::Deny), (ICMP, PolicyVerdict::Allow)] {
        let key =
            PolicyKey { set: PolicySet(9), protocol, kind: PeerKind::Any as u8, ..PolicyKey::default() };
        tables
            .policy()
            .upsert(&key, &PolicyEntry { verdict: verdict as u8, ..PolicyEntry::default() })
            .unwrap();
    }
}

fn segment(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    Ip::new(source, destination, TCP).frame(&packets::tcp(40_000, 443, SYN, b""))
}

fn by_packets(seen: &mut Seen) {
    let trial = node(Build::Released);
    let datagram = packets::udp(40_000, 53, b"");
    let ping = packets::icmp(8, 0, [0, 7, 0, 1], b"");
    seen.sent(&trial, &segment(POD, FAR), Reason::FORWARDED, OUT);
    seen.sent(&trial, &segment(FAR, POD), Reason::INVALID_SOURCE, OUT);
    seen.sent(&trial, &segment(POD, NEIGHBOUR), Reason::POLICY_DENIED, IN);
    let denied = Ip::new(POD, NEIGHBOUR, UDP).frame(&datagram);
    seen.sent(&trial, &denied, Reason::POLICY_DENIED_BY_DENYLIST, IN);
    seen.sent(&trial, &segment(POD, FAR)[..40], Reason::INVALID_PACKET, OUT);
    seen.sent(&trial, &packets::ethernet([0x88, 0xcc], &[0; 60]), Reason::UNSUPPORTED_PROTOCOL, OUT);
    let impossible = packets::tcp(40_000, 443, SYN | FIN, b"");
    seen.sent(&trial, &Ip::new(POD, FAR, TCP).frame(&impossible), Reason::INVALID_CONNECTION, OUT);
    seen.sent(&trial, &Ip::new(POD, FAR, SCTP).frame(&[0; 32]), Reason::UNKNOWN_TRANSPORT, OUT);
    let piece = Ip { fragment: 1, ..Ip::new(POD, FAR, UDP) }.frame(&datagram);
    seen.sent(&trial, &piece, Reason::FRAGMENT_NOT_FOUND, OUT);
    let large = packets::udp(40_000, 53, &[0; trial::OVERLAY_MTU as usize]);
    let large = Ip { fragment: DONT_FRAGMENT, ..Ip::new(POD, FAR, UDP) }.frame(&large);
    seen.refused(&trial, &large, Reason::FRAGMENTATION_NEEDED);
    let tunnel = packets::udp(40_000, trial::OVERLAY_PORT, b"");
    seen.sent(&trial, &Ip::new(POD, WORLD, UDP).frame(&tunnel), Reason::ENCAPSULATION_PROHIBITED, OUT);
    let between = |protocol| {
        let [pod, far] = [trial::v6(1, 10), trial::v6(2, 10)].map(IpAddr::from);
        Ip::new(pod, far, protocol)
    };
    let source_route = between(ROUTING).frame(&[TCP, 2, 0, 1, 0, 0, 0, 0]);
    seen.sent(&trial, &source_route, Reason::INVALID_EXTENSION_HEADER, OUT);
    let advertised_router = between(ICMP6).frame(&packets::icmp(134, 0, [64, 0, 1, 0], &[0; 8]));
    seen.sent(&trial, &advertised_router, Reason::FORBIDDEN_ICMP6, OUT);
    seen.sent(&trial, &segment(POD, LOST), Reason::NO_TUNNEL_ENDPOINT, OUT);
    let last_hop = Ip { ttl: 1, ..Ip::new(POD, NEIGHBOUR, ICMP) }.frame(&ping);
    seen.refused(&trial, &last_hop, Reason::TTL_EXCEEDED);
    let lost = segment(NEIGHBOUR, LOST);
    seen.ends(&trial, "to_pod", &TrialPacket::new(&lost), (Reason::UNKNOWN_TARGET, IN));
    seen.ends(&trial, "from_overlay", &TrialPacket::new(&lost), (Reason::INVALID_TUNNEL_KEY, IN));
}

fn by_tunnels(seen: &mut Seen) {
    let trial = node(Build::Trial(None));
    let frame = segment(FAR, POD);
    seen.tunnelled(&trial, &frame, identity_of(2, 300), Reason::FORWARDED);
    seen.tunnelled(&trial, &frame, identity::HOST, Reason::INVALID_IDENTITY);
    seen.tunnelled(&trial, &segment(LOST, POD), identity_of(2, 300), Reason::UNKNOWN_SENDER);
}

/// A program that others go on with is not there.
fn by_a_missing_step(seen: &mut Seen) {
    let mut trial = node(Build::Released);
    let key = ServiceKey { address: SERVICE.into(), port: 443u16.to_be_bytes(), protocol: TCP, scope: 0 };
    trial.tables.services().set(key, ServiceSettings::default(), &[]).unwrap();
    seen.sent(&trial, &segment(POD, SERVICE), Reason::NO_SERVICE_BACKEND, OUT);
    trial.disconnect(Step::ToService).unwrap();
    seen.sent(&trial, &segment(POD, SERVICE), Reason::MISSED_TAIL_CALL, OUT);
}

/// The kernel is asked to write where nothing can be written.
fn by_a_refused_write(seen: &mut Seen) {
    let trial = node(Build::Trial(Some(Planted::RefusedWrite)));
    let ping = Ip::new(POD, NEIGHBOUR, ICMP).frame(&packets::icmp(8, 0, [0, 7, 0, 1], b""));
    seen.sent(&trial, &ping, Reason::WRITE_FAILED, IN);
}

/// A map of connections that does not forget, with room for one.
fn by_a_full_map(seen: &mut Seen, folder: &Path) {
    let one = (Scarce::Connections, 1);
    let mut trial = Trial::load_with_scarce(trial::config(), &SIZES, folder, one).unwrap();
    fill(&mut trial);
    seen.sent(&trial, &segment(POD, FAR), Reason::FORWARDED, OUT);
    let other = Ip::new(POD, FAR, UDP).frame(&packets::udp(40_001, 53, b""));
    seen.sent(&trial, &other, Reason::CONNECTION_NOT_TRACKED, OUT);
    seen.sent(&trial, &segment(POD, FAR), Reason::FORWARDED, OUT);
}

/// A node under whose address pods speak to the world, with room for half a connection.
fn by_masquerade(seen: &mut Seen, folder: &Path) {
    let config = NodeConfig {
        masquerade: NODE.into(),
        uplink_interface: trial::INTERFACE,
        flags: NodeConfig::MASQUERADE,
        ..trial::config()
    };
    let mut trial = Trial::load_with_scarce(config, &SIZES, folder, (Scarce::Masquerade, 1)).unwrap();
    fill(&mut trial);
    seen.left(&trial, &segment(POD, WORLD), Reason::NO_MASQUERADE_PORT);
    let unasked = Ip::new(POD, WORLD, ICMP).frame(&packets::icmp(0, 0, [0, 7, 0, 1], b""));
    seen.left(&trial, &unasked, Reason::MASQUERADE_UNSUPPORTED);
}

#[test]
fn every_reason_is_one_that_a_packet_was_dropped_for() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mut seen = Seen::default();
    by_packets(&mut seen);
    by_tunnels(&mut seen);
    by_a_missing_step(&mut seen);
    by_a_refused_write(&mut seen);
    let (_lab, host) = one_node("reasons");
    by_a_full_map(&mut seen, &host.bpf_folder().unwrap());
    by_masquerade(&mut seen, &host.bpf_folder().unwrap());

    // A socket that calls a service without backends.
    let mut datapath = opened(&host, Build::Released);
    let service = SERVICE;
    let key = ServiceKey { address: Address::from(service), port: [0, 80], protocol: TCP, scope: 0 };
    datapath.services().set(key, ServiceSettings::default(), &[]).unwrap();
    assert_eq!(ask(&host, &format!("connect {service}:80")), "ConnectionRefused");
    assert_eq!(datapath.count(Reason::NO_SERVICE_BACKEND, OUT).unwrap().packets, 1);
    seen.0.insert(Reason::NO_SERVICE_BACKEND);

    let unseen: Vec<&str> =
        Reason::ALL.iter().filter(|reason| !seen.0.contains(reason)).map(|reason| reason.name()).collect();
    assert!(
        unseen.is_empty(),
        "nothing is dropped for these reasons, so that nobody knows whether they work: {unseen:?}"
    );
}
