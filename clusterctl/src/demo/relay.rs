//! `clusterctl demo relay`: what `clusterctl demo link` starts for a link of a kept lab.

use clap::Args;
use landbridge_lab::LabName;

/// Relay the frames of a link until told to stop
#[derive(Args)]
pub(super) struct Relay {
    lab: LabName,
    link: String,
}

impl Relay {
    pub(super) fn run(self) -> anyhow::Result<()> {
        Ok(landbridge_lab::run_relay_process(&self.lab, &self.link)?)
    }
}
