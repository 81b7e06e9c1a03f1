//! What is remembered of connections when there is no room for all of them, and when both sides speak at once.

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;

use landbridge_bpf_loader::maps::{
    Direction, Endpoint, PeerKind, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict, Reason,
};
use landbridge_bpf_loader::{Build, MapSizes, Trial, TrialAction, TrialPacket};
use landbridge_lab::requirement::{Requirement, met};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::fixture::{SIZES, identity_of};
use super::packets::{self, ACK, Ip, SYN, TCP};
use super::trial;

const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// How many connections there is room for.
const ROOM: u32 = 64;

/// A pod that may call everybody and may be called by nobody.
fn node(connections: u32) -> Trial {
    node_of(Build::Released, connections)
}

fn node_of(build: Build, connections: u32) -> Trial {
    let sizes = MapSizes { connections, ..SIZES };
    let mut trial = Trial::load(build, trial::config(), &sizes).unwrap();
    let pod = Endpoint {
        interface: trial::INTERFACE,
        identity: identity_of(1, 300),
        ingress: PolicySet(1),
        egress: PolicySet(2),
        ..Endpoint::default()
    };
    trial.tables.endpoints().upsert(&POD.into(), &pod).unwrap();
    let allow = PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() };
    trial.tables.policy().upsert(&EVERYBODY, &allow).unwrap();
    trial
}

/// The rule by which it may call.
const EVERYBODY: PolicyKey = PolicyKey {
    set: PolicySet(2),
    peer: 0,
    port: [0; 2],
    protocol: 0,
    kind: PeerKind::Any as u8,
    port_bits: 0,
    reserved: [0; 3],
};

fn call(trial: &Trial, port: u16, flags: u8) -> TrialAction {
    let frame = Ip::new(POD, WORLD, TCP).frame(&packets::tcp(port, 443, flags, b""));
    let packet = TrialPacket { interface: trial::INTERFACE, ..TrialPacket::new(&frame) };
    trial.run("from_pod", &packet).unwrap().action
}

fn answer(trial: &Trial, port: u16, flags: u8) -> TrialAction {
    let frame = Ip::new(WORLD, POD, TCP).frame(&packets::tcp(443, port, flags, b""));
    let packet =
        TrialPacket { interface: trial::INTERFACE, arrival_interface: 5, ..TrialPacket::new(&frame) };
    trial.run("to_pod", &packet).unwrap().action
}

#[test]
fn a_full_map_stops_no_new_connection_and_lets_nobody_in() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let mut trial = node(ROOM);
    const FIRST: u16 = 1000;
    for port in FIRST..FIRST + 2000 {
        assert_eq!(call(&trial, port, SYN), TrialAction::Pass, "{port}");
        assert_eq!(answer(&trial, port, SYN | ACK), TrialAction::Pass, "the answer to {port}");
    }
    assert!(trial.tables.connections().entries().unwrap().len() <= ROOM as usize);
    let denied = || trial.tables.count(Reason::POLICY_DENIED, Direction::Ingress).unwrap().packets;
    assert_eq!(denied(), 0);
    assert_eq!(answer(&trial, FIRST, ACK), TrialAction::Drop, "one that is forgotten");
    assert_eq!(denied(), 1);
    // Its owner goes on, and it is known again.
    assert_eq!(call(&trial, FIRST, ACK), TrialAction::Pass);
    assert_eq!(answer(&trial, FIRST, ACK), TrialAction::Pass);
}

/// Says what is wrong with how packets of a flow that is known follow the rules.
pub(super) fn known_flows_follow_the_rules(build: Build) -> Result<(), String> {
    let mut trial = node_of(build, SIZES.connections);
    let allow = trial.tables.policy().get(&EVERYBODY).unwrap().unwrap();
    let expect = |trial: &Trial, what: &str, flags, expected| {
        let action = call(trial, 1000, flags);
        if action == expected { Ok(()) } else { Err(format!("{what}: {action:?}")) }
    };
    expect(&trial, "the first packet", SYN, TrialAction::Pass)?;
    for number in 2..5 {
        expect(&trial, &format!("packet {number}"), ACK, TrialAction::Pass)?;
    }
    assert!(trial.tables.policy().remove(&EVERYBODY).unwrap());
    expect(&trial, "a packet whose rule was taken back", ACK, TrialAction::Drop)?;
    trial.tables.policy().upsert(&EVERYBODY, &allow).unwrap();
    expect(&trial, "a packet whose rule is there again", ACK, TrialAction::Pass)
}

#[test]
fn both_sides_may_speak_at_once_on_two_cpus() {
    if !met(&[Requirement::Ebpf]) {
        return;
    }
    let trial = node(SIZES.connections);
    const ROUNDS: u16 = 20_000;
    assert_eq!(call(&trial, 1000, SYN), TrialAction::Pass);
    let begin = Barrier::new(2);
    let pinned = |cpu: usize| {
        let mut only = CpuSet::new();
        only.set(cpu);
        // On a machine of one CPU they take turns.
        let _ = sched_setaffinity(None, &only);
        begin.wait();
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            pinned(0);
            for round in 0..ROUNDS {
                assert_eq!(call(&trial, 1000, ACK), TrialAction::Pass, "{round}");
            }
        });
        scope.spawn(|| {
            pinned(1);
            for round in 0..ROUNDS {
                assert_eq!(answer(&trial, 1000, ACK), TrialAction::Pass, "{round}");
            }
        });
    });
    let forwarded = |direction| trial.tables.count(Reason::FORWARDED, direction).unwrap().packets;
    assert_eq!(forwarded(Direction::Egress), u64::from(ROUNDS) + 1);
    assert_eq!(forwarded(Direction::Ingress), u64::from(ROUNDS));
}
