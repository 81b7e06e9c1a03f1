use core::cell::{Cell, RefCell};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use landbridge_bpf_maps::{AffinityEntry, AffinityKey, Endpoint};
use proptest::prelude::*;

use super::*;
use crate::admission::{Passage, admit};
use crate::packet::{Fragment, Message, tcp};
use crate::tables::{Tables, v4};

const CLIENT: Address = v4([10, 1, 1, 10]);
const ONE: Address = v4([10, 1, 2, 1]);
const TWO: Address = v4([10, 1, 2, 2]);
const PORT: [u8; 2] = [31, 144];
const SERVICE: ServiceKey = key(1);
const SECOND: u64 = 1_000_000_000;
const POD: Endpoint = Endpoint {
    interface: 7,
    identity: 0x0001_0100,
    ingress: landbridge_bpf_maps::PolicySet::NOT_ENFORCED,
    egress: landbridge_bpf_maps::PolicySet::NOT_ENFORCED,
    mac: [0; 6],
    host_mac: [0; 6],
    id: 1,
    port_prefixes: 0,
    ingress_lacks: landbridge_bpf_maps::KeyForms(0),
    egress_lacks: landbridge_bpf_maps::KeyForms(0),
};

const fn key(last: u8) -> ServiceKey {
    ServiceKey { address: v4([10, 96, 0, last]), port: [0, 80], protocol: protocol::TCP, scope: 0 }
}

fn flow(source: (Address, [u8; 2]), destination: (Address, [u8; 2]), protocol: u8, tcp_flags: u8) -> Flow {
    Flow {
        source: source.0,
        destination: destination.0,
        origin: source.0,
        source_port: source.1,
        destination_port: destination.1,
        policy_port: destination.1,
        protocol,
        policy_protocol: protocol,
        tcp_flags,
        ttl: 64,
        version: if source.0.is_ipv4() { 4 } else { 6 },
        fragment: Fragment::WHOLE,
        transport: 34,
        identification: [0; 4],
        message: Message::OTHER,
        is_translated: false,
    }
}

/// A service of a node.
struct Service {
    key: ServiceKey,
    entry: ServiceEntry,
    backends: Vec<Backend>,
    /// What a random number would be.
    number: u32,
    affinity: RefCell<BTreeMap<AffinityKey, &'static AffinityEntry>>,
    /// Who asks.
    asks: Cell<ServiceFlowKey>,
}

impl Service {
    fn new(key: ServiceKey, backends: &[Address]) -> Self {
        let backends: Vec<Backend> = backends.iter().map(|address| Backend::new(*address, PORT, 1)).collect();
        let count = u32::try_from(backends.len()).unwrap();
        let algorithm = Algorithm::RoundRobin as u8;
        let entry = ServiceEntry { count, service: 7, algorithm, ..ServiceEntry::default() };
        let (affinity, asks) = (RefCell::default(), Cell::default());
        Self { key, entry, backends, number: 0, affinity, asks }
    }
}

impl Services for Service {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }

    fn slot(&self, _: u32, _: u32) -> Option<u16> {
        None
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityEntry> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.affinity.borrow_mut().insert(*key, Box::leak(Box::new(*entry)));
    }
}

impl Offers for Service {
    fn offer(&self, attempt: u32) -> Option<Offer> {
        let request = Request { number: self.number, turn: self.entry.turn, now: 0 };
        let selected = offer(self, &self.entry, &self.asks.get(), &request, attempt)?;
        let entry = entry_of(&self.entry, selected.index, self.backend(selected.index)?);
        Some(Offer { entry, is_chosen: selected.is_chosen })
    }

    fn has(&self, entry: &ServiceFlow) -> bool {
        has(self, &self.entry, entry)
    }
}

/// A packet of the client to the service, translated and let through. Returns the backend's address.
fn send(
    tables: &Tables,
    service: &Service,
    port: [u8; 2],
    flags: u8,
    seconds: u64,
) -> Result<Address, Reason> {
    let mut packet =
        flow((CLIENT, port), (service.key.address, service.key.port), service.key.protocol, flags);
    service.asks.set(key_to_service(&packet, POD.tag()));
    let now = seconds * SECOND;
    let offer = to_backend(tables, service, &packet, &service.asks.get(), now)?;
    let served = offer.expect("it is no error").entry;
    packet.destination = served.address;
    (packet.destination_port, packet.policy_port) = (served.port, served.port);
    packet.is_translated = true;
    admit(tables, &POD, Direction::Egress, &mut packet, 2, now, 16)?;
    Ok(served.address)
}

/// A packet of a backend to the client, as the client gets it: from whom?
fn answer(tables: &Tables, from: Address, port: [u8; 2], protocol: u8, flags: u8, seconds: u64) -> Address {
    let mut packet = flow((from, PORT), (CLIENT, port), protocol, flags);
    let passage = admit(tables, &POD, Direction::Ingress, &mut packet, 2, seconds * SECOND, 16);
    if !passage.unwrap().has(Passage::REPLY.and(Passage::TRANSLATED)) {
        return from;
    }
    let found = tables.service_flow(&key_from_backend(&packet, packet.destination, POD.tag()));
    found.map_or(from, |found| found.address)
}

#[test]
fn a_connection_stays_with_its_backend_and_is_answered_by_its_service() {
    let tables = Tables::default();
    let service = Service::new(SERVICE, &[ONE, TWO]);
    assert_eq!(send(&tables, &service, [1, 1], tcp::SYN, 1), Ok(ONE));
    assert_eq!(answer(&tables, ONE, [1, 1], 6, tcp::SYN | tcp::ACK, 1), SERVICE.address);
    let other = Service::new(SERVICE, &[TWO]);
    for now in [2, 1_000, 8_999] {
        assert_eq!(send(&tables, &other, [1, 1], tcp::ACK, now), Ok(ONE));
        assert_eq!(answer(&tables, ONE, [1, 1], 6, tcp::ACK, now), SERVICE.address);
    }
    assert_eq!(send(&tables, &other, [1, 2], tcp::SYN, 9_000), Ok(TWO), "another connection");
    // It has been silent for too long, so it is a new one.
    assert_eq!(send(&tables, &other, [1, 1], tcp::ACK, 20_000), Ok(TWO));
    let none = Service::new(SERVICE, &[]);
    assert_eq!(send(&tables, &none, [1, 3], tcp::SYN, 1), Err(Reason::NO_SERVICE_BACKEND));
    let of_other_family = Service::new(SERVICE, &[Address([9; 16])]);
    assert_eq!(send(&tables, &of_other_family, [1, 3], tcp::SYN, 1), Err(Reason::NO_SERVICE_BACKEND));
    tables.full.set(true);
    assert_eq!(send(&tables, &service, [1, 4], tcp::SYN, 1), Err(Reason::CONNECTION_NOT_TRACKED));
}

#[test]
fn a_new_connection_from_an_old_ones_port_gets_a_backend_that_is_there() {
    let tables = Tables::default();
    let service = Service::new(SERVICE, &[ONE]);
    let moved = Service::new(SERVICE, &[TWO]);
    // It asks once more: as long as that backend is there, it is the one.
    for now in [1, 2] {
        assert_eq!(send(&tables, &service, [1, 1], tcp::SYN, now), Ok(ONE));
    }
    assert_eq!(send(&tables, &moved, [1, 1], tcp::SYN, 3), Ok(TWO), "nobody has answered yet");
    assert_eq!(answer(&tables, TWO, [1, 1], 6, tcp::SYN | tcp::ACK, 3), SERVICE.address);
    assert_eq!(send(&tables, &moved, [1, 1], tcp::FIN | tcp::ACK, 4), Ok(TWO));
    assert_eq!(answer(&tables, TWO, [1, 1], 6, tcp::ACK, 3_000), SERVICE.address, "half is open");
    assert_eq!(answer(&tables, TWO, [1, 1], 6, tcp::FIN | tcp::ACK, 3_001), SERVICE.address);
    assert_eq!(send(&tables, &service, [1, 1], tcp::ACK, 3_002), Ok(TWO), "the last word");
    assert_eq!(send(&tables, &service, [1, 1], tcp::SYN, 3_003), Ok(ONE));
}

#[test]
fn connections_that_would_look_the_same_get_different_backends() {
    let tables = Tables::default();
    let of = |last| Service::new(key(last), &[ONE, TWO]);
    assert_eq!(send(&tables, &of(1), [1, 1], tcp::SYN, 1), Ok(ONE));
    assert_eq!(send(&tables, &of(2), [1, 1], tcp::SYN, 1), Ok(TWO));
    assert_eq!(send(&tables, &of(3), [1, 1], tcp::SYN, 1), Err(Reason::CONNECTION_NOT_TRACKED));
    assert_eq!(send(&tables, &of(1), [1, 1], tcp::ACK, 2), Ok(ONE), "they go on");
    assert_eq!(answer(&tables, TWO, [1, 1], 6, tcp::ACK, 2), key(2).address);
    // Until one of them is over.
    send(&tables, &of(1), [1, 1], tcp::RST, 2).unwrap();
    assert_eq!(send(&tables, &of(3), [1, 1], tcp::SYN, 3), Ok(ONE));
    assert_eq!(answer(&tables, ONE, [1, 1], 6, tcp::ACK, 3), key(3).address);
    // A connection to the backend by its own name is in the way like any other.
    let mut direct = flow((CLIENT, [1, 9]), (ONE, PORT), protocol::TCP, tcp::SYN);
    admit(&tables, &POD, Direction::Egress, &mut direct, 2, SECOND, 16).unwrap();
    assert_eq!(send(&tables, &of(1), [1, 9], tcp::SYN, 2), Ok(TWO));
    assert_eq!(answer(&tables, ONE, [1, 9], 6, tcp::ACK, 3), ONE);
}

#[test]
fn datagrams_are_answered_by_whom_the_client_spoke_to_last() {
    let tables = Tables::default();
    let of = |last| Service::new(ServiceKey { protocol: protocol::UDP, ..key(last) }, &[ONE]);
    let mut direct = flow((CLIENT, [1, 1]), (ONE, PORT), protocol::UDP, 0);
    for round in 0..3 {
        for last in [1, 2] {
            assert_eq!(send(&tables, &of(last), [1, 1], 0, round), Ok(ONE));
            assert_eq!(answer(&tables, ONE, [1, 1], 17, 0, round), key(last).address);
        }
        admit(&tables, &POD, Direction::Egress, &mut direct, 2, round * SECOND, 16).unwrap();
        assert_eq!(answer(&tables, ONE, [1, 1], 17, 0, round), ONE);
    }
}

#[test]
fn a_forgotten_entry_for_answers_is_made_again() {
    let tables = Tables::default();
    let service = Service::new(SERVICE, &[ONE, TWO]);
    send(&tables, &service, [1, 1], tcp::SYN, 1).unwrap();
    tables.service_flows.borrow_mut().retain(|key, _| key.way == ServiceFlowKey::TO_SERVICE);
    let later = Service { entry: ServiceEntry { turn: 1, ..service.entry }, ..service };
    assert_eq!(send(&tables, &later, [1, 1], tcp::ACK, 2), Ok(ONE));
    assert_eq!(answer(&tables, ONE, [1, 1], 6, tcp::ACK, 2), SERVICE.address);
}

#[test]
fn errors_belong_to_the_connection_that_they_tell_of() {
    let tables = Tables::default();
    let service = Service::new(SERVICE, &[ONE]);
    let error = Flow {
        policy_protocol: protocol::ICMP,
        policy_port: [0, 3],
        message: Message::ERROR,
        ..flow((CLIENT, [1, 1]), (SERVICE.address, SERVICE.port), protocol::TCP, 0)
    };
    let concerns = |endpoint| {
        let offer = to_backend(&tables, &service, &error, &key_to_service(&error, endpoint), SECOND);
        offer.unwrap().map(|offer| offer.entry.address)
    };
    assert_eq!(concerns(POD.tag()), None);
    send(&tables, &service, [1, 1], tcp::SYN, 1).unwrap();
    assert_eq!(concerns(POD.tag()), Some(ONE));
    assert_eq!(concerns(8), None, "another pod's");
}

#[test]
fn who_calls_itself_needs_no_rule_and_sees_another_address() {
    let tables = Tables::default();
    let closed = Endpoint {
        ingress: landbridge_bpf_maps::PolicySet(1),
        egress: landbridge_bpf_maps::PolicySet(2),
        ..POD
    };
    let mut packet = flow((CLIENT, [1, 1]), (CLIENT, PORT), protocol::TCP, tcp::SYN);
    let mut pass = |direction| admit(&tables, &closed, direction, &mut packet, POD.identity, 1, 16);
    assert_eq!(pass(Direction::Egress), Err(Reason::POLICY_DENIED), "by its own name");
    packet.is_translated = true;
    for direction in [Direction::Egress, Direction::Ingress] {
        admit(&tables, &closed, direction, &mut packet, POD.identity, 1, 16).unwrap();
    }
    for (client, hairpin) in [(CLIENT, "169.254.42.1"), (Address([9; 16]), "64:ff9b:1::a9fe:2a01")] {
        let hairpin: core::net::IpAddr = hairpin.parse().unwrap();
        assert_eq!(hairpin_address(&client), hairpin.into());
        assert!(is_hairpin(&flow((client, PORT), (hairpin.into(), [1, 1]), protocol::TCP, tcp::ACK)));
    }
    assert!(!is_hairpin(&packet));
}

#[test]
fn connections_are_spread_as_those_of_sockets_are() {
    let backends: Vec<Address> = (1..=4).map(|last| v4([10, 1, 2, last])).collect();
    let with = |algorithm, affinity_seconds| {
        let mut service = Service::new(SERVICE, &backends);
        (service.entry.algorithm, service.entry.affinity_seconds) = (algorithm as u8, affinity_seconds);
        service
    };
    // The same client and port on another node: the same backend.
    let served: Vec<Address> = (0..64)
        .map(|port| {
            let [here, there] = [5, 99].map(|number| {
                let service = Service { number, ..with(Algorithm::Maglev, 0) };
                send(&Tables::default(), &service, [9, port], tcp::SYN, 1).unwrap()
            });
            assert_eq!(here, there);
            here
        })
        .collect();
    assert!(backends.iter().all(|backend| served.contains(backend)), "{served:?}");
    let by_chance = Service { number: 3 << 30, ..with(Algorithm::Random, 0) };
    assert_eq!(send(&Tables::default(), &by_chance, [9, 9], tcp::SYN, 1), Ok(backends[3]));
    let mut kept = with(Algorithm::RoundRobin, 60);
    let tables = Tables::default();
    for (port, turn) in (0..4).zip(1..) {
        assert_eq!(send(&tables, &kept, [9, port], tcp::SYN, 1), Ok(backends[0]), "one client");
        kept.entry.turn = turn;
    }
}

proptest! {
    /// Whatever is sent in whatever order, a connection keeps its backend, an answer comes by the name that the client
    /// called, and no two connections of one port look the same to a backend.
    #[test]
    fn answers_lead_back(
        sent in proptest::collection::vec((0u8..3, 0u8..3, any::<bool>(), 0u64..30, 0u8..4, any::<u32>()), 1..60),
    ) {
        let tables = Tables::default();
        let mut now = 1;
        let mut open: BTreeMap<(u8, u8), Address> = BTreeMap::new();
        for (port, to, closes, waits, backends, turn) in sent {
            now += waits;
            let backends: Vec<Address> = (0..=backends).map(|last| v4([10, 1, 2, last])).collect();
            let mut service = Service::new(key(to), &backends);
            service.entry.turn = turn;
            let (flags, closes) = match (open.contains_key(&(port, to)), closes) {
                (false, _) => (tcp::SYN, false),
                (true, false) => (tcp::ACK, false),
                (true, true) => (tcp::RST, true),
            };
            match send(&tables, &service, [9, port], flags, now) {
                Ok(backend) => {
                    match open.get(&(port, to)) {
                        Some(before) => prop_assert_eq!(*before, backend, "it changed its backend"),
                        None => prop_assert!(backends.contains(&backend), "its backend is gone"),
                    }
                    if closes {
                        open.remove(&(port, to));
                    } else {
                        let from = answer(&tables, backend, [9, port], 6, tcp::ACK, now);
                        prop_assert_eq!(from, key(to).address);
                        open.insert((port, to), backend);
                    }
                }
                Err(reason) => {
                    prop_assert_eq!(reason, Reason::CONNECTION_NOT_TRACKED);
                    prop_assert!(!open.contains_key(&(port, to)), "it goes on");
                }
            }
            let mut seen = Vec::new();
            for ((port, _), backend) in &open {
                prop_assert!(!seen.contains(&(port, backend)), "{:?}", open);
                seen.push((port, backend));
            }
        }
    }
}
