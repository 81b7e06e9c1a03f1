//! Bugs are planted in the programs, and the checks have to find each of them.

use std::net::Ipv4Addr;

use landbridge_bpf_loader::Build;
use landbridge_bpf_loader::maps::{Backend, Planted, ServiceKey, ServiceSettings};
use landbridge_lab::requirement::{Requirement, met};

use super::connections::known_flows_follow_the_rules;
use super::fixture::{address, one_node, opened};
use super::fuzz::{self, Plan};
use super::packet_services::crafted::packets_reach_the_backend_of_now;
use super::packets::TCP;
use super::services::{ask, named_server};

/// Enough that each bug is met hundreds of times.
const PACKETS: u64 = 20_000;

/// A check of the datapath: what is wrong with a build.
type Check = fn(Build) -> Result<(), String>;

fn packets_end_as_a_model_says(build: Build) -> Result<(), String> {
    let programs = &["from_pod", "to_pod", "from_overlay"];
    let plan = Plan { build, programs, is_direct: false, seed: 7, packets: PACKETS };
    fuzz::run(&plan).map(drop)
}

fn sockets_reach_the_backend_of_now_and_see_the_service(build: Build) -> Result<(), String> {
    let (_lab, host) = one_node("planted");
    let mut datapath = opened(&host, build);
    let service = Ipv4Addr::new(10, 96, 0, 9);
    let key = ServiceKey { address: address(service), port: [0, 80], protocol: TCP, scope: 0 };
    let local = Ipv4Addr::LOCALHOST;
    for name in ["first", "second"] {
        let port = named_server(&host, local, name).to_be_bytes();
        let backend = Backend { address: address(local), port, cluster: 1, ..Backend::default() };
        datapath.services().set(key, ServiceSettings::default(), &[backend]).unwrap();
        let (answer, right) =
            (ask(&host, &format!("connect {service}:80")), format!("{service}:80 says {name}"));
        if answer != right {
            return Err(format!("{answer:?} is not {right:?}"));
        }
    }
    Ok(())
}

#[test]
fn every_planted_bug_is_found() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (packets, sockets, known): (Check, Check, Check) = (
        packets_end_as_a_model_says,
        sockets_reach_the_backend_of_now_and_see_the_service,
        known_flows_follow_the_rules,
    );
    let services: Check = packets_reach_the_backend_of_now;
    for check in [packets, sockets, services, known] {
        assert_eq!(check(Build::Trial(None)), Ok(()), "without a bug");
    }
    for bug in Planted::BUGS {
        let checks = match bug {
            Planted::WrongReverseEntry | Planted::StaleBackend => vec![sockets, services],
            Planted::KnownForever => vec![known],
            _ => vec![packets],
        };
        for check in checks {
            let difference = check(Build::Trial(Some(bug))).expect_err("the planted bug survives");
            println!("{bug:?} was found: {}", difference.lines().next().unwrap_or_default());
        }
    }
}
