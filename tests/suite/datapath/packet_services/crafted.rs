//! Packets of services made by hand, and what the programs make of them.

use std::net::{IpAddr, Ipv4Addr};

use landbridge_bpf_loader::maps::{
    Algorithm, Backend, Direction, Endpoint, IpcacheEntry, NodeEntry, NodeNumber, Reason, ServiceFlowKey,
    ServiceKey, ServiceSettings, Step,
};
use landbridge_bpf_loader::{Build, Trial, TrialAction, TrialPacket, TrialResult};
use landbridge_lab::requirement::{Requirement, met};

use super::super::fixture::{SIZES, addresses, identity_of};
use super::super::packets::{self, ACK, DONT_FRAGMENT, ICMP, Ip, SYN, TCP, checksum};
use super::super::trial;

const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 12);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 10);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 30, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 8);
const HAIRPIN: Ipv4Addr = Ipv4Addr::new(169, 254, 42, 1);
// Of the client, of the service, of the backend.
const CLIENT_PORT: u16 = 40_000;
const PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;
const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// Three pods of this node on one interface, and one of another node.
fn node(build: Build) -> Trial {
    let mut trial = Trial::load(build, trial::config(), &SIZES).unwrap();
    for (address, number) in [(POD, 300), (FIRST, 301), (SECOND, 302)] {
        let identity = identity_of(1, number);
        let endpoint = Endpoint { interface: trial::INTERFACE, identity, ..Endpoint::default() };
        trial.tables.endpoints().upsert(&address.into(), &endpoint).unwrap();
    }
    let far = IpcacheEntry { identity: identity_of(2, 300), node: NodeNumber(1) };
    trial.tables.ipcache().upsert(&FAR.into(), &far).unwrap();
    trial.tables.nodes().set(NodeNumber(1), NodeEntry { underlay: UNDERLAY.into(), cluster: 2 }).unwrap();
    trial
}

fn serve(trial: &mut Trial, service: Ipv4Addr, backends: &[IpAddr]) {
    let key = ServiceKey { address: service.into(), port: PORT.to_be_bytes(), protocol: TCP, scope: 0 };
    let settings = ServiceSettings { service: 5, algorithm: Algorithm::RoundRobin, affinity_seconds: 0 };
    let port = BACKEND_PORT.to_be_bytes();
    let backends: Vec<Backend> =
        backends.iter().map(|address| Backend::new((*address).into(), port, 1)).collect();
    trial.tables.services().set(key, settings, &backends).unwrap();
}

fn run(trial: &Trial, program: &'static str, frame: &[u8]) -> TrialResult {
    let tunnel = Some((identity_of(2, 300), UNDERLAY.into()));
    trial.run(program, &TrialPacket { tunnel, ..TrialPacket::new(frame) }).unwrap()
}

/// What the client sends to a service.
fn call(service: Ipv4Addr, port: u16, flags: u8) -> Vec<u8> {
    Ip::new(POD, service, TCP).frame(&packets::tcp(port, PORT, flags, b"data"))
}

/// What a backend answers whom it sees.
fn answer(backend: Ipv4Addr, client: Ipv4Addr) -> Vec<u8> {
    let segment = packets::tcp(BACKEND_PORT, CLIENT_PORT, SYN | ACK, b"data");
    Ip::new(backend, client, TCP).frame(&segment)
}

/// Who a segment is from and for; an error if a checksum is wrong.
fn ends(frame: &[u8]) -> Result<[(IpAddr, u16); 2], String> {
    let (source, destination) = addresses(frame).ok_or("it is not of IP")?;
    let (header, segment) = frame[14..].split_at(20);
    let mut covered = header[12..20].to_vec();
    covered.extend([0, TCP]);
    covered.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    covered.extend(segment);
    if [checksum(header), checksum(&covered)] != [0, 0] {
        return Err(format!("wrong checksums in {frame:x?}"));
    }
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    Ok([(source, port(0)), (destination, port(2))])
}

fn expect_ends(
    result: &TrialResult,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
) -> Result<(), String> {
    let right = [(source.0.into(), source.1), (destination.0.into(), destination.1)];
    match ends(&result.frame)? {
        ends if ends == right && result.action != TrialAction::Drop => Ok(()),
        ends => Err(format!("{ends:?} and not {right:?}: {:?}", result.action)),
    }
}

/// Packets reach the backend that the service has now, and answers come from the service.
pub(in super::super) fn packets_reach_the_backend_of_now(build: Build) -> Result<(), String> {
    let mut trial = node(build);
    for (backend, port) in [(FIRST, CLIENT_PORT - 1), (SECOND, CLIENT_PORT)] {
        serve(&mut trial, VIP, &[backend.into()]);
        let sent = run(&trial, "from_pod", &call(VIP, port, SYN));
        expect_ends(&sent, (POD, port), (backend, BACKEND_PORT))?;
    }
    expect_ends(&run(&trial, "from_pod", &answer(SECOND, POD)), (VIP, PORT), (POD, CLIENT_PORT))
}

fn drops(trial: &Trial, program: &'static str, frame: &[u8], reason: Reason, direction: Direction) {
    let count = || trial.tables.count(reason, direction).unwrap().packets;
    let before = count();
    assert_eq!(run(trial, program, frame).action, TrialAction::Drop, "{}", reason.name());
    assert_eq!(count(), before + 1, "{}: {:?}", reason.name(), trial.tables.counts());
}

#[test]
fn services_that_cannot_serve_drop_packets_each_with_its_reason() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    assert_eq!(packets_reach_the_backend_of_now(Build::Released), Ok(()));
    let mut trial = node(Build::Released);
    for nobody in [&[][..], &[trial::v6(1, 11).into()]] {
        serve(&mut trial, VIP, nobody);
        drops(&trial, "from_pod", &call(VIP, CLIENT_PORT, SYN), Reason::NO_SERVICE_BACKEND, OUT);
    }
    // Two connections that the one backend would take for one.
    serve(&mut trial, VIP, &[FIRST.into()]);
    serve(&mut trial, OTHER_VIP, &[FIRST.into()]);
    run(&trial, "from_pod", &call(VIP, CLIENT_PORT, SYN));
    drops(&trial, "from_pod", &call(OTHER_VIP, CLIENT_PORT, SYN), Reason::CONNECTION_NOT_TRACKED, OUT);
    // An answer whose service is forgotten, until the client speaks again.
    let flows = trial.tables.service_flows().entries().unwrap();
    for key in flows.keys().filter(|key| key.way == ServiceFlowKey::FROM_BACKEND) {
        trial.tables.service_flows().remove(key).unwrap();
    }
    drops(&trial, "from_pod", &answer(FIRST, POD), Reason::CONNECTION_NOT_TRACKED, IN);
    run(&trial, "from_pod", &call(VIP, CLIENT_PORT, ACK));
    expect_ends(&run(&trial, "from_pod", &answer(FIRST, POD)), (VIP, PORT), (POD, CLIENT_PORT)).unwrap();
    // A program that is not there.
    for (step, frame, direction) in [
        (Step::AsService, answer(FIRST, POD), IN),
        (Step::ToBackend, call(VIP, CLIENT_PORT, ACK), OUT),
        (Step::ToService, call(VIP, CLIENT_PORT, ACK), OUT),
    ] {
        trial.disconnect(step).unwrap();
        drops(&trial, "from_pod", &frame, Reason::MISSED_TAIL_CALL, direction);
    }
}

#[test]
fn a_pod_that_is_its_own_backend_sees_another_address() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let mut trial = node(Build::Released);
    serve(&mut trial, VIP, &[POD.into()]);
    let sent = run(&trial, "from_pod", &call(VIP, CLIENT_PORT, SYN));
    expect_ends(&sent, (HAIRPIN, CLIENT_PORT), (POD, BACKEND_PORT)).unwrap();
    let answered = run(&trial, "from_pod", &answer(POD, HAIRPIN));
    expect_ends(&answered, (VIP, PORT), (POD, CLIENT_PORT)).unwrap();
    // Of anybody else that address is one like any other.
    let other = answer(FIRST, HAIRPIN);
    assert_eq!(run(&trial, "from_pod", &other).frame, other);
}

#[test]
fn answers_of_other_nodes_and_of_the_world_come_from_the_service() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    for (program, backend) in
        [("from_overlay", FAR), ("from_uplink", WORLD), ("to_pod", WORLD), ("from_pod", FIRST)]
    {
        let mut trial = node(Build::Trial(None));
        serve(&mut trial, VIP, &[backend.into()]);
        let sent = run(&trial, "from_pod", &call(VIP, CLIENT_PORT, SYN));
        expect_ends(&sent, (POD, CLIENT_PORT), (backend, BACKEND_PORT)).unwrap();
        let answered = run(&trial, program, &answer(backend, POD));
        expect_ends(&answered, (VIP, PORT), (POD, CLIENT_PORT))
            .unwrap_or_else(|difference| panic!("{program}: {difference} {:?}", trial.tables.counts()));
    }
}

/// Where an error quotes whom the packet was for, if the frame is one.
fn quoted(frame: &[u8]) -> (Ipv4Addr, u16) {
    assert_eq!(frame[23], ICMP);
    assert_eq!(checksum(&frame[34..]), 0);
    let address: [u8; 4] = frame[58..62].try_into().unwrap();
    (address.into(), u16::from_be_bytes([frame[64], frame[65]]))
}

#[test]
fn errors_name_the_service_that_the_pod_called() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let mut trial = node(Build::Released);
    serve(&mut trial, VIP, &[FAR.into()]);
    let last_hop = Ip { ttl: 1, ..Ip::new(POD, VIP, TCP) };
    let expired = run(&trial, "from_pod", &last_hop.frame(&packets::tcp(CLIENT_PORT, PORT, SYN, b"")));
    assert_eq!(quoted(&expired.frame), (VIP, PORT));
    let large = packets::tcp(CLIENT_PORT, PORT, SYN, &[0; trial::OVERLAY_MTU as usize]);
    let large = Ip { fragment: DONT_FRAGMENT, ..Ip::new(POD, VIP, TCP) }.frame(&large);
    assert_eq!(quoted(&run(&trial, "from_pod", &large).frame), (VIP, PORT));
    let counts = [Reason::TTL_EXCEEDED, Reason::FRAGMENTATION_NEEDED]
        .map(|reason| trial.tables.count(reason, OUT).unwrap().packets);
    assert_eq!(counts, [1, 1]);
    // A pod of this node, which knows the client by its address, tells of the connection to itself.
    serve(&mut trial, VIP, &[FIRST.into()]);
    run(&trial, "from_pod", &call(VIP, CLIENT_PORT, SYN));
    let about = Ip::new(POD, FIRST, TCP).packet(&packets::tcp(CLIENT_PORT, BACKEND_PORT, SYN, b""));
    let error = packets::icmp(3, 3, [0; 4], &about);
    let told = run(&trial, "from_pod", &Ip::new(FIRST, POD, ICMP).frame(&error));
    assert_eq!(quoted(&told.frame), (VIP, PORT));
    assert_eq!(addresses(&told.frame).unwrap(), (VIP.into(), POD.into()));
}
