//! `clusterctl demo down`: removes a lab.

use clap::Args;

use super::LabChoice;

/// Remove a lab with all that runs in it
#[derive(Args)]
pub(super) struct Down {
    #[command(flatten)]
    lab: LabChoice,
}

impl Down {
    pub(super) fn run(self) -> anyhow::Result<()> {
        landbridge_lab::remove(&self.lab.lab)?;
        println!("lab {} is removed", self.lab.lab);
        Ok(())
    }
}
