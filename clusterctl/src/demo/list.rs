//! `clusterctl demo list`: the labs of this machine.

use clap::Args;
use landbridge_lab::LabState;

use crate::output::{Format, print_json, print_table, say};

/// List the labs of this machine
#[derive(Args)]
pub(super) struct List {
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let labs = landbridge_lab::list()?;
        if self.output == Format::Json {
            return print_json(&labs);
        }
        if labs.is_empty() {
            say(format_args!("no labs: start one with `clusterctl demo up`"))?;
            return Ok(());
        }
        print_table(
            ["NAME", "CLUSTERS", "NODES", "PODS", "LIFETIME"],
            labs.into_iter().map(|lab| {
                let lifetime = match lab.state {
                    LabState::Kept => "until `demo down`",
                    LabState::Owned => "with its process",
                    LabState::Stale => "over: run `demo clean`",
                };
                let (nodes, pods) = (lab.nodes.to_string(), lab.pods.to_string());
                [lab.name.to_string(), lab.clusters.join(" "), nodes, pods, lifetime.to_owned()]
            }),
        )
    }
}
