//! `clusterctl demo clean`: removes what crashes left.

use clap::Args;

use crate::output::say;

/// Remove labs whose process was killed; kept labs and those in use stay
#[derive(Args)]
pub(super) struct Clean {}

impl Clean {
    #[expect(clippy::unused_self, reason = "every subcommand is run the same way")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let removed = landbridge_lab::remove_stale()?;
        if removed.is_empty() {
            say(format_args!("nothing to clean"))?;
        }
        for name in removed {
            say(format_args!("removed lab {name}"))?;
        }
        Ok(())
    }
}
