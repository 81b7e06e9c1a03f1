//! How long the programs take for one packet, by the kernel's own measure (`BPF_PROG_TEST_RUN`).

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result};
use landbridge_bpf_loader::maps::{
    Address, Endpoint, EventKind, IpcacheEntry, KeyForms, NodeConfig, NodeEntry, NodeNumber, PeerKind,
    PolicyEntry, PolicyKey, PolicySet, PolicyVerdict, identity,
};
use landbridge_bpf_loader::{Build, Interest, MapSizes, Trial, TrialPacket};

use crate::report::{Goal, Report, Row};

/// How long each program takes for one packet
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each figure is measured; the table has the medians
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
}

/// Packets of one measurement of a known flow.
const RUNS: u32 = 100_000;
/// Packets of one measurement of new flows, each of which is a run of its own.
const NEW_FLOWS: u16 = 5_000;
const SHIFT: u32 = 16;
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 10);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 2, 1, 10);
const ACK: u8 = 16;
const SYN: u8 = 2;

impl Args {
    pub(crate) fn measure(self) -> Result<Report> {
        let few = node(10)?;
        let many = node(200_000)?;
        let median = |once: &mut dyn FnMut() -> Result<f64>| -> Result<f64> {
            let mut figures = (0..self.repeats).map(|_| once()).collect::<Result<Vec<_>>>()?;
            figures.sort_by(f64::total_cmp);
            Ok(figures[figures.len() / 2])
        };
        let known = median(&mut || known_flow(&few))?;
        let known_of_many = median(&mut || known_flow(&many))?;
        let new = median(&mut || new_flows(&few))?;
        let mut listened = node(10)?;
        let per_second = NonZeroU32::new(10_000_000).context("a number that is not 0")?;
        let interest = Interest { kinds: &EventKind::ALL, per_second, lease: Duration::from_mins(10) };
        listened.events.listen(&interest)?;
        let told = median(&mut || {
            let figure = new_flows(&listened)?;
            while listened.events.read().is_some() {}
            Ok(figure)
        })?;
        let row = |metric: &str, ours: f64, goal| Row::new(metric, "ns", (Some(ours), None), goal);
        Ok(Report {
            bench: "datapath-programs",
            peer: "none".to_owned(),
            command: format!("cargo xtask bench datapath-programs --repeats {}", self.repeats),
            rows: vec![
                row("a packet of a known flow from a pod, 10 rules", known, Goal::AtMost(70.0)),
                row("the same, 200,000 rules", known_of_many, Goal::AtMost(70.0)),
                row("the first packet of a flow from a pod, with policy", new, Goal::AtMost(1_000.0)),
                row("the same, with events told", told, Goal::AtMost(1_000.0)),
            ],
        })
    }
}

/// A pod whose policy has this many rules, and one of another node.
fn node(rules: u32) -> Result<Trial> {
    let config = NodeConfig {
        router: Ipv4Addr::new(10, 1, 1, 1).into(),
        health: Ipv4Addr::new(10, 1, 1, 2).into(),
        cluster: 1,
        cluster_shift: SHIFT,
        ..NodeConfig::default()
    };
    let mut trial = Trial::load(Build::Released, config, &MapSizes::default())?;
    let set = PolicySet(1);
    let far = IpcacheEntry { identity: (2 << SHIFT) + 300, node: NodeNumber(1) };
    trial.tables.ipcache().upsert(&FAR.into(), &far)?;
    let underlay = Address::from(Ipv4Addr::new(172, 30, 2, 1));
    trial.tables.nodes().set(NodeNumber(1), NodeEntry { underlay, cluster: 2 })?;
    let allow = PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() };
    let mesh = PolicyKey { set, kind: PeerKind::Mesh as u8, ..PolicyKey::default() };
    let peers = identity::FIRST_ALLOCATED..identity::FIRST_ALLOCATED + rules.saturating_sub(1);
    let of_peer = |peer| PolicyKey { set, peer, kind: PeerKind::Identity as u8, ..PolicyKey::default() };
    let keys: Vec<PolicyKey> = peers.map(of_peer).chain([mesh]).collect();
    for key in &keys {
        trial.tables.policy().upsert(key, &allow)?;
    }
    let pod = Endpoint {
        interface: 1,
        identity: (1 << SHIFT) + 300,
        egress: set,
        egress_lacks: KeyForms::lacked_by(&keys),
        ..Endpoint::default()
    };
    trial.tables.endpoints().upsert(&POD.into(), &pod)?;
    Ok(trial)
}

/// Nanoseconds of a packet of a flow that is known.
fn known_flow(trial: &Trial) -> Result<f64> {
    // The first one begins, and of the second everything is known afterwards.
    for flags in [SYN, ACK] {
        trial.run("from_pod", &TrialPacket::new(&segment(40_000, flags)))?;
    }
    let result = trial.run_repeatedly("from_pod", &TrialPacket::new(&segment(40_000, ACK)), RUNS)?;
    Ok(nanoseconds(result.duration))
}

/// Nanoseconds of the first packet of a flow, the mean of many.
fn new_flows(trial: &Trial) -> Result<f64> {
    let mut sum = 0.0;
    for port in 1..=NEW_FLOWS {
        sum += nanoseconds(trial.run("from_pod", &TrialPacket::new(&segment(port, SYN)))?.duration);
    }
    Ok(sum / f64::from(NEW_FLOWS))
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A TCP segment without data from the pod to the other one.
fn segment(port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(POD.octets());
    frame.extend(FAR.octets());
    frame.extend(port.to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    frame
}
