//! What the programs tell of packets, and that they tell nothing when nobody listens.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use landbridge_bpf_loader::maps::{
    Address, Direction, Endpoint, Event, EventKind, IpcacheEntry, NodeEntry, NodeNumber, PolicySet, Reason,
    TracePoint,
};
use landbridge_bpf_loader::{Build, Interest, MapSizes, Trial, TrialPacket};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{SIZES, identity_of, wait_until};
use super::packets::{self, ACK, FIN, Ip, SYN, TCP, UDP};
use super::trial;

const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 10);
const PLENTY: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
const LONG: Duration = Duration::from_mins(10);
const EVERYTHING: Interest<'static> = Interest { kinds: &EventKind::ALL, per_second: PLENTY, lease: LONG };

/// A pod, its neighbour with rules that allow nothing, and a pod of another node.
fn node(sizes: &MapSizes) -> Trial {
    let mut trial = Trial::load(Build::Released, trial::config(), sizes).unwrap();
    let pod = |interface: u32, number: u32, ingress: u32| Endpoint {
        interface,
        identity: identity_of(1, number),
        ingress: PolicySet(ingress),
        ..Endpoint::default()
    };
    let tables = &mut trial.tables;
    tables.endpoints().upsert(&POD.into(), &pod(trial::INTERFACE, 300, 0)).unwrap();
    tables.endpoints().upsert(&NEIGHBOUR.into(), &pod(7, 301, 9)).unwrap();
    let far = IpcacheEntry { identity: identity_of(2, 300), node: NodeNumber(1) };
    tables.ipcache().upsert(&FAR.into(), &far).unwrap();
    let underlay = Address::from(Ipv4Addr::new(172, 30, 2, 1));
    tables.nodes().set(NodeNumber(1), NodeEntry { underlay, cluster: 2 }).unwrap();
    trial
}

fn send(trial: &Trial, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> usize {
    let frame = Ip::new(source, destination, protocol).frame(payload);
    trial.run("from_pod", &TrialPacket { interface: trial::INTERFACE, ..TrialPacket::new(&frame) }).unwrap();
    frame.len()
}

fn told(trial: &mut Trial) -> Vec<Event> {
    std::iter::from_fn(|| trial.events.read()).collect()
}

fn kinds(events: &[Event]) -> Vec<(u8, u8)> {
    events.iter().map(|event| (event.kind, event.sub_type)).collect()
}

const DROP: u8 = EventKind::Drop as u8;
const TRACE: u8 = EventKind::Trace as u8;
const VERDICT: u8 = EventKind::PolicyVerdict as u8;

#[test]
fn a_connection_is_told_of_when_it_opens_and_closes_and_a_drop_with_its_reason() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let mut trial = node(&SIZES);
    let segment = |flags| packets::tcp(40_000, 443, flags, b"");
    send(&trial, POD, FAR, TCP, &segment(SYN));
    assert_eq!(told(&mut trial), [], "nobody listens");

    trial.events.listen(&EVERYTHING).unwrap();
    let len = send(&trial, POD, FAR, TCP, &segment(SYN));
    let events = told(&mut trial);
    assert_eq!(kinds(&events), [(TRACE, TracePoint::ToOverlay as u8)]);
    let expected = Event {
        time: events[0].time,
        source: POD.into(),
        destination: FAR.into(),
        source_identity: identity_of(1, 300),
        destination_identity: identity_of(2, 300),
        interface: trial::INTERFACE,
        source_port: 40_000u16.to_be_bytes(),
        destination_port: 443u16.to_be_bytes(),
        len: u16::try_from(len).unwrap(),
        kind: TRACE,
        sub_type: TracePoint::ToOverlay as u8,
        protocol: TCP,
        tcp_flags: SYN,
        direction: Direction::Egress as u8,
        flags: Event::OPENS | Event::TRACKED,
    };
    assert_eq!(events, [expected]);
    send(&trial, POD, FAR, TCP, &segment(ACK));
    assert_eq!(told(&mut trial), [], "a packet like others before it");
    send(&trial, POD, FAR, TCP, &segment(FIN | ACK));
    let events = told(&mut trial);
    assert_eq!(kinds(&events), [(TRACE, TracePoint::ToOverlay as u8)]);
    assert_eq!(events[0].flags, Event::CLOSES | Event::TRACKED);

    send(&trial, POD, NEIGHBOUR, UDP, &packets::udp(1, 53, b""));
    let denied = Reason::POLICY_DENIED.0;
    let events = told(&mut trial);
    assert_eq!(kinds(&events), [(VERDICT, denied), (DROP, denied)]);
    for event in &events {
        assert_eq!(IpAddr::from(event.source), IpAddr::V4(POD));
        assert_eq!(
            (event.source_identity, event.destination_identity),
            (identity_of(1, 300), identity_of(1, 301))
        );
        assert_eq!((event.direction, event.destination_port), (Direction::Ingress as u8, [0, 53]));
    }
    // One that is cut off is told of as well, as far as it can be read.
    let frame = Ip::new(POD, FAR, TCP).frame(&[]);
    trial.run("from_pod", &TrialPacket { interface: trial::INTERFACE, ..TrialPacket::new(&frame) }).unwrap();
    let events = told(&mut trial);
    assert_eq!(kinds(&events), [(DROP, Reason::INVALID_PACKET.0)]);
    assert!(events[0].source == POD.into() && usize::from(events[0].len) == frame.len());
    assert!(events.iter().all(|event| event.time > 0));
}

#[test]
fn only_what_is_listened_to_is_told_and_only_while_someone_listens() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let mut trial = node(&SIZES);
    let denied = |trial: &Trial| send(trial, POD, NEIGHBOUR, UDP, &packets::udp(1, 53, b""));
    trial.events.listen(&Interest { kinds: &[EventKind::Drop], ..EVERYTHING }).unwrap();
    denied(&trial);
    assert_eq!(kinds(&told(&mut trial)), [(DROP, Reason::POLICY_DENIED.0)]);
    // A listener that does not come back.
    trial.events.listen(&Interest { lease: Duration::from_millis(50), ..EVERYTHING }).unwrap();
    wait_until("nothing is told any more", || {
        denied(&trial);
        told(&mut trial).is_empty()
    });
    trial.events.listen(&EVERYTHING).unwrap();
    denied(&trial);
    assert_eq!(told(&mut trial).len(), 2);
}

#[test]
fn what_is_not_told_is_counted() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    // A page, for 56 records.
    let mut trial = node(&MapSizes { events: 4096, ..SIZES });
    let denied = |trial: &Trial| send(trial, POD, NEIGHBOUR, UDP, &packets::udp(1, 53, b""));
    let drops = Interest { kinds: &[EventKind::Drop], ..EVERYTHING };
    trial.events.listen(&drops).unwrap();
    assert!(!trial.events.wait(Duration::ZERO).unwrap());
    for _ in 0..100 {
        denied(&trial);
    }
    let lost = trial.events.lost().unwrap();
    let read = told(&mut trial).len() as u64;
    assert!((50..=56).contains(&read), "{read} records in a page");
    assert_eq!((lost.limited, lost.overflowed + read), (0, 100));

    // One in a minute, after the one that is saved.
    let rare = Interest { per_second: NonZeroU32::MIN, ..drops };
    trial.events.listen(&rare).unwrap();
    for _ in 0..100 {
        denied(&trial);
    }
    let read = told(&mut trial).len() as u64;
    let after = trial.events.lost().unwrap();
    assert_eq!((after.limited + read, after.overflowed), (100, lost.overflowed));
    assert!(read < 50, "{read}");
}

#[test]
fn a_listener_is_woken_when_the_ring_fills_up_and_not_before() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    // A quarter of the ring is 227 records.
    let mut trial = node(&MapSizes { events: 1 << 16, ..SIZES });
    trial.events.listen(&Interest { kinds: &[EventKind::Drop], ..EVERYTHING }).unwrap();
    let events = std::mem::replace(&mut trial.events, node(&SIZES).events);
    let denied = |count: usize| {
        for _ in 0..count {
            send(&trial, POD, NEIGHBOUR, UDP, &packets::udp(1, 53, b""));
        }
    };
    let (tell, told) = mpsc::channel();
    let waiting = thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        let woken = events.wait(LONG).unwrap();
        tell.send(rustix::thread::gettid()).unwrap();
        (woken, events)
    });
    let id = told.recv().unwrap().as_raw_nonzero();
    let sleeps = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    };
    wait_until("the listener waits", sleeps);
    denied(100);
    assert!(sleeps() && told.try_recv().is_err(), "woken for a few");
    denied(200);
    told.recv_timeout(LONG).unwrap();
    let (woken, mut events) = waiting.join().unwrap();
    assert!(woken);
    assert_eq!(std::iter::from_fn(|| events.read()).count(), 300);
}
