//! Admission against a model that keeps a list of connections and reads it as a person would.

use std::vec::Vec;

use landbridge_bpf_maps::{Address, PeerKind, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict};
use proptest::prelude::*;

use super::*;
use crate::packet::{Fragment, Message};
use crate::tables::{Tables, v4};

const POD: Address = v4([10, 1, 1, 10]);
const PEERS: [(Address, u32); 3] = [
    (v4([10, 2, 1, 10]), 0x0002_0100),
    (v4([10, 3, 1, 10]), 0x0003_0100),
    (v4([10, 1, 1, 1]), identity::HOST),
];
const SHIFT: u32 = 16;
const INGRESS: PolicySet = PolicySet(1);
const EGRESS: PolicySet = PolicySet(2);

fn packet(source: (Address, u16), destination: (Address, u16), protocol: u8, tcp_flags: u8) -> Flow {
    Flow {
        source: source.0,
        destination: destination.0,
        origin: source.0,
        source_port: source.1.to_be_bytes(),
        destination_port: destination.1.to_be_bytes(),
        policy_port: destination.1.to_be_bytes(),
        protocol,
        policy_protocol: protocol,
        tcp_flags,
        ttl: 64,
        version: 4,
        fragment: Fragment::WHOLE,
        transport: 34,
        identification: [0; 4],
        message: Message::OTHER,
        is_translated: false,
    }
}

/// Only whether.
fn admit(
    tables: &Tables,
    endpoint: &Endpoint,
    direction: Direction,
    flow: &mut Flow,
    peer: u32,
    now: u64,
    shift: u32,
) -> Result<(), Reason> {
    super::admit(tables, endpoint, direction, flow, peer, now, shift).map(|_| ())
}

fn allow(tables: &mut Tables, set: PolicySet, peer: u32) -> PolicyKey {
    let key = PolicyKey { set, peer, kind: PeerKind::Identity as u8, ..PolicyKey::default() };
    tables.rules.insert(key, PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() });
    key
}

fn endpoint(ingress: PolicySet, egress: PolicySet) -> Endpoint {
    Endpoint { ingress, egress, ..Endpoint::default() }
}

const ENFORCED: fn() -> Endpoint = || endpoint(INGRESS, EGRESS);
const CLIENT: (Address, u16) = (PEERS[0].0, 40_000);
const SERVER: (Address, u16) = (POD, 80);

/// What happens to a packet from the first peer to the pod, or the other way.
fn step(tables: &Tables, endpoint: &Endpoint, from_peer: bool, flags: u8, now: u64) -> Result<(), Reason> {
    let (flow, direction) = if from_peer {
        (packet(CLIENT, SERVER, protocol::TCP, flags), Direction::Ingress)
    } else {
        (packet(SERVER, CLIENT, protocol::TCP, flags), Direction::Egress)
    };
    admit(tables, endpoint, direction, &mut { flow }, PEERS[0].1, now, SHIFT)
}

#[test]
fn replies_pass_and_a_rule_that_is_taken_back_ends_the_connection() {
    let mut tables = Tables::default();
    let rule = allow(&mut tables, INGRESS, PEERS[0].1);
    let pod = ENFORCED();
    assert_eq!(step(&tables, &pod, false, tcp::ACK, 0), Err(Reason::POLICY_DENIED), "nobody asked");
    assert_eq!(step(&tables, &pod, true, tcp::SYN, 0), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::SYN | tcp::ACK, 1), Ok(()));
    assert_eq!(step(&tables, &pod, true, tcp::ACK, 2), Ok(()));
    tables.rules.remove(&rule);
    assert_eq!(step(&tables, &pod, true, tcp::ACK, 3), Err(Reason::POLICY_DENIED));
}

#[test]
fn what_a_packet_is_to_its_connection_is_told() {
    let mut tables = Tables::default();
    allow(&mut tables, INGRESS, PEERS[0].1);
    let pod = ENFORCED();
    let told = |from_peer: bool, flags: u8, now: u64| {
        let (flow, direction) = if from_peer {
            (packet(CLIENT, SERVER, protocol::TCP, flags), Direction::Ingress)
        } else {
            (packet(SERVER, CLIENT, protocol::TCP, flags), Direction::Egress)
        };
        super::admit(&tables, &pod, direction, &mut { flow }, PEERS[0].1, now, SHIFT)
    };
    let (new, noted) = (Passage::NEW.and(Passage::NOTED), Passage::REPLY.and(Passage::NOTED));
    assert_eq!(told(true, tcp::SYN, 0), Ok(new));
    assert_eq!(told(false, tcp::SYN | tcp::ACK, 1), Ok(noted), "the first answer");
    assert_eq!(told(true, tcp::ACK, 2), Ok(Passage::default()));
    assert_eq!(told(false, tcp::ACK, 3), Ok(Passage::REPLY));
    assert_eq!(told(false, tcp::ACK, 2 * SECOND), Ok(noted), "after a while");
    assert_eq!(told(true, tcp::FIN | tcp::ACK, 2 * SECOND), Ok(Passage::NOTED), "the end of a half");
}

#[test]
fn a_first_policy_leaves_the_pods_own_connections_alone() {
    let tables = Tables::default();
    let open = Endpoint::default();
    assert_eq!(step(&tables, &open, false, tcp::SYN, 0), Ok(()));
    assert_eq!(step(&tables, &open, true, tcp::SYN | tcp::ACK, 1), Ok(()));
    assert_eq!(step(&tables, &endpoint(INGRESS, PolicySet::NOT_ENFORCED), true, tcp::ACK, 2), Ok(()));
}

#[test]
fn one_who_was_called_may_not_call_back() {
    let mut tables = Tables::default();
    allow(&mut tables, EGRESS, PEERS[0].1);
    let pod = ENFORCED();
    assert_eq!(step(&tables, &pod, false, tcp::SYN, 0), Ok(()));
    assert_eq!(
        step(&tables, &pod, true, tcp::SYN, 1),
        Err(Reason::POLICY_DENIED),
        "not even from the same port"
    );
    assert_eq!(step(&tables, &pod, true, tcp::SYN | tcp::ACK, 2), Ok(()));
}

#[test]
fn connections_are_forgotten_when_they_have_been_silent() {
    let mut tables = Tables::default();
    allow(&mut tables, INGRESS, PEERS[0].1);
    let pod = ENFORCED();
    let mut now = 0;
    let mut after = |seconds: u64| {
        now += seconds * SECOND;
        now
    };
    let denied = Err(Reason::POLICY_DENIED);
    assert_eq!(step(&tables, &pod, true, tcp::SYN, after(0)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(61)), denied, "an unanswered request");
    assert_eq!(step(&tables, &pod, true, tcp::SYN, after(0)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::SYN | tcp::ACK, after(1)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(7_000)), Ok(()), "an idle one");
    assert_eq!(step(&tables, &pod, false, tcp::FIN | tcp::ACK, after(7_000)), Ok(()));
    assert_eq!(step(&tables, &pod, true, tcp::ACK, after(100)), Ok(()), "half of it is open");
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(100)), Ok(()));
    assert_eq!(step(&tables, &pod, true, tcp::FIN | tcp::ACK, after(0)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(5)), Ok(()), "the last acknowledgement");
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(11)), denied, "a closed one");
    assert_eq!(step(&tables, &pod, true, tcp::SYN, after(0)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::RST, after(0)), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::ACK, after(11)), denied, "a refused one");
}

#[test]
fn a_connection_on_used_ports_begins_anew() {
    let mut tables = Tables::default();
    allow(&mut tables, INGRESS, PEERS[0].1);
    let pod = ENFORCED();
    assert_eq!(step(&tables, &pod, true, tcp::SYN, 0), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::RST, 1), Ok(()));
    assert_eq!(step(&tables, &pod, true, tcp::SYN, 2), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::SYN | tcp::ACK, 3), Ok(()));
    assert_eq!(step(&tables, &pod, false, tcp::ACK, 100 * SECOND), Ok(()), "it is not a closed one");
}

#[test]
fn what_nobody_asked_for_begins_nothing() {
    let tables = Tables::default();
    let open = Endpoint::default();
    assert_eq!(step(&tables, &open, false, tcp::SYN | tcp::ACK, 0), Err(Reason::INVALID_CONNECTION));
    assert_eq!(step(&tables, &open, false, tcp::RST, 0), Ok(()));
    assert!(tables.connections.borrow().is_empty(), "a refusal leaves nothing behind");
    // One that is older than the map goes on, from both sides.
    assert_eq!(step(&tables, &open, false, tcp::ACK, 0), Ok(()));
    assert_eq!(step(&tables, &open, true, tcp::ACK, 1), Ok(()));
    assert_eq!(tables.connections.borrow().len(), 1);
}

#[test]
fn pieces_of_a_datagram_share_the_fate_of_the_first() {
    let mut tables = Tables::default();
    let pod = ENFORCED();
    let key = PolicyKey {
        set: INGRESS,
        peer: PEERS[0].1,
        port: 80u16.to_be_bytes(),
        port_bits: PolicyKey::ONE_PORT,
        protocol: protocol::UDP,
        kind: PeerKind::Identity as u8,
        ..PolicyKey::default()
    };
    tables.rules.insert(key, PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() });
    let send = |port: u16, number: u8, fragment: Fragment| {
        let mut flow = packet(CLIENT, (POD, port), protocol::UDP, 0);
        flow.identification = [number, 0, 0, 0];
        flow.fragment = fragment;
        if fragment == Fragment::LATER {
            (flow.source_port, flow.destination_port, flow.policy_port) = ([0; 2], [0; 2], [0; 2]);
        }
        admit(&tables, &pod, Direction::Ingress, &mut flow, PEERS[0].1, 0, SHIFT)
            .map(|()| flow.destination_port)
    };
    let (not_found, denied) = (Err(Reason::FRAGMENT_NOT_FOUND), Err(Reason::POLICY_DENIED));
    assert_eq!(send(80, 1, Fragment::LATER), not_found, "before the first");
    assert_eq!(send(80, 1, Fragment::FIRST), Ok([0, 80]));
    assert_eq!(send(80, 1, Fragment::LATER), Ok([0, 80]));
    assert_eq!(send(80, 2, Fragment::LATER), not_found, "of another datagram");
    assert_eq!(send(81, 3, Fragment::FIRST), denied);
    assert_eq!(send(81, 3, Fragment::LATER), not_found, "nothing of what was denied is remembered");
}

#[test]
fn a_connection_that_cannot_be_remembered_does_not_begin() {
    let mut tables = Tables::default();
    allow(&mut tables, INGRESS, PEERS[0].1);
    tables.full.set(true);
    assert_eq!(step(&tables, &ENFORCED(), true, tcp::SYN, 0), Err(Reason::CONNECTION_NOT_TRACKED));
}

#[test]
fn errors_reach_whom_they_concern_and_remember_nothing() {
    let mut tables = Tables::default();
    allow(&mut tables, EGRESS, PEERS[0].1);
    let pod = ENFORCED();
    let router = v4([10, 9, 9, 9]);
    // The peer cannot be reached at a port that the pod sent to.
    let mut error = packet(CLIENT, SERVER, protocol::TCP, 0);
    (error.source, error.policy_protocol, error.policy_port) = (router, 1, [0, 3]);
    error.message = Message::ERROR;
    let told =
        |tables: &Tables| admit(tables, &pod, Direction::Ingress, &mut { error }, identity::WORLD, 1, SHIFT);
    assert_eq!(told(&tables), Err(Reason::POLICY_DENIED), "nothing was sent");
    assert_eq!(step(&tables, &pod, false, tcp::SYN, 0), Ok(()));
    assert_eq!(told(&tables), Ok(()));
    // The pod's reply could not reach the peer.
    let mut tables = Tables::default();
    allow(&mut tables, INGRESS, PEERS[0].1);
    assert_eq!(step(&tables, &pod, true, tcp::SYN, 0), Ok(()));
    let before = tables.connections.borrow().clone();
    assert_eq!(told(&tables), Ok(()));
    assert_eq!(*tables.connections.borrow(), before);
}

#[test]
fn a_pod_that_gets_a_used_address_inherits_no_connections() {
    let mut tables = Tables::default();
    let (ingress, egress) = (allow(&mut tables, INGRESS, PEERS[0].1), allow(&mut tables, EGRESS, PEERS[0].1));
    let before = Endpoint { interface: 7, ..ENFORCED() };
    assert_eq!(step(&tables, &before, true, tcp::SYN, 0), Ok(()));
    assert_eq!(step(&tables, &before, false, tcp::ACK, 1), Ok(()));
    tables.rules.remove(&ingress);
    tables.rules.remove(&egress);
    let after = Endpoint { interface: 8, ..ENFORCED() };
    assert_eq!(step(&tables, &after, false, tcp::ACK, 2), Err(Reason::POLICY_DENIED));
    assert_eq!(step(&tables, &before, false, tcp::ACK, 2), Ok(()), "it is the pod that counts");
}

#[test]
fn an_echo_request_is_never_a_reply() {
    let mut tables = Tables::default();
    allow(&mut tables, EGRESS, PEERS[0].1);
    let pod = ENFORCED();
    let echo = |from_pod: bool, kind: u8| {
        let (source, destination) = if from_pod { (POD, CLIENT.0) } else { (CLIENT.0, POD) };
        let mut flow = packet((source, 7), (destination, 7), protocol::ICMP, 0);
        flow.policy_port = [0, kind];
        flow.message = Message::of(protocol::ICMP, kind);
        let direction = if from_pod { Direction::Egress } else { Direction::Ingress };
        admit(&tables, &pod, direction, &mut { flow }, PEERS[0].1, 0, SHIFT)
    };
    assert_eq!(echo(true, 8), Ok(()));
    assert_eq!(echo(false, 8), Err(Reason::POLICY_DENIED), "the same identifier the other way");
    assert_eq!(echo(false, 13), Err(Reason::POLICY_DENIED), "a timestamp request");
    assert_eq!(echo(false, 0), Ok(()), "the reply");
}

#[test]
fn a_pod_tells_of_nobodys_packets_but_its_own() {
    let tables = Tables::default();
    // Another pod of this node has let the peer in.
    let other = (v4([10, 1, 1, 11]), 80);
    let begin = packet(CLIENT, other, protocol::TCP, tcp::SYN);
    let open = Endpoint::default();
    assert_eq!(admit(&tables, &open, Direction::Ingress, &mut { begin }, PEERS[0].1, 0, SHIFT), Ok(()));
    // It cannot be reached, says the pod, which may not speak to the peer.
    let mut error = packet(other, CLIENT, protocol::TCP, 0);
    (error.source, error.policy_protocol, error.policy_port) = (POD, protocol::ICMP, [0, 3]);
    error.message = Message::ERROR;
    let told = |endpoint: &Endpoint, direction, peer| {
        admit(&tables, endpoint, direction, &mut { error }, peer, 1, SHIFT)
    };
    let refused = Err(Reason::INVALID_PACKET);
    assert_eq!(told(&ENFORCED(), Direction::Egress, PEERS[0].1), refused);
    assert_eq!(told(&open, Direction::Egress, PEERS[0].1), refused, "nor where no rule is enforced");
    // The same where it arrives; a router may say so.
    let begin = packet(CLIENT, other, protocol::TCP, tcp::SYN);
    assert_eq!(admit(&tables, &open, Direction::Egress, &mut { begin }, PEERS[1].1, 0, SHIFT), Ok(()));
    assert_eq!(told(&ENFORCED(), Direction::Ingress, PEERS[1].1), refused);
    assert_eq!(told(&ENFORCED(), Direction::Ingress, identity::REMOTE_NODE), Ok(()));
    assert_eq!(told(&ENFORCED(), Direction::Ingress, identity::WORLD), Ok(()));
}

/// A packet between the pod and a peer.
#[derive(Clone, Copy, Debug)]
struct Event {
    peer: usize,
    from_pod: bool,
    pod_port: u16,
    peer_port: u16,
    udp: bool,
    flags: u8,
    seconds: u64,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let flags = prop_oneof![Just(tcp::SYN), Just(tcp::SYN | tcp::ACK), Just(tcp::ACK)];
    let seconds = prop_oneof![9 => 0u64..3, 1 => Just(61), 1 => Just(8_001)];
    let event = (0usize..3, any::<bool>(), 80u16..82, 80u16..82, any::<bool>(), flags, seconds).prop_map(
        |(peer, from_pod, pod_port, peer_port, udp, flags, seconds)| Event {
            peer,
            from_pod,
            pod_port,
            peer_port,
            udp,
            flags: if udp { 0 } else { flags },
            seconds,
        },
    );
    proptest::collection::vec(event, 0..60)
}

/// A connection as a person would note it down: who called whom, whether they answered, when they last spoke.
#[derive(Clone, Copy, Debug)]
struct Noted {
    peer: usize,
    by_pod: bool,
    ports: (u16, u16),
    udp: bool,
    answered: bool,
    last: u64,
}

#[derive(Default)]
struct Model {
    noted: Vec<Noted>,
}

impl Model {
    fn find(&mut self, event: Event, by_pod: bool, now: u64) -> Option<&mut Noted> {
        self.noted.iter_mut().find(|noted| {
            let lifetime = if noted.udp || !noted.answered { 60 } else { 8_000 };
            noted.peer == event.peer
                && noted.by_pod == by_pod
                && noted.ports == (event.pod_port, event.peer_port)
                && noted.udp == event.udp
                && now - noted.last <= lifetime
        })
    }

    fn admits(&mut self, event: Event, allowed: bool, now: u64) -> bool {
        let asks = event.flags == tcp::SYN;
        if !asks && let Some(noted) = self.find(event, !event.from_pod, now) {
            (noted.answered, noted.last) = (true, now);
            return true;
        }
        if !allowed {
            return false;
        }
        if let Some(noted) = self.find(event, event.from_pod, now) {
            noted.last = now;
            noted.answered &= !asks;
            return true;
        }
        if event.flags == tcp::SYN | tcp::ACK {
            return false;
        }
        let Event { peer, from_pod: by_pod, udp, .. } = event;
        let ports = (event.pod_port, event.peer_port);
        self.noted
            .retain(|noted| (noted.peer, noted.by_pod, noted.ports, noted.udp) != (peer, by_pod, ports, udp));
        self.noted.push(Noted { peer, by_pod, ports, udp, answered: false, last: now });
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Whatever packets come in whatever order, what passes is what a list of connections says.
    #[test]
    fn what_passes_is_what_a_list_of_connections_says(
        events in events(),
        ingress_of in proptest::collection::vec(any::<bool>(), 3), egress_of in proptest::collection::vec(any::<bool>(), 3),
        enforced: (bool, bool),
    ) {
        let mut tables = Tables::default();
        for (set, allowed) in [(INGRESS, &ingress_of), (EGRESS, &egress_of)] {
            for ((_, peer), _) in PEERS.iter().zip(allowed).filter(|(_, allowed)| **allowed) {
                allow(&mut tables, set, *peer);
            }
        }
        let set = |set, enforced| if enforced { set } else { PolicySet::NOT_ENFORCED };
        let pod = endpoint(set(INGRESS, enforced.0), set(EGRESS, enforced.1));
        let mut model = Model::default();
        let mut now = 0;
        for event in events {
            now += event.seconds;
            let (address, peer) = PEERS[event.peer];
            let protocol = if event.udp { protocol::UDP } else { protocol::TCP };
            let (here, there) = ((POD, event.pod_port), (address, event.peer_port));
            let (flow, direction) = if event.from_pod {
                (packet(here, there, protocol, event.flags), Direction::Egress)
            } else {
                (packet(there, here, protocol, event.flags), Direction::Ingress)
            };
            let allowed = if event.from_pod {
                !enforced.1 || egress_of[event.peer]
            } else {
                !enforced.0 || ingress_of[event.peer] || peer == identity::HOST
            };
            let passed = admit(&tables, &pod, direction, &mut { flow }, peer, now * SECOND, SHIFT).is_ok();
            prop_assert_eq!(passed, model.admits(event, allowed, now), "{:?} at {}", event, now);
        }
    }
}
