//! `clusterctl demo capture`: writes the packets of an interface to a file.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::LabChoice;
use crate::output::say;

/// Write the packets that pass an interface to a pcap file
#[derive(Args)]
pub(super) struct CaptureArgs {
    #[command(flatten)]
    lab: LabChoice,
    /// The host, such as wan for the router
    host: String,
    /// The interface, such as eth0
    interface: String,
    /// The file to write
    file: PathBuf,
    /// How long, such as 10s or 2m
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl CaptureArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let host = self.lab.open()?.host(&self.host)?;
        let capture = host.capture(&self.interface, &self.file)?;
        thread::sleep(self.duration);
        let summary = capture.stop()?;
        say(format_args!(
            "{} packets in {}, {} missed",
            summary.packets,
            self.file.display(),
            summary.missed
        ))?;
        Ok(())
    }
}
