//! `clusterctl demo run`: a tour in which every number is measured while it runs.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use landbridge_lab::{Direction, Host, Impairment, Lab, LabName, LabSpec, PingSummary, Share};

const INTERVAL: Duration = Duration::from_millis(20);

/// Take a short tour that cleans up after itself
///
/// Builds two clusters of two nodes, lets pods of one reach pods of the other, and does to the link between them
/// what wide-area links do. Ctrl-C at any moment leaves the machine as it was.
#[derive(Args)]
pub(super) struct Run {}

impl Run {
    #[expect(clippy::unused_self, reason = "every subcommand is run the same way")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        let lab = Lab::start(LabSpec::new(LabName::unique("tour")?))?;
        heading("Two clusters on this machine");
        let hosts = lab.hosts().count();
        say(format_args!(
            "{hosts} hosts, each a network namespace, stand after {:.2} s",
            start.elapsed().as_secs_f64()
        ));

        heading("Pods of both clusters reach each other over the wide-area router");
        let (near, far) = (lab.host("a1p1")?, lab.host("b2p1")?);
        for target in far.addresses().into_iter().flatten() {
            let summary = ask(&near, target, &far, 5)?;
            ensure!(summary.received > 0, "{} does not reach {target}", near.name());
        }

        let target = far.addresses().map(|[v4, _]| v4).into_iter().next();
        let target = target.ok_or_else(|| anyhow::anyhow!("{} has no address", far.name()))?;
        let link = lab.link("a")?;

        heading("The link of cluster a gets 50 ms longer");
        link.set(Direction::Outbound, Impairment { delay: Duration::from_millis(50), ..Impairment::NONE })?;
        ask(&near, target, &far, 5)?;

        heading("It loses every tenth frame");
        link.set(Direction::Outbound, Impairment { loss: Share::percent(10), ..Impairment::NONE })?;
        ask(&near, target, &far, 100)?;

        heading("It is cut, one way");
        link.cut(Direction::Outbound)?;
        let summary = ask(&near, target, &far, 3)?;
        ensure!(summary.received == 0, "{} was answered over a cut link", near.name());
        let frames = link.counters()?;
        say(format_args!(
            "{} frames that left cluster a were cut, and {} of those that came to it",
            frames.outbound_frames.cut, frames.inbound_frames.cut
        ));

        heading("It is mended");
        link.clear()?;
        let summary = ask(&near, target, &far, 5)?;
        ensure!(summary.received > 0, "{} does not reach {target} over a mended link", near.name());

        heading("Cleaned up");
        lab.remove()?;
        say(format_args!("nothing is left, after {:.1} s", start.elapsed().as_secs_f64()));
        println!("\nKeep a lab to play with:  clusterctl demo up");
        Ok(())
    }
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn say(text: fmt::Arguments<'_>) {
    println!("  {text}");
}

fn ask(from: &Host, target: IpAddr, to: &Host, count: u32) -> anyhow::Result<PingSummary> {
    let summary = from.ping(target, count, INTERVAL)?;
    let PingSummary { sent, received, shortest, .. } = summary;
    let time = shortest.map(|time| format!(", the fastest after {:.2} ms", time.as_secs_f64() * 1_000.0));
    let (from, to) = (from.name(), to.name());
    say(format_args!(
        "{from} asks {to} at {target}: {received} of {sent} answered{}",
        time.unwrap_or_default()
    ));
    Ok(summary)
}
