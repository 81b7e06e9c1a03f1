//! `clusterctl demo run`: a tour in which every number is measured while it runs.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use landbridge_lab::requirement::Requirement;
use landbridge_lab::{LabName, Programs};

use super::called_as;
use super::tour::{Tour, heading, report};
use crate::output::say;

/// Take a tour of Landbridge that cleans up after itself
///
/// Starts two clusters on this machine, connects them, lets their pods talk, enforces a policy across them, and cuts off
/// one cluster after the other under load. Ctrl-C at any moment leaves the machine as it was.
#[derive(Args)]
pub(super) struct Run {
    /// Folder with the manifests of both clusters, in `a` and `b` [default: those that this program carries]
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        // What is missing is named before anything changes.
        let needed = [Requirement::Namespaces, Requirement::Ebpf];
        if let Some(missing) = needed.into_iter().find_map(Requirement::missing) {
            bail!(missing);
        }
        let programs = Programs::beside_this()?;
        for cluster in ["a", "b"] {
            self.manifests.iter().try_for_each(|folder| programs.check_manifests(&folder.join(cluster)))?;
        }

        let mut tour = Tour::start(LabName::unique("tour")?, &programs, self.manifests.as_deref())?;
        if let Err(error) = tour.guide() {
            // A signal removes the lab under our feet; then its programs' words are of no interest.
            if !landbridge_lab::is_ending() {
                eprintln!("{}", tour.last_words());
            }
            return Err(error);
        }

        heading("Cleaned up")?;
        tour.remove()?;
        report(format_args!("nothing is left, after {:.1} s", start.elapsed().as_secs_f64()))?;
        say(format_args!("\nWhat else there is:  {} --help", called_as()))
    }
}
