//! Random contents of the maps, the same for the kernel and for the model.

use std::time::Duration;

use fastrand::Rng;
use landbridge_bpf_loader::Trial;
use landbridge_bpf_loader::maps::{
    Address, CidrKey, ConnectionEntry, ConnectionKey, Endpoint, FragmentKey, FragmentPorts, IPV4_PREFIX_BITS,
    IpcacheEntry, KeyForms, NodeConfig, NodeEntry, NodeNumber, PeerKind, PolicyEntry, PolicyKey, PolicySet,
    PolicyVerdict, identity,
};
use landbridge_bpf_verdict::tables::v4;

use super::super::fixture::SHIFT;
use super::super::trial::{HEALTH, HEALTH6, INTERFACE, ROUTER, ROUTER6, v6};
use super::calls::any_service;
use super::model::Model;

/// Another pod's.
pub(super) const OTHER_INTERFACE: u32 = 77;
/// Pods of this node, some of them.
const PODS: [Address; 6] =
    [v4([10, 1, 1, 10]), v4([10, 1, 1, 11]), v4([10, 1, 1, 12]), v6(1, 10), v6(1, 11), v6(1, 12)];
/// Whoever else there is: pods of other nodes, nodes, the world.
const OTHERS: [Address; 19] = [
    ROUTER,
    HEALTH,
    v4([172, 30, 1, 1]),
    v4([10, 2, 1, 1]),
    v4([10, 2, 1, 10]),
    v4([10, 2, 1, 11]),
    v4([10, 3, 1, 10]),
    v4([172, 30, 2, 1]),
    v4([192, 0, 2, 1]),
    ROUTER6,
    HEALTH6,
    v6(2, 1),
    v6(2, 10),
    v6(2, 11),
    v6(3, 10),
    LINK_LOCAL,
    v6(99, 1),
    HAIRPINS[0],
    HAIRPINS[1],
];
/// Services.
const SERVICES: [Address; 2] = [v4([10, 96, 0, 1]), v6(96, 1)];
/// As what a pod sees itself.
const HAIRPINS: [Address; 2] =
    [v4([169, 254, 42, 1]), Address([0, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 42, 1])];
/// What a pod calls itself where it has no address yet.
const LINK_LOCAL: Address = Address([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
const NODES: u32 = 4;

/// One of them.
pub(super) fn pick<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

pub(super) fn any_address(random: &mut Rng) -> Address {
    match random.u8(..10) {
        0..5 => PODS[random.usize(..PODS.len())],
        5 => pick(random, &SERVICES),
        _ => OTHERS[random.usize(..OTHERS.len())],
    }
}

pub(super) fn pod_address(random: &mut Rng) -> Address {
    PODS[random.usize(..PODS.len())]
}

/// One of the same family as another.
pub(super) fn any_address_like(random: &mut Rng, other: Address) -> Address {
    std::iter::repeat_with(|| any_address(random))
        .find(|address| address.is_ipv4() == other.is_ipv4())
        .expect("no end")
}

/// What a tunnel may say: an identity, and the underlay address of where it begins.
pub(super) fn any_tunnel(random: &mut Rng) -> (u32, Address) {
    let node = random.u8(1..=4);
    // An identity has 24 bits there.
    (any_identity(random) & identity::MAX, underlay(random, node))
}

/// Where a node is reached.
fn underlay(random: &mut Rng, node: u8) -> Address {
    if random.u8(..3) == 0 { v6(100, node) } else { v4([172, 30, node, 1]) }
}

pub(super) fn any_interface(random: &mut Rng) -> u32 {
    pick(random, &[INTERFACE, INTERFACE, OTHER_INTERFACE, 0])
}

fn any_identity(random: &mut Rng) -> u32 {
    match random.u8(..8) {
        0 => identity::HOST,
        1 => identity::WORLD,
        2 => identity::REMOTE_NODE,
        3 => random.u32(1..4) << SHIFT,
        4 => random.u32(..),
        _ => random.u32(1..4) << SHIFT | random.u32(256..259),
    }
}

fn any_set(random: &mut Rng) -> PolicySet {
    PolicySet(random.u32(..3))
}

pub(super) fn any_port(random: &mut Rng) -> [u8; 2] {
    random.u16(80..83).to_be_bytes()
}

pub(super) fn any_protocol(random: &mut Rng) -> u8 {
    pick(random, &[6, 6, 6, 17, 17, 1, 58, 132])
}

/// Makes a model with everything in it by chance. `now` is the monotonic clock.
pub(super) fn any_world(random: &mut Rng, config: NodeConfig, now: Duration) -> Model {
    let mut model = Model { config, ..Model::default() };
    for (place, address) in (1u8..).zip(PODS) {
        if random.u8(..5) == 0 {
            continue;
        }
        let endpoint = Endpoint {
            interface: if random.u8(..4) == 0 { OTHER_INTERFACE } else { INTERFACE },
            identity: any_identity(random),
            ingress: any_set(random),
            egress: any_set(random),
            mac: [2, 0, 0, 0, place, 1],
            host_mac: [2, 0, 0, 0, place, 2],
            id: u16::from(place),
            port_prefixes: random.u16(..),
            // See below.
            ingress_lacks: KeyForms::default(),
            egress_lacks: KeyForms::default(),
        };
        model.endpoints.insert(address, endpoint);
    }
    for address in OTHERS.into_iter().chain(PODS) {
        if random.u8(..3) > 0 {
            let node = if random.bool() { NodeNumber::NONE } else { NodeNumber(random.u32(1..=NODES)) };
            model.tables.addresses.insert(address, IpcacheEntry { identity: any_identity(random), node });
        }
    }
    for (bits, address) in [
        (IPV4_PREFIX_BITS, v4([0; 4])),
        (IPV4_PREFIX_BITS + 8, v4([10, 0, 0, 0])),
        (IPV4_PREFIX_BITS + 16, v4([10, 2, 0, 0])),
        (IPV4_PREFIX_BITS + 24, v4([10, 2, 1, 0])),
        (8, v6(0, 0)),
        (64, v6(2, 0)),
    ] {
        if random.u8(..3) == 0 {
            let key = CidrKey { prefix_len: bits, address: first_of(address, bits) };
            let entry =
                IpcacheEntry { identity: any_identity(random), node: NodeNumber(random.u32(..=NODES)) };
            model.tables.prefixes.insert(key, entry);
        }
    }
    for number in 1..=NODES {
        if random.u8(..4) == 0 {
            continue;
        }
        let underlay = underlay(random, number.to_le_bytes()[0]);
        model.tables.nodes.insert(NodeNumber(number), NodeEntry { underlay, cluster: random.u32(1..4) });
    }
    for _ in 0..random.u8(..12) {
        let (key, entry) = any_rule(random);
        model.tables.rules.insert(key, entry);
    }
    let lacks = |set| KeyForms::lacked_by(model.tables.rules.keys().filter(|key| key.set == set));
    for endpoint in model.endpoints.values_mut().filter(|_| random.bool()) {
        (endpoint.ingress_lacks, endpoint.egress_lacks) = (lacks(endpoint.ingress), lacks(endpoint.egress));
    }
    for address in SERVICES {
        for _ in 0..random.u8(..5) {
            let (key, service) = any_service(random, address);
            model.services.insert(key, service);
        }
    }
    for _ in 0..random.u8(..8) {
        let (key, entry) = any_connection(random, now);
        model.tables.connections.borrow_mut().insert(key, entry);
    }
    for _ in 0..random.u8(..4) {
        let (key, ports) = any_datagram(random);
        model.tables.fragments.borrow_mut().insert(key, ports);
    }
    model
}

/// An address without the bits behind a prefix.
fn first_of(address: Address, prefix_len: u32) -> Address {
    let behind = u128::MAX.checked_shr(prefix_len).unwrap_or_default();
    Address((u128::from_be_bytes(address.0) & !behind).to_be_bytes())
}

/// A datagram whose first piece came before.
fn any_datagram(random: &mut Rng) -> (FragmentKey, FragmentPorts) {
    let source = pod_address(random);
    let destination = any_address_like(random, source);
    // As `packets` numbers them.
    let identification = if source.is_ipv4() { [0x12, 0x34, 0, 0] } else { [0, 0, 0x12, 0x34] };
    let port = any_port(random);
    let protocol = any_protocol(random);
    let key = FragmentKey { source, destination, identification, protocol, reserved: [0; 3] };
    let ports = FragmentPorts {
        source_port: any_port(random),
        destination_port: port,
        policy_port: port,
        reserved: [0; 2],
    };
    (key, ports)
}

fn any_rule(random: &mut Rng) -> (PolicyKey, PolicyEntry) {
    let (kind, peer) = match random.u8(..4) {
        0 => (PeerKind::Identity, any_identity(random)),
        1 => (PeerKind::Cluster, random.u32(1..4)),
        2 => (PeerKind::Mesh, 0),
        _ => (PeerKind::Any, 0),
    };
    let protocol = if random.u8(..3) == 0 { 0 } else { any_protocol(random) };
    let port_bits = match random.u8(..4) {
        _ if protocol == 0 => 0,
        0 => 0,
        1 => random.u8(..=PolicyKey::ONE_PORT),
        _ => PolicyKey::ONE_PORT,
    };
    let port =
        u32::from(u16::from_be_bytes(any_port(random))) & (0xffff << (PolicyKey::ONE_PORT - port_bits));
    let [.., high, low] = port.to_be_bytes();
    let verdict = match random.u8(..8) {
        0 | 1 => PolicyVerdict::Deny as u8,
        2 => random.u8(..),
        _ => PolicyVerdict::Allow as u8,
    };
    let key = PolicyKey {
        set: PolicySet(random.u32(1..3)),
        peer,
        port: [high, low],
        protocol,
        kind: kind as u8,
        port_bits,
        reserved: [0; 3],
    };
    (key, PolicyEntry { verdict, ..PolicyEntry::default() })
}

/// A connection that began before: the times are far from those at which something is forgotten.
fn any_connection(random: &mut Rng, now: Duration) -> (ConnectionKey, ConnectionEntry) {
    let ages = [0, 4, 30, 200, 10_000].map(Duration::from_secs);
    let age = pick(random, &ages);
    let seen = now.checked_sub(age).unwrap_or(now);
    let tag = pick(random, &[INTERFACE, OTHER_INTERFACE]);
    let key = ConnectionKey {
        source: any_address(random),
        destination: any_address(random),
        source_port: any_port(random),
        destination_port: any_port(random),
        protocol: any_protocol(random),
        direction: random.u8(1..3),
        endpoint: Endpoint { interface: tag, ..Endpoint::default() }.tag(),
    };
    let peer = any_identity(random);
    let last_seen = u64::try_from(seen.as_nanos()).expect("the clock of a machine");
    let flags = [
        ConnectionEntry::REPLIED,
        ConnectionEntry::CLOSED_BY_SOURCE,
        ConnectionEntry::CLOSED_BY_DESTINATION,
        ConnectionEntry::TRANSLATED,
    ];
    let flags = flags.into_iter().filter(|_| random.bool()).sum();
    (key, ConnectionEntry { last_seen, peer, flags })
}

/// Makes the kernel's maps what the model's are.
pub(super) fn write(trial: &mut Trial, model: &Model) {
    clear(trial);
    let tables = &mut trial.tables;
    for (address, endpoint) in &model.endpoints {
        tables.endpoints().upsert(address, endpoint).unwrap();
    }
    for (address, entry) in &model.tables.addresses {
        tables.ipcache().upsert(address, entry).unwrap();
    }
    for (prefix, entry) in &model.tables.prefixes {
        tables.cidrs().upsert(prefix, entry).unwrap();
    }
    for (number, node) in &model.tables.nodes {
        tables.nodes().set(*number, *node).unwrap();
    }
    for (key, rule) in &model.tables.rules {
        tables.policy().upsert(key, rule).unwrap();
    }
    for (key, entry) in model.tables.connections.borrow().iter() {
        tables.connections().upsert(key, entry).unwrap();
    }
    for (key, ports) in model.tables.fragments.borrow().iter() {
        tables.fragments().upsert(key, ports).unwrap();
    }
    for (key, service) in &model.services {
        tables.services().set(*key, service.entry.settings(), service.backends()).unwrap();
    }
}

fn clear(trial: &mut Trial) {
    let tables = &mut trial.tables;
    for address in tables.endpoints().entries().unwrap().keys() {
        tables.endpoints().remove(address).unwrap();
    }
    for address in tables.ipcache().entries().unwrap().keys() {
        tables.ipcache().remove(address).unwrap();
    }
    for prefix in tables.cidrs().entries().unwrap().keys() {
        tables.cidrs().remove(prefix).unwrap();
    }
    for number in 1..=NODES {
        tables.nodes().clear(NodeNumber(number)).unwrap();
    }
    for key in tables.policy().entries().unwrap().keys() {
        tables.policy().remove(key).unwrap();
    }
    for key in tables.connections().entries().unwrap().keys() {
        tables.connections().remove(key).unwrap();
    }
    for key in tables.fragments().entries().unwrap().keys() {
        tables.fragments().remove(key).unwrap();
    }
    for key in tables.services().entries().unwrap().keys() {
        tables.services().remove(key).unwrap();
    }
    for key in tables.service_flows().entries().unwrap().keys() {
        tables.service_flows().remove(key).unwrap();
    }
}
