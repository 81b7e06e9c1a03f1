//! Our datapath beside what nodes run today: plain routing, the kernel's connection tracking, and the rules of kube-proxy
//! as iptables and as nftables.
//!
//! ```text
//! for each case:  a lab for each contender ─► for each repeat, for each contender in turn: a client for some 0.4 s
//! ```
//!
//! Client and server share one CPU, and every figure is the median of its repeats. Ours has its policy and its connection
//! tracking on; a ratio is to the peer's figure of the same minutes.

mod kube_proxy;
pub(crate) mod load;
mod node;
mod paths;
mod services;
mod updates;

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::report::Report;

/// Connect through services and exchange packets, beside direct routing, iptables and nftables
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure, several times for several; all by default
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// How many services there are, several times for several
    #[arg(long = "services", default_values_t = SERVICES, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    services: Vec<u32>,
    /// How often each contender is measured, in turn; the table has the medians
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// How long each of them is
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    milliseconds: u64,
    /// Only ours and direct routing, without the tables of others
    #[arg(long)]
    alone: bool,
    /// Put the table into docs/benchmarks.md
    #[arg(long)]
    write: bool,
}

/// How many services there are, unless it is said.
const SERVICES: [u32; 5] = [100, 1_000, 5_000, 20_000, 1_000_000];

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// Connections and exchanges through a service.
    Services,
    /// Round trips and bulk between pods.
    Paths,
    /// Writing the maps.
    Updates,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    repeats: u16,
    /// Of one client.
    time: Duration,
}

impl Args {
    pub(crate) fn measure(self) -> Result<Report> {
        let scale = Scale { repeats: self.repeats, time: Duration::from_millis(self.milliseconds) };
        let is_wanted = |case| self.cases.is_empty() || self.cases.contains(&case);
        let mut rows = Vec::new();
        if is_wanted(Case::Services) {
            for count in &self.services {
                rows.extend(services::rows(*count, scale, !self.alone)?);
            }
        }
        if is_wanted(Case::Paths) {
            rows.extend(paths::rows(scale)?);
        }
        if is_wanted(Case::Updates) {
            rows.extend(updates::rows()?);
        }
        let report = Report { bench: "datapath", peer: peers()?, command: self.command(), rows };
        if self.write {
            crate::report::write_section("datapath", &report)?;
        }
        Ok(report)
    }

    fn command(&self) -> String {
        let mut command = format!(
            "cargo xtask bench datapath --repeats {} --milliseconds {}",
            self.repeats, self.milliseconds
        );
        for case in &self.cases {
            let name = clap::ValueEnum::to_possible_value(case).expect("no case is hidden");
            command.push_str(" --case ");
            command.push_str(name.get_name());
        }
        if self.services != SERVICES {
            for count in &self.services {
                let _ = write!(command, " --services {count}");
            }
        }
        if self.alone {
            command.push_str(" --alone");
        }
        command
    }
}

fn peers() -> Result<String> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let output =
            output.with_context(|| format!("cannot run {program}: run `cargo xtask setup --peers`"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let versions: Result<Vec<String>> =
        ["iptables-legacy", "iptables-nft", "nft"].map(version).into_iter().collect();
    Ok(format!("plain routing; {}", versions?.join(", ")))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
