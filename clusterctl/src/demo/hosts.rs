//! `clusterctl demo hosts`: the hosts of a lab with their addresses.

use std::net::IpAddr;

use clap::Args;
use landbridge_lab::{Host, Role};
use serde::Serialize;

use super::LabChoice;
use crate::output::{Format, print_json, print_table};

/// List the hosts of a lab with their addresses
#[derive(Args)]
pub(super) struct Hosts {
    #[command(flatten)]
    lab: LabChoice,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Serialize)]
struct Row {
    name: String,
    role: Role,
    addresses: Vec<IpAddr>,
    network_namespace: String,
    processes: usize,
}

impl Row {
    fn of(host: &Host) -> Self {
        Self {
            name: host.name().to_owned(),
            role: host.role(),
            addresses: host.addresses().map(Vec::from).unwrap_or_default(),
            network_namespace: host.namespace_path().display().to_string(),
            processes: host.processes().len(),
        }
    }
}

impl Hosts {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let lab = self.lab.open()?;
        let rows: Vec<Row> = lab.hosts().map(|host| Row::of(&host)).collect();
        if self.output == Format::Json {
            return print_json(&rows);
        }
        print_table(
            ["NAME", "ROLE", "IPV4", "IPV6", "PROCESSES"],
            rows.into_iter().map(|row| {
                let mut addresses = row.addresses.iter().map(IpAddr::to_string);
                let mut address = || addresses.next().unwrap_or_else(|| "-".to_owned());
                [row.name, row.role.to_string(), address(), address(), row.processes.to_string()]
            }),
        )
    }
}
