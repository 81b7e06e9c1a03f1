//! Map work: what a change costs, and a node that starts with everything to learn.

use std::time::Instant;

use anyhow::Result;
use landbridge_bpf_loader::MapSizes;
use landbridge_bpf_loader::maps::{Backend, ServiceKey, ServiceSettings};

use super::kube_proxy::{SERVICE_PORT, service_address};
use super::median;
use super::node::{Network, take_over};
use crate::report::{Goal, Row};

/// Services, and how long loading them may take, in milliseconds.
const LOADS: [(u32, f64); 2] = [(20_000, 50.0), (100_000, 300.0)];
const BACKENDS: u32 = 3;
const CHANGES: u32 = 10_000;
const TCP: u8 = 6;

pub(super) fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (count, most) in LOADS {
        let network = Network::start(1, 2)?;
        let sizes = MapSizes { services: count, backends: 4 * count + 1024, ..MapSizes::default() };
        let mut datapath = take_over(&network, 1, 2, sizes)?;
        let key = |number| ServiceKey {
            address: service_address(number).into(),
            port: SERVICE_PORT.to_be_bytes(),
            protocol: TCP,
            scope: 0,
        };
        let run = |number: u32| -> Vec<Backend> {
            let address = |place| service_address(number * BACKENDS + place).into();
            (0..BACKENDS).map(|place| Backend::new(address(place), 8080u16.to_be_bytes(), 1)).collect()
        };
        let settings = |number| ServiceSettings { service: number + 1, ..ServiceSettings::default() };
        let runs: Vec<Vec<Backend>> = (0..count).map(run).collect();
        let all =
            (0..count).zip(&runs).map(|(number, run)| (key(number), (settings(number), run.as_slice())));
        let all = all.collect();
        let start = Instant::now();
        datapath.services().load(&all)?;
        let load = start.elapsed().as_secs_f64() * 1e3;
        rows.push(Row::new(
            format!("load of {count} services of {BACKENDS} backends"),
            "ms",
            (Some(load), None),
            Goal::AtMost(most),
        ));
        let mut changes = Vec::new();
        for turn in 0..CHANGES {
            let number = turn.wrapping_mul(7919) % count;
            let backends = run(number + 1 + turn);
            let start = Instant::now();
            datapath.services().set(key(number), settings(number), &backends)?;
            changes.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let metric = format!("change of one of {count} services");
        rows.push(Row::new(metric, "us", (Some(median(changes)), None), Goal::AtMost(10.0)));
    }
    Ok(rows)
}
