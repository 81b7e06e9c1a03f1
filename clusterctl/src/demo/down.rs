//! `clusterctl demo down`: removes a lab.

use clap::Args;

use super::LabChoice;
use crate::output::say;

/// Remove a lab with all that runs in it
#[derive(Args)]
pub(super) struct Down {
    #[command(flatten)]
    lab: LabChoice,
}

impl Down {
    pub(super) fn run(self) -> anyhow::Result<()> {
        landbridge_lab::remove(&self.lab.lab)?;
        say(format_args!("lab {} is removed", self.lab.lab))?;
        Ok(())
    }
}
