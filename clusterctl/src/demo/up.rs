//! `clusterctl demo up`: a lab that stays.

use std::time::Instant;

use clap::Args;
use landbridge_lab::{Lab, LabSpec, Lifetime, PodWiring};

use super::{LabChoice, called_as, relay_command};
use crate::output::say;

/// Build clusters that stay until `down`
#[derive(Args)]
pub(super) struct Up {
    #[command(flatten)]
    lab: LabChoice,
    /// How many clusters, named a, b, …
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=254))]
    clusters: u8,
    /// How many nodes each cluster has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=200))]
    nodes: u8,
    /// How many pods each node has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=200))]
    pods: u8,
    /// Largest IP packet in bytes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: u32,
    /// Let `clean` remove the lab once this process has ended
    #[arg(long, value_name = "PID")]
    until_exit: Option<u32>,
    /// Leave the pods unconnected, for a CNI plugin
    #[arg(long)]
    unwired: bool,
}

impl Up {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let spec = LabSpec::new(self.lab.lab)
            .with_clusters(self.clusters, self.nodes, self.pods)
            .with_mtu(self.mtu)
            .with_pods(if self.unwired { PodWiring::Unwired } else { PodWiring::Routed });
        let start = Instant::now();
        let lab = Lab::start_with(
            spec,
            Lifetime::Kept { relay_command: relay_command()?, keeper: self.until_exit },
        )?;
        let (name, hosts, program) = (&lab.spec().name, lab.hosts().count(), called_as());
        say(format_args!("lab {name} stands after {:.2} s: {hosts} hosts", start.elapsed().as_secs_f64()))?;
        say(format_args!(""))?;
        say(format_args!("See its hosts:      {program} demo hosts --lab {name}"))?;
        if let Some(host) = lab.hosts().last() {
            say(format_args!(
                "Open a shell:       {program} demo exec --lab {name} {} -- bash",
                host.name()
            ))?;
        }
        say(format_args!("Degrade a link:     {program} demo link --lab {name} a --delay 50ms --loss 1%"))?;
        say(format_args!("Remove it:          {program} demo down --lab {name}"))?;
        Ok(())
    }
}
